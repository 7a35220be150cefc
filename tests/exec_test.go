package tests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"rbox/tests/account"
)

// self prints all that a program shares with the others of its container: its
// namespaces, ids, capabilities, limits, and what may be done to it.
const self = `for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done
	grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask|SigIgn|SigBlk)' /proc/self/status
	cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj /proc/self/uid_map /proc/self/timens_offsets; readlink -f /proc/self/root; pwd; hostname; env | grep -v -e ^SHLVL -e ^_= | sort`

// A program of exec is in the container's namespaces with its rights, whatever
// kind of container it is.
func TestExecIsLikeTheContainersProgram(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.background("other", "echo up; exec sleep 1000")
	for name, flags := range map[string][]string{
		"plain":          nil,
		"a user":         {"-u", "1000:1001", "--group-add", "33"},
		"a named user":   {"-u", "guest"},
		"keep-id":        {"--userns", "keep-id"},
		"keep-id, root":  {"--userns", "keep-id", "-u", "0"},
		"host network":   {"--network", "host"},
		"time":           {"--time-offset", "boottime=86400", "--time-offset", "monotonic=3600"},
		"--init":         {"--init"},
		"shared ids":     {"--userns", "container:other"},
		"read-only":      {"--read-only", "--tmpfs", "/tmp"},
		"a terminal":     {"-t"},
		"limits":         {"--ulimit", "nofile=100:200", "--ulimit", "core=0"},
		"work and env":   {"-w", "/var/lib", "-e", "A=b c", "--hostname", "inside"},
		"host's groups":  {"--group-add", "keep-groups"},
		"in the time ns": {"--userns", "keep-id", "--time-offset", "boottime=60", "--network", "host", "--init"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b.in(t).execIsLike(strings.NewReplacer(" ", "", ",", "", "'", "", "-", "").Replace(name), flags)
		})
	}
}

func (b *box) execIsLike(name string, flags []string) {
	b.t.Helper()
	args := append([]string{"run", "-d", "--name", name}, flags...)
	b.must(append(args, "alpine", "sh", "-c", "{ "+self+"; } >/tmp/self; echo up; exec sleep 1000")...)
	b.seeLog(name, "up")
	own := b.must("exec", name, "cat", "/tmp/self")
	exec := []string{"exec", name, "sh", "-c", self}
	if strings.Contains(own, "TERM=") { // which a terminal brings
		exec = append([]string{"exec", "-e", "TERM=xterm"}, exec[1:]...)
	}
	if got := b.must(exec...); got != own {
		b.t.Errorf("%s: exec differs from the container's own program:\n%s", name, diffLines(own, got))
	}
}

// diffLines shows the lines of a and b that are not in both.
func diffLines(a, b string) string {
	var out strings.Builder
	for _, p := range []struct{ sign, of, in string }{{"- ", a, b}, {"+ ", b, a}} {
		other := countLines(p.in)
		for line := range strings.Lines(p.of) {
			if other[strings.TrimSuffix(line, "\n")] == 0 {
				out.WriteString(p.sign + strings.TrimSuffix(line, "\n") + "\n")
			}
		}
	}
	return out.String()
}

func TestExecWithOneID(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(single(t)), keeps)
	b.execIsLike("box", nil)
	b.execIsLike("keep", []string{"--userns", "keep-id"})
	want{stdout: "0\n"}.check(t, b.rbox("exec", "box", "sh", "-c", "touch /f && chown 33:33 /f && id -u"))
}

func TestExecOfOtherAccounts(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(root(t)), keeps)
	b.execIsLike("box", []string{"-u", "1000"})
	ranged, err := account.Ensure(account.Ranged)
	if err != nil {
		t.Skip(err)
	}
	r := newBox(t, as(ranged), keeps)
	r.execIsLike("box", []string{"-u", "66000:66000"})
}

