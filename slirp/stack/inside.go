package stack

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// connectInside connects from an address that need not be the stack's own to a container.
// If the port is taken already, by the same client at another published port, another one is.
func (s *Stack) connectInside(from, to netip.AddrPort) (tcpip.Endpoint, *waiter.Queue, error) {
	if !to.Addr().IsValid() || !from.Addr().IsValid() {
		return nil, nil, errors.New("the network has no such addresses")
	}
	inside, queue, err := s.connectFrom(from, to)
	switch err.(type) {
	case nil:
		return inside, queue, nil
	case *tcpip.ErrPortInUse, *tcpip.ErrBadLocalAddress: // from Bind, or from Connect
		inside, queue, err = s.connectFrom(netip.AddrPortFrom(from.Addr(), 0), to)
	}
	if err != nil {
		return nil, nil, errors.New(err.String())
	}
	return inside, queue, nil
}

func (s *Stack) connectFrom(from, to netip.AddrPort) (tcpip.Endpoint, *waiter.Queue, tcpip.Error) {
	proto, local := fullAddress(from)
	_, remote := fullAddress(to)
	queue := new(waiter.Queue)
	inside, err := s.net.NewEndpoint(tcp.ProtocolNumber, proto, queue)
	if err != nil {
		return nil, nil, err
	}
	inside.SocketOptions().SetReuseAddress(true)
	if err := inside.Bind(local); err != nil {
		inside.Close()
		return nil, nil, err
	}
	entry, woken := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	err = inside.Connect(remote)
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-woken:
			err = inside.LastError()
		case <-s.life.Done():
			err = &tcpip.ErrAborted{}
		}
	}
	if err != nil {
		inside.Close()
		return nil, nil, err
	}
	return inside, queue, nil
}

// Listen listens for TCP inside the network on one of the stack's own addresses, as
// the DNS server does.
func (s *Stack) Listen(addr netip.AddrPort) (net.Listener, error) {
	if !s.owns(addr.Addr()) {
		return nil, fmt.Errorf("%s is no address of the network stack's", addr.Addr())
	}
	proto, full := fullAddress(addr)
	return gonet.ListenTCP(s.net, full, proto)
}

// ListenPacket is Listen for UDP.
func (s *Stack) ListenPacket(addr netip.AddrPort) (net.PacketConn, error) {
	if !s.owns(addr.Addr()) {
		return nil, fmt.Errorf("%s is no address of the network stack's", addr.Addr())
	}
	proto, full := fullAddress(addr)
	return gonet.DialUDP(s.net, &full, nil, proto)
}

// udpClient is a client of a published UDP port.
type udpClient struct {
	port *udpPort
	addr netip.AddrPort // the client's own
	to   netip.Addr     // of the host, that it wrote to
	pair udpPair
	used atomic.Int64
}

// take hands a client's datagram to the container.
func (p *udpPort) take(m received) {
	client := netip.AddrPortFrom(m.from.Addr().Unmap(), m.from.Port())
	c, ok := p.client(client, m.to)
	if !ok {
		return
	}
	c.used.Store(time.Now().UnixNano())
	p.path.send(p.stack, c.pair.client, c.pair.container, m.payload)
}

// client returns what is known of a client, or makes it known.
func (p *udpPort) client(addr netip.AddrPort, to netip.Addr) (*udpClient, bool) {
	p.mu.Lock()
	c := p.clients[addr]
	p.mu.Unlock()
	if c != nil && c.to == to {
		return c, true
	}
	target, appears := p.target.For(addr.Addr())
	if !target.Addr().IsValid() || !appears.IsValid() {
		return nil, false
	}
	if c != nil {
		p.stack.udp.mu.Lock()
		p.stack.udp.drop(c.pair, c)
		p.stack.udp.mu.Unlock()
	}
	c = &udpClient{port: p, addr: addr, to: to, pair: udpPair{container: target, client: netip.AddrPortFrom(appears, addr.Port())}}
	c.used.Store(time.Now().UnixNano())
	return c, p.stack.udp.admit(c)
}

// admit enters a client. If its address and port are another's inside, as two clients that
// both appear as the gateway may have, it gets another port.
func (t *udpTable) admit(c *udpClient) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.clients) >= maxFlows {
		return false
	}
	for tries := 0; t.clients[c.pair] != nil; tries++ {
		const dynamic = 49152 // RFC 6335
		if tries > 65535-dynamic {
			return false
		}
		next := max(c.pair.client.Port()+1, dynamic)
		c.pair.client = netip.AddrPortFrom(c.pair.client.Addr(), next)
	}
	t.clients[c.pair] = c
	c.port.mu.Lock()
	c.port.clients[c.addr] = c
	c.port.mu.Unlock()
	t.expect()
	return true
}

// client returns the client whose flow pair is; nil: none.
func (t *udpTable) client(pair udpPair) *udpClient {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clients[pair]
}

// answer sends a datagram of the container's to the client, from the address it wrote to.
func (c *udpClient) answer(m datagram) {
	c.used.Store(time.Now().UnixNano())
	m.to, m.from = c.addr, c.to
	if err := c.port.socket.send(m); err != nil {
		c.port.socket.losses(func(lost) {})
	}
}

// drop forgets a client. Held: mu.
func (t *udpTable) drop(pair udpPair, c *udpClient) {
	delete(t.clients, pair)
	c.port.mu.Lock()
	delete(c.port.clients, c.addr)
	c.port.mu.Unlock()
}

// dropPort forgets all clients of a port.
func (t *udpTable) dropPort(p *udpPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for pair, c := range t.clients {
		if c.port == p {
			t.drop(pair, c)
		}
	}
}
