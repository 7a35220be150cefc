package userns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Child is a process that runs a Program. Its steps and the parent meet at
// two points, over a socket: Release, for which a Program waits with
// AwaitRelease, and Ready, which it tells with TellReady.
type Child struct {
	Pid   int
	Notes []byte // what it told with Note steps
	prog  *Program
	sock  *os.File
	ready bool // it has told so
}

// toParent is the register that holds a child's end of the socket.
const toParent Reg = 0

// AwaitRelease adds a step that waits for the parent's Release and fails with
// EPIPE if the parent dies first.
func (p *Program) AwaitRelease() {
	p.waits, p.forksFirst = true, p.forks
	p.Call("wait for the parent", unix.SYS_READ, toParent, p.Bytes(make([]byte, 1)), 1).Min(1)
}

// TellReady adds a step that tells the parent; it fails with EPIPE if the
// parent is gone, so that it belongs after PR_SET_PDEATHSIG.
func (p *Program) TellReady() {
	p.tells = true
	p.Call("find the parent alive", unix.SYS_SENDTO, toParent, p.Bytes([]byte{1}), 1, unix.MSG_NOSIGNAL, 0, 0)
}

// OwnMemory makes the child a copy of its parent, where it would else borrow the
// parent's memory. It needs one of its own to enter another time namespace by
// its exec: Linux 6.1 refuses the clone with EINVAL otherwise.
func (p *Program) OwnMemory() { p.ownMemory = true }

// Start clones with flags, into the cgroup directory open as cgroup unless it
// is -1, and runs p in the child. Descriptors that p places with Files are the
// child's; all others must be close-on-exec.
func Start(p *Program, flags uintptr, cgroup int) (*Child, error) {
	c, far, err := p.child()
	if err != nil {
		return nil, err
	}
	c.Pid, err = p.startOn(far, flags, cgroup, haveVfork && flags == 0 && !p.waits && !p.ownMemory)
	unix.Close(far)
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// StartPrepared is Start for a p that awaits release, each time once the next of
// prepare, called with the child's pid, has returned. It returns when the
// child has become its program, or a *StepError. The child is not copied where
// that can be avoided: it borrows our memory, and the calling thread, until then.
func StartPrepared(p *Program, flags uintptr, cgroup int, prepare ...func(pid int) error) (*Child, error) {
	c, far, err := p.child()
	if err != nil {
		return nil, err
	}
	vforked := haveVfork && flags != 0 && !p.ownMemory
	released := make(chan error, 1)
	if vforked {
		go func() { released <- c.release(prepare) }()
	}
	pid, err := p.startOn(far, flags, cgroup, vforked)
	unix.Close(far)
	if err != nil {
		c.close()
		return nil, err
	}
	if !vforked {
		c.Pid = pid
		released <- c.release(prepare)
	}
	err = <-released
	if c.Pid == 0 {
		c.Pid = pid
	}
	if err == nil {
		err = c.Started()
	}
	if err != nil {
		c.Kill()
		return nil, err
	}
	return c, nil
}

// release waits for the pid, if it is not known yet, prepares the child and
// lets it go on, as often as it waits. A child that cannot be prepared is killed.
func (c *Child) release(prepare []func(pid int) error) error {
	if c.Pid == 0 || c.prog.forksFirst {
		r, err := c.next()
		if err != nil {
			return err
		}
		if r.pid == 0 {
			return ErrDied
		}
	}
	for i, f := range prepare {
		err := f(c.Pid)
		if err == nil {
			err = c.Release()
			if err == unix.EPIPE && i > 0 { // a step has failed meanwhile, which Started tells
				return nil
			}
		}
		if err != nil {
			unix.Kill(c.Pid, unix.SIGKILL)
			return err
		}
	}
	return nil
}

// child makes the socket between p's child, whose end is far, and us.
func (p *Program) child() (c *Child, far int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	p.parent = uintptr(pair[0])
	return &Child{prog: p, sock: os.NewFile(uintptr(pair[0]), "child")}, pair[1], nil
}

// startOn moves the child's end of the socket, and what Files asks for, above
// the numbers that Files fills, and clones.
func (p *Program) startOn(sock int, flags uintptr, cgroup int, vforked bool) (int, error) {
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
			p.regs[toParent] = uintptr(up)
		} else {
			p.steps[p.filesAt+i-1].args[0] = uintptr(up)
		}
	}
	return p.start(flags, cgroup, vforked)
}

