package stack

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

// A packet without a hop left is the gateway's to answer, and one that has some goes on
// with one less: traceroute(8) needs no more.
func TestHopsAreCounted(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		for _, tc := range []struct{ outside, gateway netip.Addr }{{outside4, gateway4.Addr()}, {outside6, gateway6.Addr()}} {
			host, to := w.packets(false, netip.AddrPortFrom(tc.outside, 0))
			c := w.mustDial("udp", to).(*net.UDPConn)

			setHops(t, c, tc.outside, 1)
			c.Write([]byte("near"))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.EHOSTUNREACH) {
				w.t.Errorf("%s: %v, want %v", to, err, syscall.EHOSTUNREACH)
			}
			if from := whoSaysSo(t, c); from != tc.gateway {
				w.t.Errorf("%s: the error is of %s, want the gateway's %s", to, from, tc.gateway)
			}

			setHops(t, c, tc.outside, 2)
			c.Write([]byte("far"))
			if hops := hopsLeftAt(t, host, tc.outside); hops != 1 {
				w.t.Errorf("%s: %d hops were left, want 1", to, hops)
			}
		}
		// Of the stack's own addresses no router is on the way.
		c := w.mustDial("udp", netip.AddrPortFrom(gateway4.Addr(), 9)).(*net.UDPConn)
		setHops(t, c, gateway4.Addr(), 1)
		c.Write([]byte("anybody?"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			w.t.Errorf("the gateway: %v, want %v", err, syscall.ECONNREFUSED)
		}
	})
}

// setOptions sets integer options of a socket.
func setOptions(t *testing.T, c *net.UDPConn, level int, options map[int]int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for option, value := range options {
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// setHops has c send packets with so many hops, and hear what became of them.
func setHops(t *testing.T, c *net.UDPConn, to netip.Addr, hops int) {
	t.Helper()
	if to.Is4() {
		setOptions(t, c, unix.SOL_IP, map[int]int{unix.IP_TTL: hops, unix.IP_RECVERR: 1})
	} else {
		setOptions(t, c, unix.SOL_IPV6, map[int]int{unix.IPV6_UNICAST_HOPS: hops, unix.IPV6_RECVERR: 1})
	}
}

// whoSaysSo returns who sent the error that waits at c.
func whoSaysSo(t *testing.T, c *net.UDPConn) netip.Addr {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var l lost
	raw.Control(func(fd uintptr) {
		control := make([]byte, 256)
		if _, errno := recvmsg(int(fd), make([]byte, quoted), control, unix.MSG_ERRQUEUE); errno == 0 {
			l, _ = parseError(control)
		}
	})
	return l.why.from
}

// hopsLeftAt returns how many hops the next datagram has left.
func hopsLeftAt(t *testing.T, c *net.UDPConn, at netip.Addr) int {
	t.Helper()
	if at.Is4() {
		setOptions(t, c, unix.SOL_IP, map[int]int{unix.IP_RECVTTL: 1})
	} else {
		setOptions(t, c, unix.SOL_IPV6, map[int]int{unix.IPV6_RECVHOPLIMIT: 1})
	}
	control := make([]byte, 64)
	_, n, _, _, err := c.ReadMsgUDP(make([]byte, 16), control)
	if err != nil {
		t.Fatal(err)
	}
	h, data, _, err := unix.ParseOneSocketControlMessage(control[:n])
	if err != nil || len(data) < 4 {
		t.Fatalf("control message %+v: %v", h, err)
	}
	return int(binary.NativeEndian.Uint32(data))
}
