package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rbox/idmap"
)

// Cmd is a process that runs as root of the outer user namespace: outside of
// every container, with power over each. Its fields are os/exec.Cmd's.
type Cmd struct {
	Path       string
	Args       []string // with the program's own name
	Env        []string
	Dir        string
	Stdin      *os.File // nil: /dev/null
	Stdout     *os.File
	Stderr     *os.File
	ExtraFiles []*os.File // descriptors 3 and on

	// NewMount gives it a mount namespace of its own, which still sees what
	// the host mounts and unmounts later.
	NewMount bool
	// Locked makes Path read-only for it and all that it starts, with NewMount:
	// who gets hold of its /proc/PID/exe cannot write to the file.
	Locked bool
	// Survive lets it outlive this process; else it is killed with it.
	Survive bool

	outer *Outer
	child *Child
}

// Command prepares path with args to run as root of o.
func (o *Outer) Command(path string, args ...string) *Cmd {
	return &Cmd{Path: path, Args: append([]string{path}, args...), Env: os.Environ(), outer: o}
}

// Start starts c. The calling goroutine should be locked to the main thread
// unless c survives: the kernel kills it when the thread ends.
func (c *Cmd) Start() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	fds := []int{}
	for _, f := range append([]*os.File{c.Stdin, c.Stdout, c.Stderr}, c.ExtraFiles...) {
		if f == nil {
			f = null
		}
		fds = append(fds, int(f.Fd()))
	}
	RestoreNoFile()
	c.child, err = Start(c.program(fds), 0, -1)
	if err == nil {
		err = c.child.Started()
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", c.Path, explainStep(err))
	}
	return nil
}

// explainStep finds out why the first use of a namespace was refused: some
// security modules let it be made and no more.
func explainStep(err error) error {
	var step *StepError
	if errors.As(err, &step) && step.Step == unshareMount {
		return idmap.ExplainUserNS(err)
	}
	return err
}

const unshareMount = "unshare the mount namespace"

func (c *Cmd) program(fds []int) *Program {
	p := NewProgram()
	p.Call("join the outer user namespace", unix.SYS_SETNS, int(c.outer.ns.Fd()), unix.CLONE_NEWUSER)
	if c.NewMount {
		p.Call(unshareMount, unix.SYS_UNSHARE, unix.CLONE_NEWNS)
		p.Call("make mounts slaves", unix.SYS_MOUNT, 0, p.Str("/"), 0, unix.MS_REC|unix.MS_SLAVE, 0)
	}
	if c.Locked {
		c.lock(p)
	}
	if !c.Survive {
		p.Call("prctl", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
		p.TellReady()
	}
	if c.Dir != "" {
		p.Call("chdir "+c.Dir, unix.SYS_CHDIR, p.Str(c.Dir))
	}
	p.Files(0, fds)
	p.DefaultSignals()
	p.Call("run "+c.Path, unix.SYS_EXECVE, p.Str(c.Path), p.Strs(c.Args), p.Strs(c.Env))
	return p
}

// lock mounts the executable on itself, read-only. One that is in memory is
// sealed.
func (c *Cmd) lock(p *Program) {
	var st unix.Statfs_t
	if strings.HasPrefix(c.Path, "/proc/self/fd/") || unix.Statfs(c.Path, &st) != nil {
		return
	}
	path := p.Str(c.Path)
	p.Call("bind "+c.Path, unix.SYS_MOUNT, path, path, 0, unix.MS_BIND, 0)
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	p.Call("make "+c.Path+" read-only", unix.SYS_MOUNT_SETATTR, atFDCWD, path, 0, Ref(p, attr), unix.MOUNT_ATTR_SIZE_VER0).Else(func() { // before Linux 5.12
		const same = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
		p.Call("make "+c.Path+" read-only", unix.SYS_MOUNT, 0, path, 0, int(st.Flags&same)|unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, 0)
	})
}

// atFDCWD is AT_FDCWD as a system call's argument.
const atFDCWD = ^uintptr(-unix.AT_FDCWD - 1)

// Pid of the started process.
func (c *Cmd) Pid() int { return c.child.Pid }

// Kill sends SIGKILL; Wait must still be called.
func (c *Cmd) Kill() error { return unix.Kill(c.child.Pid, unix.SIGKILL) }

// Wait reaps the process. The status is its own: an exit status that is not 0
// is no error.
func (c *Cmd) Wait() (unix.WaitStatus, error) { return c.child.Wait() }

// Run starts c and waits.
func (c *Cmd) Run() (unix.WaitStatus, error) {
	if err := c.Start(); err != nil {
		return 0, err
	}
	return c.Wait()
}

// RestoreNoFile gives RLIMIT_NOFILE back the soft limit this process was
// started with, for what it starts: package os has raised it to the hard one.
// The original is in syscall's hands alone, which restores it before an exec,
// even one that fails.
func RestoreNoFile() { syscall.Exec("", nil, nil) }
