package network

import (
	"crypto/rand"
	"fmt"
	"net/netip"

	"rbox/slirp"
)

// An OverlapError reports a subnet that is used already.
type OverlapError struct{ Subnet, Other, Whose string }

func (e *OverlapError) Error() string {
	return fmt.Sprintf("subnet %s overlaps %s of %s", e.Subnet, e.Other, e.Whose)
}

// Hint leaves the choice to rbox.
func (e *OverlapError) Hint() string { return "without --subnet, one that is free is chosen" }

// ExhaustedError reports that no subnet is left to choose.
type ExhaustedError struct{ First, Last string }

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("all subnets of networks, %s to %s, are in use", e.First, e.Last)
}

// Hint names another.
func (e *ExhaustedError) Hint() string {
	return "rbox network prune, or choose one that nothing else uses: --subnet 192.168.89.0/24"
}

// A taken subnet is used by whom.
type taken struct {
	prefix netip.Prefix
	whose  string
}

type takens []taken

func (t takens) check(p netip.Prefix) error {
	for _, one := range t {
		if one.prefix.Overlaps(p) {
			return &OverlapError{p.String(), one.prefix.String(), one.whose}
		}
	}
	return nil
}

// settle completes a plan, or says what is wrong with it.
func settle(p *slirp.Plan, others []Network, routes []netip.Prefix) error {
	var used takens
	for _, n := range others {
		for _, subnet := range []netip.Prefix{n.Plan.Subnet, n.Plan.Subnet6} {
			if subnet.IsValid() {
				used = append(used, taken{subnet, "network " + n.Name})
			}
		}
	}
	for _, r := range routes {
		used = append(used, taken{r, "this host's routes"})
	}
	if err := settle4(p, used); err != nil {
		return err
	}
	if p.IPv4Only {
		return nil
	}
	return settle6(p, used)
}

// settle4 chooses a subnet of Podman's, if none is given.
func settle4(p *slirp.Plan, used takens) (err error) {
	if p.Subnet.IsValid() {
		if err = used.check(p.Subnet); err != nil {
			return err
		}
	} else if p.Subnet, err = choose(used); err != nil {
		return err
	}
	p.Gateway, err = gateway(p.Subnet, p.Range, p.Gateway)
	p.DNS = p.Gateway
	return err
}

// The subnets to choose from, in order.
const firstSubnet, lastSubnet = 10<<16 | 89<<8, 10<<16 | 255<<8 | 255

func choose(used takens) (netip.Prefix, error) {
	subnet := func(n int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 16), byte(n >> 8), byte(n), 0}), 24)
	}
	for n := firstSubnet; n <= lastSubnet; n++ {
		if p := subnet(n); used.check(p) == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, &ExhaustedError{subnet(firstSubnet).String(), subnet(lastSubnet).String()}
}

// settle6 chooses a unique local subnet (RFC 4193), if none is given.
func settle6(p *slirp.Plan, used takens) (err error) {
	if p.Subnet6.IsValid() {
		if err = used.check(p.Subnet6); err != nil {
			return err
		}
	} else {
		for !p.Subnet6.IsValid() || used.check(p.Subnet6) != nil {
			b := [16]byte{0: 0xfd}
			rand.Read(b[1:6])
			p.Subnet6 = netip.PrefixFrom(netip.AddrFrom16(b), 64)
		}
	}
	p.Gateway6, err = gateway(p.Subnet6, p.Range6, p.Gateway6)
	p.DNS6 = p.Gateway6
	return err
}

// A subnetError reports what a network's addresses cannot be.
type subnetError struct{ text string }

func (e *subnetError) Error() string { return e.text }

// gateway checks that the range and the gateway lie in the subnet. The gateway
// is the first address if none is given.
func gateway(subnet, within netip.Prefix, given netip.Addr) (netip.Addr, error) {
	if within.IsValid() && (within.Bits() < subnet.Bits() || !subnet.Contains(within.Addr())) {
		return given, &subnetError{fmt.Sprintf("range %s is not in subnet %s", within, subnet)}
	}
	if !given.IsValid() {
		return slirp.Nth(subnet, 1), nil
	}
	if !Usable(subnet, given) {
		return given, &subnetError{fmt.Sprintf("gateway %s is no address of subnet %s", given, subnet)}
	}
	return given, nil
}

// Usable tells whether a host of the subnet can have the address: not the first,
// which means the subnet, nor the last of IPv4, which is everybody's.
func Usable(subnet netip.Prefix, a netip.Addr) bool {
	return subnet.Contains(a) && a != subnet.Masked().Addr() && (a.Is6() || a != slirp.Last(subnet))
}

// CheckEndpoint says what is wrong with the addresses that e wants on a network.
func CheckEndpoint(p slirp.Plan, e slirp.Endpoint) error {
	for _, one := range []struct {
		wanted, gateway netip.Addr
		subnet          netip.Prefix
	}{{e.IP, p.Gateway, p.Subnet}, {e.IP6, p.Gateway6, p.Subnet6}} {
		switch {
		case !one.wanted.IsValid():
		case !one.subnet.IsValid():
			return &subnetError{fmt.Sprintf("network %s has no IPv6: %s", p.Name, one.wanted)}
		case one.wanted == one.gateway:
			return &subnetError{fmt.Sprintf("%s is the gateway of network %s", one.wanted, p.Name)}
		case !Usable(one.subnet, one.wanted):
			return &subnetError{fmt.Sprintf("%s is no address of network %s, whose subnet is %s", one.wanted, p.Name, one.subnet)}
		}
	}
	return nil
}

// ParseSubnet reads a subnet that a network can have: room for a gateway and a
// container, of addresses that mean single hosts.
func ParseSubnet(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, &subnetError{fmt.Sprintf("%q is not a subnet, as 10.89.7.0/24 is", text)}
	}
	p = p.Masked()
	a := p.Addr()
	switch {
	case a.Is4In6():
		return p, &subnetError{text + ": write it as IPv4"}
	case a.Is4() && p.Bits() < 8, a.Is6() && p.Bits() < 16:
		return p, &subnetError{text + " is too large for a network"}
	case p.Bits() > a.BitLen()-2:
		return p, &subnetError{text + " has no room for a gateway and a container"}
	case a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.IsUnspecified(), a.Is4() && a.As4()[0] >= 224:
		return p, &subnetError{text + " has no addresses of single hosts"}
	}
	return p, nil
}
