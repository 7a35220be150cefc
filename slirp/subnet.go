package slirp

import (
	"net/netip"
	"slices"
)

// The places of a private network's addresses in its subnets: those that
// slirp4netns has (slirp4netns(1)).
const (
	gatewayPlace   = 2
	dnsPlace       = 3
	containerPlace = 100
)

// Settle chooses the addresses of a private network and of its container: the
// first of 10.0.2.0/24, 10.0.3.0/24 and on, and of fd00::/64, fd00:0:0:1::/64
// and on, that overlaps none of routes, which are the host's. Subnets that were
// chosen before, or given, stay if that still holds.
func (r *Request) Settle(routes []netip.Prefix) {
	p, e := &r.Plan, &r.Endpoint
	if !p.Subnet.IsValid() || slices.ContainsFunc(routes, p.Subnet.Overlaps) {
		p.Subnet = firstFree(routes, 2, 255, func(n int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), 0}), 24)
		})
	}
	p.Gateway, p.DNS = Nth(p.Subnet, gatewayPlace), Nth(p.Subnet, dnsPlace)
	e.IP = Nth(p.Subnet, containerPlace)
	if p.IPv4Only {
		return
	}
	if !p.Subnet6.IsValid() || slices.ContainsFunc(routes, p.Subnet6.Overlaps) {
		p.Subnet6 = firstFree(routes, 0, 255, func(n int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(n)}), 64)
		})
	}
	// The last digits read as those of IPv4 do: fd00::100.
	p.Gateway6, p.DNS6 = Nth(p.Subnet6, gatewayPlace), Nth(p.Subnet6, dnsPlace)
	e.IP6 = Nth(p.Subnet6, 0x100)
}

// firstFree is the first of subnet(from) to subnet(to) that overlaps none of
// taken, else the first of all: a route to it is hidden from one container then.
func firstFree(taken []netip.Prefix, from, to int, subnet func(int) netip.Prefix) netip.Prefix {
	for n := from; n <= to; n++ {
		if p := subnet(n); !slices.ContainsFunc(taken, p.Overlaps) {
			return p
		}
	}
	return subnet(from)
}

// Nth is the n-th address of p, counted from 0; the zero one if p is too small.
func Nth(p netip.Prefix, n uint32) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += uint32(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	if a, _ := netip.AddrFromSlice(b); n == 0 && p.Contains(a) {
		return a
	}
	return netip.Addr{}
}

// Last is the last address of p: of IPv4, the broadcast address.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
