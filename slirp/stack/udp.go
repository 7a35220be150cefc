package stack

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// How long a flow lasts after its last datagram. RFC 4787 (REQ-5) wants two minutes at least
// and advises five; one that had no answer yet ends earlier, as does a question to a DNS server.
const (
	lifeDNS      = 10 * time.Second
	lifeOneWay   = 2 * time.Minute
	lifeBothWays = 5 * time.Minute

	portDNS = 53

	// maxFlows is how many sockets flows may take. Beyond it the one least used of a few ends.
	maxFlows = 4096
)

// udpTable is the UDP flows. Netstack does IP, with its fragments; UDP itself is done here,
// since netstack's endpoints would add queues and goroutines, but nothing that is needed.
type udpTable struct {
	stack   *Stack
	buffers buffers
	life    func(f *udpFlow) time.Duration

	mu      sync.Mutex
	flows   map[netip.AddrPort]*udpFlow // by the container's address and port
	clients map[udpPair]*udpClient      // of published ports
	sweeper *time.Timer                 // nil: there is nothing to expire
	closed  bool
}

// udpPair is the two ends of a published port's flow, as the container sees them.
type udpPair struct{ container, client netip.AddrPort }

// udpFlow is all that one socket of a container sends, from a socket of the host's of its
// own, so that it has the same address for all its peers (RFC 4787, REQ-1).
type udpFlow struct {
	socket *datagramSocket
	src    netip.AddrPort
	used   atomic.Int64 // when, in Unix nanoseconds
	dns    bool
	sent   atomic.Int64
	got    atomic.Int64
	path   udpPath

	mu    sync.Mutex
	peers map[netip.Addr]struct{} // whom it sent to: nobody else may answer (REQ-8)
}

func (s *Stack) startUDP() {
	s.udp.stack = s
	s.udp.life = (*udpFlow).life
	s.udp.flows = map[netip.AddrPort]*udpFlow{}
	s.udp.clients = map[udpPair]*udpClient{}
	s.net.SetTransportProtocolHandler(udp.ProtocolNumber, s.handleUDP)
}

// handleUDP takes datagrams that are not for a listener of the stack's own. True: done with.
func (s *Stack) handleUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	head := header.UDP(pkt.TransportHeader().Slice())
	size := int(head.Length()) - header.UDPMinimumSize
	payload, ok := pkt.Data().PullUp(pkt.Data().Size())
	if !ok || size < 0 || size > len(payload) {
		return true
	}
	m := datagram{payload: payload[:size], segment: pkt.GSOOptions.MSS, free: mayFragment(pkt), hops: hopsBeyond(pkt)}
	src := netip.AddrPortFrom(fromTCPIP(id.RemoteAddress), id.RemotePort)
	dst := netip.AddrPortFrom(fromTCPIP(id.LocalAddress), id.LocalPort)
	if c := s.udp.client(udpPair{container: src, client: dst}); c != nil {
		c.answer(m)
		return true
	}
	if src.Port() == 0 || dst.Port() == 0 || dst.Addr().IsMulticast() {
		return true
	}
	if err := s.sendOut(src, dst, m); err != nil {
		s.tellLost(src, dst, m, err)
	}
	return true
}

// mayFragment reports whether a packet of the container's allows routers to fragment it.
func mayFragment(pkt *stack.PacketBuffer) bool {
	if pkt.NetworkProtocolNumber != header.IPv4ProtocolNumber {
		return false // RFC 8200: no router does
	}
	return header.IPv4(pkt.NetworkHeader().Slice()).Flags()&header.IPv4FlagDontFragment == 0
}

// sendOut sends a datagram of the container's from its flow's socket.
func (s *Stack) sendOut(src, dst netip.AddrPort, m datagram) error {
	addr, err := s.outside(dst.Addr())
	if err != nil {
		return err
	}
	f, err := s.udp.flow(src, dst)
	if err != nil {
		return err
	}
	m.to = netip.AddrPortFrom(addr, dst.Port())
	f.sends(m.to.Addr())
	for range 3 {
		err = f.socket.send(m)
		if err == nil {
			return nil
		}
		// It may be the error of an earlier one, which the error queue tells of.
		mtu := s.udp.broken(f)
		if errors.Is(err, unix.EMSGSIZE) && mtu > 0 {
			why := tooBig
			why.mtu = mtu
			s.unreachable(why, originalUDP(src, dst, m.payload))
			return nil
		}
	}
	return err
}