func TestExec(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.load("image", alpineImage(t, v1.Config{Cmd: []string{"sleep", "1000"}, Env: []string{"FROM=image"}, WorkingDir: "/srv", User: "guest"}))
	file := b.file("env", "# mine\nX=file\nY=file\n", 0o644)
	b.steps([]step{
		{`run -d --name box -e OF=container alpine sleep 1000`, want{}},
		{`run -d --name img image`, want{}},
		{`run -d --name open --security-opt seccomp=unconfined alpine sleep 1000`, want{}},
		{`create --name made alpine sleep 1000`, want{}},
		{`exec box echo hello`, want{stdout: "hello\n"}},
		{`exec -- box echo hello`, want{stdout: "hello\n"}},
		{`exec box sh -c 'echo out; echo err >&2; exit 3'`, want{status: 3, stdout: "out\n", stderr: "^err\n$"}},
		{`exec box sh -c 'kill -TERM $$'`, want{status: 143}},
		{`exec box nosuch`, want{status: 127, stderr: `^rbox: .*"nosuch": executable file not found in \$PATH`}},
		{`exec box /no/such`, want{status: 127, stderr: `/no/such`}},
		{`exec box /etc/passwd`, want{status: 126, stderr: `permission denied`}},
		{`exec box /etc`, want{status: 126, stderr: `/etc`}},
		{`exec nosuch true`, want{status: 125, stderr: `no such container: nosuch`}},
		{`exec made true`, want{status: 125, stderr: `container made is not running\nrbox: hint: rbox start made`}},
		{`exec box`, want{status: 125, stderr: `command`}},
		{`exec`, want{status: 125}},
		{`exec img sh -c 'id -un; pwd; echo $FROM $HOME'`, want{stdout: "guest\n/srv\nimage /dev/null\n"}},
		{`exec -u root img sh -c 'id -un; pwd; echo $FROM $HOME'`, want{stdout: "root\n/srv\nimage /root\n"}},
		{`exec -u 1000 box id`, want{stdout: "uid=1000 gid=0(root) groups=0(root)\n"}},
		{`exec --user 1000:1001 box id`, want{stdout: "uid=1000 gid=1001 groups=1001\n"}},
		{`exec -u guest:wheel box sh -c 'id -un; id -gn'`, want{stdout: "guest\nwheel\n"}},
		{`exec -u nosuch box id`, want{status: 125, stderr: `nosuch`}},
		{`exec -u 70000 box id`, want{status: 125, stderr: `70000`}},
		{`exec -w /tmp box pwd`, want{stdout: "/tmp\n"}},
		{`exec --workdir /no/such box pwd`, want{status: 126, stderr: `/no/such`}},
		{`exec -w relative box pwd`, want{status: 125, stderr: `not absolute`}},
		{`exec -e A=1 -e FROM=exec --env OF= img sh -c 'echo $A $FROM'`, want{stdout: "1 exec\n"}},
		{`exec box sh -c 'echo $OF'`, want{stdout: "container\n"}},
		{`exec -e USER box sh -c 'echo $USER'`, want{stdout: b.who.Name + "\n"}},
		{`exec --env-file ` + file + ` -e Y=flag box sh -c 'echo $X $Y'`, want{stdout: "file flag\n"}},
		{`exec --env-file /no/such box true`, want{status: 125, stderr: `/no/such`}},
		{`exec --preserve-fds 5 box true`, want{status: 125, stderr: `preserve-fds`}},
		{`exec -it box true`, want{status: 125, stderr: `the input device is not a terminal`}},
		{`exec -t box sh -c 'test -t 0 && test -t 1 && tty'`, want{match: "^/dev/pts/"}},
		{`exec box sh -c 'readlink /proc/self/fd/0; ls /proc/self/fd | wc -l'`, want{stdout: "/dev/null\n4\n"}},
		{`exec box sh -c 'unshare -m true 2>&1 || echo refused'`, want{match: `refused`}},
		{`exec --privileged box sh -c 'mount -t tmpfs none /mnt 2>&1 || echo refused'`, want{match: `refused`}}, // by seccomp
		{`exec --privileged open sh -c 'mkdir -p /mnt/x && mount -t tmpfs none /mnt/x && echo mounted'`, want{stdout: "mounted\n"}},
		{`exec open stat -f -c %T /mnt/x`, want{stdout: "tmpfs\n"}},
		{`exec -d box touch /tmp/by-d`, want{}},
		{`exec -d box nosuch`, want{status: 127, stderr: `nosuch`}},
		{`exec --detach-keys ctrl-nosuch -t box true`, want{status: 125, stderr: `--detach-keys`}},
		{`top box`, want{match: `sleep 1000`}},
		{`stop -t 0 box`, want{}},
		{`exec box true`, want{status: 125, stderr: `container box is not running`}},
	})
	b.must("start", "box") // what exec changed is there
	want{stdout: "/tmp/by-d\n"}.check(t, b.rbox("exec", "box", "ls", "/tmp/by-d"))
}

