package publish

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Mark is what the sockets in the container's network namespace are marked with (SO_MARK,
// socket(7)), so that what answers them stays there: "rbox" in ASCII.
const Mark = 0x72626f78

// An Inside makes sockets in a container's network namespace, which have any address that
// they are told to have (IP_TRANSPARENT, ip(7)). Only a thread in that namespace with a
// capability over it can: the one that Inside has, which does nothing else.
type Inside struct {
	made4, made6 chan made
	also         chan func() // for the thread to do
	over         chan struct{}
	end          sync.Once

	relays relays
	pipes  pipes
}

// made is what came of making a socket.
type made struct {
	fd  int
	err error
}

// Enter starts the thread, which enters the network namespace netns. Marked packets are kept
// there (link.KeepMarked): that this works is tried, by a connection of each family. outlast
// says that the process will yet give up the capabilities of all its threads, but for this one.
func Enter(netns int, with6, outlast bool) (*Inside, error) {
	n := &Inside{made4: make(chan made), made6: make(chan made), also: make(chan func()), over: make(chan struct{})}
	ready := make(chan error)
	go n.run(netns, with6, outlast, ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return n, nil
}

// Close resets all connections and ends the thread, which holds the namespace.
func (n *Inside) Close() {
	n.end.Do(func() { close(n.over) })
	n.relays.close()
	n.pipes.close()
}

// Do calls f on the thread.
func (n *Inside) Do(f func()) {
	done := make(chan struct{})
	n.also <- func() {
		f()
		close(done)
	}
	<-done
}

// run is the thread's life.
func (n *Inside) run(netns int, with6, outlast bool, ready chan<- error) {
	runtime.LockOSThread() // for ever: it ends with this goroutine
	err := enter(netns)
	if err == nil {
		err = try(unix.AF_INET)
	}
	if err == nil && with6 {
		err = try(unix.AF_INET6)
	}
	if err == nil && outlast { // last: a thread that ends with a filter would be in the way of others' (sandbox.Enter)
		err = outlastCapset()
	}
	ready <- err
	if err == nil {
		n.make()
	}
}

// enter moves this thread into the network namespace netns, with no power but to make
// marked sockets.
func enter(netns int) error {
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join the container's network namespace: %w", err)
	}
	// SO_MARK wants CAP_NET_ADMIN before Linux 5.17 (net/core/sock.c), and IP_TRANSPARENT
	// either (net/ipv4/ip_sockglue.c).
	var err error
	for _, c := range []int{unix.CAP_NET_RAW, unix.CAP_NET_ADMIN} {
		var fd int
		if err = hold(c, unix.CAP_NET_RAW, unix.CAP_NET_ADMIN); err != nil {
			return err
		}
		if fd, err = markedSocket(unix.AF_INET); err == nil {
			unix.Close(fd)
			return hold(c)
		}
	}
	return err
}

// make makes sockets for whoever wants one, one of each family ahead.
func (n *Inside) make() {
	next4, next6 := newMade(unix.AF_INET), newMade(unix.AF_INET6)
	for {
		select {
		case n.made4 <- next4:
			next4 = newMade(unix.AF_INET)
		case n.made6 <- next6:
			next6 = newMade(unix.AF_INET6)
		case f := <-n.also:
			f()
		case <-n.over:
			for _, m := range []made{next4, next6} {
				if m.err == nil {
					unix.Close(m.fd)
				}
			}
			return
		}
	}
}

func newMade(family int) made {
	fd, err := markedSocket(family)
	return made{fd, err}
}

// markedSocket makes one in this thread's network namespace.
func markedSocket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	transparent := [2]int{unix.SOL_IP, unix.IP_TRANSPARENT}
	if family == unix.AF_INET6 {
		transparent = [2]int{unix.SOL_IPV6, unix.IPV6_TRANSPARENT}
	}
	for _, o := range []struct {
		name          string
		level, option int
		value         int
	}{
		{"IP_TRANSPARENT", transparent[0], transparent[1], 1},
		{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, Mark},
		// One client may have one port of its own for two published ones.
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{"TCP_NODELAY", unix.SOL_TCP, unix.TCP_NODELAY, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError(o.name, err)
		}
	}
	return fd, nil
}

// Connect connects from the address given to a server in the container. If the port is
// taken already, by the same client at another published port, another one is.
func (n *Inside) Connect(from, to netip.AddrPort) (*os.File, error) {
	if !to.Addr().IsValid() || !from.Addr().IsValid() {
		return nil, errors.New("the network has no such addresses")
	}
	inside, err := n.connect(from, to)
	switch {
	case errors.Is(err, unix.EADDRINUSE), errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EACCES):
		return n.connect(netip.AddrPortFrom(from.Addr(), 0), to)
	}
	return inside, err
}

func (n *Inside) connect(from, to netip.AddrPort) (*os.File, error) {
	fd, err := n.socket(to.Addr())
	if err != nil {
		return nil, err
	}
	if from.Port() == 0 { // one that is free for this server, rather than for all
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	if err = unix.Bind(fd, sockaddr(from)); err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "inside") // which Go's poller watches, as it is nonblocking
	if err := connected(file); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// socket is a new one of a's family.
func (n *Inside) socket(a netip.Addr) (int, error) {
	from := n.made4
	if a.Is6() {
		from = n.made6
	}
	select {
	case m := <-from:
		return m.fd, m.err
	case <-n.over:
		return -1, os.ErrClosed
	}
}

// connected waits until a connection is made, or has failed.
func connected(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(poll, 0); n == 0 || err == unix.EINTR {
			return false
		}
		var errno int
		if errno, result = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 {
			result = unix.Errno(errno)
		}
		return true
	})
	return errors.Join(err, result)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
