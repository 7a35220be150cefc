package cgroupv2

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FD is the open directory, for CLONE_INTO_CGROUP; -1 of no group.
func (g *Group) FD() int {
	if g == nil {
		return -1
	}
	return int(g.fd.Fd())
}

// Apply writes l. A container dies whole when it is out of memory: a program that
// has lost one of its processes seldom knows how to go on.
func (g *Group) Apply(l *Limits) error {
	err := write(filepath.Join(g.Dir, "memory.oom.group"), "1")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // no controller
		return err
	}
	return g.Limit(l)
}

// Limit writes l into the group, which may be in use. It returns a
// *NotDelegatedError, having written nothing, if a controller is missing.
func (g *Group) Limit(l *Limits) error {
	controllers, err := read(filepath.Join(g.Dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if missing := without(l.Controllers(), strings.Fields(controllers)); len(missing) > 0 {
		return &NotDelegatedError{Dir: g.Dir, Missing: missing}
	}
	for _, s := range l.Settings() {
		if err := s.write(g.Dir); err != nil {
			return err
		}
	}
	return nil
}

// write writes one file, or what this kernel has in its place. One that counts no
// swap has no memory.swap.max, and the memory is limited without.
func (s Setting) write(dir string) error {
	err := write(filepath.Join(dir, s.File), s.Value)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && s.Else != nil:
		if err = s.Else.write(dir); errors.As(err, new(*NoFileError)) {
			return &NoFileError{Files: s.File + " nor " + s.Else.File}
		}
	case missing && s.File == "memory.swap.max":
		return nil
	case missing:
		return &NoFileError{Files: s.File}
	}
	return err
}

// A NoFileError tells that this kernel has no such file, though the controller.
type NoFileError struct{ Files string }

func (e *NoFileError) Error() string { return "this kernel's cgroups have no " + e.Files }

// Hint is what brings files of a scheduler's.
func (e *NoFileError) Hint() string {
	if strings.HasPrefix(e.Files, "io.bfq") {
		return "as root: modprobe bfq, and choose it: echo bfq >/sys/block/DISK/queue/scheduler"
	}
	return "Linux's Documentation/admin-guide/cgroup-v2.rst tells them, and since when there are some"
}

// Kill ends all processes of the group at once, however fast they multiply.
func (g *Group) Kill() error {
	err := write(filepath.Join(g.Dir, "cgroup.kill"), "1")
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Before Linux 5.14: what is frozen cannot fork, and can be killed.
	write(filepath.Join(g.Dir, "cgroup.freeze"), "1")
	pids, err := read(filepath.Join(g.Dir, "cgroup.procs"))
	for word := range strings.FieldsSeq(pids) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 0 {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	write(filepath.Join(g.Dir, "cgroup.freeze"), "0")
	return err
}

// Freeze stops all processes of the group, or lets them go on, and returns once
// that is so.
func (g *Group) Freeze(on bool) error {
	state := "0"
	if on {
		state = "1"
	}
	if err := write(filepath.Join(g.Dir, "cgroup.freeze"), state); err != nil {
		return err
	}
	return g.await("frozen", state)
}

// patience bounds how long the kernel may take for what it does at once, unless
// a process hangs in it.
const patience = 10 * time.Second

// await waits until cgroup.events says that key has the value.
func (g *Group) await(key, value string) error {
	name := filepath.Join(g.Dir, "cgroup.events")
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 256)
	for deadline := time.Now().Add(patience); ; {
		n, err := unix.Pread(fd, b, 0)
		if err != nil {
			return &os.PathError{Op: "read", Path: name, Err: err}
		}
		if flat(string(b[:n]))[key] == value {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return &os.PathError{Op: "wait for " + key + " " + value + " in", Path: name, Err: unix.ETIMEDOUT}
		}
		// POLLPRI tells that the file has changed since it was read.
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, int(left.Milliseconds())+1)
	}
}

// Remove kills what is left in the group and removes it.
func (g *Group) Remove() error {
	if err := g.Kill(); err == nil {
		g.await("populated", "0")
	}
	g.fd.Close()
	return removeTree(g.Dir)
}

// removeTree removes a cgroup and those that its processes made in it.
func removeTree(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeTree(filepath.Join(dir, e.Name()))
		}
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// Renew makes the group anew, empty and with its counters at zero.
func (g *Group) Renew() error {
	if err := g.Remove(); err != nil {
		return err
	}
	fresh, err := create(g.Dir)
	if err == nil {
		g.fd = fresh.fd
	}
	return err
}

// flat reads a file of lines that have a key and a value.
func flat(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			m[key] = value
		}
	}
	return m
}
