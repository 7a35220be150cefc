package link

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

var config = Config{
	Name: "eth0", MTU: 9000, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7},
	Addresses: []netip.Prefix{netip.MustParsePrefix("10.7.0.100/24"), netip.MustParsePrefix("fd07::100/64")},
	Gateways:  []netip.Addr{netip.MustParseAddr("10.7.0.2"), netip.MustParseAddr("fd07::2")},
}

// namespace makes a network namespace and returns its descriptor.
func namespace(t *testing.T) (netns int) {
	t.Helper()
	err := inNew(func() (err error) {
		netns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(netns) })
	return netns
}

// knock sends a packet to the gateway, for whose address the kernel then asks.
func knock(t *testing.T, netns int) {
	t.Helper()
	err := in(netns, func() error {
		c, err := net.Dial("udp", "10.7.0.2:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asked reads frames from fd until one is an ARP request, and returns its sender.
func asked(fd int) (sender net.HardwareAddr, err error) {
	const header = 10 // struct virtio_net_hdr
	tv := unix.NsecToTimeval((5 * time.Second).Nanoseconds())
	for b := make([]byte, 70000); ; {
		if unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv) != nil { // a tap
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(poll, 5000); err != nil || n == 0 {
				return nil, errors.Join(err, os.ErrDeadlineExceeded)
			}
		}
		n, err := unix.Read(fd, b)
		if err != nil {
			return nil, err
		}
		if frame := b[header:n]; len(frame) > 14 && frame[12] == 8 && frame[13] == 6 {
			return net.HardwareAddr(frame[6:12]), nil
		}
	}
}

func TestLinks(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	for _, kind := range []string{"tap", "veth", ""} {
		t.Run(kind, func(t *testing.T) {
			netns := namespace(t)
			l, err := Make(netns, kind, config)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(l.FD)
			if kind != "" && l.Kind != kind || l.Without6 != nil || l.MAC.String() != config.MAC.String() {
				t.Errorf("got %+v", l)
			}
			var addresses []string
			var mtu int
			in(netns, func() error {
				dev, err := net.InterfaceByName("eth0")
				if err != nil {
					return err
				}
				mtu = dev.MTU
				list, err := dev.Addrs()
				for _, a := range list {
					addresses = append(addresses, a.String())
				}
				return err
			})
			if mtu != config.MTU || len(addresses) < 2 || addresses[0] != "10.7.0.100/24" || addresses[1] != "fd07::100/64" {
				t.Errorf("MTU %d, addresses %v", mtu, addresses)
			}
			knock(t, netns)
			if sender, err := asked(l.FD); err != nil || sender.String() != config.MAC.String() {
				t.Errorf("asked for the gateway by %v: %v", sender, err)
			}
		})
	}
}

// A link goes with its descriptor, so that one can be made in its place.
func TestLinkIsMadeAnew(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	netns := namespace(t)
	for range 3 {
		for _, kind := range []string{"veth", "tap"} {
			l, err := Make(netns, kind, config)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			unix.Close(l.FD)
		}
	}
}

func TestNoWay(t *testing.T) {
	if !nstest.Enter(t, nstest.Network) {
		return
	}
	if err := unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	netns := namespace(t)
	_, err := Make(netns, "tap", config)
	var missing *MissingError
	if !errors.As(err, &missing) || !errors.Is(err, os.ErrNotExist) || missing.Hint() == "" {
		t.Errorf("without a device: %v", err)
	}
	if l, err := Make(netns, "", config); err != nil || l.Kind != "veth" {
		t.Errorf("without a device: %+v, %v", l, err)
	}
	if _, err := Make(netns, "wire", config); err == nil {
		t.Error("there is a link of kind wire")
	}
}
