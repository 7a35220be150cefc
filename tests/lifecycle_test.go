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

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// in is b for a subtest of its test.
func (b *box) in(t *testing.T) *box {
	c := *b
	c.t = t
	return &c
}

// A step is one command of several that follow each other.
type step struct {
	args string // words; '' keeps blanks
	want want
}

// steps carries out commands one after the other, and stops at the first that
// does not do what it should.
func (b *box) steps(list []step) {
	b.t.Helper()
	for _, s := range list {
		got := b.rbox(words(s.args)...)
		s.want.check(b.t, got)
		if b.t.Failed() {
			b.t.Fatalf("rbox %s", s.args)
		}
	}
}

// words splits a command line at blanks, but for those between ”.
func words(line string) (list []string) {
	quoted, word, some := false, "", false
	for _, c := range line {
		switch {
		case c == '\'':
			quoted, some = !quoted, true
		case c == ' ' && !quoted:
			if some {
				list = append(list, word)
			}
			word, some = "", false
		default:
			word, some = word+string(c), true
		}
	}
	if some {
		list = append(list, word)
	}
	return list
}

// state is one of inspect's fields below .State.
func (b *box) state(name, field string) string {
	b.t.Helper()
	return b.must("inspect", "--format", "{{.State."+field+"}}", name)
}

// pid is the container's process 1, as the host sees it.
func (b *box) pid(name string) int {
	b.t.Helper()
	n, err := strconv.Atoi(b.state(name, "Pid"))
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// monitor is the pid of the container's monitor: the parent of process 1.
func (b *box) monitor(name string) int {
	b.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid(name)))
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil {
				b.t.Fatal(err)
			}
			return n
		}
	}
	b.t.Fatal("no parent")
	return 0
}

// seeLog waits until the container's log has text in it.
func (b *box) seeLog(name, text string) {
	b.t.Helper()
	if !eventually(20*time.Second, func() bool { return strings.Contains(b.rbox("logs", name).stdout, text) }) {
		b.t.Fatalf("the log of %s does not come to %q: %v", name, text, b.rbox("logs", name))
	}
}

// sleeper ends at once when asked to.
const sleeper = "trap 'exit 5' TERM; trap 'echo usr1' USR1; trap 'exit 7' USR2; echo up; while :; do sleep 0.05; done"

// inShell is the words that run script in alpine.
func inShell(script string) string {
	return "alpine sh -c '" + strings.ReplaceAll(script, "'", `"`) + "'"
}

// background starts sh with a script under a name, and waits until it prints up.
func (b *box) background(name, script string, flags ...string) {
	b.t.Helper()
	args := append([]string{"run", "-d", "--name", name}, flags...)
	b.must(append(args, "alpine", "sh", "-c", script)...)
	b.seeLog(name, "up\n")
}

const (
	isID     = `^[0-9a-f]{64}\n$`
	namesNow = `ps -a --format '{{.Names}} {{.State}}'`
)

func TestCreateAndStart(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`create --name made alpine sh -c 'echo hello; exit 3'`, want{match: isID}},
		{namesNow, want{stdout: "made created\n"}},
		{`ps`, want{match: `NAMES\n$`}},
		{`inspect --format '{{.State.Status}} {{.State.Running}} {{.State.Pid}} {{.State.ExitCode}}' made`, want{stdout: "created false 0 0\n"}},
		{`create --name made alpine true`, want{status: 125, stderr: `the container name "made" is already in use by container [0-9a-f]{64}.*\n.*hint`}},
		{`run --name made alpine true`, want{status: 125, stderr: `the container name "made" is already in use by container`}},
		{`run -d --rm --name made alpine true`, want{status: 125, stderr: `the container name "made" is already in use by container`}},
		{`start -a made`, want{status: 3, stdout: "hello\n"}},
		{`start made`, want{stdout: "made\n"}},
		{`wait made`, want{stdout: "3\n"}},
		{`start --attach --sig-proxy=false made`, want{status: 3, stdout: "hello\n"}},
		{`logs made`, want{stdout: "hello\nhello\nhello\n"}},
		{`inspect --format '{{.State.Status}} {{.State.Running}} {{.State.Pid}} {{.State.ExitCode}}' made`, want{stdout: "exited false 0 3\n"}},
		{`start made nosuch`, want{status: 125, stdout: "made\n", stderr: `no such container: nosuch`}},
		{`start -a made nosuch`, want{status: 125, stderr: `you cannot start and attach multiple containers at once`}},
		{`start`, want{status: 125, stderr: `CONTAINER|container`}},
		{`wait made`, want{stdout: "3\n"}},
		{`rm made`, want{stdout: "made\n"}},
		{`create --name wrong alpine nosuchprogram`, want{match: isID}},
		{`start wrong`, want{status: 127, stderr: `run "nosuchprogram": executable file not found in \$PATH`}},
		{`start -a wrong`, want{status: 127, stderr: `run "nosuchprogram": executable file not found in \$PATH`}},
		{namesNow, want{match: `^wrong (created|exited)\n$`}},
		{`inspect --format '{{.State.ExitCode}} {{.State.Error}}' wrong`, want{match: `^127 .*nosuchprogram`}},
		{`rm wrong`, want{stdout: "wrong\n"}},
	})
}

