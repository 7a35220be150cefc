package publish

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpListener is a published TCP port.
type tcpListener struct{ *net.TCPListener }

func (l tcpListener) Port() uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }
func (l tcpListener) Close()       { l.TCPListener.Close() }

// acceptAgain is how long a client in the queue waits where there are no descriptors or no
// memory for one.
const acceptAgain = 50 * time.Millisecond

// ListenTCP listens on the host at addr and calls serve for each client, on a goroutine of
// its own.
func ListenTCP(addr netip.AddrPort, serve func(*net.TCPConn)) (Listener, error) {
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6"
	}
	config := listenConfig(network)
	l, err := config.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	p := tcpListener{l.(*net.TCPListener)}
	go p.accept(serve)
	return p, nil
}

// listenConfig leaves accepted connections with the kernel's keep-alive times.
func listenConfig(network string) net.ListenConfig {
	return net.ListenConfig{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			return errors.Join(c.Control(func(fd uintptr) {
				if strings.HasSuffix(network, "6") {
					err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
				}
			}), err)
		},
	}
}

func (l tcpListener) accept(serve func(*net.TCPConn)) {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			go serve(conn)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			time.Sleep(acceptAgain)
		}
	}
}

// ClientOf is a client's address, as the container is to see it.
func ClientOf(conn *net.TCPConn) netip.AddrPort {
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(client.Addr().Unmap().WithZone(""), client.Port())
}
