package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Who looks on and reads nothing holds up the program, but not its end.
func TestViewerThatReadsNothing(t *testing.T) {
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "alpine", "yes")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := w.Chown(int(b.who.UID), int(b.who.GID)); err != nil {
		t.Fatal(err)
	}
	b.start(call{prog: "/bin/sh", args: []string{"-c", "exec " + run.bin + " attach box >&3"}, files: []*os.File{w}})
	w.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got := b.do(call{args: []string{"kill", "box"}, limit: 20 * time.Second}); got.status != 0 {
		t.Errorf("kill: %v", got)
	}
	if got := b.do(call{args: []string{"rm", "box"}, limit: 20 * time.Second}); got.status != 0 {
		t.Errorf("rm: %v", got)
	}
}

// Who is slow misses nothing.
func TestViewerThatIsSlow(t *testing.T) {
	b := newBox(t)
	got := b.do(call{prog: "/bin/sh", args: []string{"-c",
		run.bin + " run --rm --log-driver file alpine seq 30000 | { sleep 5; tail -n 1; }"}})
	if got.stdout != "30000\n" {
		t.Errorf("got %v", got)
	}
}

// A stop counts at whatever moment of a restart it comes.
func TestStopWhileItRestarts(t *testing.T) {
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "--restart", "always", "alpine", "true")
	for i := range 15 {
		time.Sleep(time.Duration(100+i) * time.Millisecond) // the first pause is 100 ms
		b.must("stop", "-t", "5", "box")
		if got := b.must("inspect", "-f", "{{.State.Status}}", "box"); got != "exited" {
			t.Fatalf("stop %d: the container is %s", i, got)
		}
		b.must("start", "box")
	}
}

// What outlives rbox holds nothing of its caller's.
func TestNothingOfTheCallersIsKept(t *testing.T) {
	b := newBox(t, keeps)
	b.must("create", "--name", "box", "alpine", "sleep", "1000")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := b.do(call{args: []string{"start", "box"}, files: []*os.File{w}}); got.status != 0 {
		t.Fatal(got)
	}
	w.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := r.Read(make([]byte, 1))
		ended <- err
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second * run.patience):
		t.Error("the monitor still holds a descriptor of who started it")
	}
	monitor := monitorOf(t, b.must("inspect", "-f", "{{.State.Pid}}", "box"))
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", monitor)); err != nil || dir != "/" {
		t.Errorf("the monitor's working directory is %q, %v", dir, err)
	}
}

// --replace takes nothing away before it is certain that something comes.
func TestReplaceByNothing(t *testing.T) {
	b := newBox(t, keeps)
	id := b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	if got := b.rbox("run", "-d", "--replace", "--name", "box", "--restart", "bogus", "alpine"); got.status != 125 {
		t.Errorf("got %v", got)
	}
	if got := b.must("ps", "-q", "--no-trunc"); got != id {
		t.Errorf("running: %q, want %q", got, id)
	}
}

// Each run gets what is to be preserved.
func TestPreservedAcrossRestarts(t *testing.T) {
	b := newBox(t, keeps)
	f, err := os.Open(b.file("text", "text\n", 0o644))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := b.do(call{args: []string{"run", "--name", "box", "--restart", "on-failure:2", "--preserve-fds", "1",
		"alpine", "sh", "-c", "readlink /proc/self/fd/3 >/dev/null && echo there; exit 3"}, files: []*os.File{f}})
	if got.stdout != strings.Repeat("there\n", 3) || got.status != 3 {
		t.Errorf("got %v", got)
	}
}

// A restart must not be the end of what goes when it ends.
func TestRestartOfWhatIsRemoved(t *testing.T) {
	b := newBox(t, keeps)
	id := b.must("run", "-d", "--rm", "--name", "box", "alpine", "sleep", "1000")
	if got := b.rbox("restart", "-t", "0", "box"); got.status != 125 || !strings.Contains(got.stderr, "removed when it ends") {
		t.Errorf("got %v", got)
	}
	if got := b.must("ps", "-q", "--no-trunc"); got != id {
		t.Errorf("running: %q, want %q", got, id)
	}
}

