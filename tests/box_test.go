package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rbox/tests/account"
)

// callLimit is how long a command may take before the test gives it up, unless it says otherwise.
const callLimit = 60 * time.Second

// box is an rbox with a home, data and run-time folder of its own. When its
// test ends, no process, mount or temporary file of it may be left.
type box struct {
	t   testing.TB
	dir string // holds all below
	who account.Account
	env []string

	root, runtime, home string // $RBOX_ROOT, $RBOX_RUNTIME and $HOME

	noImage bool
	keeps   bool
}

type boxOption func(*box)

// as runs rbox as another account than account.Plain.
func as(a account.Account) boxOption { return func(b *box) { b.who = a } }

// withEnv adds NAME=value to the environment of rbox.
func withEnv(env ...string) boxOption { return func(b *box) { b.env = append(b.env, env...) } }

// keeps says that the test makes containers that stay until it ends: all are
// removed then.
func keeps(b *box) { b.keeps = true }

// noImage leaves the box without its image alpine.
func noImage(b *box) { b.noImage = true }

var boxes atomic.Int32

// newBox returns a box with the image "alpine" in it.
func newBox(t testing.TB, options ...boxOption) *box {
	t.Helper()
	b := &box{t: t, who: run.plain}
	for _, o := range options {
		o(b)
	}
	desk, err := account.NewDesk(filepath.Join(run.dir, fmt.Sprint(boxes.Add(1))), b.who)
	if err != nil {
		t.Fatal(err)
	}
	b.dir, b.home, b.root, b.runtime = desk.Dir, desk.Home, desk.Root, desk.Run
	b.env = append(desk.Env, b.env...)
	t.Cleanup(b.close)
	if b.keeps {
		t.Cleanup(b.clear)
	}
	if !b.noImage {
		b.must("import", run.alpine, "alpine")
	}
	return b
}

// close fails the test for what it left behind, and deletes the box.
func (b *box) close() {
	for _, what := range leftovers(b.dir, 15*time.Second) {
		b.t.Errorf("left behind: %s", what)
	}
	for _, f := range b.debris() {
		b.t.Errorf("left behind: %s", f)
	}
	if os.Geteuid() != 0 {
		// The caller cannot delete what belongs to its subordinate ids.
		exec.Command(run.bin, "unshare", "rm", "-rf", b.root).Run()
		leftovers(b.dir, 15*time.Second)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		b.t.Errorf("delete the box: %v", err)
	}
}

// debris names files that no command would ever use again: half made or half
// removed containers, sockets of monitors that are gone, names of nothing.
func (b *box) debris() (found []string) {
	for _, pattern := range []string{
		"blobs/partial/*", "tmp/*", "containers/*/passing/*",
		"containers/*/kept/.*-*", "containers/*/kept/*/*.json.*", "containers/*/kept/*/control",
	} {
		files, _ := filepath.Glob(filepath.Join(b.root, pattern))
		for _, f := range files {
			if !young(f) {
				found = append(found, f)
			}
		}
	}
	folders, _ := filepath.Glob(b.root + "/containers/*/mnt/../kept/*") // no test's make-believe host has mnt
	for _, f := range folders {
		if text, err := os.ReadFile(filepath.Join(f, "config.json")); err != nil || !json.Valid(text) {
			found = append(found, f+" without a whole config.json")
		}
	}
	names, _ := filepath.Glob(filepath.Join(b.root, "containers/*/names/*"))
	for _, name := range names {
		id, err := os.Readlink(name)
		if err == nil {
			_, err = os.Lstat(filepath.Join(filepath.Dir(name), "../kept", id))
		}
		if err != nil {
			found = append(found, name+" of a container that is gone")
		}
	}
	return found
}

// young tells whether the folder of a container, not locked yet or no more, is so
// new that no other rbox would take its maker, or its remover, for dead.
func young(folder string) bool {
	st, err := os.Stat(folder)
	_, locked := os.Lstat(filepath.Join(folder, "config.json"))
	name := filepath.Base(folder)
	return err == nil && locked != nil && (strings.HasPrefix(name, ".new-") || strings.HasPrefix(name, ".old-")) && time.Since(st.ModTime()) < time.Minute
}

// clear removes all containers of the box, whatever they do.
func (b *box) clear() {
	b.t.Helper()
	for range 10 { // rm looks at those there are, and more may be on their way
		ids := strings.Fields(b.must("ps", "-aq", "--no-trunc"))
		if len(ids) == 0 {
			return
		}
		b.must(append([]string{"rm", "-f"}, ids...)...)
	}
	b.t.Errorf("rm -f leaves %s", b.must("ps", "-a"))
}

// file writes a file of the box's account below its home and returns its path.
func (b *box) file(name, text string, mode os.FileMode) string {
	b.t.Helper()
	path := filepath.Join(b.home, name)
	b.own(filepath.Dir(path))
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(path, mode), os.Lchown(path, int(b.who.UID), int(b.who.GID))); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// own makes dir, below the box's folder, with its parents, for the box's account.
func (b *box) own(dir string) string {
	b.t.Helper()
	if dir == b.dir {
		return dir
	}
	b.own(filepath.Dir(dir))
	if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
		return dir
	} else if err != nil {
		b.t.Fatal(err)
	}
	if err := os.Lchown(dir, int(b.who.UID), int(b.who.GID)); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// call is one run of a program, rbox unless prog says another.
type call struct {
	args  []string
	prog  string
	stdin io.Reader // nil: /dev/null
	env   []string  // added to the box's
	dir   string    // the box's home if ""
	files []*os.File
	tty   *terminal // stdin, stdout and stderr
	limit time.Duration
	attr  syscall.SysProcAttr
}

