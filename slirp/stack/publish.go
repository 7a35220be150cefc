package stack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"rbox/slirp"
)

// portTable is the published ports.
type portTable struct {
	mu     sync.Mutex
	ports  map[slirp.Port][]publisher
	closed bool
}

// publisher is a listener of the host's.
type publisher interface {
	port() uint16
	close()
}

// PortError reports that a port of the host cannot be published.
type PortError struct {
	Protocol string
	Addr     netip.AddrPort
	Err      error
}

func (e *PortError) Error() string {
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("port %s/%s of the host is in use", e.Addr, e.Protocol)
	case errors.Is(e.Err, syscall.EACCES):
		return fmt.Sprintf("port %s/%s of the host is only for privileged programs", e.Addr, e.Protocol)
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("%s is no address of the host", e.Addr.Addr())
	}
	return fmt.Sprintf("port %s/%s of the host: %v", e.Addr, e.Protocol, e.Err)
}

func (e *PortError) Unwrap() error { return e.Err }

// Hint is what the user can do.
func (e *PortError) Hint() string {
	port := e.Addr.Port()
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("see who has it: ss -lp%s 'sport = %d'; or publish another one, or let rbox choose: -p %d", e.Protocol[:1], port, port)
	case errors.Is(e.Err, syscall.EACCES):
		return fmt.Sprintf("publish port %d instead, or as root: sysctl net.ipv4.ip_unprivileged_port_start=%d", suggestPort(port), port)
	}
	return ""
}

// suggestPort returns the port that people take for one below 1024: 8080, 8443, 2222.
func suggestPort(port uint16) uint16 {
	switch port {
	case 22:
		return 2222
	case 443:
		return 8443
	}
	return 8000 + port
}

// Publish listens on the host at p and hands every client to the container at target
// or target6, whichever is of the client's family (either may be the zero Addr), or the
// other if that alone is there. It returns p with the host's port, which it chose if p had none.
//
// A client appears with its own address and port, or as the gateway if the container
// could not answer that: one on the host's loopback, or with an address of the
// container's own network.
func (s *Stack) Publish(p slirp.Port, target, target6 netip.Addr) (slirp.Port, error) {
	t := targets{v4: target, v6: target6, port: p.ContainerPort}
	// A chosen port that is free for one family may not be for the other.
	const tries = 16
	var err error
	for range tries {
		var bound slirp.Port
		bound, err = s.publish(p, t)
		if err == nil || p.HostPort != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return bound, err
		}
	}
	return p, err
}

func (s *Stack) publish(p slirp.Port, t targets) (slirp.Port, error) {
	var open []publisher
	for _, ip := range listenAddresses(p.HostIP) {
		one, err := s.listenHost(p.Protocol, netip.AddrPortFrom(ip, p.HostPort), t)
		if errors.Is(err, syscall.EAFNOSUPPORT) && len(open) > 0 && !p.HostIP.IsValid() {
			continue // a host without IPv6
		}
		if err != nil {
			closeAll(open)
			return p, &PortError{Protocol: p.Protocol, Addr: netip.AddrPortFrom(ip, p.HostPort), Err: err}
		}
		open = append(open, one)
		p.HostPort = one.port()
	}
	s.ports.mu.Lock()
	defer s.ports.mu.Unlock()
	if s.ports.closed {
		closeAll(open)
		return p, net.ErrClosed
	}
	if s.ports.ports == nil {
		s.ports.ports = map[slirp.Port][]publisher{}
	}
	s.ports.ports[p] = open
	return p, nil
}

func closeAll(all []publisher) {
	for _, p := range all {
		p.close()
	}
}

