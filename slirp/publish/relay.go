package publish

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Serve connects a client to the container, and returns when the connection has ended both
// ways. Refused there is reset here.
func (n *Inside) Serve(client *net.TCPConn, t Target) {
	from := ClientOf(client)
	to, appears := t.For(from.Addr())
	inside, err := n.Connect(netip.AddrPortFrom(appears, from.Port()), to)
	if err != nil {
		_ = client.SetLinger(0)
		client.Close()
		return
	}
	r := newRelay(client, inside)
	if !n.relays.add(r) {
		r.reset()
		return
	}
	defer n.relays.remove(r)
	r.run(&n.pipes)
}

// relays are those that run.
type relays struct {
	mu     sync.Mutex
	all    map[*relay]struct{}
	closed bool
}

func (s *relays) add(r *relay) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.all == nil {
		s.all = map[*relay]struct{}{}
	}
	s.all[r] = struct{}{}
	return true
}

func (s *relays) remove(r *relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, r)
}

// close resets all.
func (s *relays) close() {
	s.mu.Lock()
	s.closed = true
	all := s.all
	s.all = nil
	s.mu.Unlock()
	for r := range all {
		r.reset()
	}
}

// A relay joins a client's connection with one in the container.
type relay struct {
	client, inside side
	fail           sync.Once
}

func newRelay(client *net.TCPConn, inside *os.File) *relay {
	return &relay{client: side{client, client}, inside: side{inside, inside}}
}

// run moves data both ways until both have ended, and closes the connections. A reset of
// one resets the other.
func (r *relay) run(p *pipes) {
	outward := make(chan struct{})
	go func() {
		defer close(outward)
		r.move(r.inside, r.client, p)
	}()
	r.move(r.client, r.inside, p)
	<-outward
	r.client.Close()
	r.inside.Close()
}

// move moves what comes by one side to the other, and tells that of the end.
func (r *relay) move(from, to side, p *pipes) {
	err := flow(from, to, p)
	if err == nil {
		err = to.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
	}
	if err != nil {
		r.reset()
	}
}

// reset ends both sides as abruptly as TCP can.
func (r *relay) reset() {
	r.fail.Do(func() {
		for _, s := range []side{r.client, r.inside} {
			_ = s.control(func(fd int) error {
				return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			})
			s.Close()
		}
	})
}

// A side is one of a relay's connections.
type side struct {
	io.Closer
	syscall.Conn
}

func (s side) control(f func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	if controlErr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}
