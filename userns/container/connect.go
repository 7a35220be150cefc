package container

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"rbox/idmap"
	"rbox/slirp"
	"rbox/userns"
	"rbox/userns/stage"
)

// startUplinks starts what connects the container, so that it is ready by the
// time that the container's network namespace is there. A later run asks for the
// addresses and ports of the one before it.
func (m *monitor) startUplinks() error {
	for i, r := range m.Networks {
		call := slirp.Call{Request: r, Metric: metric(i), Sisters: m.sisters(r.Plan.Name, m.Networks)}
		for _, a := range m.attached {
			if a.Network == RequestName(r) {
				call.Endpoint, call.Again = a.Endpoint, true
			}
		}
		u, err := m.startUplink(call)
		if err != nil {
			return err
		}
		m.mu.Lock()
		m.uplinks = append(m.uplinks, u)
		m.mu.Unlock()
	}
	return nil
}

// metric is what the default route of the container's network i has.
func metric(i int) int { return 100 + i }

// sisters are the directories of those named networks among list that are not called name.
func (m *monitor) sisters(name string, list []slirp.Request) (dirs []string) {
	for _, r := range list {
		if r.Plan.Name != "" && r.Plan.Name != name {
			dirs = append(dirs, m.networkDir(r.Plan.Name))
		}
	}
	return dirs
}

// awaitUplinks waits until the processes run: no other can be started while we
// start the container's, which waits for them.
func (m *monitor) awaitUplinks() {
	for _, u := range m.uplinks {
		<-u.started
	}
}

// ownUplinks are the network processes that are the container's alone. Like the
// monitor they are not to end with the session that started the container.
func (m *monitor) ownUplinks() (pids []int) {
	for _, u := range m.uplinks {
		if u.shared() {
			continue
		}
		<-u.started
		u.mu.Lock()
		if u.child != nil {
			pids = append(pids, u.child.Pid)
		}
		u.mu.Unlock()
	}
	return pids
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
	for _, u := range m.uplinks {
		if err := u.ask(netns); err != nil {
			return u.lost(err)
		}
	}
	return nil
}

