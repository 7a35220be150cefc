package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"rbox/cgroupv2"
)

// TestJob runs outside of the account's user manager, in a cgroup that is
// delegated to it, as the steps of batch systems do: the guest of tests/vm has such
// a unit, and starts the user manager anew for it.
func TestJob(t *testing.T) {
	const job = "/system.slice/rbox-job.service"
	if !strings.HasPrefix(fileText("/proc/self/cgroup"), "0::"+job) {
		t.Skip("needs to be run as a job of the guest's")
	}
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "free", "alpine", "sleep", "1000")
	if dir := b.cgroupOf("free"); !strings.HasPrefix(dir, "/sys/fs/cgroup"+job+"/rbox-") {
		t.Errorf("without limits it is in %s, where the job does not count it", dir)
	}
	b.must(words("run -d --name folder --cgroup-manager cgroupfs -m 64m alpine sleep 1000")...)
	if dir := b.cgroupOf("folder"); !strings.HasPrefix(dir, "/sys/fs/cgroup"+job+"/rbox-") || fileText(dir+"/memory.max") != "67108864" {
		t.Errorf("it is in %s, with memory.max %s", dir, fileText(dir+"/memory.max"))
	}
	b.must(words("run -d --name scope --stop-timeout 1 -m 64m alpine sleep 1000")...)
	scope := b.cgroupOf("scope")
	if manager := fmt.Sprintf("/user@%d.service/", run.plain.UID); !strings.Contains(scope, manager) {
		t.Errorf("with limits it is in %s", scope)
	}

	t.Run("BFQ", func(t *testing.T) { // by now the guest has it, with a file of its own
		b := b.in(t)
		ours := b.limitsByRbox(cgroupv2.Cgroupfs, words("--blkio-weight 300"))
		theirs := b.limitsByCrun(b.bundle(), `{"blockIO": {"weight": 300}}`, ownCgroup()+"/crun")
		for _, file := range []string{"io.bfq.weight", "io.weight"} {
			if ours[file] != theirs[file] {
				t.Errorf("%s: %q, and %q by crun", file, ours[file], theirs[file])
			}
		}
		if ours["io.bfq.weight"] != "default 300" {
			t.Errorf("its weight is %q", ours["io.bfq.weight"])
		}
	})
	t.Run("the manager executes itself anew", func(t *testing.T) {
		b := b.in(t)
		runtime := fmt.Sprintf("XDG_RUNTIME_DIR=/run/user/%d", run.plain.UID)
		want{}.check(t, b.do(call{prog: "systemctl", args: []string{"--user", "daemon-reexec"}, env: []string{runtime}}))
		b.steps([]step{
			{`exec scope true`, want{}},
			{`update --pids-limit 50 scope`, want{stdout: "scope\n"}},
			{`run --rm -m 64m alpine cat /sys/fs/cgroup/memory.max`, want{stdout: "67108864\n"}},
		})
		if dir := b.cgroupOf("scope"); dir != scope {
			t.Errorf("it has come to %s", dir)
		}
	})
	t.Run("the manager is started anew", func(t *testing.T) {
		b := b.in(t)
		restartManager(t)
		if !eventually(20*time.Second, func() bool { return b.state("scope", "Status") == "exited" }) {
			t.Errorf("it is %s", b.state("scope", "Status"))
		}
		b.gone(scope)
		b.steps([]step{
			{`ps -a --format '{{.Names}} {{.State}}'`, want{stdout: "scope exited\nfolder running\nfree running\n"}},
			{`inspect -f {{.State.ExitCode}} scope`, want{stdout: "137\n"}},
			{`exec free true`, want{}},
			{`run --rm -m 64m alpine cat /sys/fs/cgroup/memory.max`, want{stdout: "67108864\n"}},
			{`start scope`, want{}},
			{`exec scope cat /sys/fs/cgroup/pids.max`, want{stdout: "50\n"}},
		})
	})
	for _, name := range []string{"scope", "folder", "free"} {
		dir := b.cgroupOf(name)
		b.must("rm", "-f", name)
		b.gone(dir)
	}
}

// restartManager has the guest start the account's user manager anew, with all
// that is in its cgroup.
func restartManager(t *testing.T) {
	t.Helper()
	err := os.WriteFile("/run/rbox-restart", []byte("now\n"), 0)
	if err == nil {
		_, err = os.ReadFile("/run/rbox-restarted") // once it is written
	}
	if err != nil {
		t.Fatal(err)
	}
}
