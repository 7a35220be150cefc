package userns

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const sysExecve = unix.SYS_EXECVE

// chdir is a step that fails as the path does.
func chdir(p *Program, name, path string) StepRef { return p.Call(name, unix.SYS_CHDIR, p.Str(path)) }

func exit(p *Program, status any) { p.Call("exit", unix.SYS_EXIT_GROUP, status) }

// zero puts 0 into reg.
func zero(p *Program, reg Reg) {
	p.Call("alarm", unix.SYS_UMASK, 0).Save(reg)
	p.Call("alarm", unix.SYS_UMASK, 0).Save(reg)
}

func TestProgram(t *testing.T) {
	const missing, file = "/nonexistent", "/etc/passwd" // ENOENT, ENOTDIR
	for name, tc := range map[string]struct {
		steps func(p *Program)
		want  int    // exit status
		err   string // of the step that fails
	}{
		"a result is an argument": {steps: func(p *Program) {
			p.Call("dup", unix.SYS_DUP, 0).Save(1)
			p.Call("close", unix.SYS_CLOSE, Reg(1))
			p.Call("close again", unix.SYS_CLOSE, Reg(1))
		}, err: "close again: bad file descriptor"},
		"a register before it is set": {steps: func(p *Program) { p.Call("close", unix.SYS_CLOSE, Reg(1)) }, err: "close: bad file descriptor"},
		"the first failure ends it":   {steps: func(p *Program) { chdir(p, "one", missing); chdir(p, "two", file) }, err: "one: no such file or directory"},
		"passed over":                 {steps: func(p *Program) { chdir(p, "one", missing).Pass(unix.EACCES, unix.ENOENT); exit(p, 3) }, want: 3},
		"another failure is not":      {steps: func(p *Program) { chdir(p, "one", file).Pass(unix.ENOENT); exit(p, 3) }, err: "one: not a directory"},
		"any failure ignored":         {steps: func(p *Program) { chdir(p, "one", file).Ignore(); exit(p, 3) }, want: 3},
		"remembered": {steps: func(p *Program) {
			chdir(p, "one", file).Pass(unix.ENOENT).Remember(unix.ENOTDIR)
			chdir(p, "two", missing).Pass(unix.ENOENT).Remember(unix.ENOTDIR)
			p.Fail("none")
		}, err: "none: not a directory"},
		"nothing to remember": {steps: func(p *Program) { chdir(p, "one", missing).Pass(unix.ENOENT); p.Fail("none") }, err: "none: no such file or directory"},
		"else, after failure": {steps: func(p *Program) {
			chdir(p, "one", missing).Else(func() { p.Call("other", unix.SYS_GETPID).Save(1) })
			p.Call("close", unix.SYS_CLOSE, Reg(1)).Ignore()
			exit(p, 4)
		}, want: 4},
		"else, its own failure": {steps: func(p *Program) { chdir(p, "one", missing).Else(func() { chdir(p, "other", file) }) }, err: "other: not a directory"},
		"else, after success": {steps: func(p *Program) {
			chdir(p, "one", "/").Else(func() { exit(p, 1); exit(p, 2) })
			exit(p, 5)
		}, want: 5},
		"else within else": {steps: func(p *Program) {
			chdir(p, "one", missing).Else(func() {
				chdir(p, "two", missing).Else(func() { chdir(p, "three", "/") })
			})
			exit(p, 6)
		}, want: 6},
		"end of file": {steps: func(p *Program) {
			p.Call("open", unix.SYS_OPENAT, 0, p.Str(os.DevNull), 0, 0).Save(1)
			p.Call("read", unix.SYS_READ, Reg(1), p.Bytes(make([]byte, 1)), 1).Min(1)
		}, err: "read: broken pipe"},
		"skipped":     {steps: func(p *Program) { zero(p, 1); chdir(p, "one", missing).SkipIf0(1); exit(p, 7) }, want: 7},
		"not skipped": {steps: func(p *Program) { chdir(p, "one", missing).SkipIf0(1); exit(p, 7) }, err: "one: no such file or directory"},
		"the end":     {steps: func(p *Program) { p.Call("getpid", unix.SYS_GETPID) }, want: 127},
		"a new process": {steps: func(p *Program) {
			p.Fork("fork", unix.CLONE_PARENT)
			exit(p, 9)
		}, want: 9},
	} {
		for _, way := range []string{"vfork", "fork"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				p := NewProgram()
				if way == "fork" {
					p.AwaitRelease()
				}
				tc.steps(p)
				c := start(t, p, 0)
				if way == "fork" {
					if err := c.Release(); err != nil {
						t.Fatal(err)
					}
				}
				got := ""
				if err := c.Started(); err != nil {
					got = err.Error()
					tc.want = 127
				}
				ws, err := c.Wait()
				if got != tc.err || err != nil || ws.ExitStatus() != tc.want {
					t.Errorf("failure %q, status %d (%v); want %q, %d", got, ws.ExitStatus(), err, tc.err, tc.want)
				}
			})
		}
	}
}