// tellLost answers a datagram that could not be sent.
func (s *Stack) tellLost(src, dst netip.AddrPort, m datagram, err error) {
	why, ok := unreachableFor(err)
	if !ok {
		why = noPort
		if !errors.Is(err, syscall.ECONNREFUSED) {
			s.config.Logf("datagram to %s: %v", dst, err)
			why = noHost
		}
	}
	s.unreachable(why, originalUDP(src, dst, m.payload))
}

// originalUDP is a datagram of the container's, as an ICMP error quotes it.
func originalUDP(src, dst netip.AddrPort, payload []byte) original {
	b := make([]byte, header.UDPMinimumSize, quoted)
	header.UDP(b).Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(header.UDPMinimumSize + len(payload))})
	return original{
		src: src.Addr(), dst: dst.Addr(), protocol: header.UDPProtocolNumber,
		payload: append(b, payload[:min(len(payload), quoted-len(b))]...), size: header.UDPMinimumSize + len(payload),
	}
}

// flow returns the flow of src, or a new one.
func (t *udpTable) flow(src, dst netip.AddrPort) (*udpFlow, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.flows[src]; f != nil {
		f.dns = f.dns && dst.Port() == portDNS
		return f, nil
	}
	if t.closed {
		return nil, syscall.ENETUNREACH
	}
	if len(t.flows) >= maxFlows {
		t.evict()
	}
	socket, err := openDatagram(src.Addr().Is4(), unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	f := &udpFlow{socket: socket, src: src, dns: dst.Port() == portDNS, peers: map[netip.Addr]struct{}{}}
	f.used.Store(time.Now().UnixNano())
	t.flows[src] = f
	t.expect()
	go func() {
		defer f.path.release()
		socket.receive(&t.buffers, func(m received) { t.take(f, m) }, func() { t.broken(f) })
	}()
	return f, nil
}

// sends notes that the flow's container sends to peer.
func (f *udpFlow) sends(peer netip.Addr) {
	f.used.Store(time.Now().UnixNano())
	f.sent.Add(1)
	f.mu.Lock()
	f.peers[peer] = struct{}{}
	f.mu.Unlock()
}

func (f *udpFlow) knows(peer netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.peers[peer]
	return ok
}

// take hands a datagram of the host's to the container.
func (t *udpTable) take(f *udpFlow, m received) {
	if !f.knows(m.from.Addr()) {
		return
	}
	f.used.Store(time.Now().UnixNano())
	f.got.Add(1)
	from := netip.AddrPortFrom(t.stack.inside(m.from.Addr()), m.from.Port())
	f.path.send(t.stack, from, f.src, m.payload)
}

// inside returns what the container calls the host's address a: outside's reverse.
func (s *Stack) inside(a netip.Addr) netip.Addr {
	if a.IsLoopback() {
		return s.gateway(a)
	}
	return a
}

// broken tells the container of datagrams that did not arrive. Of one that did not even
// leave, being too large, it returns the MTU.
func (t *udpTable) broken(f *udpFlow) (mtu uint32) {
	f.socket.losses(func(l lost) {
		if l.here {
			mtu = l.why.mtu
			return
		}
		dst := netip.AddrPortFrom(t.stack.inside(l.to.Addr()), l.to.Port())
		t.stack.unreachable(l.why, originalUDP(f.src, dst, l.payload))
	})
	return mtu
}

// udpPath is the way of datagrams into the container from one address. One goroutine's.
type udpPath struct {
	route    *stack.Route
	src, dst netip.Addr
}

func (p *udpPath) release() {
	if p.route != nil {
		p.route.Release()
		p.route = nil
	}
}

// find returns the route from src to dst, mostly the one of the datagram before.
func (p *udpPath) find(s *Stack, src, dst netip.Addr) *stack.Route {
	if p.route != nil && p.src == src && p.dst == dst {
		return p.route
	}
	p.release()
	proto, from := toTCPIP(src)
	_, to := toTCPIP(dst)
	route, err := s.net.FindRoute(nicID, from, to, proto, false)
	if err != nil {
		return nil
	}
	p.route, p.src, p.dst = route, src, dst
	return route
}

// udpChecksumOffset is where a UDP header has its checksum (RFC 768).
const udpChecksumOffset = 6

// send sends a datagram into the container.
func (p *udpPath) send(s *Stack, src, dst netip.AddrPort, payload []byte) {
	route := p.find(s, src.Addr(), dst.Addr())
	size := header.UDPMinimumSize + len(payload)
	if route == nil || size > 65535-header.IPv4MinimumSize {
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + header.UDPMinimumSize,
		Payload:            buffer.MakeWithData(payload),
	})
	defer pkt.DecRef()
	head := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	head.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(size)})
	pkt.TransportProtocolNumber = udp.ProtocolNumber
	sum := route.PseudoHeaderChecksum(udp.ProtocolNumber, uint16(size))
	if size <= int(route.MTU()) {
		// The kernel of the container's takes it without a checksum.
		head.SetChecksum(sum)
		pkt.GSOOptions = stack.GSO{NeedsCsum: true, CsumOffset: udpChecksumOffset, L3HdrLen: ipSize(dst.Addr())}
	} else {
		setUDPChecksum(head, checksum.Checksum(payload, sum))
	}
	_ = route.WritePacket(stack.NetworkHeaderParams{Protocol: udp.ProtocolNumber, TTL: route.DefaultTTL(), TOS: stack.DefaultTOS}, pkt)
}

