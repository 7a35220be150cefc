package cgroupv2

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// root is where hosts of version 2 mount it.
const root = "/sys/fs/cgroup"

// The managers that can give a container its cgroup, best first.
const (
	Systemd  = "systemd"  // a scope of the user's systemd
	Cgroupfs = "cgroupfs" // a folder that we make ourselves
	Disabled = "disabled" // none
)

// A Request asks for a cgroup of a container's own.
type Request struct {
	Manager string   // one of the above; "": the first that works
	Parent  string   // the slice that the scope goes to, or the cgroup that ours is made in; "": where we are
	ID      string   // of the container
	Needs   []string // controllers that its limits need
	Pids    []int    // this process, and others that go into the scope with it, as the host counts
	UID     int      // of the user, likewise
	Runtime string   // the user's run-time directory
	Grace   int      // seconds to end in when systemd stops the scope; -1: for ever
}

// A Group is the cgroup of one container.
type Group struct {
	Manager string
	Dir     string
	fd      *os.File // open, and locked for as long as the group is in use
}

// Make makes a cgroup by the first rung that works. Of a host without any the
// error is an *UnavailableError, of one that lacks a controller that r needs a
// *NotDelegatedError.
func Make(r Request) (*Group, error) {
	if !Available() {
		return nil, &UnavailableError{Mode: hostMode(), Needs: r.Needs, UID: r.UID}
	}
	var why []error
	for _, rung := range []struct {
		name string
		make func(Request) (*Group, error)
	}{{Systemd, makeScope}, {Cgroupfs, makeFolder}} {
		if r.Manager != "" && r.Manager != rung.name {
			continue
		}
		if rung.name == Systemd && r.Manager == "" && (r.Parent != "" && !isSlice(r.Parent) || r.optional() && inJob()) {
			continue
		}
		g, err := rung.make(r)
		if err == nil {
			g.Manager = rung.name
			return g, nil
		}
		if errors.As(err, new(*NotDelegatedError)) || errors.As(err, new(*NoParentError)) {
			return nil, err
		}
		why = append(why, err)
	}
	return nil, &UnavailableError{Mode: Unified, Needs: r.Needs, UID: r.UID, Why: why}
}

// optional tells whether the container can do without a cgroup.
func (r *Request) optional() bool { return r.Manager == "" && r.Parent == "" && len(r.Needs) == 0 }

// inJob tells whether we run in a cgroup that is neither a login's nor a unit's
// of the user's systemd: a batch job's, for instance, which is to keep and to
// count all that is started in it.
func inJob() bool {
	own, err := ownPath()
	return err == nil && outside(own)
}

// outside tells whether path is not in the slice in which systemd puts users.
func outside(path string) bool { return !strings.HasPrefix(path, "/user.slice/") }

