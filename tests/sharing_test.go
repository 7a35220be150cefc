package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// links prints where the namespaces of whoever runs it are.
const links = `for ns in pid ipc uts user net mnt; do echo $ns $(readlink /proc/self/ns/$ns); done`

func namespaces(t *testing.T, got result) map[string]string {
	t.Helper()
	if got.status != 0 {
		t.Fatalf("got %v", got)
	}
	all := map[string]string{}
	for line := range strings.Lines(got.stdout) {
		kind, link, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[kind] = link
	}
	return all
}

func TestNamespacesOfAnotherContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "-d", "--name", "first", "-h", "peer", "alpine", "sleep", "1000")
	first := namespaces(t, b.rbox("exec", "first", "sh", "-c", links))
	for name, tc := range map[string]struct {
		flags  []string
		shared string
	}{
		"pid":  {[]string{"--pid", "container:first"}, "pid user"},
		"ipc":  {[]string{"--ipc", "container:first"}, "ipc user"},
		"uts":  {[]string{"--uts=container:first"}, "uts user"},
		"all":  {[]string{"--pid", "container:first", "--ipc", "container:first", "--uts", "container:first"}, "pid ipc uts user"},
		"none": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, link := range namespaces(t, b.sh(links, tc.flags...)) {
				if want := strings.Contains(tc.shared, kind); (link == first[kind]) != want {
					t.Errorf("%s is shared: %v, want %v", kind, !want, want)
				}
			}
		})
	}
	want{match: `(?m)^ +1 root .* sleep 1000$`}.check(t, b.sh("ps", "--pid", "container:first"))
	want{stdout: "peer peer\n"}.check(t, b.sh("echo $(hostname) $HOSTNAME", "--uts", "container:first"))
	b.must("rm", "-f", "first")
}

func TestNamespacesOfTheHost(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if got := namespaces(t, b.sh(links, "--pid", "host", "--uts", "host", "--ipc", "host")); got["pid"] != own {
		t.Errorf("pid is %s, the host's is %s", got["pid"], own)
	}
	want{stdout: host + "\n"}.check(t, b.sh("hostname", "--uts", "host"))
	want{stderr: "Operation not permitted|Permission denied", status: 1}.check(t, b.sh("hostname other", "--uts", "host"))
	// It sees the monitor, and has no more power over it than any process of the user's.
	want{status: 1, stderr: "denied"}.check(t, b.sh("ls /proc/$PPID/root/ /proc/1/root/", "--pid", "host"))
}

// Without a pid namespace of its own nothing ends a container's processes with
// the first but rbox.
func TestNothingOutlivesAContainerAmongTheHostsProcesses(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	mark := func() (found []string) {
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range files {
			if line, err := os.ReadFile(f); err == nil && strings.Contains(string(line), "sleep\x00987") {
				found = append(found, f)
			}
		}
		return found
	}
	const spread = "sleep 9871 & setsid sleep 9872 & (setsid sh -c 'sleep 9873' &) ; "
	want{}.check(t, b.sh(spread+"sleep 0.2", "--pid", "host"))
	if left := mark(); len(left) > 0 {
		t.Errorf("after the end of the program: %v", left)
	}
	b.must("run", "-d", "--name", "spread", "--pid", "host", "alpine", "sh", "-c", spread+"exec sleep 9874")
	if !eventually(10*time.Second, func() bool { return len(mark()) >= 4 }) {
		t.Errorf("only %v run", mark())
	}
	want{stdout: "0\n"}.check(t, b.rbox("exec", "spread", "id", "-u"))
	b.must("stop", "-t", "0", "spread")
	if left := mark(); len(left) > 0 {
		t.Errorf("after stop: %v", left)
	}
	b.must("rm", "spread")
}

func TestSharingErrors(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "-d", "--name", "one", "alpine", "sleep", "1000")
	b.must("run", "-d", "--name", "two", "alpine", "sleep", "1000")
	b.must("run", "--name", "ended", "alpine", "true")
	for name, tc := range map[string]struct {
		flags []string
		want  want
	}{
		"two others":   {[]string{"--pid", "container:one", "--ipc", "container:two"}, want{status: 125, stderr: "of one other"}},
		"keep-id":      {[]string{"--userns", "keep-id", "--pid", "container:one"}, want{status: 125, stderr: "of one other"}},
		"not running":  {[]string{"--pid", "container:ended"}, want{status: 125, stderr: "container ended is not running\nrbox: hint: rbox start ended"}},
		"nobody":       {[]string{"--uts", "container:nobody"}, want{status: 125, stderr: "no such container: nobody"}},
		"unknown mode": {[]string{"--pid", "pod"}, want{status: 125, stderr: "--pid pod: there are private, host and container:ID"}},
		"own name":     {[]string{"--uts", "host", "-h", "x"}, want{status: 125, stderr: "conflicting options"}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh("true", tc.flags...)) })
	}
	// A container that shares with another finds it again by its id.
	b.must("create", "--name", "shares", "--pid", "container:one", "alpine", "sh", "-c", "ps | grep -c 'sleep 100[0]'")
	b.must("rename", "one", "renamed")
	want{stdout: "1\n"}.check(t, b.rbox("start", "-a", "shares"))
	b.must("rm", "-f", "renamed", "two", "shares", "ended")
}