func start(t *testing.T, p *Program, flags uintptr) *Child {
	t.Helper()
	c, err := Start(p, flags, -1)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProgramErrors(t *testing.T) {
	if _, err := Start(NewProgram(), 0, -1); err == nil {
		t.Error("an empty program was started")
	}
	p := NewProgram()
	p.Files(0, []int{1 << 20})
	if _, err := Start(p, 0, -1); !errors.Is(err, unix.EBADF) {
		t.Errorf("a descriptor that is not open: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("an argument of a type that no register has was taken")
		}
	}()
	p.Call("x", unix.SYS_CLOSE, "1")
}

// A process that Fork makes in a new pid namespace is told of by the number
// that it has in ours.
func TestForkTellsItsPid(t *testing.T) {
	p := NewProgram()
	p.Fork("fork", unix.CLONE_PARENT|unix.CLONE_NEWUSER|unix.CLONE_NEWPID)
	p.AwaitRelease()
	p.TellReady()
	p.Call("getpid", unix.SYS_GETPID).Save(1)
	exit(p, Reg(1))
	c := start(t, p, 0)
	first := c.Pid
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	err := c.Ready()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skip("this host allows no user namespaces: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Started(); err != nil {
		t.Error(err)
	}
	if c.Pid == first {
		t.Errorf("still pid %d", first)
	}
	if ws, err := c.Wait(); err != nil || ws.ExitStatus() != 1 {
		t.Errorf("pid %d inside (%v), want 1", ws.ExitStatus(), err)
	}
	if _, err := unix.Wait4(first, nil, 0, nil); err != unix.ECHILD {
		t.Errorf("the first process is still there: %v", err)
	}
}

func TestChildMeetsParent(t *testing.T) {
	died := errors.New("killed before it was ready")
	for name, tc := range map[string]struct {
		steps func(p *Program)
		do    func(t *testing.T, c *Child) error
		want  string
		ends  int // exit status, or -1: by SIGKILL
	}{
		"the parent dies before release": {
			steps: func(p *Program) { p.AwaitRelease(); exit(p, 0) },
			do:    func(t *testing.T, c *Child) error { return c.sock.Close() },
			ends:  127,
		},
		"the parent dies after release": {
			steps: func(p *Program) {
				p.AwaitRelease()
				p.Call("getpid", unix.SYS_GETPID).Save(1)
				p.Call("stop", unix.SYS_KILL, Reg(1), int(unix.SIGSTOP))
				p.TellReady()
				exit(p, 0)
			},
			do: func(t *testing.T, c *Child) error {
				if err := c.Release(); err != nil {
					t.Fatal(err)
				}
				if _, err := unix.Wait4(c.Pid, nil, unix.WUNTRACED, nil); err != nil {
					t.Fatal(err)
				}
				return errors.Join(c.sock.Close(), unix.Kill(c.Pid, unix.SIGCONT))
			},
			ends: 127,
		},
		"a failure after it was ready": {
			steps: func(p *Program) { p.AwaitRelease(); p.TellReady(); chdir(p, "late", "/nonexistent") },
			do: func(t *testing.T, c *Child) error {
				if err := errors.Join(c.Release(), c.Ready()); err != nil {
					t.Error(err)
				}
				return c.Started()
			},
			want: "late: no such file or directory",
			ends: 127,
		},
		"a failure before it was ready": {
			steps: func(p *Program) { p.AwaitRelease(); chdir(p, "early", "/nonexistent"); p.TellReady() },
			do:    func(t *testing.T, c *Child) error { return errors.Join(c.Release(), c.Ready()) },
			want:  "early: no such file or directory",
			ends:  127,
		},
		"killed while it waits": {
			steps: func(p *Program) { p.AwaitRelease(); p.TellReady() },
			do: func(t *testing.T, c *Child) error {
				unix.Kill(c.Pid, unix.SIGKILL)
				return c.Ready()
			},
			want: died.Error(),
			ends: -1,
		},
		"killed with the release unread": {
			steps: func(p *Program) {
				p.Call("sleep", unix.SYS_PPOLL, 0, 0, 0, 0, 0)
				p.AwaitRelease()
			},
			do: func(t *testing.T, c *Child) error {
				err := c.Release()
				unix.Kill(c.Pid, unix.SIGKILL)
				return errors.Join(err, c.Ready())
			},
			want: died.Error(),
			ends: -1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewProgram()
			tc.steps(p)
			c := start(t, p, 0)
			got := ""
			if err := tc.do(t, c); err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			ws, err := c.Wait()
			killed := ws.Signaled() && ws.Signal() == unix.SIGKILL
			if err != nil || tc.ends < 0 && !killed || tc.ends >= 0 && ws.ExitStatus() != tc.ends {
				t.Errorf("ended with %#x (%v), want %d", ws, err, tc.ends)
			}
		})
	}
}