// result is how a call ended. status is as a shell tells it: 128+n for signal n.
type result struct {
	stdout, stderr string
	status         int
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("status %d after %v\nstdout: %q\nstderr: %s", r.status, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

// rbox runs rbox to its end.
func (b *box) rbox(args ...string) result {
	b.t.Helper()
	return b.do(call{args: args})
}

// must is rbox for what has to succeed. It returns stdout without the last newline.
func (b *box) must(args ...string) string {
	b.t.Helper()
	got := b.rbox(args...)
	if got.status != 0 {
		b.t.Fatalf("rbox %s: %v", strings.Join(args, " "), got)
	}
	return strings.TrimSuffix(got.stdout, "\n")
}

// sh runs a shell script in a new container of alpine.
func (b *box) sh(script string, flags ...string) result {
	b.t.Helper()
	return b.rbox(slices.Concat([]string{"run", "--rm"}, flags, []string{"alpine", "sh", "-c", script})...)
}

// do runs c to its end.
func (b *box) do(c call) result {
	b.t.Helper()
	return b.start(c).wait()
}

// process is a call under way.
type process struct {
	b      *box
	cmd    *exec.Cmd
	name   string
	begun  time.Time
	limit  *time.Timer
	hungUp atomic.Bool

	stdout, stderr *capture
	done           func() result
}

// start starts c. What is not waited for when the test ends is killed.
func (b *box) start(c call) *process {
	b.t.Helper()
	if c.prog == "" {
		c.prog = run.bin
	}
	if c.dir == "" {
		c.dir = b.home
	}
	if c.limit == 0 {
		c.limit = callLimit
	}
	cmd := exec.Command(c.prog, c.args...)
	cmd.Env, cmd.Dir, cmd.ExtraFiles = append(slices.Clone(b.env), c.env...), c.dir, c.files
	cmd.SysProcAttr = b.who.Become(&c.attr)
	p := &process{b: b, cmd: cmd, name: filepath.Base(c.prog) + " " + strings.Join(c.args, " ")}
	var ends []io.Closer
	if c.tty != nil {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = c.tty.slave, c.tty.slave, c.tty.slave
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		p.stdout, p.stderr = c.tty.out, new(capture)
	} else {
		if !cmd.SysProcAttr.Setsid {
			cmd.SysProcAttr.Setpgid = true
		}
		cmd.Stdin = c.stdin
		p.stdout, p.stderr = new(capture), new(capture)
		for _, s := range []struct {
			to   *capture
			from *io.Writer
		}{{p.stdout, &cmd.Stdout}, {p.stderr, &cmd.Stderr}} {
			w := b.pipe(s.to)
			*s.from = w
			ends = append(ends, w)
		}
	}
	p.begun = time.Now()
	if err := cmd.Start(); err != nil {
		b.t.Fatalf("%s: %v", p.name, err)
	}
	for _, w := range ends {
		w.Close()
	}
	p.limit = time.AfterFunc(c.limit*run.patience, func() {
		p.hungUp.Store(true)
		syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)
	})
	p.done = sync.OnceValue(p.finish)
	b.t.Cleanup(func() {
		cmd.Process.Kill()
		p.done()
	})
	return p
}

// pipe returns the writing end of a pipe that belongs to the box's account, as
// its shell's would, and copies what comes out of it.
func (b *box) pipe(to *capture) *os.File {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := w.Chown(int(b.who.UID), int(b.who.GID)); err != nil {
		b.t.Fatal(err)
	}
	to.ended = make(chan struct{})
	go func() {
		defer close(to.ended)
		defer r.Close()
		io.Copy(to, r)
	}()
	return w
}

// finish waits for the end of p and of all that hold its output.
func (p *process) finish() result {
	p.cmd.Wait()
	p.limit.Stop()
	r := result{took: time.Since(p.begun), status: p.cmd.ProcessState.ExitCode()}
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		r.status = 128 + int(ws.Signal())
	}
	for _, c := range []*capture{p.stdout, p.stderr} {
		if c.ended == nil {
			continue
		}
		select {
		case <-c.ended:
		case <-time.After(10 * time.Second * run.patience):
			p.b.t.Errorf("%s: ended, but something still holds its output", p.name)
		}
	}
	r.stdout, r.stderr = p.stdout.String(), p.stderr.String()
	return r
}

// wait waits for the end of p.
func (p *process) wait() result {
	p.b.t.Helper()
	r := p.done()
	if p.hungUp.Load() {
		p.b.t.Fatalf("%s: no end in sight: %v", p.name, r)
	}
	return r
}

func (p *process) signal(s syscall.Signal) {
	p.b.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.b.t.Fatalf("%s: signal %v: %v", p.name, s, err)
	}
}

// see waits until p's stdout has text in it.
func (p *process) see(text string) {
	p.b.t.Helper()
	if !p.stdout.waitFor(text, 20*time.Second) {
		p.cmd.Process.Kill()
		p.b.t.Fatalf("%s: does not print %q\nstdout: %q\nstderr: %s", p.name, text, p.stdout.String(), p.stderr.String())
	}
}

// capture is a buffer that one goroutine fills while others read.
type capture struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	ended chan struct{} // nil: is not waited for
}

func (c *capture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(p)
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}

func (c *capture) waitFor(text string, limit time.Duration) bool {
	return eventually(limit, func() bool { return strings.Contains(c.String(), text) })
}

// eventually reports whether ok becomes true within limit, or longer on a slow machine.
func eventually(limit time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(limit * run.patience); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
