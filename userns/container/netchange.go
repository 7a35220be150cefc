package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"rbox/slirp"
	"rbox/userns"
)

// Connect puts a running container on one more network, whose process executable
// becomes if it is the first one there. The interface is the next free one if r names none.
func (c *Client) Connect(r slirp.Request, executable *os.File) error {
	return c.ask(message{Connect: &r}, executable)
}

// Disconnect takes a running container off the network called name.
func (c *Client) Disconnect(name string) error { return c.ask(message{Disconnect: name}) }

// connectNetwork puts the container on one more network.
func (m *monitor) connectNetwork(r slirp.Request, executable *os.File) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	netns, child, err := m.openNetwork()
	if err != nil {
		return err
	}
	defer netns.Close()
	if !m.Plan.Namespaces.Own("net") {
		return &Failure{Text: "the container has no network of its own: it shares another's", Status: 125}
	}
	if slices.ContainsFunc(m.Networks, func(other slirp.Request) bool { return other.Plan.Name == r.Plan.Name }) {
		return &Failure{Text: "the container is on network " + RequestName(r) + " already", Status: 125}
	}
	if m.network == nil {
		m.network = executable
	} else {
		executable.Close()
	}
	if r.Endpoint.Interface == "" {
		r.Endpoint.Interface = m.nextInterface()
	}
	u, err := m.startUplink(slirp.Call{Request: r, Metric: m.nextMetric(r.Plan), Sisters: m.sisters(r.Plan.Name, m.Networks)})
	if err != nil {
		return err
	}
	reply, err := u.attach(netns)
	if err != nil {
		u.close()
		return err
	}
	return m.connected(child, u, r, u.attachment(reply))
}

// connected records what connectNetwork did for a run, whose process 1 child is.
func (m *monitor) connected(child *userns.Child, u *uplink, asked slirp.Request, a Attachment) error {
	m.mu.Lock()
	if m.child != child {
		m.mu.Unlock()
		u.close()
		return errNotRunning
	}
	m.setNetworks(append(slices.Clone(m.Networks), asked))
	m.uplinks = append(m.uplinks, u)
	m.state.Networks = append(slices.Clone(m.state.Networks), a)
	err := m.saveState()
	m.event("network_connect", map[string]string{"network": a.Network})
	go m.guard(u, m.over)
	m.mu.Unlock()
	m.tellSisters()
	return errors.Join(err, m.changeFiles(HostsLines(m.Plan.Hostname, []Attachment{a}), nil))
}

// disconnectNetwork takes the container off the network called name.
func (m *monitor) disconnectNetwork(name string) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	m.mu.Lock()
	if m.child == nil {
		m.mu.Unlock()
		return errNotRunning
	}
	i := slices.IndexFunc(m.uplinks, func(u *uplink) bool { return u.name() == name })
	if i < 0 {
		m.mu.Unlock()
		return &Failure{Text: "the container is not on network " + name, Status: 125}
	}
	u := m.uplinks[i]
	m.uplinks = slices.Delete(slices.Clone(m.uplinks), i, i+1)
	m.setNetworks(Without(m.Networks, name))
	m.forgetAttachment(name)
	err := m.saveState()
	m.event("network_disconnect", map[string]string{"network": name})
	m.mu.Unlock()
	u.leave()
	m.tellSisters()
	return errors.Join(err, m.movePorts(u.call.Endpoint.Ports), m.changeFiles("", u))
}

// movePorts has the first of the container's networks publish what one did that it has
// left. Ports that were chosen stay what they are.
func (m *monitor) movePorts(ports []slirp.Port) error {
	if len(ports) == 0 || len(m.uplinks) == 0 {
		return nil
	}
	netns, _, err := m.openNetwork()
	if err != nil {
		return err
	}
	defer netns.Close()
	u := m.uplinks[0]
	reply, err := u.publish(netns, ports)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Clone(m.state.Networks)
	for i := range list {
		if list[i].Network == u.name() {
			list[i].Ports = reply.Ready.Ports
		}
	}
	m.state.Networks = list
	return m.saveState()
}

// Without is list without the network called name. The ports that were to be published
// there are the next one's.
func Without(list []slirp.Request, name string) []slirp.Request {
	var ports []slirp.Port
	list = slices.DeleteFunc(slices.Clone(list), func(r slirp.Request) bool {
		gone := RequestName(r) == name
		if gone {
			ports = r.Endpoint.Ports
		}
		return gone
	})
	if len(list) > 0 && len(ports) > 0 {
		list[0].Endpoint.Ports = ports
	}
	return list
}

// setNetworks makes list the networks of this run and the next ones. The caller
// holds m.mu.
func (m *monitor) setNetworks(list []slirp.Request) {
	m.Networks = list
	m.state.Wanted = &list
}

// nextInterface is the first name that no network of the container uses.
func (m *monitor) nextInterface() string {
	for i := 0; ; i++ {
		name := "eth" + strconv.Itoa(i)
		if !slices.ContainsFunc(m.uplinks, func(u *uplink) bool { return u.call.Endpoint.Interface == name }) {
			return name
		}
	}
}

// nextMetric is more than that of all others: their default route stays. One without
// a way out does not stand in the way of one that has.
func (m *monitor) nextMetric(p slirp.Plan) int {
	next := metric(0)
	if p.Internal {
		next += 1000
	}
	for _, u := range m.uplinks {
		if u.call.Plan.Internal == p.Internal {
			next = max(next, u.call.Metric+1)
		}
	}
	return next
}

// tellSisters tells the container's networks of each other.
func (m *monitor) tellSisters() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range m.uplinks {
		u.tell(m.sisters(u.call.Plan.Name, m.Networks))
	}
}

// changeFiles adds lines to the container's /etc/hosts, and takes away what is said
// there of the network that gone was on. If that one's DNS server was asked, the first
// of those that are left is.
func (m *monitor) changeFiles(add string, gone *uplink) error {
	err := edit(m.scratch+"/hosts", func(text []byte) []byte {
		if gone != nil {
			text = withoutAddresses(text, gone.call.Endpoint)
		}
		return append(text, add...)
	})
	if gone == nil || len(m.uplinks) == 0 {
		return err
	}
	from, to := gone.call.Plan.DNS, m.uplinks[0].call.Plan.DNS
	return errors.Join(err, edit(m.scratch+"/resolv.conf", func(text []byte) []byte {
		return bytes.ReplaceAll(text, fmt.Appendf(nil, "nameserver %s\n", from), fmt.Appendf(nil, "nameserver %s\n", to))
	}))
}

// withoutAddresses is the text of a hosts file without the lines of e's addresses.
func withoutAddresses(text []byte, e slirp.Endpoint) []byte {
	var kept []byte
	for line := range bytes.Lines(text) {
		address, _, _ := strings.Cut(string(line), "\t")
		if address != e.IP.String() && address != e.IP6.String() {
			kept = append(kept, line...)
		}
	}
	return kept
}

// edit changes a file in place, which the container sees by its own mount of it. One
// that is not there is the image's or the user's own.
func edit(path string, change func([]byte) []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed := change(text)
	if _, err := f.WriteAt(changed, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(changed)))
}