// Available tells whether Make has anything to try, by one system call: hosts
// without are not to wait for what they do not have.
func Available() bool {
	var st unix.Statfs_t
	return unix.Statfs(root, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// hostMode is the mode of a host where nothing is Available.
func hostMode() Mode {
	r, err := Detect()
	if err != nil {
		return None
	}
	return r.Mode
}

// makeScope has systemd make a scope with us in it. Its processes must be in
// leaves (cgroups(7), "no internal processes"): we go to one, the container to
// another.
func makeScope(r Request) (*Group, error) {
	if r.Parent != "" && !isSlice(r.Parent) {
		return nil, fmt.Errorf("--cgroup-parent %s: the user's systemd knows slices, as work.slice", r.Parent)
	}
	unit := fmt.Sprintf("rbox-%.12s-%d.scope", r.ID, r.Pids[0])
	own, err := ownPath()
	if err != nil {
		return nil, err
	}
	path := within(own, unit)
	if path == "" { // else it was asked for before, with what cannot be had
		if path, err = startScope(r, unit); err != nil {
			return nil, err
		}
	}
	scope := filepath.Join(root, path)
	if err := leave(filepath.Join(scope, "monitor"), r.Pids[1:]); err != nil {
		return nil, err
	}
	if err := handOn(scope, r.Needs); err != nil {
		return nil, err
	}
	return create(filepath.Join(scope, "container"))
}

// within is the path of that cgroup called name that path is, or lies in; "" if
// there is none.
func within(path, name string) string {
	before, _, found := strings.Cut(path+"/", "/"+name+"/")
	if !found {
		return ""
	}
	return before + "/" + name
}

// isSlice tells whether name is that of a systemd's slice (systemd.slice(5)).
func isSlice(name string) bool { return strings.HasSuffix(name, ".slice") }

// prefix begins the names of the folders that rbox makes.
const prefix = "rbox-"

// callers is the leaf that processes are moved to which would keep controllers
// from the containers beside them.
const callers = "rbox.callers"

// makeFolder makes a folder in our own cgroup, or in the one that r names.
func makeFolder(r Request) (*Group, error) {
	parent, err := parentFolder(r.Parent)
	if err != nil {
		return nil, err
	}
	sweep(parent)
	if inhabited(parent) && r.Parent == "" && len(r.Needs) > 0 && !handsOn(parent, r.Needs) {
		if err := vacate(parent); err != nil {
			return nil, err
		}
	}
	if err := handOn(parent, r.Needs); err != nil {
		return nil, err
	}
	return create(filepath.Join(parent, prefix+r.ID))
}

func parentFolder(asked string) (string, error) {
	if asked != "" {
		dir := filepath.Join(root, filepath.Join("/", asked))
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return "", &NoParentError{Parent: asked, Dir: dir}
		}
		return dir, nil
	}
	own, err := ownPath()
	if err != nil {
		return "", err
	}
	if filepath.Base(own) == callers {
		own = filepath.Dir(own)
	}
	dir := filepath.Join(root, own)
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS); err != nil {
		return "", &os.PathError{Op: "make a cgroup in", Path: dir, Err: err}
	}
	return dir, nil
}

