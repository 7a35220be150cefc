package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

func itoa(n int) string { return strconv.Itoa(n) }

func testOptions(dir string) Options {
	return Options{
		Dir: dir, Idle: 20 * time.Millisecond,
		Stage: func() (string, error) { return stage, nil },
	}
}

// open opens the outer namespace of dir, whose keeper goes when the test ends.
func open(t *testing.T, dir string) *Outer {
	t.Helper()
	o, err := Open(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

func inode(o *Outer) uint64 {
	var st unix.Stat_t
	unix.Fstat(int(o.ns.Fd()), &st)
	return st.Ino
}

func keeperFile(t *testing.T, dir string) string {
	t.Helper()
	path, err := keeperPath(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func readRecord(t *testing.T, dir string) (rec keeperRecord) {
	t.Helper()
	b, err := os.ReadFile(keeperFile(t, dir))
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// awaitUnused returns when nobody holds the keeper's file: a keeper that has
// just been started still has its maker's lock.
func awaitUnused(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(keeperFile(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

// ended waits for a keeper, which is our child.
func ended(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	if _, err := eintr(func() (int, error) { return unix.Wait4(pid, &ws, 0, nil) }); err != nil {
		t.Fatalf("wait for the keeper %d: %v", pid, err)
	}
	return ws
}

func TestOpenJoinsTheKeeper(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	dir := t.TempDir()
	a, b := open(t, dir), open(t, dir)
	if inode(a) != inode(b) || a.Maps.Key() != b.Maps.Key() {
		t.Errorf("two namespaces: %d %s and %d %s", inode(a), a.Maps.Key(), inode(b), b.Maps.Key())
	}
	if rec := readRecord(t, dir); rec.Inode != inode(a) {
		t.Errorf("the record has namespace %d, want %d", rec.Inode, inode(a))
	}
}

func TestIdleKeeperGoes(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	dir := t.TempDir()
	o := open(t, dir)
	pid := readRecord(t, dir).Pid
	o.Close()
	if ws := ended(t, pid); ws != 0 {
		t.Errorf("the keeper ended with %#x", ws)
	}
	if _, err := os.Lstat(keeperFile(t, dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its file is left: %v", err)
	}
	open(t, dir)
}

func TestKilledKeeperIsReplaced(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	for _, inUse := range []bool{false, true} {
		t.Run(fmt.Sprintf("in use %t", inUse), func(t *testing.T) {
			dir := t.TempDir()
			a := open(t, dir)
			was, pid := inode(a), readRecord(t, dir).Pid
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			ended(t, pid)
			if !inUse {
				a.Close()
			}
			if b := open(t, dir); inode(b) == was || readRecord(t, dir).Pid == pid {
				t.Errorf("still namespace %d, pid %d", inode(b), pid)
			}
		})
	}
}

func TestDisbelievedRecords(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	for name, spoil := range map[string]func(r *keeperRecord) any{
		"another process":   func(r *keeperRecord) any { r.Pid = os.Getpid(); return r },
		"no process":        func(r *keeperRecord) any { r.Pid = 1 << 30; return r },
		"pid 0":             func(r *keeperRecord) any { r.Pid = 0; return r },
		"a negative pid":    func(r *keeperRecord) any { r.Pid = -1; return r },
		"another namespace": func(r *keeperRecord) any { r.Inode += 1 << 20; return r },
		"another type":      func(*keeperRecord) any { return "keeper" },
		"nothing":           func(*keeperRecord) any { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old := open(t, dir)
			was, rec := inode(old), readRecord(t, dir)
			b, err := json.Marshal(spoil(&rec))
			if err != nil {
				t.Fatal(err)
			}
			if b[0] != '{' {
				b = b[:len(b)-1] // cut short, too
			}
			if err := os.WriteFile(keeperFile(t, dir), b, 0o600); err != nil {
				t.Fatal(err)
			}
			old.Close()
			o := open(t, dir)
			if got := readRecord(t, dir); got.Inode != inode(o) || inode(o) == was {
				t.Errorf("opened %d; the record has %d, before that it was %d", inode(o), got.Inode, was)
			}
		})
	}
}

// A keeper whose ids are out of date goes, but not while something uses it.
func TestOutdatedKeeper(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	dir := t.TempDir()
	a := open(t, dir)
	rec := readRecord(t, dir)
	old := rec.Pid
	rec.Source = "long ago"
	b, _ := json.Marshal(rec)
	if err := os.WriteFile(keeperFile(t, dir), b, 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir)
	if inode(c) != inode(a) {
		t.Error("a keeper in use was replaced")
	}
	c.Close()
	a.Close()
	awaitUnused(t, dir)
	d := open(t, dir)
	if now := readRecord(t, dir); now.Pid == old || now.Inode != inode(d) {
		t.Errorf("still keeper %d", old)
	}
	if ws := ended(t, old); ws != 0 && !(ws.Signaled() && ws.Signal() == unix.SIGTERM) {
		t.Errorf("the old keeper ended with %#x", ws)
	}
}

func TestConcurrentOpensMakeOneKeeper(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	dir := t.TempDir()
	var outs [20]io.Reader
	for i := range outs {
		cmd := exec.Command(stage)
		cmd.Args = []string{"helper", dir}
		cmd.Env = append(os.Environ(), helperEnv+"=open")
		cmd.Stderr = os.Stderr
		stdin, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			stdin.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}()
		outs[i] = out
	}
	want := ""
	for _, out := range outs {
		b := make([]byte, 32)
		n, err := out.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			want = string(b[:n])
		}
		if got := string(b[:n]); got != want {
			t.Errorf("namespace %s, another has %s", got, want)
		}
	}
	if o := open(t, dir); itoa(int(inode(o))) != strings.TrimSpace(want) {
		t.Errorf("afterwards namespace %d, want %s", inode(o), want)
	}
}

func TestCommand(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	dir := t.TempDir()
	o := open(t, dir)
	extra, err := os.CreateTemp(dir, "extra")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	extra.WriteString("extra")
	for name, tc := range map[string]struct {
		script string
		change func(c *Cmd)
		want   string
		status int
	}{
		"is root":          {script: `id -u; id -g; cat /proc/self/uid_map | wc -l`, want: "0\n0\n" + itoa(len(o.Maps.UIDs)) + "\n"},
		"status":           {script: "exit 7", status: 7},
		"stdin is null":    {script: "cat"},
		"environment":      {script: "echo $A", change: func(c *Cmd) { c.Env = []string{"A=b"} }, want: "b\n"},
		"directory":        {script: "pwd", change: func(c *Cmd) { c.Dir = "/usr" }, want: "/usr\n"},
		"descriptors":      {script: "cat /proc/self/fd/4", change: func(c *Cmd) { c.ExtraFiles = []*os.File{nil, extra} }, want: "extra"},
		"not ours to hold": {script: "ls /proc/self/fd", want: "0\n1\n2\n3\n"},
		"mounts":           {script: "mount -t tmpfs none /tmp && touch /tmp/x && ls /tmp", change: func(c *Cmd) { c.NewMount = true }, want: "x\n"},
		"no mounts":        {script: "mount -t tmpfs none /tmp 2>/dev/null || echo refused", want: "refused\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			c := o.Command("/bin/sh", "-c", tc.script)
			c.Stdout, c.Stderr = w, os.Stderr
			c.Survive = true // else it dies with this goroutine's thread
			if tc.change != nil {
				tc.change(c)
			}
			err = c.Start()
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			got, _ := io.ReadAll(r)
			ws, err := c.Wait()
			if err != nil || string(got) != tc.want || ws.ExitStatus() != tc.status {
				t.Errorf("got %q, status %d (%v); want %q, %d", got, ws.ExitStatus(), err, tc.want, tc.status)
			}
		})
	}
	missing := filepath.Join(dir, "missing")
	if _, err := o.Command(missing).Run(); err == nil || !strings.Contains(err.Error(), "run "+missing+": no such file") {
		t.Errorf("a missing program: %v", err)
	}
}

// A command that need not survive dies with its parent: the pipe that both
// write to comes to its end.
func TestCommandDiesWithItsParent(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(stage)
	cmd.Args = []string{"helper", t.TempDir()}
	cmd.Env = append(os.Environ(), helperEnv+"=start and end")
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	err = cmd.Run()
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(r); err != nil || string(b) != "started\n" {
		t.Errorf("got %q, %v", b, err)
	}
}

// In a pid namespace with its parent's /proc no keeper could be found.
func TestForeignProc(t *testing.T) {
	if !nstest.Enter(t, nstest.PID) {
		return
	}
	_, err := Open(testOptions(t.TempDir()))
	if _, ok := err.(*ForeignProcError); !ok {
		t.Errorf("got %v, want a *ForeignProcError", err)
	}
}