func TestKillReaps(t *testing.T) {
	p := NewProgram()
	p.AwaitRelease()
	c := start(t, p, 0)
	c.Kill()
	if _, err := unix.Wait4(c.Pid, nil, 0, nil); err != unix.ECHILD {
		t.Errorf("it is still there: %v", err)
	}
}

// output runs args after what steps adds, with stdout into a pipe.
func output(t *testing.T, steps func(p *Program), args ...string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := NewProgram()
	steps(p)
	p.Call("stdout", unix.SYS_DUP3, int(w.Fd()), 1, 0)
	p.Call("exec", unix.SYS_EXECVE, p.Str(args[0]), p.Strs(args), p.Strs(nil))
	c := start(t, p, 0)
	w.Close()
	if err := c.Started(); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if ws, waitErr := c.Wait(); err != nil || waitErr != nil || ws != 0 {
		t.Fatalf("%q: %v, %v, status %#x", args, err, waitErr, ws)
	}
	return string(b)
}

// Descriptors land where they were asked for, even on one another's numbers,
// and no other is left.
func TestFilesCollide(t *testing.T) {
	const first = 200
	for i, text := range []string{"a", "b", "c"} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := unix.Dup3(int(f.Fd()), first+i, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		f.Close()
		defer unix.Close(first + i)
	}
	place := func(p *Program) { p.Files(first, []int{first + 2, first, first + 1, first}) }
	if got := output(t, place, "/bin/cat", "/proc/self/fd/200", "/proc/self/fd/201", "/proc/self/fd/202", "/proc/self/fd/203"); got != "caba" {
		t.Errorf("got %q, want %q", got, "caba")
	}
	// 3 is the directory that ls reads.
	if got := strings.Fields(output(t, place, "/bin/ls", "/proc/self/fd")); strings.Join(got, " ") != "0 1 2 200 201 202 203 3" {
		t.Errorf("open descriptors: %q", got)
	}
}

func TestDefaultSignals(t *testing.T) {
	signal.Ignore(unix.SIGPIPE, unix.SIGUSR2)
	defer signal.Reset(unix.SIGPIPE, unix.SIGUSR2)
	ignored := func(steps func(p *Program)) (ignored, blocked string) {
		for line := range strings.Lines(output(t, steps, "/bin/cat", "/proc/self/status")) {
			switch k, v, _ := strings.Cut(line, ":"); k {
			case "SigIgn":
				ignored = strings.TrimSpace(v)
			case "SigBlk":
				blocked = strings.TrimSpace(v)
			}
		}
		return ignored, blocked
	}
	const none = "0000000000000000"
	if i, _ := ignored(func(*Program) {}); i == none {
		t.Error("ignored signals do not pass to a child: this test proves nothing")
	}
	if i, b := ignored((*Program).DefaultSignals); i != none || b != none {
		t.Errorf("ignored %s, blocked %s; want none", i, b)
	}
}