// What a container wrote into its files is there when it starts again.
func TestStartKeepsTheFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`run --name box alpine sh -c 'echo x >>/count; wc -l </count'`, want{stdout: "1\n"}},
		{`start -a box`, want{stdout: "2\n"}},
		{`restart box`, want{stdout: "box\n"}},
		{`wait box`, want{stdout: "0\n"}},
		{`start -a box`, want{stdout: "4\n"}},
	})
}

func TestCreateWithRm(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`create --rm --name once -v /data alpine sh -c 'echo hello; exit 3'`, want{match: isID}},
		{namesNow, want{stdout: "once created\n"}},
		{`start -a once`, want{status: 3, stdout: "hello\n"}},
		{namesNow, want{match: `^$`}},
		{`volume ls -q`, want{match: `^$`}},
		{`create --rm --name once alpine sleep 1000`, want{match: isID}},
		{`start once`, want{stdout: "once\n"}},
		{`start once`, want{stdout: "once\n"}}, // it runs
		{namesNow, want{stdout: "once running\n"}},
		{`stop -t 0 once`, want{stdout: "once\n"}},
		{namesNow, want{match: `^$`}},
		{`create --rm --name once alpine true`, want{match: isID}},
		{`rm once`, want{stdout: "once\n"}},
	})
}

func TestRunDetached(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	id := b.must("run", "-d", "--name", "web", "--label", "a=b", "alpine", "sh", "-c", "echo out; echo err >&2; read x; echo end; exec sleep 1000")
	if got := b.must("ps", "-q", "--no-trunc"); got != id {
		t.Errorf("ps shows %q, want %q", got, id)
	}
	b.seeLog("web", "end\n") // stdin is empty
	got := b.rbox("logs", "web")
	if got.stdout != "out\nend\n" || got.stderr != "err\n" {
		t.Errorf("logs: %v", got)
	}
	b.steps([]step{
		{`run -d alpine nosuchprogram`, want{status: 127, stderr: `nosuchprogram`}},
		{`run -d -i --name cat alpine cat`, want{match: isID}},
		{`ps --format {{.Names}}`, want{stdout: "cat\nweb\n"}},
		{`run -d -t --name tty alpine sh -c 'tty; exec sleep 1000'`, want{match: isID}},
		{`stop -t 0 cat tty web`, want{stdout: "cat\ntty\nweb\n"}},
		{`logs tty`, want{match: `/dev/pts/0`}},
		{`run -d --rm alpine true`, want{match: isID}},
	})
	if !eventually(10*time.Second, func() bool { return strings.Count(b.must("ps", "-aq"), "\n") == 3 }) {
		t.Errorf("the container with --rm stays: %s", b.must("ps", "-a"))
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`create --name -bad alpine`, want{status: 125}},
		{`create --name 'two words' alpine`, want{status: 125, stderr: `invalid container name "two words": only \[a-zA-Z0-9\]\[a-zA-Z0-9_.-\]\* is allowed`}},
		{`create --name ../x alpine`, want{status: 125, stderr: `invalid container name`}},
		{`create --name one alpine sleep 1000`, want{match: isID}},
		{`create --name two alpine sleep 1000`, want{match: isID}},
		{`rename one two`, want{status: 125, stderr: `the container name "two" is already in use by container`}},
		{`rename one a/b`, want{status: 125, stderr: `invalid container name`}},
		{`rename nosuch three`, want{status: 125, stderr: `no such container: nosuch`}},
		{`rename one three`, want{}},
		{`start three`, want{stdout: "three\n"}},
		{`rename three four`, want{}}, // while it runs
		{`rename four two`, want{status: 125, stderr: `the container name "two" is already in use by container`}},
		{`ps --format {{.Names}}`, want{stdout: "four\n"}},
		{`stop -t 0 four`, want{stdout: "four\n"}},
		{namesNow, want{stdout: "two created\nfour exited\n"}},
		{`start four`, want{stdout: "four\n"}},
		{`create --name one alpine true`, want{match: isID}}, // the names it had are free
		{`create --name three alpine true`, want{match: isID}},
		{`rm -f four`, want{stdout: "four\n"}},
		{`create --name four alpine true`, want{match: isID}},
	})
}

