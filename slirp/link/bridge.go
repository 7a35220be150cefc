package link

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	bridgeName = "bridge"
	uplinkName = "uplink"
)

// A Bridge is an Ethernet switch in a network namespace of its own, where nothing is
// but its ports: what passes between containers passes there, in the kernel. It ends
// with the process, or with Close.
type Bridge struct {
	netns *os.File
	index int
	mtu   int
}

// A NoBridgeError reports a kernel that has no bridges.
type NoBridgeError struct{ Err error }

func (e *NoBridgeError) Error() string { return "make a bridge: " + e.Err.Error() }

func (e *NoBridgeError) Unwrap() error { return e.Err }

// Hint is what the host's administrator can do.
func (*NoBridgeError) Hint() string { return "as root: modprobe bridge" }

// NewBridge makes a bridge for frames of mtu bytes. It returns *NoBridgeError where the
// kernel has none.
func NewBridge(mtu int) (*Bridge, error) {
	b := &Bridge{mtu: mtu}
	return b, inNew(func() (err error) {
		// This thread's, not the process's: no other is in there.
		if b.netns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if err = b.make(); err != nil {
			b.Close()
		}
		return err
	})
}

// make makes the bridge in the network namespace of this thread.
func (b *Bridge) make() error {
	// The switch has nothing to say itself.
	setting("net/ipv6/conf/all/disable_ipv6", "1")
	setting("net/ipv6/conf/default/disable_ipv6", "1")
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = bridgeName, b.mtu
	// Without snooping multicast goes to all ports: neighbour discovery needs nobody
	// who asks for memberships.
	snooping := false
	dev := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := h.LinkAdd(dev); errors.Is(err, unix.EOPNOTSUPP) {
		return &NoBridgeError{err}
	} else if err != nil {
		return fmt.Errorf("make a bridge: %w", err)
	}
	b.index = dev.Attrs().Index
	// Frames between its ports pass no packet filter: there are no rules here.
	for _, table := range []string{"arptables", "iptables", "ip6tables"} {
		setting("net/bridge/bridge-nf-call-"+table, "0")
	}
	if err := h.LinkSetUp(dev); err != nil {
		return fmt.Errorf("bring the bridge up: %w", err)
	}
	return nil
}

// Uplink makes a port of the kind given, "" the first that works, whose other end is a
// descriptor.
func (b *Bridge) Uplink(kind string) (*Link, error) {
	l, err := Make(int(b.netns.Fd()), kind, Config{Name: uplinkName, MTU: b.mtu})
	if err != nil {
		return nil, err
	}
	if err := b.with(func(h *netlink.Handle) error { return b.enslave(h, uplinkName) }); err != nil {
		unix.Close(l.FD)
		return nil, err
	}
	return l, nil
}

// Join makes a port whose other end is an interface in the network namespace netns, as
// c has it. Link.FD is -1: the kernel is at both ends.
func (b *Bridge) Join(netns int, port string, c Config) (*Link, error) {
	err := b.with(func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = port, b.mtu
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: c.Name, PeerNamespace: netlink.NsFd(netns), PeerMTU: uint32(c.MTU)}
		if err := h.LinkAdd(pair); errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make %s: the container has such an interface", c.Name)
		} else if err != nil {
			return fmt.Errorf("make a veth pair: %w", err)
		}
		return b.enslave(h, port)
	})
	if err != nil {
		return nil, err
	}
	l := &Link{FD: -1, Kind: "veth"}
	if err := in(netns, func() error { return l.configure(c) }); err != nil {
		b.Leave(port)
		return nil, err
	}
	return l, nil
}

// enslave makes an interface a port that forwards.
func (b *Bridge) enslave(h *netlink.Handle, name string) error {
	dev, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkSetMasterByIndex(dev, b.index)
	}
	if err == nil {
		err = h.LinkSetUp(dev)
	}
	if err != nil {
		return fmt.Errorf("make %s a port of the bridge: %w", name, err)
	}
	return nil
}

// Leave removes a port. One whose other end went with its namespace is gone already.
func (b *Bridge) Leave(port string) error {
	return b.with(func(h *netlink.Handle) error {
		dev, err := h.LinkByName(port)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		if err == nil {
			err = h.LinkDel(dev)
		}
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove %s: %w", port, err)
		}
		return nil
	})
}

// with calls f in the bridge's network namespace.
func (b *Bridge) with(f func(*netlink.Handle) error) error {
	return in(int(b.netns.Fd()), func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return f(h)
	})
}

// Close removes the bridge and all its ports, once nothing else holds their namespace.
func (b *Bridge) Close() error { return b.netns.Close() }