func noFile() uint64 {
	var l unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Cur
}

// Package os raises the soft limit on open files, which children must not see.
func TestRestoreNoFile(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `ulimit -Sn 64 && ulimit -Hn 128 && exec "$0"`, self)
	cmd.Env = append(os.Environ(), helperEnv+"=limits")
	out, err := cmd.CombinedOutput()
	f := strings.Fields(string(out))
	if err != nil || len(f) != 3 || f[0] == "64" || f[1] != "64" || f[2] != "64" {
		t.Errorf("limits raised, restored and of a child: %q (%v), want more than 64, 64, 64", out, err)
	}
}

func TestSealedFile(t *testing.T) {
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	f, err := SealedFile("test", strings.NewReader(string(program)))
	if errors.Is(err, unix.EACCES) {
		t.Skip("vm.memfd_noexec forbids it: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again, err := os.OpenFile(fdPath(f), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"write":           func() error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"write elsewhere": func() error { _, err := again.WriteAt([]byte("x"), 0); return err },
		"grow":            func() error { return f.Truncate(int64(len(program)) + 1) },
		"shrink":          func() error { return again.Truncate(0) },
		"unseal":          func() error { _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, 0); return err },
		"map": func() error {
			_, err := unix.Mmap(int(again.Fd()), 0, 1, unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		},
	} {
		if err := change(); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: %v, want EPERM", name, err)
		}
	}
	if f.Fd() < 100 {
		t.Errorf("descriptor %d may be in the way of those that Files fills", f.Fd())
	}
	again.Close() // the kernel runs nothing that is open to be written
	if out, err := exec.Command(fdPath(f)).CombinedOutput(); err != nil {
		t.Errorf("run it: %v: %s", err, out)
	}
}

func fdPath(f *os.File) string { return "/proc/self/fd/" + itoa(int(f.Fd())) }

// Whoever comes first with its news, what a Fork step failed as is reaped too.
func TestFailureAfterForkLeavesNoProcess(t *testing.T) {
	left := func() (pid int) {
		pid, _ = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		return pid
	}
	for left() > 0 { // what other tests killed and did not wait for
	}
	for range 300 {
		p := NewProgram()
		p.Fork("go on as another", unix.CLONE_PARENT)
		p.Call("fail", unix.SYS_CLOSE, 1<<20)
		c, err := Start(p, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Started(); !errors.As(err, new(*StepError)) {
			t.Fatalf("got %v, want a *StepError", err)
		}
		c.Kill()
	}
	if pid := left(); pid > 0 {
		t.Errorf("a child is left: %d", pid)
	}
}

// A child that awaits release twice meets the parent twice, in order. What fails
// in between is told in place of what the parent could not say.
func TestStartPreparedInSteps(t *testing.T) {
	for name, tc := range map[string]struct {
		between func(p *Program)
		second  error // of the parent's second step
		steps   int   // that the parent takes
		want    string
	}{
		"released twice":          {steps: 2},
		"a step fails in between": {between: func(p *Program) { chdir(p, "go nowhere", "/nonexistent") }, steps: 2, want: "go nowhere: no such file or directory"},
		"the parent fails":        {second: errors.New("no network"), steps: 2, want: "no network"},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewProgram()
			p.AwaitRelease()
			if tc.between != nil {
				tc.between(p)
			}
			p.AwaitRelease()
			p.TellReady()
			exit(p, 0)
			steps := 0
			step := func(err error) func(int) error {
				return func(pid int) error {
					steps++
					if unix.Kill(pid, 0) != nil {
						t.Errorf("in step %d there is no child", steps)
					}
					return err
				}
			}
			c, err := StartPrepared(p, unix.CLONE_NEWUSER, -1, step(nil), step(tc.second))
			if steps != tc.steps || err == nil && tc.want != "" || err != nil && err.Error() != tc.want {
				t.Fatalf("want %q after %d steps, got %v after %d", tc.want, tc.steps, err, steps)
			}
			if err == nil {
				c.Wait()
			}
		})
	}
}
