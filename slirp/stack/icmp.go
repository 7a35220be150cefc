package stack

import (
	"errors"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// reason is why a packet of the container's did not arrive: an ICMP message of both
// families. from is who says so; zero: the destination for its ports, else the gateway.
type reason struct {
	type4 header.ICMPv4Type
	code4 header.ICMPv4Code
	type6 header.ICMPv6Type
	code6 header.ICMPv6Code
	mtu   uint32
	from  netip.Addr
}

// The reasons, by RFC 792 and RFC 1812, and RFC 4443.
var (
	noNetwork  = reason{type4: header.ICMPv4DstUnreachable, code4: header.ICMPv4NetUnreachable, type6: header.ICMPv6DstUnreachable, code6: header.ICMPv6NetworkUnreachable}
	noHost     = reason{type4: header.ICMPv4DstUnreachable, code4: header.ICMPv4HostUnreachable, type6: header.ICMPv6DstUnreachable, code6: header.ICMPv6AddressUnreachable}
	noPort     = reason{type4: header.ICMPv4DstUnreachable, code4: header.ICMPv4PortUnreachable, type6: header.ICMPv6DstUnreachable, code6: header.ICMPv6PortUnreachable}
	prohibited = reason{type4: header.ICMPv4DstUnreachable, code4: header.ICMPv4AdminProhibited, type6: header.ICMPv6DstUnreachable, code6: header.ICMPv6Prohibited}
	expired    = reason{type4: header.ICMPv4TimeExceeded, code4: header.ICMPv4TTLExceeded, type6: header.ICMPv6TimeExceeded, code6: header.ICMPv6HopLimitExceeded}
	tooBig     = reason{type4: header.ICMPv4DstUnreachable, code4: header.ICMPv4FragmentationNeeded, type6: header.ICMPv6PacketTooBig}
)

// unreachableFor returns the reason that an error of a host's socket stands for; false: none.
func unreachableFor(err error) (reason, bool) {
	switch {
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return noNetwork, true
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return noHost, true
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return prohibited, true
	}
	return reason{}, false
}

// original is the packet that an ICMP error is about.
type original struct {
	src, dst netip.Addr
	protocol tcpip.TransportProtocolNumber
	payload  []byte // its transport header, and what follows of it
	size     int    // of all that
	ttl      uint8  // 0: not known
}

// quoted is how much of a packet an error quotes behind its IP header: enough to find the
// socket by, and far below the least MTU (RFC 792 wants 8 bytes, RFC 4443 as much as fits).
const quoted = 64

// unreachable tells the container why the packet o did not arrive.
func (s *Stack) unreachable(why reason, o original) {
	from := why.from
	if !from.IsValid() {
		from = s.gateway(o.dst)
		if why.code4 == noPort.code4 && why.type4 == noPort.type4 {
			from = o.dst
		}
	}
	if o.dst.IsMulticast() || !from.IsValid() || from.Is4() != o.src.Is4() {
		return
	}
	if o.src.Is4() {
		s.send(from, o.src, header.ICMPv4ProtocolNumber, why.message4(o))
	} else {
		s.send(from, o.src, header.ICMPv6ProtocolNumber, why.message6(from, o))
	}
}

// message4 returns the ICMP message.
func (r reason) message4(o original) []byte {
	data := o.payload[:min(len(o.payload), quoted)]
	b := make([]byte, header.ICMPv4MinimumSize+header.IPv4MinimumSize+len(data))
	icmp := header.ICMPv4(b)
	icmp.SetType(r.type4)
	icmp.SetCode(r.code4)
	if r.mtu > 0 {
		icmp.SetMTU(uint16(min(r.mtu, 65535)))
	}
	ip := header.IPv4(b[header.ICMPv4MinimumSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(header.IPv4MinimumSize + o.size), TTL: max(o.ttl, 1), Flags: header.IPv4FlagDontFragment,
		Protocol: uint8(o.protocol), SrcAddr: tcpip.AddrFrom4(o.src.As4()), DstAddr: tcpip.AddrFrom4(o.dst.As4()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(ip[header.IPv4MinimumSize:], data)
	icmp.SetChecksum(^checksum.Checksum(b, 0))
	return b
}

// message6 returns the ICMPv6 message.
func (r reason) message6(from netip.Addr, o original) []byte {
	data := o.payload[:min(len(o.payload), quoted)]
	b := make([]byte, header.ICMPv6ErrorHeaderSize+header.IPv6MinimumSize+len(data))
	icmp := header.ICMPv6(b)
	icmp.SetType(r.type6)
	icmp.SetCode(r.code6)
	if r.mtu > 0 {
		icmp.SetMTU(r.mtu)
	}
	ip := header.IPv6(b[header.ICMPv6ErrorHeaderSize:])
	ip.Encode(&header.IPv6Fields{
		PayloadLength: uint16(o.size), TransportProtocol: o.protocol, HopLimit: max(o.ttl, 1),
		SrcAddr: tcpip.AddrFrom16(o.src.As16()), DstAddr: tcpip.AddrFrom16(o.dst.As16()),
	})
	copy(ip[header.IPv6MinimumSize:], data)
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{
		Header: icmp, Src: tcpip.AddrFrom16(from.As16()), Dst: tcpip.AddrFrom16(o.src.As16()),
	}))
	return b
}

// send sends an IP packet with the payload given.
func (s *Stack) send(src, dst netip.Addr, protocol tcpip.TransportProtocolNumber, payload []byte) {
	s.sendPacket(src, dst, protocol, nil, buffer.MakeWithData(payload), stack.GSO{})
}

// sendPacket sends an IP packet with a transport header and what follows it, which it takes over.
func (s *Stack) sendPacket(src, dst netip.Addr, protocol tcpip.TransportProtocolNumber, head []byte, payload buffer.Buffer, gso stack.GSO) {
	proto, from := toTCPIP(src)
	_, to := toTCPIP(dst)
	route, err := s.net.FindRoute(nicID, from, to, proto, false)
	if err != nil {
		payload.Release()
		return
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(route.MaxHeaderLength()) + len(head),
		Payload:            payload,
	})
	defer pkt.DecRef()
	if len(head) > 0 {
		copy(pkt.TransportHeader().Push(len(head)), head)
	}
	pkt.TransportProtocolNumber = protocol
	pkt.GSOOptions = gso
	params := stack.NetworkHeaderParams{Protocol: protocol, TTL: route.DefaultTTL(), TOS: stack.DefaultTOS}
	if err := route.WritePacket(params, pkt); err != nil {
		s.config.Logf("packet to %s: %s", dst, err)
	}
}