func TestReplace(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`run --replace alpine true`, want{status: 125, stderr: `--replace`}},
		{`run --replace --name box alpine echo first`, want{stdout: "first\n"}},
		{`run --replace --name box alpine echo second`, want{stdout: "second\n"}},
		{`run -d --replace --name box alpine sleep 1000`, want{match: isID}},
		{`run --replace --name box alpine echo third`, want{stdout: "third\n"}},
		{`run --rm -d --replace --name box alpine sleep 1000`, want{match: isID}},
		{`create --replace --name box alpine echo fourth`, want{match: isID}},
		{namesNow, want{stdout: "box created\n"}},
		{`start -a box`, want{stdout: "fourth\n"}},
	})
}

func TestFilesThatNameAContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	cid, pidfile := filepath.Join(b.home, "cid"), filepath.Join(b.home, "pid")
	id := b.must("run", "-d", "--cidfile", cid, "--pidfile", pidfile, "alpine", "sleep", "1000")
	if text, err := os.ReadFile(cid); err != nil || string(text) != id {
		t.Errorf("--cidfile: %q %v, want %s", text, err, id)
	}
	if text, err := os.ReadFile(pidfile); err != nil || string(text) != b.state(id, "Pid") {
		t.Errorf("--pidfile: %q %v, want %s", text, err, b.state(id, "Pid"))
	}
	want{status: 125, stderr: `container ID file found`}.check(t, b.rbox("run", "--cidfile", cid, "alpine", "true"))
	want{status: 125, stderr: `container ID file found`}.check(t, b.rbox("create", "--cidfile", cid, "alpine", "true"))
	want{status: 125, stderr: `no/such`}.check(t, b.rbox("create", "--name", "lost", "--cidfile", "no/such/file", "alpine", "true"))
	b.must("stop", "-t", "0", id)
	if _, err := os.Lstat(pidfile); err == nil {
		t.Error("the pid file stays after the end")
	}
	want{stdout: b.must("ps", "-aq") + "\n"}.check(t, b.rbox("ps", "-aq", "-f", "id="+id))
}

func TestLabelsAndAnnotations(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	file := b.file("labels", "# mine\none=1\n\ntwo=2=3\nthree\n", 0o644)
	b.must("create", "--name", "box", "--label-file", file, "-l", "one=uno", "--label", "four=4", "--annotation", "who=kim", "--annotation", "why", "alpine", "true")
	for field, want := range map[string]string{
		"json .Config.Labels":          `{"four":"4","one":"uno","three":"","two":"2=3"}`,
		"json .HostConfig.Annotations": `{"who":"kim","why":""}`,
	} {
		if got := b.must("inspect", "--format", "{{"+field+"}}", "box"); got != want {
			t.Errorf("%s: %s, want %s", field, got, want)
		}
	}
	want{status: 125, stderr: `no/such`}.check(t, b.rbox("create", "--label-file", "no/such", "alpine", "true"))
	want{status: 125, stderr: `label`}.check(t, b.rbox("create", "--label", "=x", "alpine", "true"))
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	got := b.rbox("run", "--timeout", "1", "alpine", "sh", "-c", "trap '' TERM; sleep 1000")
	if got.status != 137 || got.took < 900*time.Millisecond || got.took > 10*time.Second*run.patience {
		t.Errorf("got %v", got)
	}
	b.must("run", "-d", "--timeout", "1", "--name", "box", "--restart", "always", "alpine", "sleep", "1000")
	want{stdout: "137\n"}.check(t, b.rbox("wait", "box"))
	want{status: 125, stderr: `--timeout`}.check(t, b.rbox("run", "--timeout", "-1", "alpine", "true"))
}

