package slirp

import (
	"encoding/binary"
	"net/netip"
	"os"
	"syscall"
)

// A Surroundings is what this host's network namespace shows of its networks
// (rtnetlink(7)).
type Surroundings struct {
	Routes []netip.Prefix // to more than one address, but for those to everywhere
	// Address and Address6 are the host's best ones: of the interface with the
	// default route if there is one, never loopback; zero without any.
	Address, Address6 netip.Addr
}

// Look reads the kernel's tables of routes and addresses.
func Look() (s Surroundings, err error) {
	var best [2]int // the interface of the default route, by family
	routes, err := dump(syscall.RTM_GETROUTE)
	if err != nil {
		return s, err
	}
	for _, m := range routes {
		if m.Header.Type == syscall.RTM_NEWROUTE {
			s.addRoute(m.Data, &best)
		}
	}
	addresses, err := dump(syscall.RTM_GETADDR)
	if err != nil {
		return s, err
	}
	var rank [2]int
	for _, m := range addresses {
		if m.Header.Type == syscall.RTM_NEWADDR {
			s.addAddress(m.Data, best, &rank)
		}
	}
	return s, nil
}

func dump(what int) ([]syscall.NetlinkMessage, error) {
	b, err := syscall.NetlinkRIB(what, syscall.AF_UNSPEC)
	if err != nil {
		return nil, os.NewSyscallError("netlink", err)
	}
	list, err := syscall.ParseNetlinkMessage(b)
	return list, os.NewSyscallError("netlink", err)
}

// family is 0 for IPv4, 1 for IPv6, and false for others.
func family(af byte) (int, bool) {
	switch af {
	case syscall.AF_INET:
		return 0, true
	case syscall.AF_INET6:
		return 1, true
	}
	return 0, false
}

// addRoute takes a struct rtmsg with its attributes.
func (s *Surroundings) addRoute(b []byte, best *[2]int) {
	if len(b) < syscall.SizeofRtMsg {
		return
	}
	f, ok := family(b[0])
	bits, table, kind := int(b[1]), b[4], b[7]
	if !ok || table != syscall.RT_TABLE_MAIN || kind != syscall.RTN_UNICAST {
		return
	}
	var destination netip.Addr
	link := 0
	attributes(b[syscall.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch {
		case kind == syscall.RTA_DST:
			destination, _ = netip.AddrFromSlice(value)
		case kind == syscall.RTA_OIF && len(value) == 4:
			link = int(binary.NativeEndian.Uint32(value))
		}
	})
	switch {
	case bits == 0:
		if best[f] == 0 {
			best[f] = link
		}
	case destination.IsValid() && !destination.IsLinkLocalUnicast():
		s.Routes = append(s.Routes, netip.PrefixFrom(destination, bits))
	}
}

// addAddress takes a struct ifaddrmsg with its attributes.
func (s *Surroundings) addAddress(b []byte, best [2]int, rank *[2]int) {
	if len(b) < syscall.SizeofIfAddrmsg {
		return
	}
	f, ok := family(b[0])
	scope, link := b[3], int(binary.NativeEndian.Uint32(b[4:8]))
	if !ok || scope != syscall.RT_SCOPE_UNIVERSE {
		return
	}
	var a netip.Addr
	attributes(b[syscall.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
		// IFA_LOCAL, where there is one, is the nearer end of a point-to-point link.
		if kind == syscall.IFA_LOCAL || kind == syscall.IFA_ADDRESS && !a.IsValid() {
			a, _ = netip.AddrFromSlice(value)
		}
	})
	worth := 1
	if link == best[f] {
		worth = 2
	}
	if !a.IsValid() || a.IsLoopback() || worth <= rank[f] {
		return
	}
	rank[f] = worth
	*[]*netip.Addr{&s.Address, &s.Address6}[f] = a
}

// attributes calls each for every attribute of b (rtnetlink(7)).
func attributes(b []byte, each func(kind uint16, value []byte)) {
	const head = syscall.SizeofRtAttr
	for len(b) >= head {
		n := int(binary.NativeEndian.Uint16(b))
		if n < head || n > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:]), b[head:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}
