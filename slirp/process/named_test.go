package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/tests/nstest"
)

// A bench is a host whose named networks are served by goroutines of the test.
type bench struct {
	*testing.T
	dir  string
	mu   sync.Mutex
	ends map[string]chan error // of the networks in use
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, dir: t.TempDir(), ends: map[string]chan error{}}
	t.Cleanup(func() {
		for name := range b.ends {
			b.waitEnd(name)
		}
	})
	return b
}

// plan is of the network called name, whose number is its third byte.
func plan(name string, number byte) slirp.Plan {
	return slirp.Plan{
		Name: name, Link: "veth", MTU: 1500,
		Subnet:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 89, number, 0}), 24),
		Gateway: netip.AddrFrom4([4]byte{10, 89, number, 1}), DNS: netip.AddrFrom4([4]byte{10, 89, number, 1}),
		Subnet6:  netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%x::/64", number)),
		Gateway6: netip.MustParseAddr(fmt.Sprintf("fd00:0:0:%x::1", number)),
		DNS6:     netip.MustParseAddr(fmt.Sprintf("fd00:0:0:%x::1", number)),
	}
}

// A place is a container: a network namespace.
type place struct {
	b     *bench
	netns *os.File
	calls chan func()
	conn  int
	reply slirp.Reply
}

// place makes a network namespace with a thread in it.
func (b *bench) place() *place {
	b.Helper()
	p := &place{b: b, calls: make(chan func()), conn: -1}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			p.netns, err = os.Open("/proc/thread-self/ns/net")
		}
		made <- err
		for f := range p.calls {
			f()
		}
	}()
	if err := <-made; err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		p.leave()
		close(p.calls)
		p.netns.Close()
	})
	return p
}

// do calls f in the place.
func (p *place) do(f func()) {
	done := make(chan struct{})
	p.calls <- func() { f(); close(done) }
	<-done
}

// join has the place join a network and returns what came of it.
func (p *place) join(call slirp.Call) error {
	p.b.Helper()
	dir := filepath.Join(p.b.dir, call.Plan.Name)
	conn, err := slirp.Join(dir, func(listener *os.File) error {
		fd, err := unix.FcntlInt(listener.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return err
		}
		end := make(chan error, 1)
		p.b.mu.Lock()
		p.b.ends[call.Plan.Name] = end
		p.b.mu.Unlock()
		go func() {
			end <- serveNamed(dir, fd, nil)
			unix.Close(fd)
		}()
		return nil
	})
	if err != nil {
		return err
	}
	if call.Endpoint.Interface == "" {
		call.Endpoint.Interface = "eth0"
	}
	if err := slirp.Send(conn, call, int(p.netns.Fd())); err != nil {
		return err
	}
	var reply slirp.Reply
	if _, err := slirp.Receive(conn, &reply); err != nil {
		return err
	}
	if reply.Failed != nil {
		unix.Close(conn)
		return errors.New(reply.Failed.Text)
	}
	p.conn, p.reply = conn, reply
	return nil
}

// mustJoin is join of a container called name.
func (p *place) mustJoin(plan slirp.Plan, names ...string) {
	p.b.Helper()
	if err := p.join(slirp.Call{Request: slirp.Request{Plan: plan, Endpoint: slirp.Endpoint{Container: names[0], Names: names}}}); err != nil {
		p.b.Fatal(err)
	}
}

func (p *place) ip() netip.Addr { return p.reply.Ready.IP }

// leave detaches the place, and returns once it is.
func (p *place) leave() {
	if p.conn < 0 {
		return
	}
	unix.Shutdown(p.conn, unix.SHUT_WR)
	var none slirp.Reply
	if _, err := slirp.Receive(p.conn, &none); err != io.EOF {
		p.b.Errorf("after the end: %v", err)
	}
	unix.Close(p.conn)
	p.conn = -1
}