func TestStop(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	img := alpineImage(t, v1.Config{Cmd: []string{"sh", "-c", sleeper}, StopSignal: "SIGUSR2"})
	b.load("usr2", img)
	deaf := "trap '' TERM USR2; echo up; while :; do sleep 0.05; done"
	for name, tc := range map[string]struct {
		run, stop string
		status    string
		least     time.Duration
		most      time.Duration
	}{
		"SIGTERM":             {run: inShell(sleeper), status: "5"},
		"the image's signal":  {run: "usr2", status: "7"},
		"--stop-signal":       {run: "--stop-signal TERM usr2", status: "5"},
		"--stop-signal 12":    {run: "--stop-signal 12 " + inShell(sleeper), status: "7"},
		"-s":                  {run: "usr2", stop: "-s SIGTERM", status: "5"},
		"-t 0":                {run: inShell(deaf), stop: "-t 0", status: "137"},
		"-t 1, deaf":          {run: inShell(deaf), stop: "-t 1", status: "137", least: time.Second},
		"--time 1, deaf":      {run: inShell(deaf), stop: "--time 1", status: "137", least: time.Second},
		"--stop-timeout 1":    {run: "--stop-timeout 1 alpine sh -c '" + strings.ReplaceAll(deaf, "'", "\"") + "'", status: "137", least: time.Second},
		"-t -1, all the time": {run: inShell(sleeper), stop: "-t -1", status: "5"},
		"--init":              {run: "--init alpine sh -c 'echo up; exec sleep 1000'", status: "143"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			id := b.must(words("run -d " + tc.run)...)
			b.seeLog(id, "up\n")
			got := b.rbox(append(words("stop "+tc.stop), id)...)
			want{stdout: id + "\n"}.check(t, got)
			if got.took < tc.least || got.took > tc.least+5*time.Second*run.patience {
				t.Errorf("stop took %v", got.took)
			}
			if got := b.state(id, "ExitCode"); got != tc.status {
				t.Errorf("exit status %s, want %s", got, tc.status)
			}
			if got := b.state(id, "Status"); got != "exited" {
				t.Errorf("it is %s after stop", got)
			}
		})
	}
}

func TestStopSeveral(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	var names []string
	for i := range 4 {
		names = append(names, fmt.Sprint("box", i))
		b.background(names[i], "trap '' TERM; echo up; while :; do sleep 0.05; done")
	}
	got := b.rbox(append([]string{"stop", "-t", "1", "nosuch"}, names...)...)
	want{status: 125, stdout: strings.Join(names, "\n") + "\n", stderr: "no such container: nosuch"}.check(t, got)
	if got.took > 3500*time.Millisecond*run.patience {
		t.Errorf("stopped one after the other: %v", got.took)
	}
	b.steps([]step{
		{`stop box0 box1`, want{stdout: "box0\nbox1\n"}}, // they do not run
		{`stop -i nosuch box2`, want{stdout: "box2\n"}},
		{`stop`, want{status: 125, stderr: `CONTAINER is missing`}},
		{`stop -a box1`, want{status: 125, stderr: `--all`}},
		{`stop -s NOSUCH box1`, want{status: 125, stderr: `invalid signal: NOSUCH`}},
		{`start box0 box3`, want{stdout: "box0\nbox3\n"}},
		{`stop -a -t 0`, want{match: `^[0-9a-f]+\n[0-9a-f]+\n$`}},
		{`ps -q`, want{match: `^$`}},
		{`stop -a`, want{match: `^$`}},
	})
}

