package process

import (
	"fmt"
	"net"
	"net/netip"

	"rbox/slirp"
)

// A TakenError reports an address that another container has.
type TakenError struct {
	Network, Address, Container string
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("network %s: %s is taken by container %s", e.Network, e.Address, e.Container)
}

// Hint says how to be given a free one.
func (*TakenError) Hint() string {
	return "without --ip, --ip6 and --mac-address a free one is chosen"
}

// An OutsideError reports an address that a network cannot give.
type OutsideError struct {
	Network string
	Address netip.Addr
	Subnet  netip.Prefix
}

func (e *OutsideError) Error() string {
	return fmt.Sprintf("network %s: %s is no address for a container: its subnet is %s", e.Network, e.Address, e.Subnet)
}

// An ExhaustedError reports a network all of whose addresses are taken.
type ExhaustedError struct {
	Network string
	Range   netip.Prefix
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("network %s: all addresses of %s are taken", e.Network, e.Range)
}

// Hint says how to have more.
func (*ExhaustedError) Hint() string {
	return "make a larger network: rbox network create --subnet 10.100.0.0/16 NAME"
}

// choose returns an address for a container: wanted, if that is valid, else the lowest
// one in the range that is free. Those for which owner names a container are taken.
func choose(p *slirp.Plan, subnet, within netip.Prefix, wanted netip.Addr, owner func(netip.Addr) string) (netip.Addr, error) {
	if !within.IsValid() {
		within = subnet
	}
	usable := func(a netip.Addr) bool {
		return a != subnet.Masked().Addr() && a != broadcast(subnet) &&
			a != p.Gateway && a != p.Gateway6 && a != p.DNS && a != p.DNS6
	}
	if wanted.IsValid() {
		if !subnet.Contains(wanted) || !usable(wanted) {
			return wanted, &OutsideError{p.Name, wanted, subnet}
		}
		if other := owner(wanted); other != "" {
			return wanted, &TakenError{p.Name, wanted.String(), other}
		}
		return wanted, nil
	}
	for a := within.Masked().Addr(); within.Contains(a); a = a.Next() {
		if usable(a) && owner(a) == "" {
			return a, nil
		}
	}
	return wanted, &ExhaustedError{p.Name, within}
}

// broadcast is the last address of an IPv4 subnet, which is nobody's; IPv6 has none.
func broadcast(subnet netip.Prefix) netip.Addr {
	if !subnet.Addr().Is4() || subnet.Bits() >= 31 {
		return netip.Addr{}
	}
	b := subnet.Masked().Addr().As4()
	for i := subnet.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// hardwareAddr is the Ethernet address that goes with an IP address, as Docker makes
// it: who has the one in a cache is right about the other, whichever container has it.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	b := ip.AsSlice()
	return append(net.HardwareAddr{0x02, 0x42}, b[len(b)-4:]...)
}
