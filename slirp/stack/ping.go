package stack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
)

const (
	lifePing = time.Minute // RFC 5508, REQ-2
	maxPings = 256
)

// pingTable is the ICMP echo requests of containers, sent by the host's ping sockets:
// those that need no privilege, where net.ipv4.ping_group_range allows them (icmp(7)).
type pingTable struct {
	stack   *Stack
	buffers buffers

	mu      sync.Mutex
	flows   map[pingSource]*pingFlow
	sweeper *time.Timer
	closed  bool
}

// pingSource is one program that pings.
type pingSource struct {
	addr  netip.Addr
	ident uint16
}

type pingFlow struct {
	socket *datagramSocket
	source pingSource
	used   atomic.Int64
}

func (s *Stack) startPing() {
	s.ping.stack = s
	s.ping.flows = map[pingSource]*pingFlow{}
	s.net.SetTransportProtocolHandler(icmp.ProtocolNumber4, s.handleEcho)
	s.net.SetTransportProtocolHandler(icmp.ProtocolNumber6, s.handleEcho)
}

// echo is an echo message of either family: type, code, checksum, identifier, sequence
// number, data (RFC 792, RFC 4443).
type echo []byte

const echoSize = 8

func (e echo) ident() uint16         { return binary.BigEndian.Uint16(e[4:]) }
func (e echo) setIdent(ident uint16) { binary.BigEndian.PutUint16(e[4:], ident) }

// handleEcho takes ICMP messages. False: netstack answers, as it does for the addresses
// that are the stack's own.
func (s *Stack) handleEcho(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	dst, src := fromTCPIP(id.LocalAddress), fromTCPIP(id.RemoteAddress)
	view := stack.PayloadSince(pkt.TransportHeader())
	defer view.Release()
	message := echo(view.AsSlice())
	if len(message) < echoSize || s.owns(dst) {
		return false
	}
	if kind := message[0]; src.Is4() && kind != byte(header.ICMPv4Echo) || src.Is6() && kind != byte(header.ICMPv6EchoRequest) {
		return false
	}
	if err := s.sendEcho(src, dst, datagram{payload: message, free: mayFragment(pkt), hops: hopsBeyond(pkt)}); err != nil {
		why, ok := unreachableFor(err)
		if !ok {
			why = noHost
		}
		s.unreachable(why, originalEcho(src, dst, message))
	}
	return true
}

func originalEcho(src, dst netip.Addr, message echo) original {
	protocol := tcpip.TransportProtocolNumber(header.ICMPv4ProtocolNumber)
	if src.Is6() {
		protocol = header.ICMPv6ProtocolNumber
	}
	return original{src: src, dst: dst, protocol: protocol, payload: message, size: len(message)}
}

// sendEcho sends an echo request of the container's.
func (s *Stack) sendEcho(src, dst netip.Addr, m datagram) error {
	message := echo(m.payload)
	addr, err := s.outside(dst)
	if err != nil {
		return err
	}
	f, err := s.ping.flow(pingSource{src, message.ident()})
	if err != nil {
		return err
	}
	f.used.Store(time.Now().UnixNano())
	m.to = netip.AddrPortFrom(addr, 0)
	for range 3 {
		err = f.socket.send(m)
		if err == nil {
			return nil
		}
		mtu := s.ping.broken(f)
		if errors.Is(err, unix.EMSGSIZE) && mtu > 0 {
			why := tooBig
			why.mtu = mtu
			s.unreachable(why, originalEcho(src, dst, message))
			return nil
		}
	}
	return err
}

// flow returns the flow of a program that pings, or a new one.
func (t *pingTable) flow(source pingSource) (*pingFlow, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.flows[source]; f != nil {
		return f, nil
	}
	if t.closed || len(t.flows) >= maxPings {
		return nil, syscall.EACCES
	}
	protocol := unix.IPPROTO_ICMP
	if source.addr.Is6() {
		protocol = unix.IPPROTO_ICMPV6
	}
	socket, err := openDatagram(source.addr.Is4(), protocol)
	if err != nil {
		return nil, err
	}
	f := &pingFlow{socket: socket, source: source}
	f.used.Store(time.Now().UnixNano())
	t.flows[source] = f
	t.expect()
	go socket.receive(&t.buffers, func(m received) { t.take(f, m) }, func() { t.broken(f) })
	return f, nil
}

// take hands an answer to the container, with the identifier it asked with.
func (t *pingTable) take(f *pingFlow, m received) {
	message := echo(m.payload)
	if len(message) < echoSize {
		return
	}
	f.used.Store(time.Now().UnixNano())
	message.setIdent(f.source.ident)
	message[2], message[3] = 0, 0
	protocol := tcpip.TransportProtocolNumber(header.ICMPv4ProtocolNumber)
	if f.source.addr.Is4() {
		header.ICMPv4(message).SetChecksum(^checksum.Checksum(message, 0))
	} else {
		protocol = header.ICMPv6ProtocolNumber
		_, src := toTCPIP(m.from.Addr())
		_, dst := toTCPIP(f.source.addr)
		header.ICMPv6(message).SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: header.ICMPv6(message), Src: src, Dst: dst}))
	}
	t.stack.send(m.from.Addr(), f.source.addr, protocol, message)
}

// broken tells the container of requests that did not arrive, as udpTable's does.
func (t *pingTable) broken(f *pingFlow) (mtu uint32) {
	f.socket.losses(func(l lost) {
		if l.here {
			mtu = l.why.mtu
			return
		}
		message := make(echo, max(len(l.payload), echoSize))
		copy(message, l.payload)
		message.setIdent(f.source.ident)
		t.stack.unreachable(l.why, originalEcho(f.source.addr, t.stack.inside(l.to.Addr()), message))
	})
	return mtu
}

// expect has the table swept as long as there is something in it. Held: mu.
func (t *pingTable) expect() {
	if t.sweeper == nil && !t.closed {
		t.sweeper = time.AfterFunc(sweepEvery, t.sweep)
	}
}

func (t *pingTable) sweep() {
	now := time.Now()
	t.endIf(func(f *pingFlow) bool { return now.Sub(time.Unix(0, f.used.Load())) > lifePing })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweeper = nil
	if len(t.flows) > 0 {
		t.expect()
	}
}

func (t *pingTable) forget(container netip.Addr) {
	t.endIf(func(f *pingFlow) bool { return f.source.addr == container })
}

func (t *pingTable) endIf(is func(*pingFlow) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for source, f := range t.flows {
		if is(f) {
			delete(t.flows, source)
			f.socket.close()
		}
	}
}

func (t *pingTable) close() {
	t.mu.Lock()
	t.closed = true
	if t.sweeper != nil {
		t.sweeper.Stop()
	}
	t.mu.Unlock()
	t.endIf(func(*pingFlow) bool { return true })
}
