package publish

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// tryTime is how long the kernel may take for a connection within it: what does not work
// mostly fails at once.
const tryTime = 500 // ms

// A trial is a connection from an address that is nobody's (RFC 5737, RFC 3849).
var trials = map[int]struct{ from, to netip.AddrPort }{
	unix.AF_INET:  {netip.MustParseAddrPort("192.0.2.1:1024"), netip.MustParseAddrPort("127.0.0.1:0")},
	unix.AF_INET6: {netip.MustParseAddrPort("[2001:db8::1]:1024"), netip.MustParseAddrPort("[::1]:0")},
}

// try connects a marked socket to a server, both in this thread's network namespace.
func try(family int) error {
	err := tryConnection(family)
	if err != nil {
		return fmt.Errorf("connect from another's address: %w", err)
	}
	return nil
}

func tryConnection(family int) error {
	server, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(server)
	client, err := markedSocket(family)
	if err != nil {
		return err
	}
	defer unix.Close(client)
	if err := unix.Bind(server, sockaddr(trials[family].to)); err != nil {
		return err
	}
	if err := unix.Listen(server, 1); err != nil {
		return err
	}
	to, err := unix.Getsockname(server)
	if err != nil {
		return err
	}
	if err := unix.Bind(client, sockaddr(trials[family].from)); err != nil {
		return err
	}
	if err := unix.Connect(client, to); err != nil && err != unix.EINPROGRESS {
		return err
	}
	return awaitConnection(server)
}

// awaitConnection waits for one that has been made, for both its ends.
func awaitConnection(server int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(server), Events: unix.POLLIN}}, tryTime)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return errors.New("no answer")
		default:
			return nil
		}
	}
}
