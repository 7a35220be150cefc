package process

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/slirp/dns"
	"rbox/slirp/link"
	"rbox/slirp/sandbox"
	"rbox/slirp/stack"
)

// unwanted is how long a process stays that nobody has ever connected to: who started
// it was killed.
const unwanted = 10 * time.Second

// NamedMain serves the named network whose directory is dir (slirp.Join): each
// connection is one container on it. Descriptor 3 is the network's socket. It returns
// when the last connection has closed.
func NamedMain(dir string) error {
	hide(connection)
	entered, err := sandbox.Enter(sandbox.Need{
		Capabilities: []int{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN, unix.CAP_NET_RAW},
		Follow:       []string{hostFile}, Named: true, Dir: dir,
	})
	if err != nil {
		return err
	}
	return serveNamed(dir, connection, entered)
}

// serveNamed is NamedMain with any socket, and in any sandbox.
func serveNamed(dir string, listener int, entered *slirp.Sandbox) error {
	if err := unix.SetNonblock(listener, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	n := &network{
		dir: dir, listener: listener, sandbox: entered, over: make(chan error, 1),
		byAddr: map[netip.Addr]*member{}, byMAC: map[string]*member{},
	}
	time.AfterFunc(unwanted, n.endIfUnused)
	go n.accept()
	return <-n.over
}

// A network is a named network in use.
type network struct {
	dir      string
	listener int
	sandbox  *slirp.Sandbox
	over     chan error // the end of the process

	mu    sync.Mutex
	open  int  // connections
	ended bool // nobody is accepted any more

	making  sync.Mutex // endpoints come and go one at a time
	plan    slirp.Plan
	bridge  *link.Bridge // nil: not made yet
	gateway *gateway
	uplink  string // the kind of its link
	names   *dns.Names
	byMAC   map[string]*member
	made    int // ports, for their names

	looking sync.RWMutex // over byAddr, for those who do not make
	byAddr  map[netip.Addr]*member
}

// A member is a container on the network.
type member struct {
	conn     int
	endpoint slirp.Endpoint
	port     string // of the bridge
	door     *door
	resolver resolver
	unname   func()
	gone     chan struct{} // closed when all that it had is free
}

// accept takes connections of the same user.
func (n *network) accept() {
	for {
		poll := []unix.PollFd{{Fd: int32(n.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			n.end(os.NewSyscallError("poll", err))
			return
		}
		n.mu.Lock()
		ended := n.ended
		if !ended {
			n.acceptOne()
		}
		n.mu.Unlock()
		if ended {
			return
		}
	}
}

// acceptOne takes one connection that waits; false: there is none. The caller holds n.mu.
func (n *network) acceptOne() bool {
	conn, _, err := unix.Accept4(n.listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return false
	}
	cred, err := unix.GetsockoptUcred(conn, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || int(cred.Uid) != unix.Geteuid() {
		unix.Close(conn)
		return true
	}
	n.open++
	go n.serve(conn)
	return true
}

// serve is the life of a connection.
func (n *network) serve(conn int) {
	defer n.leave(conn)
	var call slirp.Call
	fds, err := slirp.Receive(conn, &call)
	if err != nil {
		return
	}
	if len(fds) == 1 && call.Ask == nil {
		n.host(conn, call, fds[0])
		return
	}
	closeAll(fds)
	switch {
	case call.Ask != nil:
		n.making.Lock()
		g := n.gateway
		n.making.Unlock()
		slirp.Send(conn, slirp.Reply{Answer: g.answerSister(call)})
	default:
		slirp.Send(conn, slirp.Reply{Failed: failure(errors.New("the request came without its network namespace"))})
	}
}

// host has a container on the network until its connection is closed.
func (n *network) host(conn int, call slirp.Call, netns int) {
	m, notices, err := n.attach(conn, call, netns)
	unix.Close(netns) // the namespace ends with the container
	if err != nil {
		slirp.Send(conn, slirp.Reply{Failed: failure(err)})
		return
	}
	defer n.detach(m)
	ready := m.endpoint
	if slirp.Send(conn, slirp.Reply{Ready: &ready, Driver: "embedded", Link: n.uplink, Notices: notices, Sandbox: n.sandbox}) != nil {
		return
	}
	for {
		var call slirp.Call
		fds, err := slirp.Receive(conn, &call)
		if err == nil && len(call.Publish) > 0 && len(fds) == 1 {
			err = slirp.Send(conn, n.publishLater(m, call.Publish, fds[0]))
		}
		closeAll(fds)
		if err != nil {
			return
		}
		n.looking.Lock()
		m.resolver.sisters = call.Sisters
		n.looking.Unlock()
	}
}

// closeAll closes what came by a socket.
func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// leave is the end of a connection, and after the last one of the process.
func (n *network) leave(conn int) {
	unix.Close(conn)
	n.mu.Lock()
	n.open--
	n.mu.Unlock()
	n.endIfUnused()
}

// endIfUnused ends the process if nobody is or will be connected: who connects does so
// under the lock.
func (n *network) endIfUnused() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open > 0 || n.ended {
		return
	}
	lock, err := slirp.LockControl(n.dir)
	if err != nil {
		n.end(err)
		return
	}
	defer lock.Close()
	if n.acceptOne() {
		return
	}
	n.ended = true
	slirp.RemoveControl(n.dir)
	n.end(nil)
}

// end ends the process.
func (n *network) end(err error) {
	select {
	case n.over <- err:
	default: // it ends already
	}
}

// attach makes an endpoint. One whose container has ended, and whose connection is
// closed, is waited for where it has an address that is wanted.
func (n *network) attach(conn int, call slirp.Call, netns int) (*member, []string, error) {
	for {
		m, notices, leaving, err := n.tryAttach(conn, call, netns)
		if leaving == nil {
			return m, notices, err
		}
		<-leaving.gone
	}
}

// tryAttach is attach; it returns who is leaving, and in the way.
func (n *network) tryAttach(conn int, call slirp.Call, netns int) (m *member, notices []string, leaving *member, err error) {
	n.making.Lock()
	defer n.making.Unlock()
	if err := n.make(call.Plan); err != nil {
		return nil, nil, nil, err
	}
	m = &member{
		conn: conn, endpoint: call.Endpoint, gone: make(chan struct{}),
		resolver: resolver{call.Plan.Resolver, call.Sisters},
	}
	if leaving, err := n.choose(m); err != nil || leaving != nil {
		if leaving != nil || !call.Again {
			return nil, nil, leaving, err
		}
		m.endpoint.IP, m.endpoint.IP6, m.endpoint.MAC = netip.Addr{}, netip.Addr{}, ""
		if leaving, err := n.choose(m); err != nil || leaving != nil {
			return nil, nil, leaving, err
		}
	}
	notices, err = n.connect(m, netns, call.Metric)
	if err != nil {
		return nil, nil, nil, err
	}
	n.looking.Lock()
	defer n.looking.Unlock()
	for _, a := range []netip.Addr{m.endpoint.IP, m.endpoint.IP6} {
		if a.IsValid() {
			n.byAddr[a] = m
		}
	}
	n.byMAC[m.endpoint.MAC] = m
	m.unname = n.names.Add(m.endpoint.Names, m.endpoint.IP, m.endpoint.IP6)
	return m, notices, nil, nil
}

// make makes the network, for the first container on it.
func (n *network) make(p slirp.Plan) error {
	if n.bridge != nil {
		if p.Subnet != n.plan.Subnet || p.Subnet6 != n.plan.Subnet6 {
			return fmt.Errorf("network %s is in use with other subnets: %s", p.Name, n.plan.Subnet)
		}
		return nil
	}
	if p.MTU == 0 {
		p.MTU = stack.MaxMTU
	}
	bridge, err := link.NewBridge(p.MTU)
	if err != nil {
		return fmt.Errorf("network %s: %w", p.Name, err)
	}
	n.names = dns.NewNames(domain, valid(p.Subnet, p.Subnet6)...)
	gateway, kind, err := n.makeGateway(bridge, p)
	if err != nil {
		bridge.Close()
		return fmt.Errorf("network %s: %w", p.Name, err)
	}
	n.plan, n.bridge, n.gateway, n.uplink = p, bridge, gateway, kind
	go func() {
		<-gateway.stack.Down()
		n.end(errors.New("the link to the bridge is gone"))
	}()
	return nil
}

// makeGateway starts the embedded stack behind the bridge's uplink.
func (n *network) makeGateway(bridge *link.Bridge, p slirp.Plan) (*gateway, string, error) {
	l, err := bridge.Uplink(p.Link)
	if err != nil {
		return nil, "", err
	}
	g, err := newGateway(p)
	if err != nil {
		unix.Close(l.FD)
		return nil, "", err
	}
	if err := g.stack.Attach(l.FD, stackKind(l)); err != nil {
		g.stack.Close()
		return nil, "", fmt.Errorf("serve the %s: %w", l.Kind, err)
	}
	if err := g.serveDNS(p, n.names, n.resolverOf); err != nil {
		g.stack.Close()
		return nil, "", err
	}
	return g, l.Kind, nil
}

func valid(list ...netip.Prefix) (out []netip.Prefix) {
	for _, p := range list {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// resolverOf is what the container with that address asked for.
func (n *network) resolverOf(client netip.Addr) resolver {
	n.looking.RLock()
	defer n.looking.RUnlock()
	if m := n.byAddr[client]; m != nil {
		return m.resolver
	}
	return resolver{plan: n.plan.Resolver}
}

// choose gives m its addresses, or returns who is leaving with one that it wants.
func (n *network) choose(m *member) (leaving *member, err error) {
	e := &m.endpoint
	owner := func(a netip.Addr) string { return nameOf(n.byAddr[a]) }
	for _, family := range []struct {
		ip             *netip.Addr
		subnet, within netip.Prefix
	}{{&e.IP6, n.plan.Subnet6, n.plan.Range6}, {&e.IP, n.plan.Subnet, n.plan.Range}} {
		if !family.subnet.IsValid() && family.ip.IsValid() {
			return nil, fmt.Errorf("network %s has no addresses like %s", n.plan.Name, family.ip)
		}
		if !family.subnet.IsValid() {
			continue
		}
		wanted := *family.ip
		if *family.ip, err = choose(&n.plan, family.subnet, family.within, wanted, owner); err != nil {
			return leavingOnly(n.byAddr[wanted]), err
		}
	}
	mac := hardwareAddr(first(e.IP, e.IP6))
	if e.MAC != "" {
		if mac, err = net.ParseMAC(e.MAC); err != nil {
			return nil, err
		}
	}
	e.MAC = mac.String()
	if other := n.byMAC[e.MAC]; other != nil {
		return leavingOnly(other), &TakenError{n.plan.Name, e.MAC, nameOf(other)}
	}
	return nil, nil
}

// nameOf is how a container is called in messages; "" is none.
func nameOf(m *member) string {
	switch {
	case m == nil:
		return ""
	case len(m.endpoint.Names) > 0:
		return m.endpoint.Names[0]
	}
	return m.endpoint.Container
}

// leavingOnly is m if its connection is closed and only the news has not come yet; else nil.
func leavingOnly(m *member) *member {
	if m == nil {
		return nil
	}
	poll := []unix.PollFd{{Fd: int32(m.conn), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(poll, 0); err != nil || n == 0 {
		return nil
	}
	return m
}

// connect makes m's interface and its ports.
func (n *network) connect(m *member, netns, metric int) (notices []string, err error) {
	e := &m.endpoint
	plan := n.plan
	c, err := linkConfig(slirp.Request{Plan: plan, Endpoint: *e})
	if err != nil {
		return nil, err
	}
	c.Metric = metric
	n.made++
	m.port = "port" + strconv.Itoa(n.made)
	l, err := n.bridge.Join(netns, m.port, c)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", plan.Name, err)
	}
	if l.Without6 != nil {
		e.IP6 = netip.Addr{}
		notices = append(notices, l.Without6.Error())
	}
	if err := n.publish(m, netns); err != nil {
		n.bridge.Leave(m.port)
		return nil, err
	}
	return notices, nil
}

// publishLater makes ports lead to m, which has had none.
func (n *network) publishLater(m *member, ports []slirp.Port, netns int) slirp.Reply {
	n.making.Lock()
	defer n.making.Unlock()
	m.endpoint.Ports = ports
	if err := n.publish(m, netns); err != nil {
		m.endpoint.Ports = nil
		return slirp.Reply{Failed: failure(err)}
	}
	ready := m.endpoint
	return slirp.Reply{Ready: &ready, Driver: "embedded", Link: n.uplink}
}

// publish makes m's ports lead to it, all or none.
func (n *network) publish(m *member, netns int) (err error) {
	e := &m.endpoint
	m.door = openDoor(netns, e, false)
	if e.Ports, err = n.gateway.publish(*e); err != nil {
		m.door.close()
		m.door = nil
		return err
	}
	others := e.Ports
	if err := m.door.publish(n.plan, e); err != nil {
		m.door.close()
		m.door = nil
		n.gateway.unpublish(others)
		return err
	}
	return nil
}

// detach frees all that m had.
func (n *network) detach(m *member) {
	n.making.Lock()
	defer n.making.Unlock()
	defer close(m.gone)
	m.unname()
	m.door.close()
	n.gateway.unpublish(m.endpoint.Ports)
	n.bridge.Leave(m.port)
	n.gateway.stack.Forget(m.endpoint.IP)
	n.gateway.stack.Forget(m.endpoint.IP6)
	n.looking.Lock()
	defer n.looking.Unlock()
	delete(n.byAddr, m.endpoint.IP)
	delete(n.byAddr, m.endpoint.IP6)
	delete(n.byMAC, m.endpoint.MAC)
}
