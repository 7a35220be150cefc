package process

import (
	"fmt"
	"net/netip"

	"rbox/slirp"
	"rbox/slirp/dns"
	"rbox/slirp/link"
	"rbox/slirp/stack"
)

// gateway is the embedded stack with what listens in it.
type gateway struct {
	stack *stack.Stack
	dns   *dns.Server
}

func newGateway(p slirp.Plan) (*gateway, error) {
	s, err := stack.New(stack.Config{
		MAC: hardwareAddr(first(p.Gateway, p.Gateway6)), MTU: p.MTU, Gateway: inSubnet(p.Gateway, p.Subnet), Gateway6: inSubnet(p.Gateway6, p.Subnet6),
		DNS: p.DNS, DNS6: p.DNS6, HostLoopback: p.HostLoopback, Internal: p.Internal,
	})
	if err != nil {
		return nil, fmt.Errorf("start the network stack: %w", err)
	}
	return &gateway{stack: s}, nil
}

// inSubnet is a with the length of its subnet's prefix.
func inSubnet(a netip.Addr, subnet netip.Prefix) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, subnet.Bits())
}

// publish makes the endpoint's ports lead to it, all or none, and returns them with what
// was chosen.
func (g *gateway) publish(e slirp.Endpoint) (bound []slirp.Port, err error) {
	for _, p := range e.Ports {
		b, err := g.stack.Publish(p, e.IP, e.IP6)
		if err != nil {
			g.unpublish(bound)
			return nil, err
		}
		bound = append(bound, b)
	}
	return bound, nil
}

// unpublish frees ports that publish returned.
func (g *gateway) unpublish(bound []slirp.Port) {
	for _, p := range bound {
		g.stack.Unpublish(p)
	}
}

// stackKind is what l's descriptor is to the stack.
func stackKind(l *link.Link) stack.Kind {
	if l.Kind == "veth" {
		return stack.Packet
	}
	return stack.Tap
}

// first is a, or b if that is none.
func first(a, b netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return b
}
