package stack

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

// reflect sends what arrives at c back to where it came from.
func reflect(c *net.UDPConn) {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort(b[:n], from)
	}
}

func TestUDPCarriesDatagramsOfAllSizes(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	for _, mtu := range []int{MaxMTU, 1500} {
		onEachLink(t, Config{MTU: mtu}, func(w *world) {
			for _, addr := range outsides() {
				server, to := w.packets(false, netip.AddrPortFrom(addr, 0))
				go reflect(server)
				c := w.mustDial("udp", to)
				largest := 65507 // an IPv4 packet of 65535 bytes
				if addr.Is6() {
					largest = 65536 - 48 // the MTU of the host's loopback: no router fragments
				}
				for _, size := range []int{0, 1, 512, 1472, 1473, 9000, largest} {
					w.exchange(c, size)
				}
			}
		})
	}
}

// exchange sends a datagram and wants it back.
func (w *world) exchange(c net.Conn, size int) {
	w.t.Helper()
	sent, got := make([]byte, size), make([]byte, maxDatagram)
	rand.NewChaCha8([32]byte{byte(size)}).Read(sent)
	if _, err := c.Write(sent); err != nil {
		w.t.Errorf("send %d bytes to %s: %v", size, c.RemoteAddr(), err)
		return
	}
	n, err := c.Read(got)
	if err != nil || !bytes.Equal(got[:n], sent) {
		w.t.Errorf("%d bytes from %s: got %d, %v", size, c.RemoteAddr(), n, err)
	}
}

// A container's program may leave it to the kernel to cut what it sends into datagrams.
func TestUDPSegments(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		for _, addr := range outsides() {
			server, to := w.packets(false, netip.AddrPortFrom(addr, 0))
			c := w.mustDial("udp", to).(*net.UDPConn)
			raw, _ := c.SyscallConn()
			const size, count = 1000, 7
			raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
			if _, err := c.Write(make([]byte, size*count-1)); err != nil {
				w.t.Fatal(err)
			}
			for i := range count {
				want := size
				if i == count-1 {
					want--
				}
				if n, err := server.Read(make([]byte, maxDatagram)); n != want || err != nil {
					w.t.Errorf("datagram %d to %s: %d bytes, %v, want %d", i, addr, n, err, want)
				}
			}
		}
	})
}

func TestUDPErrorsPass(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		for _, addr := range outsides() {
			free, to := w.packets(false, netip.AddrPortFrom(addr, 0))
			free.Close()
			w.wantUDPError(to, syscall.ECONNREFUSED)
		}
		w.wantUDPError(netip.AddrPortFrom(gateway4.Addr(), 9), syscall.ECONNREFUSED)
		w.wantUDPError(netip.AddrPortFrom(gateway6.Addr(), 9), syscall.ECONNREFUSED)
		w.wantUDPError(netip.MustParseAddrPort("203.0.113.1:9"), syscall.ENETUNREACH)
		w.wantUDPError(netip.MustParseAddrPort("169.254.1.1:9"), syscall.ENETUNREACH)
	})
}

func (w *world) wantUDPError(to netip.AddrPort, want syscall.Errno) {
	w.t.Helper()
	c := w.mustDial("udp", to)
	if to.Addr().Is4() {
		hearErrors(w.t, c.(*net.UDPConn))
	}
	c.Write([]byte("anybody?"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
		w.t.Errorf("%s: %v, want %v", to, err, want)
	}
}

// A datagram that is too large for a path behind the host is an error that names
// the path's MTU, and the next one is fragmented.
func TestUDPFindsThePathMTU(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		beyond := netip.MustParseAddrPort("192.0.2.77:9")
		c := w.mustDial("udp", beyond).(*net.UDPConn)
		raw, _ := c.SyscallConn()
		mtu := func() (n int) {
			raw.Control(func(fd uintptr) { n, _ = unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_MTU) })
			return n
		}
		if mtu() != MaxMTU {
			w.t.Errorf("at first the path's MTU is %d, want %d", mtu(), MaxMTU)
		}
		c.Write(make([]byte, 5000))
		w.eventually("the path's MTU is known", func() bool { return mtu() == narrowMTU })
	})
}

func TestUDPAnswersComeOnlyFromThoseAsked(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		asked, to := w.packets(false, netip.AddrPortFrom(outside4, 0))
		sameHost, _ := w.packets(false, netip.AddrPortFrom(outside4, 0))
		stranger, _ := w.packets(false, netip.AddrPortFrom(another4, 0))
		c, _ := w.packets(true, netip.AddrPort{})
		c.WriteToUDPAddrPort([]byte("question"), to)
		_, from, err := asked.ReadFromUDPAddrPort(make([]byte, 100))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, s := range []*net.UDPConn{stranger, sameHost, asked} {
			s.WriteToUDPAddrPort([]byte(s.LocalAddr().String()), from)
		}
		for _, want := range []*net.UDPConn{sameHost, asked} {
			b := make([]byte, 100)
			n, _, err := c.ReadFromUDPAddrPort(b)
			if err != nil || string(b[:n]) != want.LocalAddr().String() {
				w.t.Errorf("got %q, %v, want %q", b[:n], err, want.LocalAddr())
			}
		}
	})
}

