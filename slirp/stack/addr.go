package stack

import (
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rbox/slirp/publish"
)

// fromTCPIP and toTCPIP convert between netstack's addresses and those of net/netip.
func fromTCPIP(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}

func toTCPIP(a netip.Addr) (tcpip.NetworkProtocolNumber, tcpip.Address) {
	if a.Is4() {
		return header.IPv4ProtocolNumber, tcpip.AddrFrom4(a.As4())
	}
	return header.IPv6ProtocolNumber, tcpip.AddrFrom16(a.As16())
}

func fullAddress(a netip.AddrPort) (tcpip.NetworkProtocolNumber, tcpip.FullAddress) {
	proto, addr := toTCPIP(a.Addr())
	return proto, tcpip.FullAddress{NIC: nicID, Addr: addr, Port: a.Port()}
}

// owns reports whether a is the gateway's or the DNS server's address.
func (s *Stack) owns(a netip.Addr) bool {
	c := &s.config
	return a.IsValid() && (a == c.Gateway.Addr() || a == c.Gateway6.Addr() || a == c.DNS || a == c.DNS6)
}

func (s *Stack) isGateway(a netip.Addr) bool {
	return a.IsValid() && (a == s.config.Gateway.Addr() || a == s.config.Gateway6.Addr())
}

// gateway returns the gateway's address of a's family; invalid: there is none.
func (s *Stack) gateway(a netip.Addr) netip.Addr {
	if a.Is4() {
		return s.config.Gateway.Addr()
	}
	return s.config.Gateway6.Addr()
}

// onLink reports whether a is of the network's own subnets.
func (s *Stack) onLink(a netip.Addr) bool {
	return s.config.Gateway.Masked().Contains(a) || s.config.Gateway6.Masked().Contains(a)
}

// outside returns the host's address for what a container calls dst, or why there is none:
// ECONNREFUSED from the stack itself, ENETUNREACH or EHOSTUNREACH from the way there.
func (s *Stack) outside(dst netip.Addr) (netip.Addr, error) {
	switch {
	case s.isGateway(dst) && s.config.HostLoopback:
		if dst.Is4() {
			return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
		}
		return netip.IPv6Loopback(), nil
	case s.owns(dst):
		return netip.Addr{}, syscall.ECONNREFUSED
	case s.onLink(dst):
		return netip.Addr{}, syscall.EHOSTUNREACH // a neighbor's packet that strayed here
	case s.config.Internal || publish.StaysInside(dst):
		return netip.Addr{}, syscall.ENETUNREACH
	}
	return dst, nil
}
