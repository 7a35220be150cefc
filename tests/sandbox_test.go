package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// networkModes are those in which a network process serves, by the flags of run.
var networkModes = map[string]struct {
	flags   []string
	network string // as inspect has it
	named   bool
	ports   bool // a thread makes sockets in the container
}{
	"tap":         {[]string{"--network", "private:link=tap"}, "private", false, false},
	"veth":        {[]string{"--network", "private:link=veth"}, "private", false, false},
	"ports":       {[]string{"--network", "private", "-p", "80", "-p", "53/udp"}, "private", false, true},
	"slirp4netns": {[]string{"--network", "slirp4netns", "-p", "80"}, "private", false, true},
	"named":       {[]string{"--network", "net"}, "net", true, false},
	"named ports": {[]string{"--network", "net", "-p", "80"}, "net", true, true},
}

// In every mode each thread of the network process has a filter and no new privileges, and
// what rbox says of it is what the kernel says.
func TestNetworkProcessIsConfined(t *testing.T) {
	t.Parallel()
	for mode, tc := range networkModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, keeps)
			b.must("network", "create", "net")
			b.must(append(append([]string{"run", "-d", "--name", "box"}, tc.flags...), "alpine", "sleep", "1000")...)
			pids := b.running("rbox-network")
			if len(pids) != 1 {
				t.Fatalf("network processes: %v", pids)
			}
			b.confined(pids[0])
			if got := len(threadsWith(pids[0], "CapPrm:\t0000000000002000", "CapPrm:\t0000000000001000")); got != 0 != tc.ports { // the latter before Linux 5.17
				t.Errorf("%d threads make sockets in the container", got)
			}

			var process struct {
				Pid, Landlock, Filters int
				NoNewPrivs             bool
				Seccomp                string
				Capabilities           []string
			}
			text := b.must("inspect", "-f", "{{json (index .NetworkSettings.Networks \""+tc.network+"\").Process}}", "box")
			if err := json.Unmarshal([]byte(text), &process); err != nil {
				t.Fatal(err)
			}
			var capabilities []string
			if tc.named {
				capabilities = []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"}
			}
			if process.Pid != pids[0] || process.Seccomp != "filter" || !process.NoNewPrivs || !slices.Equal(process.Capabilities, capabilities) {
				t.Errorf("inspect: %s", text)
			}
			if kernelHasLandlock() != (process.Landlock > 0) {
				t.Errorf("Landlock %d", process.Landlock)
			}
			found := fmt.Sprintf(`(?m)^network %s +asked .*\n +found  process %d, seccomp filter, no new privileges, `, tc.network, pids[0])
			want{match: found}.check(t, b.rbox("doctor", "--security", "box"))
		})
	}
}

// confined fails unless all threads of the process are.
func (b *box) confined(pid int) {
	b.t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		b.t.Fatalf("process %d is gone (%v)", pid, err)
	}
	for _, status := range tasks {
		text, err := os.ReadFile(status)
		if err != nil {
			continue // a thread may have ended
		}
		for _, line := range []string{"Seccomp:\t2", "NoNewPrivs:\t1"} {
			if !strings.Contains(string(text), line+"\n") {
				b.t.Errorf("no %q in %s:\n%s", line, status, text)
			}
		}
	}
}

// threadsWith are the threads of the process in whose status one of the lines is.
func threadsWith(pid int, lines ...string) (which []string) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, status := range tasks {
		text, _ := os.ReadFile(status) // a thread may have ended
		if slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(string(text), line+"\n") }) {
			which = append(which, status)
		}
	}
	return which
}

// kernelHasLandlock asks for its version (landlock_create_ruleset(2)).
func kernelHasLandlock() bool {
	_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return errno == 0
}

// A network process that was restricted long ago still serves all that comes: names, hosts,
// ports, and containers that come and go.
func TestConfinedNetworkProcessLives(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("network", "create", "net")
	b.must("network", "create", "other")
	b.onNetworks("one", "--network", "net", "-p", "80")
	pid := b.running("rbox-network")[0]
	for i := range 5 {
		name := fmt.Sprint("guest", i)
		b.onNetworks(name, "--network", "net", "-p", "80")
		if dad := b.must("exec", name, "cat", "/proc/sys/net/ipv6/conf/eth0/accept_dad"); dad != "0" {
			t.Errorf("settings of the container's network namespace are not written: accept_dad %s", dad)
		}
		if got := b.hears("one", name); got != name {
			t.Errorf("%s answers %q", name, got)
		}
		b.must("network", "connect", "other", name)
		b.must("network", "disconnect", "net", name)
		b.must("network", "connect", "net", name)
		if got := b.hears(name, "one"); got != "one" {
			t.Errorf("one answers %q", got)
		}
		addr := regexp.MustCompile(`:(\d+)`).FindStringSubmatch(b.must("port", "one", "80"))[1]
		if !eventually(10*time.Second, func() bool { return heard("127.0.0.1:"+addr) == "one" }) {
			t.Errorf("port %s: %s", addr, heard("127.0.0.1:"+addr))
		}
		b.must("rm", "-f", name)
	}
	if !slices.Contains(b.running("rbox-network"), pid) {
		t.Fatal("the network process has not lived")
	}
	b.confined(pid)
}