func TestExecStreams(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	noise := bytes.Repeat([]byte("0123456789abcdef\x00\xff\n"), 100_000)
	if got := b.do(call{args: []string{"exec", "-i", "box", "cat"}, stdin: bytes.NewReader(noise)}); got.stdout != string(noise) {
		t.Errorf("%d bytes come back of %d", len(got.stdout), len(noise))
	}
	// Without -i nothing is read.
	want{stdout: "0\n"}.check(t, b.do(call{args: []string{"exec", "box", "wc", "-c"}, stdin: strings.NewReader("text")}))
	// A reader that goes ends the writer.
	got := b.do(call{prog: "/bin/sh", env: []string{"RBOX=" + run.bin}, args: []string{"-c", `"$RBOX" exec box yes | head -n 1`}, limit: 20 * time.Second})
	want{stdout: "y\n"}.check(t, got)
	// Descriptors beyond 2 arrive, those not asked for do not.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := w.Chown(int(b.who.UID), int(b.who.GID)); err != nil {
		t.Fatal(err)
	}
	got = b.do(call{args: []string{"exec", "--preserve-fds", "1", "box", "sh", "-c", "echo through >&3; echo x 2>/dev/null >&4 || echo closed"}, files: []*os.File{w, w}})
	w.Close()
	text, _ := io.ReadAll(r)
	if got.status != 0 || string(text) != "through\n" || got.stdout != "closed\n" {
		t.Errorf("--preserve-fds: %q, %v", text, got)
	}
}

func TestExecTerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	term := newTerminal(b)
	before := term.modes()
	p := b.start(call{tty: term, args: []string{"exec", "-it", "box", "sh", "-c", "trap 'stty size' WINCH; tty; stty size; echo $TERM; echo up >/dev/tty; until read x; do :; done; echo got $x; exit 4"}})
	term.see("/dev/pts/")
	term.see("24 80\r\nxterm\r\nup\r\n")
	if !term.isRaw() {
		t.Error("the caller's terminal is not raw")
	}
	term.resize(30, 90)
	term.see("30 90\r\n")
	term.write("word\n")
	term.see("got word\r\n")
	if got := p.wait(); got.status != 4 {
		t.Errorf("status %d", got.status)
	}
	if term.modes() != before {
		t.Error("the terminal is not as it was before")
	}
	// Detaching leaves the program to itself.
	p = b.start(call{tty: term, args: []string{"exec", "-it", "box", "sh", "-c", "echo on $$ >/tmp/on; echo up2; read x; echo $x >/tmp/end"}})
	term.see("up2\r\n")
	term.write("\x10\x11")
	if got := p.wait(); got.status != 0 {
		t.Errorf("detached: %v", got)
	}
	if term.modes() != before {
		t.Error("the terminal is not as it was before it detached")
	}
	want{match: "sh -c echo on"}.check(t, b.rbox("exec", "box", "ps"))
	// Other keys; a beginning of them that goes on in another way arrives.
	p = b.start(call{tty: term, args: []string{"exec", "-it", "--detach-keys", "ctrl-a,b", "box", "sh", "-c", "stty raw -echo; echo up3; head -c 4 | od -An -c; cat"}})
	term.see("up3")
	term.write("\x01\x01x\x10")
	term.see("001 001   x 020")
	term.write("\x01b")
	if got := p.wait(); got.status != 0 {
		t.Errorf("detached: %v", got)
	}
	// A killed rbox leaves no raw terminal, and its program ends.
	for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGKILL} {
		p = b.start(call{tty: term, args: []string{"exec", "-it", "box", "sh", "-c", fmt.Sprintf("echo up%d; while :; do sleep 1; done", s)}})
		term.see(fmt.Sprintf("up%d\r\n", s))
		p.signal(s)
		p.wait()
		if !eventually(5*time.Second, func() bool { return !strings.Contains(b.must("exec", "box", "ps"), fmt.Sprintf("echo up%d", s)) }) {
			t.Errorf("%v of rbox exec: its program goes on", s)
		}
		if !eventually(2*time.Second, func() bool { return term.modes() == before }) {
			t.Errorf("%v of rbox exec: the terminal stays raw", s)
			unix.IoctlSetTermios(int(term.slave.Fd()), unix.TCSETS, &before)
		}
	}
}

