package link

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// markedPriority puts the rule before all others but that of the local table, which has 0
// (ip-rule(8)).
const markedPriority = 1

// KeepMarked has the network namespace netns deliver to itself, over its lo, all that its
// sockets send with the mark, and answer a connection that is marked with the same mark:
// so a server there answers a marked socket whatever address that has taken. with6 is for
// IPv6, too. It fails where the kernel has no rules for routing, or the settings are read-only.
func KeepMarked(netns int, mark uint32, with6 bool) error {
	err := in(netns, func() error { return keepMarked(mark, with6) })
	if err != nil {
		return fmt.Errorf("route marked connections to lo: %w", err)
	}
	return nil
}

// keepMarked is KeepMarked in the network namespace of this thread.
func keepMarked(mark uint32, with6 bool) error {
	// Documentation/networking/ip-sysctl.rst: tcp_fwmark_accept marks what is accepted, of
	// either family, and fwmark_reflect the resets of what is refused.
	settings := []string{"ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect"}
	everywhere := []*net.IPNet{{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}
	families := []int{unix.AF_INET}
	if with6 {
		settings = append(settings, "ipv6/fwmark_reflect")
		everywhere = append(everywhere, &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)})
		families = append(families, unix.AF_INET6)
	}
	for _, name := range settings {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
			return err
		}
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("interface lo: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	for i, family := range families {
		// The table is named as the mark is, which nobody else has thought of.
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = family, mark, int(mark), markedPriority
		if err := h.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) { // of a network process before us
			return fmt.Errorf("add a rule: %w", err)
		}
		route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: everywhere[i], Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Table: int(mark)}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("add a route: %w", err)
		}
	}
	return nil
}
