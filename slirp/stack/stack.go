// Package stack is the network of a container as a program: it reads and writes
// the Ethernet frames of one link, is the gateway and the DNS server at its far end,
// and makes the container's connections on the host with the host's own sockets.
// TCP, UDP and ICMP inside are gVisor's netstack.
package stack

import (
	"errors"
	"net"
	"net/netip"

	"rbox/slirp"
)

// Kind says what a link's descriptor is.
type Kind int

// The two links, both with virtio-net headers of 10 bytes before each frame
// (struct virtio_net_hdr, linux/virtio_net.h).
const (
	Tap    Kind = iota // /dev/net/tun with IFF_TAP|IFF_NO_PI|IFF_VNET_HDR
	Packet             // an AF_PACKET socket, SOCK_RAW, bound to the near end of a veth pair
)

// Config is what the stack is to its link. Immutable once given to New.
type Config struct {
	MAC net.HardwareAddr // of the gateway; nil: chosen by chance
	MTU int              // of the link; 0: MaxMTU

	// The gateway's addresses with the length of their subnet's prefix: 10.0.2.2/24.
	// A zero one: the network has no such addresses.
	Gateway, Gateway6 netip.Prefix
	// The addresses of the DNS server (see Listen, ListenPacket); zero: none.
	DNS, DNS6 netip.Addr

	HostLoopback bool // the gateway's address means 127.0.0.1 or ::1 of the host; else it refuses
	Internal     bool // no connection leaves

	// Logf, if not nil, is told of what goes wrong with single connections.
	Logf func(format string, args ...any)
}

// MaxMTU is the default MTU: what slirp4netns and pasta use too, a multiple of 16
// near the largest IP packet, so that a segment fits into one page less than 64 KiB.
const MaxMTU = 65520

// A Stack is one network's gateway.
type Stack struct {
	config Config
}

// New returns a stack without a link.
func New(config Config) (*Stack, error) {
	return &Stack{config: config}, nil
}

// Attach takes over fd, the descriptor of a link of the kind given, and serves it
// from then on. A stack has one link.
func (s *Stack) Attach(fd int, kind Kind) error { return errors.ErrUnsupported }

// Down is closed when the link is gone: its interface was deleted, or its namespace.
func (s *Stack) Down() <-chan struct{} { return nil }

// Publish listens on the host at p and hands every client to the container at target
// or target6, whichever is of the client's family (either may be the zero Addr), or the
// other if that alone is there. It returns p with the host's port, which it chose if p had none.
func (s *Stack) Publish(p slirp.Port, target, target6 netip.Addr) (slirp.Port, error) {
	return p, errors.ErrUnsupported
}

// Unpublish ends what Publish, which returned p, began: its listener and its connections.
func (s *Stack) Unpublish(p slirp.Port) error { return errors.ErrUnsupported }

// Listen listens for TCP inside the network on one of the stack's own addresses, as
// the DNS server does.
func (s *Stack) Listen(addr netip.AddrPort) (net.Listener, error) {
	return nil, errors.ErrUnsupported
}

// ListenPacket is Listen for UDP.
func (s *Stack) ListenPacket(addr netip.AddrPort) (net.PacketConn, error) {
	return nil, errors.ErrUnsupported
}

// Close ends all connections and closes the link.
func (s *Stack) Close() error { return nil }