// waitEnd waits for the end of a network's process.
func (b *bench) waitEnd(name string) {
	b.Helper()
	b.mu.Lock()
	end := b.ends[name]
	delete(b.ends, name)
	b.mu.Unlock()
	select {
	case err := <-end:
		if err != nil {
			b.Errorf("network %s: %v", name, err)
		}
	case <-time.After(20 * time.Second):
		b.Errorf("network %s does not end", name)
	}
	if _, err := os.Stat(filepath.Join(b.dir, name)); !errors.Is(err, os.ErrNotExist) {
		b.Errorf("network %s leaves its directory: %v", name, err)
	}
}

// echo listens at addr in the place, and answers each connection with its client's address.
func (p *place) echo(addr string) {
	p.b.Helper()
	var l net.Listener
	var err error
	p.do(func() { l, err = net.Listen("tcp", addr) })
	if err != nil {
		p.b.Fatal(err)
	}
	p.b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().String())
			c.Close()
		}
	}()
}

// reach connects from the place to addr and returns what it is told.
func (p *place) reach(addr string) (told string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	p.do(func() {
		var c net.Conn
		if c, err = new(net.Dialer).DialContext(ctx, "tcp", addr); err == nil {
			defer c.Close()
			var b []byte
			b, err = io.ReadAll(c)
			told = string(b)
		}
	})
	return told, err
}

// lookup asks the network's own server for the addresses of name.
func (p *place) lookup(name string) ([]string, error) {
	server := p.reply.Ready.IP.AsSlice()
	server[3] = 1
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		p.do(func() {
			c, err = new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(net.IP(server).String(), "53"))
		})
		return c, err
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := r.LookupHost(ctx, name+".")
	slices.Sort(list)
	return list, err
}

func TestContainersReachEachOther(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	b := newBench(t)
	one, two := b.place(), b.place()
	one.mustJoin(plan("net", 1), "one")
	two.mustJoin(plan("net", 1), "two")
	if got := two.reply.Ready; got.IP.String() != "10.89.1.3" || got.IP6.String() != "fd00:0:0:1::3" || got.MAC != "02:42:0a:59:01:03" {
		t.Errorf("got %+v", got)
	}
	one.echo("10.89.1.2:80")
	one.echo("[fd00:0:0:1::2]:80")
	for _, addr := range []string{"10.89.1.2", "fd00:0:0:1::2"} {
		told, err := two.reach(net.JoinHostPort(addr, "80"))
		if err != nil || !strings.Contains(told, "3]:") && !strings.HasPrefix(told, "10.89.1.3:") {
			t.Errorf("%s: %q, %v", addr, told, err)
		}
	}
}

func TestNetworksAreIsolated(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	b := newBench(t)
	one, two := b.place(), b.place()
	one.mustJoin(plan("a", 1), "one")
	two.mustJoin(plan("b", 2), "two")
	one.echo("10.89.1.2:80")
	if _, err := two.reach(net.JoinHostPort(one.ip().String(), "80")); err == nil {
		t.Error("a container of another network is reached")
	}
}

// Two networks with the same subnet and addresses know nothing of each other: what one
// sends, to one or to all, the other does not hear.
func TestNetworksOfOneSubnetAreIsolated(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	b := newBench(t)
	one, near, far := b.place(), b.place(), b.place()
	one.mustJoin(plan("a", 1), "one")
	near.mustJoin(plan("a", 1), "near")
	far.mustJoin(plan("b", 1), "far")
	sniff := func(p *place) (heard func() bool) {
		var fd int
		p.do(func() {
			fd, _ = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_ALL)))
		})
		b.Cleanup(func() { unix.Close(fd) })
		return func() bool {
			frame := make([]byte, 2000)
			for {
				n, _, err := unix.Recvfrom(fd, frame, 0)
				if err != nil {
					return false
				}
				if bytes.Contains(frame[:n], []byte("for all to hear")) {
					return true
				}
			}
		}
	}
	nearby, elsewhere := sniff(near), sniff(far)
	one.do(func() {
		for _, to := range []string{"10.89.1.255:9", "255.255.255.255:9"} {
			c, err := net.Dial("udp", to)
			if err == nil {
				_, err = io.WriteString(c, "for all to hear")
				c.Close()
			}
			if err != nil {
				b.Error(err)
			}
		}
	})
	for begun := time.Now(); !nearby(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > 5*time.Second {
			t.Fatal("the network's own containers do not hear it")
		}
	}
	if elsewhere() {
		t.Error("another network hears it")
	}
}

