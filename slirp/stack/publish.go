package stack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/slirp/publish"
)

// Publish listens on the host at p and hands every client to the container at target
// or target6, whichever is of the client's family (either may be the zero Addr), or the
// other if that alone is there. It returns p with the host's port, which it chose if p had none.
//
// A client appears with its own address and port, or as the gateway if the container
// could not answer that: one on the host's loopback, or with an address of the
// container's own network.
func (s *Stack) Publish(p slirp.Port, target, target6 netip.Addr) (slirp.Port, error) {
	t := publish.Target{IP: target, IP6: target6, Port: p.ContainerPort, Gateway: s.config.Gateway, Gateway6: s.config.Gateway6}
	return s.ports.Add(p, func(addr netip.AddrPort) (publish.Listener, error) {
		switch p.Protocol {
		case "tcp", "":
			return publish.ListenTCP(addr, func(conn *net.TCPConn) { s.serveClient(conn, t) })
		case "udp":
			return s.listenUDP(addr, t)
		}
		return nil, fmt.Errorf("protocol %s cannot be published", p.Protocol)
	})
}

// Unpublish ends what Publish, which returned p, began. Connections that there are go on.
func (s *Stack) Unpublish(p slirp.Port) error { return s.ports.Remove(p) }

// serveClient connects a client to the container. Refused there is reset here.
func (s *Stack) serveClient(conn *net.TCPConn, t publish.Target) {
	client := publish.ClientOf(conn)
	target, appears := t.For(client.Addr())
	inside, queue, err := s.connectInside(netip.AddrPortFrom(appears, client.Port()), target)
	if err != nil {
		s.config.Logf("client %s: connect to %s: %v", client, target, err)
		abort(conn)
		return
	}
	s.join(inside, queue, conn)
}

// udpPort is a published UDP port.
type udpPort struct {
	stack  *Stack
	socket *datagramSocket
	target publish.Target
	number uint16
	local  netip.Addr // that it listens on
	path   udpPath    // of the goroutine that receives

	mu      sync.Mutex
	clients map[netip.AddrPort]*udpClient
}

// Port implements publish.Listener.
func (p *udpPort) Port() uint16 { return p.number }

// Close implements publish.Listener.
func (p *udpPort) Close() {
	p.socket.close()
	p.stack.udp.dropPort(p)
}

func (s *Stack) listenUDP(addr netip.AddrPort, t publish.Target) (publish.Listener, error) {
	is4 := addr.Addr().Is4()
	socket, err := openDatagram(is4, unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	p := &udpPort{stack: s, socket: socket, target: t, local: addr.Addr(), clients: map[netip.AddrPort]*udpClient{}}
	if p.number, err = socket.bind(addr); err != nil {
		socket.close()
		return nil, err
	}
	go func() {
		defer p.path.release()
		socket.receive(&s.udp.buffers, p.take, func() { socket.losses(func(lost) {}) })
	}()
	return p, nil
}

// bind binds the socket, asks for each datagram's destination, and returns the port.
func (d *datagramSocket) bind(addr netip.AddrPort) (uint16, error) {
	level, option := unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
	var name unix.Sockaddr = &unix.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16(), ZoneId: zone(addr.Addr())}
	if d.is4 {
		level, option = unix.SOL_IP, unix.IP_PKTINFO
		name = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	if err := unix.SetsockoptInt(d.fd, level, option, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(d.fd, name); err != nil {
		return 0, err
	}
	bound, err := unix.Getsockname(d.fd)
	if err != nil {
		return 0, err
	}
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		return uint16(a.Port), nil
	case *unix.SockaddrInet6:
		return uint16(a.Port), nil
	}
	return 0, os.ErrInvalid
}

// zone returns the number of the interface in a's zone, which link-local addresses have.
func zone(a netip.Addr) uint32 {
	if n, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(a.Zone()); err == nil {
		return uint32(i.Index)
	}
	return 0
}
