package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Config is what the container has of its link.
type Config struct {
	Name string           // of the interface
	MTU  int              // bytes, without the Ethernet header
	MAC  net.HardwareAddr // nil: the kernel's choice

	// Addresses with the length of their subnet's prefix, and the routers that
	// the default routes lead to, one of each family at most.
	Addresses []netip.Prefix
	Gateways  []netip.Addr
	Metric    int // of these; the lowest is used (RTA_PRIORITY, rtnetlink(7))
}

// Link is the network process's end.
type Link struct {
	FD   int    // reads and writes Ethernet frames, each after a virtio-net header; the caller's to close
	Kind string // "tap" or "veth"
	MAC  net.HardwareAddr
	// Without6 says why there are no IPv6 addresses though they were asked for; or nil.
	Without6 error
}

// rungs are the ways into a network namespace, the best first.
var rungs = []struct {
	kind string
	make func(netns int, c Config) (fd int, err error)
}{
	{"tap", makeTap},
	{"veth", makeVeth},
}

// A MissingError reports that there is no way into a network namespace here.
type MissingError struct {
	Kind    string // the one that was asked for; "": any would have done
	Reasons []error
}

func (e *MissingError) Error() string {
	if e.Kind != "" {
		return "make a link of kind " + e.Kind + ": " + errors.Join(e.Reasons...).Error()
	}
	text := "no link into the container's network namespace can be made: "
	for i, err := range e.Reasons {
		if i > 0 {
			text += "; "
		}
		text += err.Error()
	}
	return text
}

func (e *MissingError) Unwrap() []error { return e.Reasons }

// Hint says how to do without.
func (e *MissingError) Hint() string {
	return "as root: modprobe tun && chmod 666 /dev/net/tun; or use this host's network: --network host"
}

// Make makes the link of kind, "" the first that works, in the network namespace
// netns. It returns *MissingError where none does.
func Make(netns int, kind string, c Config) (*Link, error) {
	missing := &MissingError{Kind: kind}
	for _, r := range rungs {
		if kind != "" && kind != r.kind {
			continue
		}
		fd, err := r.make(netns, c)
		if err != nil && free(netns, c.Name) {
			fd, err = r.make(netns, c)
		}
		if err != nil {
			missing.Reasons = append(missing.Reasons, fmt.Errorf("%s: %w", r.kind, err))
			continue
		}
		l := &Link{FD: fd, Kind: r.kind}
		if err := in(netns, func() error { return l.configure(c) }); err != nil {
			unix.Close(fd)
			return nil, err
		}
		return l, nil
	}
	if len(missing.Reasons) == 0 {
		return nil, fmt.Errorf("a link of kind %q: there are tap and veth", kind)
	}
	return nil, missing
}

// free removes an interface of the name that a network process has left which was
// killed: a veth pair outlives that for a moment, and may go meanwhile.
func free(netns int, name string) bool {
	err := in(netns, func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		dev, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		return h.LinkDel(dev)
	})
	var gone netlink.LinkNotFoundError
	return err == nil || errors.As(err, &gone) || errors.Is(err, unix.ENODEV)
}

// Configure configures the interface that another program has made in netns and serves.
func Configure(netns int, c Config) (*Link, error) {
	l := &Link{FD: -1}
	if err := in(netns, func() error { return l.configure(c) }); err != nil {
		return nil, err
	}
	return l, nil
}

// makeTap makes a tap. It is gone when its descriptor is closed.
func makeTap(netns int, c Config) (fd int, err error) {
	err = in(netns, func() error {
		fd, err = openTap(c.Name)
		return err
	})
	return fd, err
}

