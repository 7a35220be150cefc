package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/slirp/link"
	"rbox/tests/nstest"
)

// patience is more than anything takes.
const patience = 20 * time.Second

// world is a host, the network namespace that the test runs in, and a container.
type world struct {
	t      *testing.T
	netns  int // of the container
	inside *Inside
	table  Table
}

// The container's addresses, and those of clients that are not of this host.
var (
	ip4, ip6          = netip.MustParsePrefix("10.0.2.100/24"), netip.MustParsePrefix("fd00::100/64")
	gateway, gateway6 = netip.MustParsePrefix("10.0.2.2/24"), netip.MustParsePrefix("fd00::2/64")
	client4, client6  = netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("2001:db8::1/128")
)

// newWorld makes a world. The test has entered a network namespace of its own.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	if err := addresses(client4, client6); err != nil {
		t.Fatal(err)
	}
	err := onThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			err = addresses(ip4, ip6)
		}
		if err == nil {
			w.netns, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		return err
	})
	if err == nil {
		err = link.KeepMarked(w.netns, Mark, true)
	}
	if err == nil {
		w.inside, err = Enter(w.netns, true, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.table.Close()
		w.inside.Close()
		unix.Close(w.netns)
	})
	return w
}

// addresses gives the lo of this thread's network namespace what is reached there.
func addresses(list ...netip.Prefix) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	for _, a := range list {
		if err == nil {
			bits := a.Addr().BitLen()
			err = netlink.AddrReplace(lo, &netlink.Addr{
				IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(bits, bits)}, Flags: unix.IFA_F_NODAD * (bits / 128),
			})
		}
		if err == nil {
			err = awaitRoute(a.Addr())
		}
	}
	return err
}

// awaitRoute waits until the kernel has made the route to a new address of this thread's
// network namespace, which it does in the background.
func awaitRoute(a netip.Addr) error {
	for end := time.Now().Add(patience); ; unix.Poll(nil, 5) {
		c, err := net.Dial("udp", netip.AddrPortFrom(a, 9).String()) // sends nothing
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			return err
		}
	}
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

// listen listens in the container.
func (w *world) listen(port uint16) *net.TCPListener {
	w.t.Helper()
	var l net.Listener
	err := onThread(func() (err error) {
		if err = unix.Setns(w.netns, unix.CLONE_NEWNET); err == nil {
			l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	return l.(*net.TCPListener)
}

// publish publishes a port of the container's on all addresses of the host.
func (w *world) publish(port uint16) uint16 {
	w.t.Helper()
	target := Target{IP: ip4.Addr(), IP6: ip6.Addr(), Port: port, Gateway: gateway, Gateway6: gateway6}
	bound, err := w.table.Add(slirp.Port{ContainerPort: port, Protocol: "tcp"}, func(at netip.AddrPort) (Listener, error) {
		return ListenTCP(at, func(c *net.TCPConn) { w.inside.Serve(c, target) })
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return bound.HostPort
}

// dial connects a client of that address to a published port.
func (w *world) dial(from, to netip.Addr, port uint16) *net.TCPConn {
	w.t.Helper()
	return w.dialFrom(netip.AddrPortFrom(from, 0), to, port)
}

// dialFrom is dial by a client that chooses its own port, which may be in use for
// another connection.
func (w *world) dialFrom(from netip.AddrPort, to netip.Addr, port uint16) *net.TCPConn {
	w.t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: patience, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	c, err := d.Dial("tcp", netip.AddrPortFrom(to, port).String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func (w *world) accept(l *net.TCPListener) *net.TCPConn {
	w.t.Helper()
	c, err := l.AcceptTCP()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// clients are where they connect to, from where, and what the container sees.
var clients = []struct{ from, to, seen netip.Addr }{
	{client4.Addr(), client4.Addr(), client4.Addr()},
	{client6.Addr(), client6.Addr(), client6.Addr()},
	{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1"), gateway.Addr()},
	{netip.IPv6Loopback(), netip.IPv6Loopback(), gateway6.Addr()},
}

// The server sees its client, and the end of each direction by itself.
func TestClientsAreSeen(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	w := newWorld(t)
	l, port := w.listen(80), w.publish(80)
	for _, tc := range clients {
		client := w.dial(tc.from, tc.to, port)
		server := w.accept(l)
		got := ClientOf(server)
		if want := netip.AddrPortFrom(tc.seen, localOf(client).Port()); got != want {
			t.Errorf("%s appears as %s, want %s", client.LocalAddr(), got, want)
		}
		client.Write([]byte("question"))
		client.CloseWrite()
		if got, err := io.ReadAll(server); string(got) != "question" || err != nil {
			t.Errorf("server read %q, %v", got, err)
		}
		server.Write([]byte("answer"))
		server.Close()
		if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
			t.Errorf("client read %q, %v", got, err)
		}
	}
}

// localOf is the address of c's own end.
func localOf(c *net.TCPConn) netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

// What is refused, or reset, inside is reset outside, and what is outside inside.
func TestRefusalsAndResets(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	w := newWorld(t)
	port := w.publish(81)
	for _, tc := range clients {
		c, err := (&net.Dialer{Timeout: patience}).Dial("tcp", netip.AddrPortFrom(tc.to, port).String())
		if err == nil { // it may be reset before the client knows that it is connected
			c.SetDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s, refused inside: %v, want %v", tc.from, err, syscall.ECONNRESET)
		}
	}
	l := w.listen(81)
	for _, inside := range []bool{true, false} {
		client := w.dial(client4.Addr(), client4.Addr(), port)
		server := w.accept(l)
		breaks, sees := client, server
		if inside {
			breaks, sees = server, client
		}
		breaks.SetLinger(0)
		breaks.Close()
		if _, err := sees.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reset, inside %v: %v, want %v", inside, err, syscall.ECONNRESET)
		}
	}
	client := w.dial(client4.Addr(), client4.Addr(), port)
	w.accept(l)
	w.inside.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the container leaves: %v, want %v", err, syscall.ECONNRESET)
	}
}

// What arrives is what was sent, in pieces of all sizes and both ways at once.
func TestDataArrivesWhole(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	w := newWorld(t)
	l, port := w.listen(80), w.publish(80)
	client := w.dial(client4.Addr(), client4.Addr(), port)
	server := w.accept(l)
	var all sync.WaitGroup
	for i, pair := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		data := make([]byte, 24<<20)
		rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		all.Go(func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1<<rand.N(22))
				if _, err := pair[0].Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			pair[0].CloseWrite()
		})
		all.Go(func() {
			got, err := io.ReadAll(pair[1])
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d of %d bytes, or others, arrived: %v", len(got), len(data), err)
			}
		})
	}
	all.Wait()
}

// A client may have one port of its own for two published ones that lead to one.
func TestPortThatIsTakenInside(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	w := newWorld(t)
	l, first, second := w.listen(80), w.publish(80), w.publish(80)
	client := w.dial(client4.Addr(), client4.Addr(), first)
	w.accept(l)
	w.dialFrom(localOf(client), client4.Addr(), second)
	if got := ClientOf(w.accept(l)); got.Addr() != client4.Addr() || got.Port() == localOf(client).Port() {
		t.Errorf("it appears as %s", got)
	}
}
