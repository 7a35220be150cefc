// Package process is the network process: it is started by a container's monitor,
// as root of the outer user namespace and in the host's network namespace, and is
// the far end of the container's link for as long as the monitor's connection is open.
package process

import (
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/slirp/link"
	"rbox/slirp/sandbox"
)

// connection is the descriptor of the monitor's socket.
const connection = 3

// Main serves the one endpoint of a private network.
func Main() error {
	hide(connection)
	var request slirp.Request
	fds, err := slirp.Receive(connection, &request)
	if errors.Is(err, io.EOF) {
		return nil // the container did not come to be
	}
	if err != nil {
		return err
	}
	if len(fds) != 1 {
		return errors.New("the request came without its network namespace")
	}
	served, err := serve(fds[0], request)
	if err == nil {
		served.reply.Sandbox, err = sandbox.Enter(sandbox.Need{Follow: []string{hostFile}, Child: served.down != nil, Filtered: served.filtered})
	}
	if err != nil {
		return slirp.Send(connection, slirp.Reply{Failed: failure(err)})
	}
	unix.Close(fds[0]) // the namespace ends with the container
	if err := slirp.Send(connection, served.reply); err != nil {
		return nil
	}
	select {
	case <-closed(connection):
		served.end()
		unix.Close(connection) // whoever waits for it finds the ports free; the link takes longer
	case <-served.down:
	}
	return nil
}

// hide keeps processes of the container, which may be the same user, from
// looking into this one, and gives it a name in lists of processes: it is
// started by its descriptor.
func hide(sock int) {
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	name := []byte("rbox-network\x00")
	unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
	unix.CloseOnExec(sock)
}

// closed is closed once the other side of sock is.
func closed(sock int) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			var ignored struct{}
			fds, err := slirp.Receive(sock, &ignored)
			if err != nil {
				return
			}
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}()
	return gone
}

// failure is err as it goes to the monitor.
func failure(err error) *slirp.Failure {
	f := &slirp.Failure{Text: err.Error(), NoWay: errors.As(err, new(*link.MissingError))}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		f.Hint = hinted.Hint()
	}
	return f
}