func TestKill(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for _, tc := range []struct{ flags, status string }{
		{"", "137"}, {"-s KILL", "137"}, {"-s SIGKILL", "137"}, {"-s 9", "137"}, {"--signal=kill", "137"}, {"-s sigkill", "137"},
		{"-s TERM", "5"}, {"-s SIGTERM", "5"}, {"-s 15", "5"}, {"-s usr2", "7"},
	} {
		t.Run("kill "+tc.flags, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			name := b.must("run", "-d", "alpine", "sh", "-c", sleeper)
			b.seeLog(name, "up\n")
			b.must(append(words("kill "+tc.flags), name)...)
			if got := b.must("wait", name); got != tc.status {
				t.Errorf("exit status %s, want %s", got, tc.status)
			}
			want{status: 125, stderr: `is not running`}.check(t, b.rbox("kill", name))
		})
	}
	t.Run("one that goes on", func(t *testing.T) {
		t.Parallel()
		b := b.in(t)
		b.background("goeson", sleeper+"", "--init")
		b.must("kill", "-s", "USR1", "goeson")
		b.seeLog("goeson", "usr1\n")
		if got := b.state("goeson", "Status"); got != "running" {
			t.Errorf("it is %s", got)
		}
		b.steps([]step{
			{`kill -s NOSUCH goeson`, want{status: 125, stderr: `invalid signal: NOSUCH`}},
			{`kill -s 65 goeson`, want{status: 125, stderr: `invalid signal: 65`}},
			{`kill -s RTMIN+1 goeson`, want{stdout: "goeson\n"}},
			{`wait goeson`, want{stdout: "163\n"}},
			{`kill nosuch`, want{status: 125, stderr: `no such container: nosuch`}},
			{`kill`, want{status: 125}},
		})
	})
}

func TestKillAll(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`run -d --name a alpine sleep 1000`, want{}},
		{`run -d --name b alpine sleep 1000`, want{}},
		{`create --name c alpine sleep 1000`, want{}},
		{`kill -a`, want{match: `^[0-9a-f]+\n[0-9a-f]+\n$`}},
		{`ps -q`, want{match: `^$`}},
		{`wait a b`, want{stdout: "137\n137\n"}},
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`create --name created alpine true`, want{}},
		{`wait created`, want{stdout: "0\n"}},
		{`run --name four alpine sh -c 'exit 4'`, want{status: 4}},
		{`run -d --name five alpine sh -c 'sleep 0.5; exit 5'`, want{}},
		{`run -d --name six alpine sh -c 'sleep 0.2; exit 6'`, want{}},
		{`wait five six four`, want{stdout: "5\n6\n4\n"}},
		{`wait nosuch four`, want{status: 125, stdout: "4\n", stderr: "no such container: nosuch"}},
		{`wait -i nosuch four`, want{stdout: "-1\n4\n"}},
		{`wait --condition nosuch four`, want{status: 125, stderr: "condition"}},
		{`wait`, want{status: 125}},
	})
	next := b.start(call{args: []string{"wait", "--condition", "next-exit", "four"}})
	removed := b.start(call{args: []string{"wait", "--condition", "removed", "four"}})
	time.Sleep(100 * time.Millisecond) // they ought to wait: nothing tells when they do
	b.rbox("start", "-a", "four")
	want{stdout: "4\n"}.check(t, next.wait())
	if !alive(removed.cmd.Process.Pid) {
		t.Error("wait --condition removed ends with the container's run")
	}
	b.must("rm", "four")
	want{stdout: "4\n"}.check(t, removed.wait())

	b.must("run", "-d", "--rm", "--name", "passing", "alpine", "sh", "-c", "sleep 0.3; exit 8")
	want{stdout: "8\n"}.check(t, b.rbox("wait", "passing"))
	b.must("run", "-d", "--rm", "--name", "passing2", "alpine", "sh", "-c", "sleep 0.3; exit 8")
	want{stdout: "8\n"}.check(t, b.rbox("wait", "--condition", "removed", "passing2"))
}

func TestRestart(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.background("box", sleeper)
	first := b.pid("box")
	b.steps([]step{
		{`restart box`, want{stdout: "box\n"}},
		{`inspect --format '{{.State.Status}} {{.RestartCount}}' box`, want{stdout: "running 0\n"}},
	})
	if second := b.pid("box"); second == first || alive(first) {
		t.Errorf("process 1 is %d, before %d", second, first)
	}
	b.steps([]step{
		{`stop -t 0 box`, want{}},
		{`restart -t 0 box`, want{stdout: "box\n"}}, // it did not run
		{`restart -t 0 nosuch box`, want{status: 125, stdout: "box\n", stderr: "no such container: nosuch"}},
		{`restart --all -t 0`, want{match: `^[0-9a-f]+\n$`}},
		{`restart -s NOSUCH box`, want{status: 125, stderr: "invalid signal"}},
		{`restart`, want{status: 125}},
		{namesNow, want{stdout: "box running\n"}},
	})
}

