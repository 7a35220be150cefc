// Package stack is the network of a container as a program: it reads and writes
// the Ethernet frames of one link, is the gateway and the DNS server at its far end,
// and makes the container's connections on the host with the host's own sockets.
// IP inside is gVisor's netstack, and so are its own servers; TCP of connections to
// the outside is package tcp, and UDP is done here.
package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	nettcp "gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"rbox/slirp/publish"
	"rbox/slirp/tcp"
)

// Kind says what a link's descriptor is.
type Kind int

// The two links, both with virtio-net headers of 10 bytes before each frame
// (struct virtio_net_hdr, linux/virtio_net.h).
const (
	Tap    Kind = iota // /dev/net/tun with IFF_TAP|IFF_NO_PI|IFF_VNET_HDR
	Packet             // an AF_PACKET socket, SOCK_RAW, bound to the near end of a veth pair
)

// Config is what the stack is to its link.
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
// near the largest IP packet.
const MaxMTU = 65520

// nicID is the number of the stack's only interface.
const nicID = 1

// A Stack is one network's gateway.
type Stack struct {
	config Config
	net    *stack.Stack
	link   *link
	life   context.Context // ends with Close
	end    context.CancelFunc

	relay *tcp.Relay // of the containers' connections
	tcp   joined
	udp   udpTable
	ping  pingTable
	ports publish.Table
}

// New returns a stack without a link.
func New(config Config) (*Stack, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	s := &Stack{config: config}
	s.life, s.end = context.WithCancel(context.Background())
	s.link = &link{
		mac:      tcpip.LinkAddress(config.MAC),
		mtu:      uint32(config.MTU),
		owned:    func(a tcpip.Address) bool { return s.owns(fromTCPIP(a)) },
		down:     make(chan struct{}),
		turnBack: s.turnBack,
	}
	if err := s.link.open(); err != nil {
		return nil, fmt.Errorf("start the network stack: %w", err)
	}
	s.relay = s.newRelay()
	s.link.relay = s.relay
	s.net = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			arp.NewProtocol, ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{
			nettcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})
	if err := s.setUp(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// complete checks c and fills in its defaults.
func (c Config) complete() (Config, error) {
	if c.MTU == 0 {
		c.MTU = MaxMTU
	}
	if c.MTU < header.IPv6MinimumMTU || c.MTU > 65535 {
		return c, fmt.Errorf("MTU %d: must be from %d to 65535", c.MTU, header.IPv6MinimumMTU)
	}
	if !c.Gateway.IsValid() && !c.Gateway6.IsValid() {
		return c, errors.New("a network needs a gateway")
	}
	if c.MAC == nil {
		c.MAC = make(net.HardwareAddr, 6)
		_, _ = rand.Read(c.MAC)    // never fails
		c.MAC[0] = c.MAC[0]&^1 | 2 // one machine's, not a maker's
	}
	if len(c.MAC) != 6 {
		return c, fmt.Errorf("MAC address %s: must have 6 bytes", c.MAC)
	}
	if c.Logf == nil {
		c.Logf = func(string, ...any) {}
	}
	return c, nil
}

// setUp gives netstack its interface, addresses, routes and handlers.
func (s *Stack) setUp() error {
	steps := []func() tcpip.Error{
		func() tcpip.Error { return s.net.CreateNIC(nicID, s.link) },
		func() tcpip.Error { return s.net.SetPromiscuousMode(nicID, true) },
		func() tcpip.Error { return s.net.SetSpoofing(nicID, true) },
		s.addAddresses,
		s.tuneTCP,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("set the network stack up: %s", err)
		}
	}
	s.net.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	s.startTCP()
	s.startUDP()
	s.startPing()
	return nil
}

func (s *Stack) addAddresses() tcpip.Error {
	for _, p := range s.ownAddresses() {
		proto, addr := toTCPIP(p.Addr())
		err := s.net.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
			Protocol:          proto,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: addr, PrefixLen: p.Bits()},
		}, stack.AddressProperties{})
		if err != nil {
			return err
		}
	}
	return nil
}

// ownAddresses returns the stack's addresses with their subnets.
func (s *Stack) ownAddresses() []netip.Prefix {
	var all []netip.Prefix
	for _, f := range []struct {
		gateway netip.Prefix
		dns     netip.Addr
	}{{s.config.Gateway, s.config.DNS}, {s.config.Gateway6, s.config.DNS6}} {
		if f.gateway.IsValid() {
			all = append(all, f.gateway)
		}
		if f.dns.IsValid() && f.dns != f.gateway.Addr() {
			all = append(all, netip.PrefixFrom(f.dns, f.dns.BitLen()))
		}
	}
	return all
}

// Attach takes over fd, the descriptor of a link of the kind given, and serves it
// from then on. A stack has one link.
func (s *Stack) Attach(fd int, kind Kind) error {
	d, err := openDevice(fd, kind)
	if err != nil {
		return err
	}
	return s.link.plug(d)
}

// Down is closed when the link is gone: its interface was deleted, or its namespace.
func (s *Stack) Down() <-chan struct{} { return s.link.down }

// Close ends all connections and closes the link.
func (s *Stack) Close() error {
	s.end()
	s.ports.Close()
	s.udp.close()
	s.ping.close()
	s.tcp.close()
	s.relay.Close()
	s.link.unplug()
	s.net.Destroy()
	return nil
}
