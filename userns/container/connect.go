package container

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"rbox/idmap"
	"rbox/slirp"
	"rbox/userns/stage"
)

// startUplinks starts what connects the container, so that it is ready by the
// time that the container's network namespace is there.
func (m *monitor) startUplinks() error {
	for range m.Networks {
		u, err := startUplink(m.network)
		if err != nil {
			return err
		}
		m.mu.Lock()
		m.uplinks = append(m.uplinks, u)
		m.mu.Unlock()
	}
	return nil
}

// awaitUplinks waits until the processes run: no other can be started while we
// start the container's, which waits for them.
func (m *monitor) awaitUplinks() {
	for _, u := range m.uplinks {
		<-u.started
	}
}

// askNetworks asks for an endpoint on each network in the network namespace of
// the process pid.
func (m *monitor) askNetworks(pid int) error {
	if len(m.uplinks) == 0 {
		return nil
	}
	netns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		return err
	}
	defer netns.Close()
	for i, u := range m.uplinks {
		if err := u.ask(netns, m.Networks[i]); err != nil {
			return u.lost(err)
		}
	}
	return nil
}

// awaitNetworks waits until the container is on its networks.
func (m *monitor) awaitNetworks(int) error {
	m.attached = nil
	for i, u := range m.uplinks {
		reply, err := u.answer()
		if err != nil {
			return err
		}
		m.attached = append(m.attached, m.attachment(i, reply))
		for _, notice := range reply.Notices {
			m.first.send(message{Notice: "network: " + notice})
		}
	}
	return m.introduceAddresses()
}

// startOnHost is start on the host's network, for a container that may have it
// where none of its own works, as the failure of a first start has shown.
func (m *monitor) startOnHost(account stage.Account, failed error) error {
	var none *noNetworkError
	if !errors.As(failed, &none) || len(m.Networks) != 1 || !m.Networks[0].Plan.HostInstead {
		return failed
	}
	m.disconnect()
	m.Networks, m.attached = nil, nil
	m.Plan.Namespaces.HostNetwork = true
	for _, name := range []string{"/hosts", "/resolv.conf"} {
		text, err := os.ReadFile("/etc" + name)
		if err == nil {
			err = os.WriteFile(m.scratch+name, text, 0)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	m.first.send(message{Notice: "the container shares this host's network and can reach all that listens here, since it can have none of its own: " + none.Text})
	return m.start(account, unneeded)
}

// attachment is what reply says of the network i. A later run asks for the same
// addresses and ports.
func (m *monitor) attachment(i int, reply slirp.Reply) Attachment {
	r := &m.Networks[i]
	r.Endpoint = *reply.Ready
	a := Attachment{
		Network: RequestName(*r), Driver: reply.Driver, Link: reply.Link, Endpoint: *reply.Ready,
		Gateway: r.Plan.Gateway, Gateway6: r.Plan.Gateway6,
	}
	if a.IP.IsValid() {
		a.Bits = r.Plan.Subnet.Bits()
	}
	if a.IP6.IsValid() {
		a.Bits6 = r.Plan.Subnet6.Bits()
	}
	return a
}

// introduceAddresses adds the container's own addresses to its /etc/hosts.
func (m *monitor) introduceAddresses() error {
	hosts, err := os.OpenFile(m.scratch+"/hosts", os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, os.ErrNotExist) { // the plan has another in its place
		return nil
	}
	if err != nil {
		return err
	}
	defer hosts.Close()
	_, err = hosts.WriteString(HostsLines(m.Plan.Hostname, m.attached))
	return err
}

// disconnect ends the container's connections to its networks.
func (m *monitor) disconnect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.uplinks {
		u.close()
	}
	m.uplinks = nil
	m.state.Networks = nil
}

// guard waits for the end of the uplink of the network i. One that is lost
// before the run is over is reported and, if the restart policy starts
// again what ends, made anew.
func (m *monitor) guard(i int, u *uplink, over chan struct{}) {
	for pause := time.Duration(0); ; {
		begun := time.Now()
		<-u.over
		select {
		case <-over:
			return
		case <-time.After(latePause): // the end of a container takes its links with it, before we hear of it
		}
		if u.ended() {
			return
		}
		m.lostNetwork(i)
		if m.Restart.Name == "" || m.Restart.Name == "no" {
			return
		}
		pause = backOff(pause, time.Since(begun))
		select {
		case <-over:
			return
		case <-time.After(pause):
		}
		var err error
		if u, err = m.reconnect(i); err != nil {
			m.first.send(message{Notice: "connect the container again: " + err.Error()})
		}
		if u == nil {
			return
		}
	}
}

// lostNetwork reports that the process of the network i was killed.
func (m *monitor) lostNetwork(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := RequestName(m.Networks[i])
	for j, a := range m.state.Networks {
		if a.Network == name {
			m.state.Networks = append(m.state.Networks[:j:j], m.state.Networks[j+1:]...)
			break
		}
	}
	m.saveState()
	m.event("network_lost", map[string]string{"network": name})
	m.first.send(message{Notice: "network " + name + " is down: its process was killed"})
}

// reconnect starts an uplink in place of the one that was lost; nil: the
// container has ended. One that fails is closed, unless it was before.
func (m *monitor) reconnect(i int) (*uplink, error) {
	u, netns, err := m.replaceUplink(i)
	if u == nil {
		return nil, err
	}
	defer netns.Close()
	if err = u.ask(netns, m.Networks[i]); err != nil {
		return u, u.lost(err)
	}
	reply, err := u.answer()
	if err != nil {
		u.kill()
		return u, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.child == nil {
		return nil, nil
	}
	a := m.attachment(i, reply)
	m.state.Networks = append(m.state.Networks, a)
	m.event("network_restored", map[string]string{"network": a.Network})
	return u, m.saveState()
}

// replaceUplink starts the uplink i anew, for the network namespace that comes with it.
func (m *monitor) replaceUplink(i int) (*uplink, *os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.child == nil || i >= len(m.uplinks) {
		return nil, nil, nil
	}
	netns, err := os.Open("/proc/" + strconv.Itoa(m.child.Pid) + "/ns/net")
	if err != nil {
		return nil, nil, err
	}
	u, err := startUplink(m.network)
	if err != nil {
		netns.Close()
		return nil, nil, err
	}
	m.uplinks[i].close()
	m.uplinks[i] = u
	return u, netns, nil
}

// networkSysctls are the settings of a container that is on networks: all its
// groups may ping (icmp(7)), and all its users bind any port (ip(7)).
func (m *monitor) networkSysctls() [][2]string {
	if len(m.Networks) == 0 {
		return nil
	}
	return [][2]string{{"net.ipv4.ip_unprivileged_port_start", "0"}, {"net.ipv4.ping_group_range", m.pingRange()}}
}

// pingRange is the widest range of groups of the container. The kernel has it in
// the order of the host's ids, and takes one that is a range by both
// (net/ipv4/sysctl_net_ipv4.c, ipv4_ping_group_range).
func (m *monitor) pingRange() string {
	inside := m.Plan.Namespaces.GIDs
	outer, err := idmap.ReadMap("/proc/self/gid_map")
	if err != nil || len(inside) == 0 {
		return "0 0"
	}
	host := func(id uint32) int { return outside(outer, uint32(outside(inside, id))) }
	first := slices.MinFunc(inside, func(a, b idmap.Mapping) int { return cmp.Compare(a.Inside, b.Inside) }).Inside
	last := first
	for _, g := range inside {
		if end := g.Inside + g.Count - 1; end > last && host(end) > host(first) {
			last = end
		}
	}
	return fmt.Sprintf("%d %d", first, last)
}
