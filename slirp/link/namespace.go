// Package link makes a container's end of a network: the interface in its network
// namespace, with addresses and routes, and the descriptor by which the network
// process reads and writes its frames.
package link

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// in calls f on a thread that has joined the network namespace netns, and ends
// that thread: it is of no use elsewhere.
func in(netns int, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("join the container's network namespace: %w", err)
		}
		return f()
	})
}

// inNew is in, with a network namespace made for f: it lives for as long as a
// socket of it does.
func inNew(f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		return f()
	})
}

// onThread calls f on a thread of its own. A goroutine that ends locked to its
// thread takes that with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}