// handOn hands the controllers of dir to the cgroups in it: all there are, so
// that they can be watched, but only those needed must be had.
func handOn(dir string, needs []string) error {
	text, err := read(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	have := strings.Fields(text)
	if missing := without(needs, have); len(missing) > 0 {
		return &NotDelegatedError{Dir: dir, Missing: missing}
	}
	if len(needs) == 0 && inhabited(dir) {
		// Those that do not mind would make it the root of a threaded subtree,
		// in which no cgroup can have processes.
		return nil
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	on, err := read(control)
	if err != nil {
		return err
	}
	off := without(have, strings.Fields(on))
	if len(off) == 0 || write(control, "+"+strings.Join(off, " +")) == nil {
		return nil
	}
	if off = without(needs, strings.Fields(on)); len(off) == 0 {
		return nil
	}
	return write(control, "+"+strings.Join(off, " +"))
}

// handsOn tells whether dir hands on all that is needed.
func handsOn(dir string, needs []string) bool {
	on, _ := read(filepath.Join(dir, "cgroup.subtree_control"))
	return len(without(needs, strings.Fields(on))) == 0
}

// inhabited tells whether dir has processes of its own.
func inhabited(dir string) bool {
	procs, _ := read(filepath.Join(dir, "cgroup.procs"))
	return len(procs) > 0
}

// without are those of list that are not in other.
func without(list, other []string) (rest []string) {
	for _, s := range list {
		if !slices.Contains(other, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

// leave moves this process and others to the new cgroup dir.
func leave(dir string, others []int) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	pids := []string{"0"}
	for _, pid := range others {
		pids = append(pids, strconv.Itoa(pid))
	}
	return move(dir, pids)
}

// vacate moves all processes of dir, the caller's shell among them, to a leaf of
// it: cgroups that hand controllers on have no processes of their own.
func vacate(dir string) error {
	leaf := filepath.Join(dir, callers)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	procs, err := read(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return err
	}
	return move(leaf, strings.Fields(procs))
}

// move moves processes to the cgroup dir, those that have not ended.
func move(dir string, pids []string) error {
	for _, pid := range pids {
		if err := write(filepath.Join(dir, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// create makes the cgroup dir. Its lock tells that it is in use while it is empty:
// until we have that, others may sweep it away.
func create(dir string) (*Group, error) {
	for {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			if err = flock(f, unix.LOCK_SH); err == nil && isAt(f, dir) {
				return &Group{Dir: dir, fd: f}, nil
			}
			f.Close()
		}
		if err != nil {
			os.Remove(dir)
			return nil, err
		}
	}
}

// flock is flock(2), which signals interrupt.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}

// isAt tells whether the directory f is still there at dir.
func isAt(f *os.File, dir string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(dir)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// sweep removes what killed monitors left in dir. (What systemd made, it removes.)
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if f, err := os.Open(name); err == nil {
			if flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil && isAt(f, name) {
				os.Remove(name) // fails if there are processes
			}
			f.Close()
		}
	}
}

// read reads a file of the kernel's. os.ReadFile would make three times as many
// system calls of it, and a look at many containers is made of these.
func read(file string) (string, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 4096)
	for {
		if len(text) == cap(text) {
			text = slices.Grow(text, len(text))
		}
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if err != nil {
			return "", &os.PathError{Op: "read", Path: file, Err: err}
		}
		if n == 0 {
			return string(text), nil
		}
		text = text[:len(text)+n]
	}
}

// write writes text to a file of the kernel's, in one call.
func write(file, text string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &os.PathError{Op: "write " + strconv.Quote(text) + " to", Path: file, Err: err}
	}
	return nil
}

// An UnavailableError tells that this host gives us no cgroup.
type UnavailableError struct {
	Mode  Mode
	Needs []string // what it was wanted for
	UID   int      // of the user
	Why   []error  // of each rung
}

func (e *UnavailableError) Error() string {
	text := "no cgroup to be had"
	if len(e.Needs) > 0 {
		text = "cannot limit " + strings.Join(e.Needs, ", ") + ": " + text
	}
	switch e.Mode {
	case Hybrid, Legacy:
		return text + ": this host has the controllers in version 1 (" + string(e.Mode) + "), which users cannot have"
	case None:
		return text + ": this host shows no cgroups"
	}
	for _, why := range e.Why {
		text += ": " + why.Error()
	}
	return text
}

// Hint is what gives users cgroups.
func (e *UnavailableError) Hint() string {
	switch e.Mode {
	case Hybrid, Legacy:
		return "as root: add systemd.unified_cgroup_hierarchy=1 to the kernel's command line, and reboot"
	case None:
		return "mount cgroup2 on " + root
	}
	return "log in anew, so that a systemd of yours runs, or as root: loginctl enable-linger " + strconv.Itoa(e.UID)
}

// A NoParentError tells that the cgroup is gone in which one was asked for.
type NoParentError struct {
	Parent string // as it was asked for
	Dir    string
}

func (e *NoParentError) Error() string {
	return fmt.Sprintf("--cgroup-parent %s: there is no such cgroup", e.Parent)
}

// Hint is how to make it.
func (e *NoParentError) Hint() string { return "mkdir " + e.Dir }

// A NotDelegatedError tells which controllers a cgroup of ours lacks.
type NotDelegatedError struct {
	Dir     string
	Missing []string
}

func (e *NotDelegatedError) Error() string {
	return fmt.Sprintf("the controller %s is not delegated to %s", strings.Join(e.Missing, ", "), e.Dir)
}

// Hint is what an administrator does, once.
func (e *NotDelegatedError) Hint() string {
	return "as root: mkdir -p /etc/systemd/system/user@.service.d && " +
		`printf '[Service]\nDelegate=cpu cpuset io memory pids\n' >/etc/systemd/system/user@.service.d/delegate.conf && ` +
		"systemctl daemon-reload; then log in anew"
}