// networkOrder is htons(3).
func networkOrder(n uint16) uint16 { return n<<8 | n>>8 }

// A published port leads to its container, who sees the client's own address; after the
// container has left, to nobody.
func TestPublishedPortOfANamedNetwork(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	host := netip.MustParseAddr("192.0.2.9")
	for _, err := range []error{
		netlink.LinkSetUp(lo),
		netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: host.AsSlice(), Mask: net.CIDRMask(32, 32)}}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	b := newBench(t)
	other, one := b.place(), b.place()
	other.mustJoin(plan("net", 1), "other")
	call := slirp.Call{Request: slirp.Request{Plan: plan("net", 1), Endpoint: slirp.Endpoint{
		Names: []string{"one"}, Ports: []slirp.Port{{HostIP: host, ContainerPort: 80, Protocol: "tcp"}},
	}}}
	if err := one.join(call); err != nil {
		t.Fatal(err)
	}
	one.echo("10.89.1.3:80")
	at := netip.AddrPortFrom(host, one.reply.Ready.Ports[0].HostPort).String()
	client := net.Dialer{LocalAddr: &net.TCPAddr{IP: host.AsSlice()}, Timeout: 5 * time.Second}
	c, err := client.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	told, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(told), host.String()+":") {
		t.Errorf("the container sees %q (%v), not %s", told, err, host)
	}
	one.leave()
	if c, err := client.Dial("tcp", at); err == nil {
		c.Close()
		t.Error("the port of a container that has left is open")
	}
}

func TestAddresses(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	b := newBench(t)
	small := plan("small", 1)
	small.Subnet = netip.MustParsePrefix("10.89.1.0/29") // six, one of them the gateway's
	small.Subnet6, small.Gateway6, small.DNS6 = netip.Prefix{}, netip.Addr{}, netip.Addr{}
	with := func(e slirp.Endpoint) slirp.Call { return slirp.Call{Request: slirp.Request{Plan: small, Endpoint: e}} }
	fixed := b.place()
	if err := fixed.join(with(slirp.Endpoint{Names: []string{"fixed"}, IP: netip.MustParseAddr("10.89.1.3"), MAC: "02:00:00:00:00:07"})); err != nil {
		t.Fatal(err)
	}
	var rest []*place
	for _, want := range []string{"10.89.1.2", "10.89.1.4", "10.89.1.5", "10.89.1.6"} {
		p := b.place()
		p.mustJoin(small, "some")
		if got := p.ip().String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		rest = append(rest, p)
	}
	for _, tc := range []struct {
		e    slirp.Endpoint
		want string
	}{
		{slirp.Endpoint{}, "network small: all addresses of 10.89.1.0/29 are taken"},
		{slirp.Endpoint{IP: netip.MustParseAddr("10.89.1.3")}, "network small: 10.89.1.3 is taken by container fixed"},
		{slirp.Endpoint{IP: netip.MustParseAddr("10.89.1.1")}, "network small: 10.89.1.1 is no address for a container: its subnet is 10.89.1.0/29"},
		{slirp.Endpoint{IP: netip.MustParseAddr("10.89.1.7")}, "network small: 10.89.1.7 is no address for a container: its subnet is 10.89.1.0/29"},
		{slirp.Endpoint{IP: netip.MustParseAddr("10.89.2.7")}, "network small: 10.89.2.7 is no address for a container: its subnet is 10.89.1.0/29"},
		{slirp.Endpoint{IP6: netip.MustParseAddr("fd00::7")}, "network small has no addresses like fd00::7"},
	} {
		p := b.place()
		if err := p.join(with(tc.e)); err == nil || err.Error() != tc.want {
			t.Errorf("%+v: %v, want %s", tc.e, err, tc.want)
		}
	}
	rest[2].leave()
	p := b.place()
	if err := p.join(with(slirp.Endpoint{MAC: "02:00:00:00:00:07"})); err == nil || !strings.Contains(err.Error(), "02:00:00:00:00:07 is taken by container fixed") {
		t.Errorf("a taken MAC: %v", err)
	}
	p.mustJoin(small, "late")
	if got := p.ip().String(); got != "10.89.1.5" {
		t.Errorf("the free address is 10.89.1.5, got %s", got)
	}
}