func setUDPChecksum(head header.UDP, sum uint16) {
	sum = ^head.CalculateChecksum(sum)
	if sum == 0 {
		sum = 0xffff // RFC 768: 0 means none
	}
	head.SetChecksum(sum)
}

// ipSize is the size of the IP header that netstack writes.
func ipSize(a netip.Addr) uint16 {
	if a.Is4() {
		return header.IPv4MinimumSize
	}
	return header.IPv6MinimumSize
}

// life is how long the flow lasts after its last datagram.
func (f *udpFlow) life() time.Duration {
	switch {
	case f.dns:
		return lifeDNS
	case f.got.Load() == 0 || f.sent.Load() < 2:
		return lifeOneWay
	}
	return lifeBothWays
}

// sweepEvery is how exact expiry is.
const sweepEvery = 5 * time.Second

// expect has the table swept as long as there is something in it. Held: mu.
func (t *udpTable) expect() {
	if t.sweeper == nil && !t.closed {
		t.sweeper = time.AfterFunc(sweepEvery, t.sweep)
	}
}

// sweep ends the flows whose time is over.
func (t *udpTable) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, f := range t.flows {
		if now.Sub(time.Unix(0, f.used.Load())) > t.life(f) {
			t.end(f)
		}
	}
	for pair, c := range t.clients {
		if now.Sub(time.Unix(0, c.used.Load())) > lifeBothWays {
			t.drop(pair, c)
		}
	}
	t.sweeper = nil
	if len(t.flows)+len(t.clients) > 0 {
		t.expect()
	}
}

// evict ends the flow least used of some. Held: mu.
func (t *udpTable) evict() {
	const look = 16
	var oldest *udpFlow
	n := 0
	for _, f := range t.flows { // in an order of chance
		if oldest == nil || f.used.Load() < oldest.used.Load() {
			oldest = f
		}
		if n++; n == look {
			break
		}
	}
	t.end(oldest)
}

// end ends a flow. Held: mu.
func (t *udpTable) end(f *udpFlow) {
	delete(t.flows, f.src)
	f.socket.close()
}

// forget ends all that a container has.
func (t *udpTable) forget(container netip.Addr) {
	t.endIf(func(a netip.Addr) bool { return a == container })
}

func (t *udpTable) endIf(is func(container netip.Addr) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.flows {
		if is(f.src.Addr()) {
			t.end(f)
		}
	}
	for pair, c := range t.clients {
		if is(pair.container.Addr()) {
			t.drop(pair, c)
		}
	}
}

func (t *udpTable) close() {
	t.mu.Lock()
	t.closed = true
	if t.sweeper != nil {
		t.sweeper.Stop()
	}
	t.mu.Unlock()
	t.endIf(func(netip.Addr) bool { return true })
}
