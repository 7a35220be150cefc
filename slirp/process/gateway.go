package process

import (
	"fmt"
	"net/netip"

	"rbox/slirp"
	"rbox/slirp/stack"
)

// gateway is the embedded stack with what listens in it.
type gateway struct {
	stack *stack.Stack
}

func newGateway(p slirp.Plan) (*gateway, error) {
	s, err := stack.New(stack.Config{
		MTU: p.MTU, Gateway: inSubnet(p.Gateway, p.Subnet), Gateway6: inSubnet(p.Gateway6, p.Subnet6),
		DNS: p.DNS, DNS6: p.DNS6, HostLoopback: p.HostLoopback, Internal: p.Internal,
	})
	if err != nil {
		return nil, fmt.Errorf("start the network stack: %w", err)
	}
	return &gateway{s}, nil
}

// inSubnet is a with the length of its subnet's prefix.
func inSubnet(a netip.Addr, subnet netip.Prefix) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, subnet.Bits())
}

// publish makes the endpoint's ports lead to it, and returns them with what was chosen.
func (g *gateway) publish(e slirp.Endpoint) (bound []slirp.Port, err error) {
	for _, p := range e.Ports {
		b, err := g.stack.Publish(p, e.IP, e.IP6)
		if err != nil {
			return nil, err
		}
		bound = append(bound, b)
	}
	return bound, nil
}