// (With a cgroup it can be paused: TestControlGroups.)
func TestPause(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`run -d --name box --cgroups disabled alpine sleep 1000`, want{}},
		{`pause box`, want{status: 125, stderr: `cannot pause the container: it has no cgroup.*\nrbox: hint: `}},
		{`unpause box`, want{status: 125, stderr: `paused|cgroup`}},
		{`pause nosuch`, want{status: 125, stderr: `no such container: nosuch`}},
		{`pause`, want{status: 125}},
		{`unpause`, want{status: 125}},
		{`pause -a`, want{status: 125, stderr: `cgroup`}},
		{namesNow, want{stdout: "box running\n"}},
		{`stop -t 0 box`, want{}},
		{`pause box`, want{status: 125, stderr: `is not running`}},
		{`unpause box`, want{status: 125, stderr: `is not (running|paused)`}},
	})
}

// A container in the foreground ends with its rbox, however that ends.
func TestForegroundEndsWithRbox(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for name, flags := range map[string]string{
		"passthrough": "--log-driver passthrough", "file": "--log-driver file", "none": "--log-driver none",
		"stdin": "-i --log-driver file", "restarting": "--restart always", "with --init": "--init", "a user": "-u 1000",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			name := strings.ReplaceAll(name, " ", "")
			stdin := blockedReader(t)
			p := b.start(call{stdin: stdin, args: append(words("run --name "+name+" "+flags), "alpine", "sh", "-c", "trap '' TERM HUP; echo up; while :; do sleep 1; done")})
			if strings.Contains(flags, "none") {
				if !eventually(10*time.Second, func() bool { return b.rbox("exec", name, "true").status == 0 }) {
					t.Fatal("it does not start")
				}
			} else {
				p.see("up\n")
			}
			first := b.pid(name)
			p.signal(syscall.SIGKILL)
			p.wait()
			if !eventually(10*time.Second, func() bool { return !alive(first) && b.state(name, "Status") == "exited" }) {
				t.Errorf("it is %s after rbox was killed", b.state(name, "Status"))
			}
			if got := b.state(name, "ExitCode"); got != "137" {
				t.Errorf("exit status %s", got)
			}
			want{stdout: name + "\n"}.check(t, b.rbox("rm", name))
		})
	}
}

// A container in the background outlives the session that it was started in.
func TestBackgroundOutlivesItsSession(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	term := newTerminal(b)
	p := b.start(call{prog: "/bin/sh", tty: term, env: []string{"RBOX=" + run.bin}, args: []string{"-c",
		`"$RBOX" run -d --name web alpine sleep 1000 >/dev/null; "$RBOX" run -d -t --name tty alpine sh >/dev/null
		"$RBOX" create --name made alpine sleep 1000 >/dev/null; "$RBOX" start made >/dev/null; echo started; exec sleep 1000`}})
	term.see("started\r\n")
	session := p.cmd.Process.Pid
	syscall.Kill(-session, unix.SIGHUP)
	p.wait()
	term.master.Close()
	term.slave.Close()
	for _, name := range []string{"web", "tty", "made"} {
		monitor := b.monitor(name)
		if sid, err := unix.Getsid(monitor); err != nil || sid == session {
			t.Errorf("%s: the monitor is in session %d (%v), started in %d", name, sid, err, session)
		}
		for _, s := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGPIPE} {
			syscall.Kill(monitor, s)
		}
		want{stdout: "still\n"}.check(t, b.rbox("exec", name, "echo", "still"))
	}
	want{stdout: "web\n"}.check(t, b.rbox("stop", "-t", "0", "web"))
}

// What runs in the background holds none of its caller's files.
func TestBackgroundHoldsNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	got := b.do(call{prog: "/bin/sh", env: []string{"RBOX=" + run.bin}, args: []string{"-c", `exec 3>&1 7>&1; cd /; "$RBOX" run -d --name web alpine sleep 1000 | cat`}, limit: 20 * time.Second})
	want{match: isID}.check(t, got) // wait says so if something holds the pipe
	for _, pid := range []int{b.pid("web"), b.monitor("web")} {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); strings.HasPrefix(to, "/tmp/go-build") || strings.HasPrefix(to, "/dev/pts") {
				t.Errorf("%s holds %s", describe(pid), to)
			}
		}
	}
}
