//go:build !front

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The rungs of the ladder of networks that are tried inside (slirp/process,
// slirp/link): both ways of the embedded stack into a container, then others'
// programs.
const (
	byTap         = "embedded stack, by /dev/net/tun"
	byVeth        = "embedded stack, by a veth pair"
	bySlirp4netns = "slirp4netns"
	byPasta       = "pasta"
)

// tryVeth makes a pair of interfaces in a network namespace of ours, and opens
// a packet socket, which is the other way into a container.
func tryVeth(string) error {
	if err := makeVeth(); err != nil {
		return fmt.Errorf("make a veth pair: %w", err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	return unix.Close(fd)
}

// makeVeth asks the kernel for one by a message of rtnetlink(7).
func makeVeth() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	kind := attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, []byte("veth")))
	m := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+unix.SizeofIfInfomsg+len(kind)))
	m = binary.NativeEndian.AppendUint16(m, unix.RTM_NEWLINK)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	m = append(m, make([]byte, 8+unix.SizeofIfInfomsg)...) // sequence, port; no interface yet
	if err := unix.Sendto(fd, append(m, kind...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel does not answer")
	}
	if errno := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}

// attribute is one of rtnetlink(7), padded to its end.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&(unix.RTA_ALIGNTO-1))...)
}

// tryProgram looks for another's program, which needs the tap device, too.
func tryProgram(name string) func(string) error {
	return func(string) error {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("it is not installed")
		}
		return openTun("")
	}
}

// tryPing opens the socket by which a user's programs may ping (icmp(7)), as the
// network process does for containers.
func tryPing() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// pings tells whether containers can ping others than each other and the gateway.
func (p *patient) pings() Need {
	const rung, name = "to all addresses", "net.ipv4.ping_group_range"
	err := p.ping()
	if err == nil {
		return Need{Name: "ping", State: Best, Rung: rung}
	}
	why := err.Error()
	if v, ok := p.sysctl(name); ok && errors.Is(err, os.ErrPermission) {
		why = fmt.Sprintf("%s is %q: it has none of your groups", name, strings.Join(strings.Fields(v), " "))
	}
	f := Fault{Rung: rung, Why: why, Cures: []Cure{{
		Admin: true, Do: `sysctl -w ` + name + `="0 2147483647"`, Script: sysctlScript(name, "0 2147483647"),
	}}}
	return Need{Name: "ping", State: Lower, Rung: "to the gateway, and between containers", Skipped: []Fault{f}}
}

// ports tells which ports of this host can be published.
func (p *patient) ports() Need {
	const name = "net.ipv4.ip_unprivileged_port_start"
	n := Need{Name: "published ports", State: Best, Rung: "all"}
	v, ok := p.sysctl(name)
	first, err := strconv.Atoi(v)
	if !ok || err != nil || first <= 1 || p.uid == 0 {
		return n
	}
	n.Rung = "from " + v + " on"
	// As on most hosts: nothing is amiss, and the administrator's script leaves it.
	n.Broken = []Fault{{Rung: "below " + v, Why: name + " is " + v, Cures: []Cure{{Admin: true, Do: "sysctl -w " + name + "=80"}}}}
	return n
}
