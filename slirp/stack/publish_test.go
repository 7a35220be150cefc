package stack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"rbox/slirp"
	"rbox/tests/nstest"
)

// mustPublish publishes a port of the container's.
func (w *world) mustPublish(protocol string, port uint16, host netip.AddrPort) uint16 {
	w.t.Helper()
	bound, err := w.stack.Publish(slirp.Port{HostIP: host.Addr(), HostPort: host.Port(), ContainerPort: port, Protocol: protocol}, inside4, inside6)
	if err != nil {
		w.t.Fatal(err)
	}
	return bound.HostPort
}

// dialFrom connects on the host from the address given.
func (w *world) dialFrom(network string, from netip.Addr, to netip.AddrPort) net.Conn {
	w.t.Helper()
	var local net.Addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	if network == "udp" {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	c, err := (&net.Dialer{LocalAddr: local, Timeout: patience}).Dial(network, to.String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// clients are those of a published port: where they connect to, from where, and the address
// that the container sees; invalid: the client's own.
var clients = []struct{ to, from, seen netip.Addr }{
	{outside4, outside4, netip.Addr{}},
	{outside4, another4, netip.Addr{}},
	{outside6, outside6, netip.Addr{}},
	{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1"), gateway4.Addr()},
	{netip.IPv6Loopback(), netip.IPv6Loopback(), gateway6.Addr()},
}

func TestPublishedTCPSeesItsClients(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{Internal: true}, func(w *world) {
		l := w.listenInside(netip.AddrPortFrom(netip.IPv6Unspecified(), 80)) // of both families
		port := w.mustPublish("tcp", 80, netip.AddrPort{})
		for _, tc := range clients {
			client := w.dialFrom("tcp", tc.from, netip.AddrPortFrom(tc.to, port)).(*net.TCPConn)
			server := w.accept(l)
			w.wantSource(server.RemoteAddr().(*net.TCPAddr).AddrPort(), client.LocalAddr().(*net.TCPAddr).AddrPort(), tc.seen)
			client.Write([]byte("question"))
			client.CloseWrite()
			if got, err := io.ReadAll(server); string(got) != "question" || err != nil {
				w.t.Errorf("server read %q, %v", got, err)
			}
			server.Write([]byte("answer"))
			server.Close()
			if got, err := io.ReadAll(client); string(got) != "answer" || err != nil {
				w.t.Errorf("client read %q, %v", got, err)
			}
		}
		sum := w.mustPublish("tcp", 80, netip.AddrPortFrom(outside4, 0))
		client := w.dialFrom("tcp", outside4, netip.AddrPortFrom(outside4, sum)).(*net.TCPConn)
		server := w.accept(l)
		done := make(chan [32]byte, 1)
		go func() { done <- pour(w, client, 32<<20) }()
		if drain(w, server, 32<<20) != <-done {
			w.t.Error("what arrived differs from what was sent")
		}
	})
}

// wantSource checks what the container sees of a client.
func (w *world) wantSource(got, client netip.AddrPort, seen netip.Addr) {
	w.t.Helper()
	got = netip.AddrPortFrom(got.Addr().Unmap(), got.Port())
	want := client
	if seen.IsValid() {
		want = netip.AddrPortFrom(seen, client.Port())
	}
	if got != want {
		w.t.Errorf("client %s appears as %s, want %s", client, got, want)
	}
}

func TestPublishedTCPRefusesAndResets(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		port := w.mustPublish("tcp", 81, netip.AddrPort{})
		client := w.dialFrom("tcp", outside4, netip.AddrPortFrom(outside4, port))
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			w.t.Errorf("refused inside: %v, want %v", err, syscall.ECONNRESET)
		}
		l := w.listenInside(netip.AddrPortFrom(inside4, 81))
		client = w.dialFrom("tcp", outside4, netip.AddrPortFrom(outside4, port))
		server := w.accept(l)
		server.SetLinger(0)
		server.Close()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			w.t.Errorf("reset inside: %v, want %v", err, syscall.ECONNRESET)
		}
	})
}

