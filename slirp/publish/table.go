// Package publish makes ports of the host lead to a container. A client's TCP connection
// goes on from a socket in the container's own network namespace that has taken the
// client's address, and the kernel moves the data from one socket to the other: no packet
// of it passes the container's network. What listens for UDP is with the network stack.
package publish

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"rbox/slirp"
)

// A Table is ports of the host that are published. The zero value has none.
type Table struct {
	mu     sync.Mutex
	ports  map[slirp.Port][]Listener
	closed bool
}

// A Listener is a socket of the host's that clients come to.
type Listener interface {
	Port() uint16
	Close()
}

// A PortError reports that a port of the host cannot be published.
type PortError struct {
	Protocol string
	Addr     netip.AddrPort
	Err      error
}

func (e *PortError) Error() string {
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("port %s/%s of the host is in use", e.Addr, e.Protocol)
	case errors.Is(e.Err, syscall.EACCES):
		return fmt.Sprintf("port %s/%s of the host is only for privileged programs", e.Addr, e.Protocol)
	case errors.Is(e.Err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("%s is no address of the host", e.Addr.Addr())
	}
	return fmt.Sprintf("port %s/%s of the host: %v", e.Addr, e.Protocol, e.Err)
}

func (e *PortError) Unwrap() error { return e.Err }

// Hint is what the user can do.
func (e *PortError) Hint() string {
	port := e.Addr.Port()
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("see who has it: ss -lp%s 'sport = %d'; or publish another one, or let rbox choose: -p %d", e.Protocol[:1], port, port)
	case errors.Is(e.Err, syscall.EACCES):
		return fmt.Sprintf("publish port %d instead, or as root: sysctl net.ipv4.ip_unprivileged_port_start=%d", suggestPort(port), port)
	}
	return ""
}

// suggestPort returns the port that people take for one below 1024: 8080, 8443, 2222.
func suggestPort(port uint16) uint16 {
	switch port {
	case 22:
		return 2222
	case 443:
		return 8443
	}
	return 8000 + port
}

// Add publishes p by what listen makes at each address that p stands for. It returns p with
// the host's port, which it chose if p had none, or several.
func (t *Table) Add(p slirp.Port, listen func(netip.AddrPort) (Listener, error)) (slirp.Port, error) {
	return Choose(p, func(p slirp.Port) (slirp.Port, error) { return t.addOne(p, listen) })
}

// Choose calls bind for the ports of the host that p has a choice of, until one is free.
func Choose(p slirp.Port, bind func(slirp.Port) (slirp.Port, error)) (bound slirp.Port, err error) {
	first, last := p.HostPort, max(p.HostPort, p.HostLast)
	p.HostLast = 0
	for i := int(first); i <= int(last); i++ {
		p.HostPort = uint16(i)
		if bound, err = bind(p); !errors.Is(err, syscall.EADDRINUSE) {
			return bound, err
		}
	}
	if first != last {
		err = fmt.Errorf("none of the ports %d-%d is free: %w", first, last, err)
	}
	return p, err
}

// addOne is Add of one port, or any.
func (t *Table) addOne(p slirp.Port, listen func(netip.AddrPort) (Listener, error)) (slirp.Port, error) {
	// A chosen port that is free for one family may not be for the other.
	const tries = 16
	var err error
	for range tries {
		var bound slirp.Port
		bound, err = t.add(p, listen)
		if err == nil || p.HostPort != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return bound, err
		}
	}
	return p, err
}

func (t *Table) add(p slirp.Port, listen func(netip.AddrPort) (Listener, error)) (slirp.Port, error) {
	var open []Listener
	for _, ip := range listenAddresses(p.HostIP) {
		one, err := listen(netip.AddrPortFrom(ip, p.HostPort))
		if errors.Is(err, syscall.EAFNOSUPPORT) && len(open) > 0 && !p.HostIP.IsValid() {
			continue // a host without IPv6
		}
		if err != nil {
			closeAll(open)
			return p, &PortError{Protocol: p.Protocol, Addr: netip.AddrPortFrom(ip, p.HostPort), Err: bare(err)}
		}
		open = append(open, one)
		p.HostPort = one.Port()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		closeAll(open)
		return p, net.ErrClosed
	}
	if t.ports == nil {
		t.ports = map[slirp.Port][]Listener{}
	}
	t.ports[p] = open
	return p, nil
}

// bare strips what package net wraps an error of the kernel's in.
func bare(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func closeAll(all []Listener) {
	for _, p := range all {
		p.Close()
	}
}

// listenAddresses returns the addresses that HostIP stands for.
func listenAddresses(host netip.Addr) []netip.Addr {
	if host.IsValid() {
		return []netip.Addr{host.Unmap()}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// Remove ends what Add, which returned p, began. Connections that there are go on.
func (t *Table) Remove(p slirp.Port) error {
	t.mu.Lock()
	open, ok := t.ports[p]
	delete(t.ports, p)
	t.mu.Unlock()
	if !ok {
		return fmt.Errorf("port %d/%s is not published", p.HostPort, p.Protocol)
	}
	closeAll(open)
	return nil
}

// Close removes all ports, and takes no more.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	ports := t.ports
	t.ports = nil
	t.mu.Unlock()
	for _, open := range ports {
		closeAll(open)
	}
}
