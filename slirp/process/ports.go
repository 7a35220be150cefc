package process

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/slirp/publish"
)

// freePorts finds out whether a program that does not tell it well could publish
// ports, and chooses those that are left to us. only4 says that it has IPv4 alone.
func freePorts(ports []slirp.Port, only4 bool) (chosen []slirp.Port, err error) {
	for _, p := range ports {
		if only4 && p.HostIP.Is6() {
			return nil, fmt.Errorf("publish on %s: the driver has IPv4 only", p.HostIP)
		}
		if p, err = publish.Choose(p, tryPort); err != nil {
			return nil, err
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

// tryPort binds a port of the host for a moment, and returns it with its number.
func tryPort(p slirp.Port) (slirp.Port, error) {
	ip := p.HostIP
	if !ip.IsValid() {
		ip = netip.IPv4Unspecified()
	}
	kind := unix.SOCK_STREAM
	if p.Protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fail := func(err error) (slirp.Port, error) {
		return p, &publish.PortError{Protocol: p.Protocol, Addr: netip.AddrPortFrom(ip, p.HostPort), Err: err}
	}
	family, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(p.HostPort), Addr: ip.As16()})
	if ip = ip.Unmap(); ip.Is4() {
		family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(p.HostPort), Addr: ip.As4()}
	}
	sock, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(sock)
	if kind == unix.SOCK_STREAM { // connections that have ended are no hindrance
		err = unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(sock, addr)
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(sock, 1)
	}
	if err != nil {
		return fail(err)
	}
	bound, err := unix.Getsockname(sock)
	switch a := bound.(type) {
	case *unix.SockaddrInet4:
		p.HostPort = uint16(a.Port)
		return p, nil
	case *unix.SockaddrInet6:
		p.HostPort = uint16(a.Port)
		return p, nil
	}
	return fail(errors.Join(err, unix.EAFNOSUPPORT))
}

// readText is what a file of the kernel's holds, "" if there is none.
func readText(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}