// A client may use one port of its own for two published ports that lead to one.
func TestPublishedTCPTwiceFromOnePort(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		l := w.listenInside(netip.AddrPortFrom(inside4, 82))
		one, two := w.mustPublish("tcp", 82, netip.AddrPort{}), w.mustPublish("tcp", 82, netip.AddrPort{})
		control := func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
		}
		local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(outside4, 40000))
		for i, port := range []uint16{one, two} {
			c, err := (&net.Dialer{LocalAddr: local, Control: control}).Dial("tcp", netip.AddrPortFrom(outside4, port).String())
			if err != nil {
				w.t.Fatal(err)
			}
			defer c.Close()
			server := w.accept(l)
			if from := server.RemoteAddr().(*net.TCPAddr).AddrPort(); from.Addr() != outside4 || i == 0 && from.Port() != 40000 {
				w.t.Errorf("connection %d appears as from %s", i, from)
			}
		}
	})
}

func TestPublishedUDPSeesItsClients(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{Internal: true}, func(w *world) {
		server, _ := w.packets(true, netip.AddrPortFrom(netip.IPv6Unspecified(), 53))
		port := w.mustPublish("udp", 53, netip.AddrPort{})
		b := make([]byte, maxDatagram)
		for _, tc := range clients {
			client := w.dialFrom("udp", tc.from, netip.AddrPortFrom(tc.to, port))
			for range 3 {
				if _, err := client.Write([]byte("question")); err != nil {
					w.t.Fatal(err)
				}
				n, from, err := server.ReadFromUDPAddrPort(b)
				if err != nil || string(b[:n]) != "question" {
					w.t.Fatalf("from %s: server read %q, %v", client.LocalAddr(), b[:n], err)
				}
				w.wantSource(from, client.LocalAddr().(*net.UDPAddr).AddrPort(), tc.seen)
				server.WriteToUDPAddrPort([]byte("answer"), from)
				// The client is connected: only what comes from where it wrote to is an answer.
				n, err = client.Read(b)
				if err != nil || string(b[:n]) != "answer" {
					w.t.Fatalf("client read %q, %v", b[:n], err)
				}
			}
		}
	})
}

func TestPublishTakesOnlyFreePorts(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		_, busy := w.listenOutside(outside4)
		_, err := w.stack.Publish(slirp.Port{HostPort: busy.Port(), ContainerPort: 80, Protocol: "tcp"}, inside4, inside6)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "in use") {
			w.t.Errorf("a busy port: %v", err)
		}
		for _, protocol := range []string{"tcp", "udp"} {
			p := slirp.Port{HostIP: outside4, ContainerPort: 80, Protocol: protocol}
			bound, err := w.stack.Publish(p, inside4, inside6)
			if err != nil {
				w.t.Fatal(err)
			}
			if bound.HostPort == 0 {
				w.t.Errorf("%s: no port was chosen", protocol)
			}
			if err := w.stack.Unpublish(bound); err != nil {
				w.t.Error(err)
			}
			if again, err := w.stack.Publish(bound, inside4, inside6); err != nil || again != bound {
				w.t.Errorf("%s: published again: %v, %v", protocol, again, err)
			}
		}
	})
}

func TestListenersOfTheStacksOwn(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		at := netip.AddrPortFrom(dns4, 53)
		l, err := w.stack.Listen(at)
		if err != nil {
			w.t.Fatal(err)
		}
		p, err := w.stack.ListenPacket(at)
		if err != nil {
			w.t.Fatal(err)
		}
		go func() {
			b := make([]byte, 100)
			n, from, _ := p.ReadFrom(b)
			p.WriteTo(b[:n], from)
			c, _ := l.Accept()
			io.Copy(c, c)
			c.Close()
		}()
		w.exchange(w.mustDial("udp", at), 50)
		c := w.mustDial("tcp", at).(*net.TCPConn)
		c.Write([]byte("hello"))
		c.CloseWrite()
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			w.t.Errorf("got %q, %v", got, err)
		}
		if _, err := w.stack.Listen(netip.AddrPortFrom(outside4, 53)); err == nil {
			w.t.Error("could listen on another's address")
		}
	})
}