func TestExecSignalsAndEnds(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	p := b.start(call{args: []string{"exec", "box", "sh", "-c", "trap 'echo term; exit 9' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done"}})
	p.see("up\n")
	p.signal(unix.SIGUSR1)
	p.see("usr1\n")
	p.signal(unix.SIGTERM)
	want{status: 9, stdout: "up\nusr1\nterm\n"}.check(t, p.wait())

	// rbox killed: its program with it; not one in the background.
	p = b.start(call{args: []string{"exec", "box", "sh", "-c", "echo up; sleep 4321; true"}})
	p.see("up\n")
	b.must("exec", "-d", "box", "sh", "-c", "sleep 5432; true")
	p.signal(unix.SIGKILL)
	p.wait()
	if !eventually(5*time.Second, func() bool { return !strings.Contains(b.must("exec", "box", "ps"), "sh -c echo up") }) {
		t.Error("its program outlives a killed rbox exec")
	}
	want{match: "sleep 5432"}.check(t, b.rbox("exec", "box", "ps"))

	// The container ends under it.
	for _, how := range []string{"kill box", "stop -t 0 box", "rm -f box"} {
		p := b.start(call{args: []string{"exec", "box", "sh", "-c", "echo up; exec sleep 1000"}})
		p.see("up\n")
		b.must(words(how)...)
		want{status: 137}.check(t, p.wait())
		if how != "rm -f box" {
			b.must("start", "box")
		}
	}
	b.must("run", "-d", "--name", "box", "-i", "alpine", "sh", "-c", "exec sleep 0.5")
	want{status: 137}.check(t, b.rbox("exec", "box", "sleep", "1000"))
	// Its monitor is killed.
	b.must("start", "box")
	b.must("rm", "-f", "box")
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	p = b.start(call{args: []string{"exec", "box", "sh", "-c", "echo up; exec sleep 1000"}})
	p.see("up\n")
	syscall.Kill(b.monitor("box"), syscall.SIGKILL)
	want{status: 137, stderr: "monitor was killed"}.check(t, p.wait())
}

// The monitor reaps what it started, and keeps no descriptor of it.
func TestExecLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "--network", "none", "alpine", "sleep", "1000")
	monitor := b.monitor("box")
	fds := func() int {
		list, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", monitor))
		return len(list)
	}
	b.must("exec", "box", "true")
	before := fds()
	term := newTerminal(b)
	for range 5 {
		b.must("exec", "-d", "box", "true")
		b.must("exec", "-d", "-t", "box", "true")
		b.rbox("exec", "box", "nosuch")
		b.do(call{args: []string{"exec", "-i", "box", "cat"}, stdin: strings.NewReader("x")})
		b.start(call{args: []string{"exec", "-it", "box", "true"}, tty: term}).wait()
		p := b.start(call{args: []string{"exec", "box", "sh", "-c", "echo up; sleep 1000"}})
		p.see("up\n")
		p.signal(unix.SIGKILL)
		p.wait()
	}
	if !eventually(5*time.Second, func() bool { return fds() <= before }) {
		out, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", monitor))
		for _, fd := range out {
			to, _ := os.Readlink(fd)
			t.Log(fd, to)
		}
		t.Errorf("the monitor has %d descriptors, before %d", fds(), before)
	}
	if !eventually(5*time.Second, func() bool { return len(children(monitor)) == 1 }) {
		for _, pid := range children(monitor) {
			t.Log(describe(pid))
		}
		t.Error("more than process 1 is left below the monitor")
	}
}

func TestExecManyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	var all []*process
	for i := range 24 {
		all = append(all, b.start(call{args: []string{"exec", "box", "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i)}}))
	}
	for i, p := range all {
		want{status: i, stdout: fmt.Sprintln(i)}.check(t, p.wait())
	}
}
