package process

import (
	"net"
	"net/netip"
	"os"

	"rbox/slirp"
	"rbox/slirp/link"
	"rbox/slirp/publish"
)

// A door publishes the TCP ports of one container by sockets in its network namespace,
// whatever else connects that. A nil one publishes nothing.
type door struct {
	inside *publish.Inside
	ports  []slirp.Port // asked for
	table  publish.Table
}

// openDoor takes the ports from e that it is for, and returns the door for them. Where the
// kernel has not what it takes, or there is no such port, it returns nil: all ports are the
// driver's. outlast is publish.Enter's.
func openDoor(netns int, e *slirp.Endpoint, outlast bool) *door {
	d := &door{}
	var others []slirp.Port
	for _, p := range e.Ports {
		if p.Protocol == "tcp" {
			d.ports = append(d.ports, p)
		} else {
			others = append(others, p)
		}
	}
	_, err := os.Stat("/proc/sys/net/ipv6") // a kernel without IPv6 has none
	with6 := err == nil && e.IP6.IsValid()
	if len(d.ports) == 0 || link.KeepMarked(netns, publish.Mark, with6) != nil {
		return nil
	}
	if d.inside, err = publish.Enter(netns, with6, outlast); err != nil {
		return nil
	}
	e.Ports = others
	return d
}

// publish makes the door's ports lead to e, which is on the network p, and adds them to
// those of e, with what was chosen.
func (d *door) publish(p slirp.Plan, e *slirp.Endpoint) error {
	if d == nil {
		return nil
	}
	for _, port := range d.ports {
		target := publish.Target{
			IP: e.IP, IP6: e.IP6, Port: port.ContainerPort,
			Gateway: inSubnet(p.Gateway, p.Subnet), Gateway6: inSubnet(p.Gateway6, p.Subnet6),
		}
		bound, err := d.table.Add(port, func(at netip.AddrPort) (publish.Listener, error) {
			return publish.ListenTCP(at, func(client *net.TCPConn) { d.inside.Serve(client, target) })
		})
		if err != nil {
			return err
		}
		e.Ports = append(e.Ports, bound)
	}
	return nil
}

// free frees the ports of the host. Connections that there are go on.
func (d *door) free() {
	if d != nil {
		d.table.Close()
	}
}

// close ends the connections, too.
func (d *door) close() {
	if d != nil {
		d.table.Close()
		d.inside.Close()
	}
}