func TestAddressIsFreeAfterAnEnd(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	b := newBench(t)
	stay := b.place()
	stay.mustJoin(plan("net", 1), "stay")
	call := slirp.Call{Request: slirp.Request{Plan: plan("net", 1), Endpoint: slirp.Endpoint{Names: []string{"again"}, IP: netip.MustParseAddr("10.89.1.77")}}}
	for range 20 {
		p := b.place()
		if err := p.join(call); err != nil {
			t.Fatal(err)
		}
		unix.Close(p.conn) // its monitor is killed
		p.conn = -1
	}
	p := b.place()
	p.mustJoin(plan("net", 1), "other")
	call.Endpoint.IP, call.Again = p.ip(), true
	q := b.place()
	if err := q.join(call); err != nil || q.ip() == p.ip() {
		t.Errorf("%v, %v is given twice", err, p.ip())
	}
}

func TestManyComeAndGo(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	b := newBench(t)
	for range 3 { // the process ends while others come
		var all sync.WaitGroup
		var mu sync.Mutex
		seen := map[netip.Addr]bool{}
		for range 20 {
			p := b.place()
			all.Go(func() {
				p.mustJoin(plan("net", 1), "some")
				mu.Lock()
				defer mu.Unlock()
				if seen[p.ip()] {
					t.Errorf("%s is given twice", p.ip())
				}
				seen[p.ip()] = true
			})
		}
		all.Wait()
		for range 10 { // one after the other, each the only one
			p := b.place()
			p.mustJoin(plan("alone", 2), "alone")
			p.leave()
		}
	}
}

func TestNetworkAnswersNames(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	around, err := slirp.Look()
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	one, two, both := b.place(), b.place(), b.place()
	one.mustJoin(plan("a", 1), "one", "shared")
	two.mustJoin(plan("b", 2), "two")
	both.mustJoin(plan("a", 1), "both", "shared")
	second := &place{b: b, netns: both.netns, calls: both.calls, conn: -1}
	if err := second.join(slirp.Call{Metric: 101, Request: slirp.Request{Plan: plan("b", 2), Endpoint: slirp.Endpoint{Names: []string{"both"}, Interface: "eth1"}}}); err != nil {
		t.Fatal(err)
	}
	defer second.leave()
	if _, err := both.lookup("two"); err == nil {
		t.Error("the sister network is not known yet")
	}
	if err := slirp.Send(both.conn, slirp.Call{Sisters: []string{filepath.Join(b.dir, "b")}}); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		who  *place
		name string
		want string
	}{
		{one, "both", "10.89.1.3 fd00:0:0:1::3"},
		{one, "shared", "10.89.1.2 10.89.1.3 fd00:0:0:1::2 fd00:0:0:1::3"},
		{both, "ONE.rbox.internal", "10.89.1.2 fd00:0:0:1::2"},
		{both, "two", "10.89.2.2 fd00:0:0:2::2"},
		{both, "two.rbox.internal", "10.89.2.2 fd00:0:0:2::2"},
		{two, "both", "10.89.2.3 fd00:0:0:2::3"},
		{two, "one.rbox.internal", ""},
	} {
		list, err := tc.who.lookup(tc.name)
		if got := strings.Join(list, " "); got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: %q, %v, want %q", tc.name, got, err, tc.want)
		}
	}
	if list, err := one.lookup("host.containers.internal"); around.Address.IsValid() && (err != nil || len(list) == 0) {
		t.Errorf("the host: %v, %v", list, err)
	}
	one.leave()
	if list, err := both.lookup("one.rbox.internal"); err == nil {
		t.Errorf("one that has left is found: %v", list)
	}
}
