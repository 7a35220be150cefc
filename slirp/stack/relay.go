package stack

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// relay joins a connection inside, an endpoint of netstack, with one of the host's.
// Data is copied once each way: from netstack's buffers right into the host's
// socket, and from there right into netstack's.
type relay struct {
	inside tcpip.Endpoint
	queue  *waiter.Queue
	host   *net.TCPConn
	raw    syscall.RawConn
	fail   sync.Once
}

// errReset ends a relay whose one side broke: the other is to see a reset too.
var errReset = errors.New("connection reset")

// run copies both ways until both sides have ended, and closes them. A reset of one
// side resets the other.
func (r *relay) run() {
	var err error
	if r.raw, err = r.host.SyscallConn(); err != nil {
		r.reset()
		return
	}
	outward := make(chan struct{})
	go func() {
		defer close(outward)
		if r.outward() != nil {
			r.reset()
		}
	}()
	if r.inward() != nil {
		r.reset()
	}
	<-outward
	r.inside.Close()
	r.host.Close()
}

// reset ends both sides as abruptly as TCP can.
func (r *relay) reset() {
	r.fail.Do(func() {
		_ = r.host.SetLinger(0)
		r.host.Close()
		r.inside.Abort()
	})
}

// watch has netstack tell a channel of events; done ends it.
func (r *relay) watch(events waiter.EventMask) (woken chan struct{}, done func()) {
	entry, woken := waiter.NewChannelEntry(events | waiter.EventHUp | waiter.EventErr)
	r.queue.EventRegister(&entry)
	return woken, func() { r.queue.EventUnregister(&entry) }
}

// outward copies what the container sends to the host's socket. At the end of it the
// host's socket is shut down for writing. An error is a reset.
func (r *relay) outward() error {
	woken, done := r.watch(waiter.ReadableEvents)
	defer done()
	out := hostWriter{}
	var failed tcpip.Error
	step := func(fd uintptr) bool {
		out.fd, out.full = int(fd), false
		_, failed = r.inside.Read(&out, tcpip.ReadOptions{})
		return !out.full // full: wait until the socket can be written, then again
	}
	for {
		if err := r.raw.Write(step); err != nil || out.err != nil {
			return errReset
		}
		switch failed.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-woken
		case *tcpip.ErrClosedForReceive:
			if r.host.CloseWrite() != nil {
				return errReset
			}
			return nil
		default:
			return errReset
		}
	}
}

// hostWriter writes to a socket without waiting.
type hostWriter struct {
	fd   int
	full bool  // the socket took no more
	err  error // of the socket
}

var errFull = errors.New("full")

func (w *hostWriter) Write(b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(w.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	switch {
	case errno == unix.EAGAIN:
		w.full = true
		return 0, errFull
	case errno != 0:
		w.err = errno
		return 0, errno
	case int(n) < len(b):
		w.full = true
		return int(n), errFull
	}
	return int(n), nil
}

// inward copies what the host's socket receives to the container, and ends the
// endpoint's sending at the end of it. An error is a reset.
func (r *relay) inward() error {
	woken, done := r.watch(waiter.WritableEvents)
	defer done()
	in := hostReader{}
	var failed tcpip.Error
	step := func(fd uintptr) bool {
		in.fd, in.empty = int(fd), false
		_, failed = r.inside.Write(&in, tcpip.WriteOptions{})
		return !in.empty
	}
	for {
		if err := r.raw.Read(step); err != nil || in.err != nil {
			return errReset
		}
		if in.ended {
			if r.inside.Shutdown(tcpip.ShutdownWrite) != nil {
				return errReset
			}
			return nil
		}
		switch failed.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-woken
		default:
			return errReset
		}
	}
}

// hostReader is a tcpip.Payloader that reads a socket without waiting, a segment at a time.
type hostReader struct {
	fd           int
	empty, ended bool
	err          error
}

// Len implements tcpip.Payloader: how much can be read now. Netstack then allocates
// that much, and asks for all of it.
func (r *hostReader) Len() int {
	var n int32
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(r.fd), unix.SIOCINQ, uintptr(unsafe.Pointer(&n)))
	if errno != 0 {
		r.err = errno
		return 0
	}
	if n == 0 {
		r.peek()
	}
	return min(int(n), maxSegment)
}

// peek finds out what a socket without data is: waiting, ended or broken.
func (r *hostReader) peek() {
	var one [1]byte
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(r.fd), uintptr(unsafe.Pointer(&one)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == unix.EAGAIN, errno == unix.EINTR:
		r.empty = true
	case errno != 0:
		r.err = errno
	case n == 0:
		r.ended = true
	}
}

// Read implements tcpip.Payloader.
func (r *hostReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(r.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		r.err = errno
		return 0, errno
	}
	if n == 0 { // less than Len promised
		r.err = errReset
		return 0, errReset
	}
	return int(n), nil
}
