package publish

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// small is up to how much is copied, by a buffer: what comes in small pieces would
	// take the kernel a page for each in a pipe.
	small = 16 << 10

	// large is how much a pipe holds: as much as one may without privilege (pipe(7),
	// /proc/sys/fs/pipe-max-size).
	large = 1 << 20

	// spares is how many pipes are kept for the next flow.
	spares = 4
)

// flow moves what comes from one socket to another, until its end.
func flow(from, to syscall.Conn, p *pipes) error {
	f := mover{pipes: p}
	var err error
	if f.from, err = from.SyscallConn(); err != nil {
		return err
	}
	if f.to, err = to.SyscallConn(); err != nil {
		return err
	}
	for n := 0; ; {
		if n >= small { // there may be more
			n, err = f.splice()
		} else {
			n, err = f.copy()
		}
		if n == 0 || err != nil {
			return err
		}
	}
}

// A mover moves data from a socket to another, a piece at a time. While it waits for one it
// holds no buffer and no pipe: most connections are idle most of the time.
type mover struct {
	from, to syscall.RawConn
	pipes    *pipes
}

// copy moves a piece through a buffer. 0 is the end.
func (f *mover) copy() (n int, err error) {
	var buffer *[small]byte
	read := func(fd uintptr) bool {
		buffer = f.pipes.buffer()
		n, err = again(func() (int, error) { return unix.Read(int(fd), buffer[:]) })
		if err == unix.EAGAIN {
			f.pipes.buffers.Put(buffer)
			return false
		}
		return true
	}
	if waitErr := f.from.Read(read); waitErr != nil {
		return 0, waitErr
	}
	defer f.pipes.buffers.Put(buffer)
	if err != nil {
		return 0, err
	}
	return n, f.write(n, func(fd, sent int) (int, error) { return unix.Write(fd, buffer[sent:n]) })
}

// splice moves a piece through a pipe: its pages, without a copy (splice(2)). 0 is the end.
func (f *mover) splice() (n int, err error) {
	var pipe *pipe
	read := func(fd uintptr) bool {
		if pipe, err = f.pipes.get(); err != nil {
			return true
		}
		n, err = again(func() (int, error) { return splice(int(fd), pipe.in, large) })
		if err == unix.EAGAIN { // nothing has come, since the pipe is empty
			f.pipes.put(pipe)
			return false
		}
		return true
	}
	if waitErr := f.from.Read(read); waitErr != nil {
		return 0, waitErr
	}
	if pipe == nil {
		return f.copy()
	}
	if err == nil {
		err = f.write(n, func(fd, sent int) (int, error) { return splice(pipe.out, fd, n-sent) })
	}
	if err != nil {
		pipe.close()
		return 0, err
	}
	f.pipes.put(pipe)
	return n, nil
}

// write writes n bytes by what, which is told how many are sent.
func (f *mover) write(n int, what func(fd, sent int) (int, error)) error {
	var err error
	sent := 0
	waitErr := f.to.Write(func(fd uintptr) bool {
		for sent < n {
			var m int
			if m, err = again(func() (int, error) { return what(int(fd), sent) }); err != nil {
				return err != unix.EAGAIN
			}
			sent += m
		}
		return true
	})
	if waitErr != nil {
		return waitErr
	}
	return err
}

// again calls f until no signal interrupts it.
func again(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}

// splice does not tell Go's scheduler of the call, which works and never waits: it would
// give the thread's work to another meanwhile, and wake that one for it.
func splice(from, to, n int) (int, error) {
	moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK)
	if errno != 0 {
		return 0, errno
	}
	return int(moved), nil
}

// pipes are those that nobody uses, and buffers.
type pipes struct {
	mu      sync.Mutex
	idle    []*pipe
	closed  bool
	buffers sync.Pool // of *[small]byte
}

func (p *pipes) buffer() *[small]byte {
	if b, ok := p.buffers.Get().(*[small]byte); ok {
		return b
	}
	return new([small]byte)
}

// A pipe is empty, unless a mover uses it.
type pipe struct{ out, in int }

func (p *pipes) get() (*pipe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		one := p.idle[last]
		p.idle = p.idle[:last]
		return one, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	// Smaller does, too: the user's pipes together have a limit.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, large)
	return &pipe{fds[0], fds[1]}, nil
}

func (p *pipes) put(one *pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) == spares {
		one.close()
		return
	}
	p.idle = append(p.idle, one)
}

func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, one := range p.idle {
		one.close()
	}
	p.idle = nil
}

func (p *pipe) close() {
	unix.Close(p.out)
	unix.Close(p.in)
}