func TestUDPFlowsExpire(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		server, to := w.packets(false, netip.AddrPortFrom(outside4, 0))
		go reflect(server)
		c := w.mustDial("udp", to)
		w.exchange(c, 10)
		flows := func() int {
			w.stack.udp.mu.Lock()
			defer w.stack.udp.mu.Unlock()
			return len(w.stack.udp.flows)
		}
		w.stack.udp.sweep()
		if flows() != 1 {
			w.t.Errorf("%d flows after an exchange, want 1", flows())
		}
		w.stack.udp.mu.Lock()
		w.stack.udp.life = func(*udpFlow) time.Duration { return 0 }
		w.stack.udp.mu.Unlock()
		w.stack.udp.sweep()
		if flows() != 0 {
			w.t.Errorf("%d flows after they expired, want 0", flows())
		}
		w.exchange(c, 10)
	})
}

func TestFlowsLastByWhatTheyAre(t *testing.T) {
	for name, tc := range map[string]struct {
		dns       bool
		sent, got int64
		want      time.Duration
	}{
		"question to DNS":       {true, 1, 1, lifeDNS},
		"unanswered":            {false, 5, 0, lifeOneWay},
		"one question answered": {false, 1, 1, lifeOneWay},
		"conversation":          {false, 2, 2, lifeBothWays},
	} {
		f := &udpFlow{dns: tc.dns}
		f.sent.Store(tc.sent)
		f.got.Store(tc.got)
		if got := f.life(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// A flood of source ports takes no more than the flows there may be.
func TestUDPFlowsAreLimited(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	w := newWorld(t, "veth", Packet, Config{})
	for port := range uint16(maxFlows + 100) {
		if _, err := w.stack.udp.flow(netip.AddrPortFrom(inside4, port+1), netip.AddrPortFrom(outside4, 9)); err != nil {
			t.Fatal(err)
		}
	}
	w.stack.udp.mu.Lock()
	defer w.stack.udp.mu.Unlock()
	if n := len(w.stack.udp.flows); n != maxFlows {
		t.Errorf("%d flows, want %d", n, maxFlows)
	}
}

// ping asks addr for an echo from inside the container, by a ping socket.
func (w *world) ping(addr netip.Addr, data []byte) error {
	family, protocol, kind := "ip4", unix.IPPROTO_ICMP, byte(8)
	domain := unix.AF_INET
	if addr.Is6() {
		family, domain, protocol, kind = "ip6", unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
	}
	var c net.PacketConn
	if err := w.in(func() error {
		os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0)
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
		if err != nil {
			return os.NewSyscallError("socket for "+family, err)
		}
		if domain == unix.AF_INET {
			unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
		}
		f := os.NewFile(uintptr(fd), "ping")
		defer f.Close()
		c, err = net.FilePacketConn(f)
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	message := append([]byte{kind, 0, 0, 0, 0, 0, 0, 1}, data...)
	if _, err := c.WriteTo(message, &net.UDPAddr{IP: addr.AsSlice()}); err != nil {
		return err
	}
	answer := make([]byte, maxDatagram)
	n, _, err := c.ReadFrom(answer)
	if err == nil && (n != len(message) || !bytes.Equal(answer[8:n], data)) {
		return errors.New("another answer")
	}
	return err
}

func TestPing(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		allow := func(group string) {
			if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(group), 0); err != nil {
				w.t.Fatal(err)
			}
		}
		allow("0 0")
		for _, addr := range []netip.Addr{gateway4.Addr(), gateway6.Addr(), dns4, outside4, outside6} {
			for _, size := range []int{0, 56, 8000, 60000} {
				if err := w.ping(addr, bytes.Repeat([]byte{1}, size)); err != nil {
					w.t.Errorf("ping %s with %d bytes: %v", addr, size, err)
				}
			}
		}
		if err := w.ping(netip.MustParseAddr("203.0.113.1"), nil); !errors.Is(err, syscall.ENETUNREACH) {
			w.t.Errorf("ping where no route leads: %v", err)
		}
		w.stack.Forget(inside4)
		allow("1 0")
		if err := w.ping(outside4, nil); !errors.Is(err, syscall.EHOSTUNREACH) {
			w.t.Errorf("ping without ping sockets: %v, want %v", err, syscall.EHOSTUNREACH)
		}
		if err := w.ping(gateway4.Addr(), nil); err != nil {
			w.t.Errorf("ping the gateway: %v", err)
		}
	})
}
