package userns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A Child is a process that runs a Program. Its steps and the parent meet at
// two points, over a socket: Release, for which a Program waits with
// AwaitRelease, and Ready, which it tells with TellReady.
type Child struct {
	Pid  int
	prog *Program
	sock *os.File
}

// report is the register that holds a child's end of the socket.
const report Reg = 0

// AwaitRelease adds a step that waits for the parent's Release and fails with
// EPIPE if the parent dies first.
func (p *Program) AwaitRelease() {
	p.waits = true
	p.Call("wait for the parent", unix.SYS_READ, report, p.Bytes(make([]byte, 1)), 1).Min(1)
}

// TellReady adds a step that tells the parent; it fails with EPIPE if the
// parent is gone, so that it belongs after PR_SET_PDEATHSIG.
func (p *Program) TellReady() {
	p.Call("find the parent alive", unix.SYS_SENDTO, report, p.Bytes([]byte{1}), 1, unix.MSG_NOSIGNAL, 0, 0)
}

// Start clones with flags, into the cgroup directory open as cgroup unless it
// is -1, and runs p in the child. Descriptors that p places with Files are the
// child's; all others must be close-on-exec.
func Start(p *Program, flags uintptr, cgroup int) (*Child, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	p.parent = uintptr(pair[0])
	pid, err := p.startOn(pair[1], flags, cgroup)
	unix.Close(pair[1])
	if err != nil {
		unix.Close(pair[0])
		return nil, err
	}
	return &Child{Pid: pid, prog: p, sock: os.NewFile(uintptr(pair[0]), "child")}, nil
}

// startOn moves the child's end of the socket, and what Files asks for, above
// the numbers that Files fills, and clones.
func (p *Program) startOn(sock int, flags uintptr, cgroup int) (int, error) {
	high := make([]int, 0, len(p.files)+1)
	defer func() {
		for _, fd := range high {
			unix.Close(fd)
		}
	}()
	for i, fd := range append([]int{sock}, p.files...) {
		up, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, max(3, p.first+len(p.files)))
		if err != nil {
			return 0, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		high = append(high, up)
		if i == 0 {
			p.regs[report] = uintptr(up)
		} else {
			p.steps[p.filesAt+i-1].args[0] = uintptr(up)
		}
	}
	return p.start(flags, cgroup)
}

// Files adds steps that make fds the child's descriptors first, first+1 and so
// on, open across exec. A Program has one such place.
func (p *Program) Files(first int, fds []int) {
	p.files, p.first, p.filesAt = fds, first, len(p.steps)
	for i := range fds {
		p.Call("place a descriptor", unix.SYS_DUP3, 0, first+i, 0)
	}
}

// KeepReport adds a step that keeps the child's end of the socket as fd across
// exec: Started then waits until the program closes it.
func (p *Program) KeepReport(fd int) {
	p.Call("keep the socket", unix.SYS_DUP3, report, fd, 0)
}

// DefaultSignals adds steps that give every signal its default action and
// unblock all: Go programs inherit ignored signals, service managers ignore SIGPIPE.
func (p *Program) DefaultSignals() {
	action := p.Bytes(make([]byte, 32)) // struct sigaction of zeros: SIG_DFL
	none := p.Bytes(make([]byte, 8))
	for sig := 1; sig <= 64; sig++ {
		if sig != int(unix.SIGKILL) && sig != int(unix.SIGSTOP) {
			p.Call("reset signals", unix.SYS_RT_SIGACTION, sig, action, 0, 8)
		}
	}
	p.Call("unblock signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, none, 0, 8)
}

// Release lets the child go on from AwaitRelease.
func (c *Child) Release() error {
	_, err := unix.SendmsgN(int(c.sock.Fd()), []byte{1}, nil, nil, unix.MSG_NOSIGNAL)
	return err
}

// Ready waits until the child has come to TellReady. It returns a *StepError
// if a step failed before, io.EOF-like ErrDied if it ended without a word.
func (c *Child) Ready() error {
	ready, err := c.report()
	if err == nil && !ready {
		err = ErrDied
	}
	return err
}

// Started waits until the child has become its program. It returns a
// *StepError if a step failed.
func (c *Child) Started() error {
	for {
		ready, err := c.report()
		if err != nil || !ready {
			c.sock.Close()
			return err
		}
	}
}

// ErrDied says that a child ended before it was ready and gave no reason: it was killed.
var ErrDied = errors.New("killed before it was ready")

// report reads one message: ready, or a failure, or neither at the end.
func (c *Child) report() (ready bool, err error) {
	var b [8]byte
	n, err := eintr(func() (int, error) { return unix.Read(int(c.sock.Fd()), b[:]) })
	switch {
	case err == unix.ECONNRESET: // it died with our release unread
		return false, ErrDied
	case err != nil:
		return false, os.NewSyscallError("read", err)
	case n == 4:
		c.Wait()
		c.Pid = int(binary.NativeEndian.Uint32(b[:4]))
		return c.report()
	case n == len(b):
		step := int(int32(binary.NativeEndian.Uint32(b[:4])))
		return false, &StepError{c.prog.Name(step), unix.Errno(binary.NativeEndian.Uint32(b[4:]))}
	}
	return n == 1, nil
}

// Wait reaps the child.
func (c *Child) Wait() (unix.WaitStatus, error) {
	var ws unix.WaitStatus
	_, err := eintr(func() (int, error) { return unix.Wait4(c.Pid, &ws, 0, nil) })
	return ws, err
}

// Kill ends the child at once and reaps it.
func (c *Child) Kill() {
	unix.Kill(c.Pid, unix.SIGKILL)
	c.Wait()
	c.sock.Close()
}

// eintr calls f again for as long as a signal interrupts it.
func eintr(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}
