package stack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"rbox/tests/nstest"
)

func TestTCPCarriesMuchBothWaysAndHalfCloses(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	for _, mtu := range []int{MaxMTU, 1500} {
		onEachLink(t, Config{MTU: mtu}, func(w *world) {
			for name, addr := range outsides() {
				w.t.Run(name, func(t *testing.T) { w.bothWays(addr) })
			}
		})
	}
}

// bothWays sends 32 MiB out, ends that, and gets another 32 MiB back.
func (w *world) bothWays(addr netip.Addr) {
	l, to := w.listenOutside(addr)
	const size = 32 << 20
	inside := w.mustDial("tcp", to).(*net.TCPConn)
	outside := w.accept(l)
	sums := make(chan [sha256.Size]byte, 2)
	transfer := func(from, to *net.TCPConn) {
		go func() {
			sums <- pour(w, from, size)
			from.CloseWrite()
		}()
		if got, want := drain(w, to, size), <-sums; got != want {
			w.t.Errorf("what arrived differs from what was sent")
		}
		if n, err := to.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			w.t.Errorf("after the end: %d bytes, %v, want the end", n, err)
		}
	}
	transfer(inside, outside)
	transfer(outside, inside)
}

func pour(w *world, to io.Writer, size int64) [sha256.Size]byte {
	h := sha256.New()
	source := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(io.MultiWriter(h, to), source, size); err != nil {
		w.t.Error(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func drain(w *world, from io.Reader, size int64) [sha256.Size]byte {
	h := sha256.New()
	if _, err := io.CopyN(h, from, size); err != nil {
		w.t.Error(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func TestTCPFailsAsItDoesOnTheHost(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		free, closed := w.listenOutside(outside4)
		free.Close()
		free6, closed6 := w.listenOutside(outside6)
		free6.Close()
		_, loopback := w.listenOutside(netip.MustParseAddr("127.0.0.1"))
		for name, tc := range map[string]struct {
			addr netip.AddrPort
			want syscall.Errno
		}{
			"refused":            {closed, syscall.ECONNREFUSED},
			"refused v6":         {closed6, syscall.ECONNREFUSED},
			"no route":           {netip.MustParseAddrPort("203.0.113.1:80"), syscall.ENETUNREACH},
			"no route v6":        {netip.MustParseAddrPort("[2001:db8:2::1]:80"), syscall.ENETUNREACH},
			"host's loopback":    {netip.AddrPortFrom(gateway4.Addr(), loopback.Port()), syscall.ECONNREFUSED},
			"host's loopback v6": {netip.AddrPortFrom(gateway6.Addr(), loopback.Port()), syscall.ECONNREFUSED},
			"DNS, other port":    {netip.AddrPortFrom(dns4, 80), syscall.ECONNREFUSED},
			"link-local":         {netip.MustParseAddrPort("169.254.169.254:80"), syscall.ENETUNREACH},
		} {
			start := time.Now()
			conn, err := w.dial("tcp", tc.addr)
			if conn != nil {
				conn.Close()
			}
			if !errors.Is(err, tc.want) || time.Since(start) > 2*time.Second {
				w.t.Errorf("%s: %v after %s, want %v at once", name, err, time.Since(start), tc.want)
			}
		}
	})
}

func TestTCPReachesTheHostsLoopbackIfAllowed(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{HostLoopback: true}, func(w *world) {
		for gateway, loopback := range map[netip.Addr]string{gateway4.Addr(): "127.0.0.1", gateway6.Addr(): "::1"} {
			l, to := w.listenOutside(netip.MustParseAddr(loopback))
			w.mustDial("tcp", netip.AddrPortFrom(gateway, to.Port()))
			w.accept(l)
		}
	})
}

func TestInternalLetsNothingOut(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{Internal: true}, func(w *world) {
		_, to := w.listenOutside(outside4)
		if _, err := w.dial("tcp", to); !errors.Is(err, syscall.ENETUNREACH) {
			w.t.Errorf("tcp: %v, want %v", err, syscall.ENETUNREACH)
		}
		c := w.mustDial("udp", to)
		hearErrors(w.t, c.(*net.UDPConn))
		c.Write([]byte("hi"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ENETUNREACH) {
			w.t.Errorf("udp: %v, want %v", err, syscall.ENETUNREACH)
		}
	})
}

func TestTCPResetsPassBothWays(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		l, to := w.listenOutside(outside4)
		for _, outward := range []bool{true, false} {
			inside := w.mustDial("tcp", to).(*net.TCPConn)
			outside := w.accept(l)
			breaks, sees := outside, inside
			if outward {
				breaks, sees = inside, outside
			}
			breaks.SetLinger(0)
			breaks.Close()
			if _, err := sees.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				w.t.Errorf("outward %v: %v, want %v", outward, err, syscall.ECONNRESET)
			}
		}
		w.eventually("no connection is left", func() bool {
			return w.stack.relay.Len() == 0
		})
	})
}

// A connection that nobody reads stops, loses nothing, and holds nobody else up.
func TestTCPWaitsForASlowReader(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		l, to := w.listenOutside(outside4)
		const size = 64 << 20
		slow := w.mustDial("tcp", to)
		slowOut := w.accept(l)
		sum := make(chan [sha256.Size]byte, 1)
		go func() { sum <- pour(w, slow, size) }()
		w.bothWays(outside6)
		if drain(w, slowOut, size) != <-sum {
			w.t.Error("what arrived differs from what was sent")
		}
	})
}

func TestTCPThousandsOfConnections(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		const count = 2000
		l, to := w.listenOutside(outside4)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(c, c); c.Close() }()
			}
		}()
		conns := make([]net.Conn, 0, count)
		if err := w.in(func() error {
			for range count {
				c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
				if err != nil {
					return err
				}
				conns = append(conns, c)
			}
			return nil
		}); err != nil {
			w.t.Fatalf("connection %d: %v", len(conns), err)
		}
		var all sync.WaitGroup
		for i, c := range conns {
			all.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				want := bytes.Repeat([]byte{byte(i)}, 100+i)
				c.Write(want)
				c.(*net.TCPConn).CloseWrite()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
					w.t.Errorf("connection %d: %d bytes, %v, want %d", i, len(got), err, len(want))
				}
			})
		}
		all.Wait()
		w.eventually("no connection is left", func() bool {
			return w.stack.relay.Len() == 0
		})
	})
}

func TestDownWhenTheNamespaceIsGone(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	onEachLink(t, Config{}, func(w *world) {
		if err := w.in(func() error { return deleteInterface("eth0") }); err != nil {
			w.t.Fatal(err)
		}
		select {
		case <-w.stack.Down():
		case <-time.After(patience):
			w.t.Error("the stack has not noticed that its link is gone")
		}
	})
}