// Files adds steps that make fds the child's descriptors first, first+1 and so
// on, open across exec. A Program has one such place.
func (p *Program) Files(first int, fds []int) {
	p.files, p.first, p.filesAt = fds, first, len(p.steps)
	for i := range fds {
		p.Call("place a descriptor", unix.SYS_DUP3, 0, first+i, 0)
	}
}

// CloseOthers adds steps that close all descriptors above last, but for the
// child's end of the socket, which becomes the next number. After it no path
// through /proc/self/fd leads to what the parent has open.
func (p *Program) CloseOthers(last int) {
	sock := last + 1
	// It may have that number already.
	p.Call("keep the socket", unix.SYS_DUP3, toParent, sock, unix.O_CLOEXEC).Save(toParent).Pass(unix.EINVAL)
	const none = 1 << 30 // no descriptor can have this number
	if unix.CloseRange(none, none, 0) == nil {
		p.Call("close other descriptors", unix.SYS_CLOSE_RANGE, sock+1, ^uintptr(0)>>32, 0)
		return
	}
	for fd := sock + 1; fd < highestFile()+spareFiles; fd++ { // before Linux 5.9
		p.Call("close other descriptors", unix.SYS_CLOSE, fd).Ignore()
	}
}

// spareFiles is more than the descriptors that are opened between the making
// of a Program and its start.
const spareFiles = 64

// highestFile is the largest number of a descriptor that is open.
func highestFile() (highest int) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			highest = max(highest, n)
		}
	}
	return highest
}

// KeepReport adds a step that keeps the child's end of the socket open across
// exec: Started then waits until the program closes it.
func (p *Program) KeepReport() {
	p.Call("keep the socket", unix.SYS_FCNTL, toParent, unix.F_SETFD, 0)
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

// ErrDied says that a child ended before it was ready and gave no reason: it was killed.
var ErrDied = errors.New("killed before it was ready")

// Started waits until the child has become its program. It returns a
// *StepError if a step failed, ErrDied if it never came to TellReady.
func (c *Child) Started() error {
	defer c.close()
	var failed *StepError
	for {
		r, err := c.next()
		// What a Fork step goes on as may fail before its pid is told.
		if err != nil && !errors.As(err, &failed) {
			return err
		}
		if r.end {
			break
		}
	}
	if failed != nil {
		return failed
	}
	if b := c.prog.shared; len(b) > 0 {
		if f := *(*failure)(unsafe.Pointer(&b[0])); f.errno != 0 {
			return c.stepError(f)
		}
	}
	if c.prog.tells && !c.ready {
		return ErrDied
	}
	return nil
}

// Ready waits until the child has come to TellReady.
func (c *Child) Ready() error {
	for !c.ready {
		r, err := c.next()
		if err != nil {
			return err
		}
		if r.end {
			return ErrDied
		}
	}
	return nil
}

// A report is one message of a child, or the end of them.
type report struct {
	pid int
	end bool
}

// next reads a message and takes note of it. A failed step is a *StepError.
func (c *Child) next() (r report, err error) {
	var b [8]byte
	read := func() (int, error) { return unix.Read(int(c.sock.Fd()), b[:]) }
	n, err := eintr(read)
	if err == unix.ECONNRESET { // it died with our release unread; what it said before is still to be had
		n, err = eintr(read)
	}
	switch {
	case err != nil:
		return r, os.NewSyscallError("read", err)
	case n == 0:
		r.end = true
	case n == 1:
		c.ready = true
	case n == 2:
		c.Notes = append(c.Notes, b[0])
	case n == 4:
		if c.Pid != 0 { // a Fork step goes on as another process
			c.Wait()
		}
		r.pid = int(binary.NativeEndian.Uint32(b[:4]))
		c.Pid = r.pid
	case n == len(b):
		err = c.stepError(failure{int32(binary.NativeEndian.Uint32(b[:4])), int32(binary.NativeEndian.Uint32(b[4:]))})
	}
	return r, err
}

func (c *Child) stepError(f failure) *StepError {
	return &StepError{c.prog.Name(int(f.step)), unix.Errno(f.errno)}
}

// AwaitEnd waits until the child has ended. Until Wait its pid stays its own.
func (c *Child) AwaitEnd() {
	eintr(func() (int, error) {
		return 0, unix.Waitid(unix.P_PID, c.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
	})
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
	c.close()
}

// close lets go of what connects us, once.
func (c *Child) close() {
	c.sock.Close()
	if c.prog.shared != nil {
		unix.Munmap(c.prog.shared)
		c.prog.shared = nil
	}
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