// listenAddresses returns the addresses that HostIP stands for.
func listenAddresses(host netip.Addr) []netip.Addr {
	if host.IsValid() {
		return []netip.Addr{host.Unmap()}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

func (s *Stack) listenHost(protocol string, addr netip.AddrPort, t targets) (publisher, error) {
	switch protocol {
	case "tcp", "":
		return s.listenTCP(addr, t)
	case "udp":
		return s.listenUDP(addr, t)
	}
	return nil, fmt.Errorf("protocol %s cannot be published", protocol)
}

// Unpublish ends what Publish, which returned p, began. Connections that there are go on.
func (s *Stack) Unpublish(p slirp.Port) error {
	s.ports.mu.Lock()
	open, ok := s.ports.ports[p]
	delete(s.ports.ports, p)
	s.ports.mu.Unlock()
	if !ok {
		return fmt.Errorf("port %d/%s is not published", p.HostPort, p.Protocol)
	}
	closeAll(open)
	return nil
}

func (t *portTable) close() {
	t.mu.Lock()
	t.closed = true
	ports := t.ports
	t.ports = nil
	t.mu.Unlock()
	for _, open := range ports {
		closeAll(open)
	}
}

// targets is where a published port leads.
type targets struct {
	v4, v6 netip.Addr
	port   uint16
}

// forClient returns the target for a client, and the address that the client has inside.
func (s *Stack) forClient(t targets, client netip.Addr) (target netip.AddrPort, appears netip.Addr) {
	ip := t.v4
	if client.Is6() && t.v6.IsValid() || !t.v4.IsValid() {
		ip = t.v6
	}
	target = netip.AddrPortFrom(ip, t.port)
	if ip.Is4() != client.Is4() || staysInside(client) || s.onLink(client) {
		return target, s.gateway(ip)
	}
	return target, client
}

// tcpPort is a published TCP port.
type tcpPort struct{ listener *net.TCPListener }

func (p *tcpPort) port() uint16 { return uint16(p.listener.Addr().(*net.TCPAddr).Port) }
func (p *tcpPort) close()       { p.listener.Close() }

// listenConfig leaves accepted connections with the kernel's keep-alive times.
func listenConfig(network string) net.ListenConfig {
	return net.ListenConfig{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) {
				if strings.HasSuffix(network, "6") {
					err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
				}
			}), err)
		},
	}
}

// family returns network's name for the family of a.
func family(network string, a netip.Addr) string {
	if a.Is4() {
		return network + "4"
	}
	return network + "6"
}

func (s *Stack) listenTCP(addr netip.AddrPort, t targets) (publisher, error) {
	network := family("tcp", addr.Addr())
	config := listenConfig(network)
	l, err := config.Listen(s.life, network, addr.String())
	if err != nil {
		return nil, bare(err)
	}
	p := &tcpPort{listener: l.(*net.TCPListener)}
	go s.accept(p.listener, t)
	return p, nil
}

// bare strips what package net wraps an error of the kernel's in.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// accept serves a published port's clients.
func (s *Stack) accept(l *net.TCPListener, t targets) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			go s.serveClient(conn, t)
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors or memory: a client in the queue waits for the next round
			s.config.Logf("published port %s: %v", l.Addr(), err)
			if !s.pause() {
				return
			}
		}
	}
}

// serveClient connects a client to the container. Refused there is reset here.
func (s *Stack) serveClient(conn *net.TCPConn, t targets) {
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	client = netip.AddrPortFrom(client.Addr().Unmap().WithZone(""), client.Port())
	target, appears := s.forClient(t, client.Addr())
	inside, queue, err := s.connectInside(netip.AddrPortFrom(appears, client.Port()), target)
	if err != nil {
		s.config.Logf("client %s: connect to %s: %v", client, target, err)
		abort(conn)
		return
	}
	s.relay(inside, queue, conn)
}

// udpPort is a published UDP port.
type udpPort struct {
	stack   *Stack
	socket  *datagramSocket
	targets targets
	number  uint16
	local   netip.Addr // that it listens on
	path    udpPath    // of the goroutine that receives

	mu      sync.Mutex
	clients map[netip.AddrPort]*udpClient
}

func (p *udpPort) port() uint16 { return p.number }

func (p *udpPort) close() {
	p.socket.close()
	p.stack.udp.dropPort(p)
}

func (s *Stack) listenUDP(addr netip.AddrPort, t targets) (publisher, error) {
	is4 := addr.Addr().Is4()
	socket, err := openDatagram(is4, unix.IPPROTO_UDP)
	if err != nil {
		return nil, bare(err)
	}
	p := &udpPort{stack: s, socket: socket, targets: t, local: addr.Addr(), clients: map[netip.AddrPort]*udpClient{}}
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