// openTap makes the tap name in the network namespace of this thread.
func openTap(name string) (int, error) {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = os.NewSyscallError("TUNSETIFF "+name, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// farName is the interface at the far end of a veth pair.
const farName = "rbox0"

// makeVeth makes a veth pair that leads from netns to a network namespace where
// nothing is but a packet socket on its far end: it needs no device node. The
// socket holds that namespace, which ends with it, and with it the pair.
func makeVeth(netns int, c Config) (fd int, err error) {
	err = inNew(func() error {
		fd, err = openVeth(netns, c)
		return err
	})
	return fd, err
}

// openVeth makes the pair from this thread's network namespace to netns.
func openVeth(netns int, c Config) (int, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = farName, c.MTU
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: c.Name, PeerNamespace: netlink.NsFd(netns), PeerMTU: uint32(c.MTU)}
	if err := h.LinkAdd(pair); err != nil {
		return -1, fmt.Errorf("make a veth pair: %w", err)
	}
	far, err := h.LinkByName(farName)
	if err != nil {
		return -1, err
	}
	setting("net/ipv6/conf/"+farName+"/disable_ipv6", "1") // it has nothing to say
	if err := h.LinkSetUp(far); err != nil {
		return -1, err
	}
	return packetSocket(far.Attrs().Index)
}

// packetSocket opens a socket that gets all frames of an interface, with the
// offloads of virtio-net (packet(7), PACKET_VNET_HDR).
func packetSocket(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // of no protocol, so that it gets nothing yet
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = os.NewSyscallError("PACKET_VNET_HDR", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	if err == nil {
		all := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: index}
		err = os.NewSyscallError("bind", unix.Bind(fd, all))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// networkOrder is htons(3).
func networkOrder(n uint16) uint16 { return n<<8 | n>>8 }

// configure gives the interface, in the network namespace of this thread, its
// addresses and routes, and brings it up.
func (l *Link) configure(c Config) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	dev, err := h.LinkByName(c.Name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", c.Name, err)
	}
	l.MAC = dev.Attrs().HardwareAddr
	if c.MAC != nil {
		l.MAC = c.MAC
		if err := h.LinkSetHardwareAddr(dev, c.MAC); err != nil {
			return fmt.Errorf("set the address of %s to %s: %w", c.Name, c.MAC, err)
		}
	}
	if err := h.LinkSetMTU(dev, c.MTU); err != nil {
		return fmt.Errorf("set the MTU of %s to %d: %w", c.Name, c.MTU, err)
	}
	// Addresses are ours to give: nobody is asked whether they are free, which
	// takes a second, and no router announces more.
	setting("net/ipv6/conf/"+c.Name+"/accept_dad", "0")
	setting("net/ipv6/conf/"+c.Name+"/accept_ra", "0")
	if err := h.LinkSetUp(dev); err != nil {
		return fmt.Errorf("bring %s up: %w", c.Name, err)
	}
	for _, a := range c.Addresses {
		if err := addAddress(h, dev, a); err != nil {
			if !a.Addr().Is6() {
				return fmt.Errorf("give %s the address %s: %w", c.Name, a, err)
			}
			l.Without6 = fmt.Errorf("no IPv6 address: %w", err)
		}
	}
	for _, g := range c.Gateways {
		if g.Is6() && l.Without6 != nil {
			continue
		}
		err := h.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Gw: g.AsSlice(), Priority: c.Metric})
		if err != nil {
			return fmt.Errorf("route to %s: %w", g, err)
		}
	}
	return nil
}

// addAddress adds an address without duplicate address detection (rfc4862, 5.4).
func addAddress(h *netlink.Handle, dev netlink.Link, a netip.Prefix) error {
	bits := 32
	flags := 0
	if a.Addr().Is6() {
		bits, flags = 128, unix.IFA_F_NODAD
	}
	return h.AddrAdd(dev, &netlink.Addr{
		IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), bits)}, Flags: flags,
	})
}

// setting writes a setting of the network namespace of this thread, where
// there is one: without IPv6 in the kernel, or with /proc/sys read-only, there is not.
func setting(name, value string) {
	os.WriteFile("/proc/sys/"+name, []byte(value), 0)
}
