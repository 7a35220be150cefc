package stack

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	cable "rbox/slirp/link"
)

// Addresses of a test's world. The host has what is outside on its loopback
// interface, and a router's side of a narrow network that leads nowhere.
var (
	outside4  = netip.MustParseAddr("198.51.100.1")
	outside6  = netip.MustParseAddr("2001:db8::1")
	another4  = netip.MustParseAddr("198.51.100.2")
	narrow4   = netip.MustParsePrefix("192.0.2.1/24")
	narrow6   = netip.MustParsePrefix("2001:db8:1::1/64")
	gateway4  = netip.MustParsePrefix("10.0.2.2/24")
	gateway6  = netip.MustParsePrefix("fd00::2/64")
	dns4      = netip.MustParseAddr("10.0.2.3")
	inside4   = netip.MustParseAddr("10.0.2.100")
	inside6   = netip.MustParseAddr("fd00::100")
	narrowMTU = 1400
	patience  = 20 * time.Second // more than anything takes
)

// world is a host, the network namespace that the test runs in, and a container, with the
// stack between them.
type world struct {
	t     *testing.T
	stack *Stack
	netns int // of the container
}

// kinds are the links to test, by their names in package link.
var kinds = map[string]Kind{"tap": Tap, "veth": Packet}

// onEachLink runs test in a world of each kind.
func onEachLink(t *testing.T, config Config, test func(w *world)) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) { test(newWorld(t, name, kind, config)) })
	}
}

// newWorld makes a world. The test has entered a network namespace of its own.
func newWorld(t *testing.T, name string, kind Kind, config Config) *world {
	t.Helper()
	furnish(t)
	w := &world{t: t, netns: newNamespace(t)}
	config.Gateway, config.Gateway6 = gateway4, gateway6
	config.DNS = dns4
	config.Logf = t.Logf
	if config.MTU == 0 {
		config.MTU = MaxMTU
	}
	var err error
	if w.stack, err = New(config); err != nil {
		t.Fatal(err)
	}
	l, err := cable.Make(w.netns, name, cable.Config{
		Name: "eth0", MTU: config.MTU,
		Addresses: []netip.Prefix{netip.PrefixFrom(inside4, 24), netip.PrefixFrom(inside6, 64)},
		Gateways:  []netip.Addr{gateway4.Addr(), gateway6.Addr()},
	})
	if err != nil {
		w.stack.Close()
		t.Skipf("no %s here: %v", name, err)
	}
	if err := w.stack.Attach(l.FD, kind); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.stack.Close()
		w.stack.config.Logf = func(string, ...any) {}
		unix.Close(w.netns)
	})
	return w
}

// furnish gives the host its interfaces.
func furnish(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if lo.Attrs().Flags&net.FlagUp != 0 {
		return // an earlier test of this namespace did
	}
	narrow := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "narrow", MTU: narrowMTU}, PeerName: "nowhere"}
	steps := []error{netlink.LinkSetUp(lo), netlink.LinkAdd(narrow), netlink.LinkSetUp(narrow)}
	for _, a := range []netip.Addr{outside4, another4, outside6} {
		steps = append(steps, addAddress(lo, netip.PrefixFrom(a, a.BitLen())))
	}
	for _, p := range []netip.Prefix{narrow4, narrow6} {
		steps = append(steps, addAddress(narrow, p))
	}
	for i, err := range steps {
		if err != nil {
			t.Fatalf("step %d of the host's interfaces: %v", i, err)
		}
	}
	waitForIPv6(t)
}

// waitForIPv6 waits until the host reaches its own new address: the kernel makes that
// route in the background.
func waitForIPv6(t *testing.T) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(outside6, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		c.WriteTo([]byte("?"), c.LocalAddr())
		c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, _, err := c.ReadFrom(make([]byte, 1)); err == nil {
			return
		}
	}
	t.Fatalf("the host does not reach its own address %s", outside6)
}

func addAddress(l netlink.Link, p netip.Prefix) error {
	bits := p.Addr().BitLen()
	return netlink.AddrAdd(l, &netlink.Addr{
		IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), bits)}, Flags: unix.IFA_F_NODAD * (bits / 128),
	})
}

// newNamespace returns a new network namespace.
func newNamespace(t *testing.T) int {
	t.Helper()
	fd := -1
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err == nil {
			fd, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// onThread calls f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// in calls f on a thread of the container's network namespace. Sockets made there may
// be used anywhere.
func (w *world) in(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(w.netns, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// dial connects from inside the container.
func (w *world) dial(network string, addr netip.AddrPort) (conn net.Conn, err error) {
	err = w.in(func() error {
		conn, err = (&net.Dialer{Timeout: patience}).Dial(network, addr.String())
		return err
	})
	return conn, err
}

// mustDial is dial, for what must succeed.
func (w *world) mustDial(network string, addr netip.AddrPort) net.Conn {
	w.t.Helper()
	conn, err := w.dial(network, addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// listenInside listens in the container.
func (w *world) listenInside(addr netip.AddrPort) *net.TCPListener {
	w.t.Helper()
	var l *net.TCPListener
	err := w.in(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		return err
	})
	return listening(w.t, l, err)
}

// listenOutside listens on the host.
func (w *world) listenOutside(addr netip.Addr) (*net.TCPListener, netip.AddrPort) {
	w.t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	listening(w.t, l, err)
	return l, l.Addr().(*net.TCPAddr).AddrPort()
}

func listening(t *testing.T, l *net.TCPListener, err error) *net.TCPListener {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.SetDeadline(time.Now().Add(patience))
	return l
}

// accept accepts a connection.
func (w *world) accept(l *net.TCPListener) *net.TCPConn {
	w.t.Helper()
	conn, err := l.AcceptTCP()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// packets opens a UDP socket: on the host, or in the container.
func (w *world) packets(inside bool, addr netip.AddrPort) (*net.UDPConn, netip.AddrPort) {
	w.t.Helper()
	var conn *net.UDPConn
	open := func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		return err
	}
	enter := func(f func() error) error { return f() }
	if inside {
		enter = w.in
	}
	if err := enter(open); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// eventually waits until ok is true.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within %s", what, patience)
		}
		unix.Poll(nil, 5)
	}
}

// outsides are the host's addresses to test with.
func outsides() map[string]netip.Addr {
	return map[string]netip.Addr{"v4": outside4, "v6": outside6}
}

// deleteInterface deletes an interface of this thread's namespace.
func deleteInterface(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

// hearErrors has a connected socket return the errors that ICMP calls soft, too.
func hearErrors(t *testing.T, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR, 1) })
	if err != nil {
		t.Fatal(err)
	}
}
