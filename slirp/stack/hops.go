package stack

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// The stack is a router: a packet has one hop less behind it. What has none left is
// answered as RFC 792 and RFC 4443 have it, and where one is lost further on the host's
// error queues tell: so traceroute(8) shows the gateway, and then what is beyond it.

// commonHops is what no packet on its way loses (RFC 1700's default): those with more left
// go with the host's own default, and need no word to the kernel.
const commonHops = 64

// hopsBeyond returns how many hops pkt has left behind the gateway; 0: more than enough.
func hopsBeyond(pkt *stack.PacketBuffer) uint8 {
	var hops uint8
	switch ip := pkt.NetworkHeader().Slice(); pkt.NetworkProtocolNumber {
	case header.IPv4ProtocolNumber:
		hops = header.IPv4(ip).TTL()
	case header.IPv6ProtocolNumber:
		hops = header.IPv6(ip).HopLimit()
	}
	if hops >= commonHops {
		return 0
	}
	return max(hops, 2) - 1 // 1 and 0 do not come here
}

// hopsLeft returns the hops that the IP packet of a frame has left. Of ARP, many.
func hopsLeft(eth header.Ethernet, packet []byte) uint8 {
	switch eth.Type() {
	case header.IPv4ProtocolNumber:
		return header.IPv4(packet).TTL()
	case header.IPv6ProtocolNumber:
		return header.IPv6(packet).HopLimit()
	}
	return commonHops
}

// passage is what a router looks at.
type passage struct {
	src, dst netip.Addr
	protocol tcpip.TransportProtocolNumber
	payload  []byte
	first    bool // not a later fragment
}

// readPassage reads a packet's header, which is there whole.
func readPassage(eth tcpip.NetworkProtocolNumber, packet []byte) (p passage, ok bool) {
	switch eth {
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(packet)
		if !ip.IsValid(len(packet)) {
			return p, false
		}
		return passage{fromTCPIP(ip.SourceAddress()), fromTCPIP(ip.DestinationAddress()), ip.TransportProtocol(), ip.Payload(), ip.FragmentOffset() == 0}, true
	case header.IPv6ProtocolNumber:
		ip := header.IPv6(packet)
		if !ip.IsValid(len(packet)) {
			return p, false
		}
		return passage{fromTCPIP(ip.SourceAddress()), fromTCPIP(ip.DestinationAddress()), tcpip.TransportProtocolNumber(ip.NextHeader()), ip.Payload(), true}, true
	}
	return p, false
}

// turnBack answers a packet that has no hop left. False: it needs none, being for the stack.
func (s *Stack) turnBack(eth tcpip.NetworkProtocolNumber, packet []byte) bool {
	p, ok := readPassage(eth, packet)
	if !ok || s.owns(p.dst) || p.dst.IsMulticast() {
		return false
	}
	if p.first && !isError(p) && p.src.IsGlobalUnicast() {
		s.unreachable(expired, original{src: p.src, dst: p.dst, protocol: p.protocol, payload: p.payload, size: len(p.payload)})
	}
	return true
}

// isError reports whether p is an ICMP message other than a request, which gets no answer
// (RFC 1122, 3.2.2).
func isError(p passage) bool {
	switch p.protocol {
	case header.ICMPv4ProtocolNumber:
		return len(p.payload) == 0 || header.ICMPv4Type(p.payload[0]) != header.ICMPv4Echo
	case header.ICMPv6ProtocolNumber:
		return len(p.payload) == 0 || header.ICMPv6Type(p.payload[0]) != header.ICMPv6EchoRequest
	}
	return false
}
