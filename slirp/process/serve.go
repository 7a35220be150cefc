package process

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"rbox/slirp"
	"rbox/slirp/dns"
	"rbox/slirp/link"
)

// served is an endpoint that works.
type served struct {
	reply slirp.Reply
	down  <-chan struct{} // closed when it no longer does; nil: never
	end   func()          // frees its ports

	// filtered calls a function on the thread that has a seccomp filter; nil: none has.
	filtered func(func())
}

// drivers connect a network namespace, the best first.
var drivers = []struct {
	name  string
	serve func(netns int, r slirp.Request) (*served, error)
}{
	{"embedded", serveEmbedded},
	{"slirp4netns", serveSlirp4netns},
	{"pasta", servePasta},
}

// serve connects the network namespace netns as r asks, and makes the ports lead there:
// those that its door is not for are the driver's.
func serve(netns int, r slirp.Request) (*served, error) {
	d := openDoor(netns, &r.Endpoint, true)
	s, err := serveByDriver(netns, r)
	if err != nil {
		return nil, err
	}
	if err := d.publish(r.Plan, s.reply.Ready); err != nil {
		s.end()
		return nil, err
	}
	if d != nil {
		s.filtered = d.inside.Do
	}
	end := s.end
	s.end = func() {
		d.free()
		end()
	}
	return s, nil
}

// serveByDriver connects netns by the driver that r names, else by the first that finds
// a way into it: that there is none says nothing of what else may be wrong with the request.
func serveByDriver(netns int, r slirp.Request) (*served, error) {
	var noWay *link.MissingError
	for _, d := range drivers {
		if r.Plan.Driver != "" && r.Plan.Driver != d.name {
			continue
		}
		s, err := d.serve(netns, r)
		if err == nil {
			s.reply.Driver = d.name
			return s, nil
		}
		if r.Plan.Driver != "" || noWay == nil && !errors.As(err, &noWay) {
			return nil, err
		}
	}
	if noWay != nil {
		return nil, noWay
	}
	return nil, &DriverError{r.Plan.Driver}
}

// A DriverError reports a driver that there is not.
type DriverError struct{ Name string }

func (e *DriverError) Error() string { return fmt.Sprintf("there is no network driver %q", e.Name) }

// Hint lists those there are.
func (e *DriverError) Hint() string {
	text := "the drivers are"
	for _, d := range drivers {
		text += " " + d.name
	}
	return text
}

// serveEmbedded connects netns by the embedded stack.
func serveEmbedded(netns int, r slirp.Request) (*served, error) {
	config, err := linkConfig(r)
	if err != nil {
		return nil, err
	}
	l, err := link.Make(netns, r.Plan.Link, config)
	if err != nil {
		return nil, err
	}
	ready := r.Endpoint
	ready.MAC = l.MAC.String()
	var notices []string
	if l.Without6 != nil {
		ready.IP6 = netip.Addr{}
		notices = append(notices, l.Without6.Error())
	}
	g, err := newGateway(r.Plan)
	if err != nil {
		return nil, err
	}
	if err := g.stack.Attach(l.FD, stackKind(l)); err != nil {
		return nil, fmt.Errorf("serve the %s: %w", l.Kind, err)
	}
	asked := resolver{plan: r.Plan.Resolver}
	if err := g.serveDNS(r.Plan, dns.NewNames(""), func(netip.Addr) resolver { return asked }); err != nil {
		return nil, err
	}
	if ready.Ports, err = g.publish(ready); err != nil {
		return nil, err
	}
	reply := slirp.Reply{Ready: &ready, Link: l.Kind, Notices: notices}
	return &served{reply: reply, end: func() { g.unpublish(ready.Ports) }}, nil
}

// linkConfig is the container's end of a link to the embedded stack.
func linkConfig(r slirp.Request) (c link.Config, err error) {
	p, e := &r.Plan, &r.Endpoint
	c = link.Config{Name: e.Interface, MTU: mtu(*p)}
	if e.MAC != "" {
		if c.MAC, err = net.ParseMAC(e.MAC); err != nil {
			return c, err
		}
	}
	for _, a := range []struct {
		ip, gateway netip.Addr
		subnet      netip.Prefix
	}{{e.IP, p.Gateway, p.Subnet}, {e.IP6, p.Gateway6, p.Subnet6}} {
		if !a.ip.IsValid() {
			continue
		}
		c.Addresses = append(c.Addresses, netip.PrefixFrom(a.ip, a.subnet.Bits()))
		if a.gateway.IsValid() {
			c.Gateways = append(c.Gateways, a.gateway)
		}
	}
	return c, nil
}
