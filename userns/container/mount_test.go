package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/userns"
	"rbox/userns/stage"
)

func TestOutside(t *testing.T) {
	maps := []idmap.Mapping{{Inside: 0, Outside: 1, Count: 1000}, {Inside: 1000, Outside: 0, Count: 1}, {Inside: 4294967290, Outside: 5000, Count: 5}}
	for id, want := range map[uint32]int{0: 1, 999: 1000, 1000: 0, 1001: -1, 4294967289: -1, 4294967294: 5004, 4294967295: -1} {
		if got := outside(maps, id); got != want {
			t.Errorf("%d is %d outside, want %d", id, got, want)
		}
	}
	if got := total(maps); got != 1006 {
		t.Errorf("%d ids in all", got)
	}
}

func TestCheckMapped(t *testing.T) {
	m := &monitor{}
	m.Plan.Namespaces.UIDs = []idmap.Mapping{{Count: 10}}
	m.Plan.Namespaces.GIDs = []idmap.Mapping{{Count: 20}}
	for _, tc := range []struct {
		account stage.Account
		want    string
	}{
		{stage.Account{UID: 9, GID: 19}, ""},
		{stage.Account{UID: 10}, "uid 10 is not among the 10 ids of the container"},
		{stage.Account{GID: 20}, "gid 20 is not among the 20 ids of the container"},
	} {
		got := ""
		if err := m.checkMapped(tc.account); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.account, got, tc.want)
		}
	}
}

func TestCompleteEnv(t *testing.T) {
	path := "PATH=" + stage.DefaultPath
	for name, tc := range map[string]struct {
		env      []string
		terminal bool
		want     []string
	}{
		"nothing set":    {nil, false, []string{path, "HOME=/home/kim"}},
		"terminal":       {nil, true, []string{path, "HOME=/home/kim", "TERM=xterm"}},
		"all set":        {[]string{"TERM=vt", "HOME=", "PATH=/x"}, true, []string{"TERM=vt", "HOME=", "PATH=/x"}},
		"names like its": {[]string{"XPATH=1", "HOMES=2"}, false, []string{"XPATH=1", "HOMES=2", path, "HOME=/home/kim"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := completeEnv(tc.env, stage.Account{Home: "/home/kim"}, tc.terminal); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// Docker's statuses: 127 for what is not there, 126 for what cannot be run.
func TestExplain(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		status int
		text   string
	}{
		"not in PATH":      {&userns.StepError{Step: "exec foo", Err: unix.ENOENT}, 127, `run "foo": executable file not found in $PATH`},
		"no such path":     {&userns.StepError{Step: "exec /foo", Err: unix.ENOENT}, 127, `run "/foo": no such file, or its interpreter is missing`},
		"below a file":     {&userns.StepError{Step: "exec /a/b", Err: unix.ENOTDIR}, 127, `run "/a/b": no such file, or its interpreter is missing`},
		"not executable":   {&userns.StepError{Step: "exec foo", Err: unix.EACCES}, 126, `run "foo": permission denied for uid 7`},
		"not a program":    {&userns.StepError{Step: "exec foo", Err: unix.ENOEXEC}, 126, `run "foo": exec format error`},
		"something else":   {&userns.StepError{Step: "exec foo", Err: unix.E2BIG}, 126, `run "foo": argument list too long`},
		"before the start": {&userns.StepError{Step: "pivot_root", Err: unix.EPERM}, 125, "start the program: pivot_root: operation not permitted"},
		"a limit too high": {&userns.StepError{Step: stage.RlimitStep + "nofile", Err: unix.EPERM}, 125, stage.RlimitStep + "nofile: operation not permitted: above the hard limit"},
		"no step":          {errors.New("x"), 125, "start the container: x"},
	} {
		t.Run(name, func(t *testing.T) {
			f := failure(explain(tc.err, stage.Account{UID: 7}))
			if f.Status != tc.status || f.Text != tc.text || f.ExitStatus() != tc.status {
				t.Errorf("got %d, %q; want %d, %q", f.Status, f.Text, tc.status, tc.text)
			}
		})
	}
	hinted := failure(fmt.Errorf("wrapped: %w", &UnmappedUserError{"uid", 7, 1}))
	if hinted.Status != 125 || hinted.Hint() == "" {
		t.Errorf("the hint is lost: %+v", hinted)
	}
}

// firstThreadEnds in the environment makes the test binary a process whose first
// thread has ended, and another reads.
const firstThreadEnds = "RBOX_TEST_FIRST_THREAD_ENDS"

func init() {
	if os.Getenv(firstThreadEnds) == "" {
		return
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // main and init have the first thread
}

func TestIsZombie(t *testing.T) {
	eventually := func(pid int, state string, want bool) {
		t.Helper()
		for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
			if f := statFields(pid); f != nil && f[0] == state && isZombie(pid) == want {
				return
			}
		}
		t.Errorf("not %s and zombie %t within 10 s: %v", state, want, statFields(pid))
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), firstThreadEnds+"=1")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	eventually(cmd.Process.Pid, "Z", false)
	in.Close()
	eventually(cmd.Process.Pid, "Z", true)
}

func TestAlive(t *testing.T) {
	start, err := startTime(os.Getpid())
	if err != nil || bootID() == "" {
		t.Fatalf("start time %d, %v, boot %q", start, err, bootID())
	}
	// A name with brackets and blanks must not confuse the fields after it.
	odd := exec.Command("/bin/sleep", "1000")
	odd.Path = t.TempDir() + "/a) S 1 (b"
	if err := os.Symlink("/bin/sleep", odd.Path); err != nil {
		t.Fatal(err)
	}
	if err := odd.Start(); err != nil {
		t.Fatal(err)
	}
	defer odd.Wait()
	defer odd.Process.Kill()
	if s, err := startTime(odd.Process.Pid); err != nil || s < start {
		t.Errorf("start time of an oddly named process: %d, %v; ours is %d", s, err, start)
	}
	for name, tc := range map[string]struct {
		s    State
		want bool
	}{
		"itself":         {State{Pid: os.Getpid(), StartTime: start, BootID: bootID()}, true},
		"another start":  {State{Pid: os.Getpid(), StartTime: start + 1, BootID: bootID()}, false},
		"another boot":   {State{Pid: os.Getpid(), StartTime: start, BootID: "x"}, false},
		"no process":     {State{Pid: 1 << 30, StartTime: start, BootID: bootID()}, false},
		"none recorded":  {State{BootID: bootID()}, false},
		"only the start": {State{StartTime: start, BootID: bootID()}, false},
	} {
		if got := tc.s.alive(); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