// A monitor that a signal has stopped is told of, and what ends the container
// ends it all the same.
func TestStoppedMonitor(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for name, tc := range map[string]struct {
		args, stdout, status string
	}{
		"rm -f": {args: "rm -f box", stdout: "box\n"},
		"stop":  {args: "stop -t 40 box", stdout: "box\n", status: "exited 5\n"},
		"kill":  {args: "kill box", stdout: "box\n", status: "exited 137\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b.background("box", sleeper)
			monitor := monitorOf(t, b.must("inspect", "-f", "{{.State.Pid}}", "box"))
			if err := syscall.Kill(monitor, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			for _, args := range []string{"exec -d box touch /tmp/late", "kill -s USR1 box", "attach box", "rename box other"} {
				want{status: 125, stderr: fmt.Sprintf(`^rbox: the monitor of container [0-9a-f]{12}, process %d, is stopped \(SIGSTOP\)\nrbox: hint: kill -CONT %[1]d `, monitor)}.check(t,
					b.do(call{args: words(args), limit: 20 * time.Second}))
			}
			want{stdout: tc.stdout}.check(t, b.do(call{args: words(tc.args), limit: 60 * time.Second}))
			if tc.status != "" {
				want{stdout: tc.status}.check(t, b.rbox("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box"))
				b.must("rm", "box")
			}
		})
	}
	// Stopped before it listens.
	for _, end := range []string{"rm -f box", "kill box", "stop -t 0 box"} {
		for range 3 {
			b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
			syscall.Kill(monitorOf(t, b.must("inspect", "-f", "{{.State.Pid}}", "box")), syscall.SIGSTOP)
			want{}.check(t, b.do(call{args: words(end), limit: 20 * time.Second}))
			b.must("rm", "-f", "box")
		}
	}
	// Stopped once it has answered, while its end is waited for.
	b.must("run", "-d", "--name", "box", "alpine", "sh", "-c", "trap 'echo asked' TERM; while :; do sleep 0.1; done")
	monitor := b.monitor("box")
	p := b.start(call{args: words("stop -t 5 box"), limit: 60 * time.Second})
	if !eventually(10*time.Second, func() bool { return b.must("logs", "box") == "asked" }) {
		t.Error("the program was not asked to end")
	}
	syscall.Kill(monitor, syscall.SIGSTOP)
	want{stdout: "box\n"}.check(t, p.wait())
}

// Who waits for a container whose monitor cannot be reached is told so, and of
// its end.
func TestWaitWithoutAMonitor(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.background("box", sleeper)
	monitor := b.monitor("box")
	var control []string
	if !eventually(10*time.Second, func() bool {
		control, _ = filepath.Glob(filepath.Join(b.root, "containers/*/kept/*/control"))
		return len(control) == 1
	}) {
		t.Fatal(control)
	}
	if err := os.Remove(control[0]); err != nil {
		t.Fatal(err)
	}
	p := b.start(call{args: []string{"wait", "box"}})
	if !p.stderr.waitFor("does not answer", 20*time.Second) {
		t.Errorf("stderr: %q", p.stderr)
	}
	syscall.Kill(monitor, syscall.SIGKILL)
	want{stdout: "137\n", stderr: "does not answer"}.check(t, p.wait())
}

// monitorOf is the parent of a container's process 1.
func monitorOf(t *testing.T, pid string) int {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	monitor, err := strconv.Atoi(strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1])
	if err != nil {
		t.Fatal(err)
	}
	return monitor
}

// A container without a pid namespace of its own takes its processes with it
// even if its first one ends at once.
func TestSharedPidsOfAShortLife(t *testing.T) {
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "other", "alpine", "sleep", "1000")
	for range 5 {
		for _, mode := range []string{"host", "container:other"} {
			b.must("run", "--rm", "--pid", mode, "alpine", "sh", "-c", "sleep 7777 </dev/null >/dev/null 2>&1 &")
		}
	}
	if got := b.must("exec", "other", "ps", "-o", "args"); strings.Contains(got, "7777") {
		t.Errorf("left behind:\n%s", got)
	}
}