// awaitNetworks waits until the container is on its networks.
func (m *monitor) awaitNetworks(int) error {
	m.attached = nil
	for _, u := range m.uplinks {
		reply, err := u.answer()
		if err != nil {
			return err
		}
		m.attached = append(m.attached, u.attachment(reply))
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

// attachment is what reply says.
func (u *uplink) attachment(reply slirp.Reply) Attachment {
	p := &u.call.Plan
	a := Attachment{
		Network: u.name(), Driver: reply.Driver, Link: reply.Link, Endpoint: *reply.Ready,
		Gateway: p.Gateway, Gateway6: p.Gateway6, Sandbox: reply.Sandbox,
	}
	if a.IP.IsValid() {
		a.Bits = p.Subnet.Bits()
	}
	if a.IP6.IsValid() {
		a.Bits6 = p.Subnet6.Bits()
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

// disconnect ends the container's connections to its networks, at the end of a run.
func (m *monitor) disconnect() {
	m.mu.Lock()
	uplinks := m.uplinks
	if len(m.state.Networks) > 0 {
		m.attached = m.state.Networks
	}
	m.uplinks, m.state.Networks = nil, nil
	m.mu.Unlock()
	for _, u := range uplinks {
		if len(u.call.Endpoint.Ports) > 0 {
			u.leave() // who waits for the end may want them
		} else {
			u.close() // the kernel takes the interface away with its namespace
		}
	}
}

// guard waits for the end of an uplink. One that is lost before the run is over is
// reported and, if the restart policy starts again what ends, or if other containers
// expect this one on the network, made anew.
func (m *monitor) guard(u *uplink, over chan struct{}) {
	for pause := time.Duration(0); u != nil; {
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
		m.lostNetwork(u)
		if !u.shared() && !m.restarts() {
			return
		}
		pause = backOff(pause, time.Since(begun))
		select {
		case <-over:
			return
		case <-time.After(pause):
		}
		next, err := m.reconnect(u)
		if err != nil {
			m.first.send(message{Notice: "connect the container again: " + err.Error()})
		}
		u = next
	}
}

// lostNetwork reports that the process of a network was killed.
func (m *monitor) lostNetwork(u *uplink) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.forgetAttachment(u.name()) {
		m.saveState()
		m.event("network_lost", map[string]string{"network": u.name()})
		m.first.send(message{Notice: "network " + u.name() + " is down: its process was killed"})
	}
}

// forgetAttachment takes a network out of the state. The caller holds m.mu.
func (m *monitor) forgetAttachment(name string) bool {
	n := len(m.state.Networks)
	m.state.Networks = slices.DeleteFunc(slices.Clone(m.state.Networks), func(a Attachment) bool { return a.Network == name })
	return len(m.state.Networks) < n
}

// reconnect starts an uplink in place of the one that was lost; nil: the
// container has ended, or is no longer to be on that network. One that fails is
// to be tried again: it is over.
func (m *monitor) reconnect(lost *uplink) (*uplink, error) {
	m.changing.Lock()
	defer m.changing.Unlock()
	netns, _, err := m.openNetwork()
	if err != nil {
		return nil, nil
	}
	defer netns.Close()
	if lost.ended() {
		return nil, nil
	}
	u, err := m.startUplink(lost.call)
	if err != nil {
		return lost, err
	}
	reply, err := u.attach(netns)
	if err != nil {
		u.fail()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.uplinks, lost)
	if m.child == nil || i < 0 {
		u.close()
		return nil, nil
	}
	lost.close()
	m.uplinks[i] = u
	if err != nil {
		return u, err
	}
	m.state.Networks = append(m.state.Networks, u.attachment(reply))
	m.event("network_restored", map[string]string{"network": u.name()})
	return u, m.saveState()
}

// attach asks for an endpoint in netns and waits for it.
func (u *uplink) attach(netns *os.File) (slirp.Reply, error) {
	<-u.started
	if err := u.ask(netns); err != nil {
		return slirp.Reply{}, u.lost(err)
	}
	return u.answer()
}

// openNetwork opens the network namespace of the running container, and tells its process 1.
func (m *monitor) openNetwork() (*os.File, *userns.Child, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.child == nil {
		return nil, nil, errNotRunning
	}
	netns, err := os.Open("/proc/" + strconv.Itoa(m.child.Pid) + "/ns/net")
	return netns, m.child, err
}

// networkSysctls are the settings of a container that is on networks: all its
// groups may ping (icmp(7)), and all its users bind any port (ip(7)).
func (m *monitor) networkSysctls() [][2]string {
	if len(m.Networks) == 0 {
		return nil
	}
	return [][2]string{{"net.ipv4.ip_unprivileged_port_start", "0"}, {"net.ipv4.ping_group_range", m.pingRange()}}
}

// pingRange is a range of all groups of the container. The kernel compares ids of
// the host, and takes what is a range both there and here: where the user's own
// group is above the subordinate ones it can be root's alone
// (net/ipv4/sysctl_net_ipv4.c, ipv4_ping_group_range).
func (m *monitor) pingRange() string {
	inside := m.Plan.Namespaces.GIDs
	outer, err := idmap.ReadMap("/proc/self/gid_map")
	if err != nil || len(inside) == 0 {
		return "0 0"
	}
	host := func(id uint32) int { return outside(outer, uint32(outside(inside, id))) }
	low, high := inside[0].Inside, inside[0].Inside
	for _, g := range inside {
		for _, end := range []uint32{g.Inside, g.Inside + g.Count - 1} {
			if host(end) < host(low) {
				low = end
			}
			if host(end) > host(high) {
				high = end
			}
		}
	}
	if low > high {
		return "0 0"
	}
	return fmt.Sprintf("%d %d", low, high)
}
