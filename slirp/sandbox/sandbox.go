// Package sandbox takes from the network process what it does not need once it is set up:
// capabilities, system calls by seccomp(2), files by landlock(7). What comes from containers
// and from networks is handled inside.
package sandbox

import (
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/slirp/landlock"
)

// A Need is what the process still has to do.
type Need struct {
	Capabilities []int
	Follow       []string // read these files, which change and may be links that lead elsewhere then
	Child        bool     // end the process that it has started

	// Named: be the process of a named network, which enters and makes network namespaces,
	// and is found by files in its directory Dir.
	Named bool
	Dir   string

	// Filtered calls a function on the one thread that has a seccomp filter already; nil:
	// there is none.
	Filtered func(func())
}

// Enter restricts all threads to what n says, for ever. It takes capabilities for that, which
// all have. What this kernel does not have, or a sandbox that we are in forbids, is left out;
// what is returned says so.
func Enter(n Need) (*slirp.Sandbox, error) {
	ring, err := n.fence().AroundProcess()
	if err != nil && !landlock.Missing(err) {
		return nil, fmt.Errorf("restrict the network process to its files: %w", err)
	}
	if err := keepCapabilities(n.Capabilities); err != nil {
		return nil, err
	}
	if err := n.filter(); err != nil {
		return nil, fmt.Errorf("install the network process's seccomp filter: %w", err)
	}
	return &slirp.Sandbox{Pid: os.Getpid(), Landlock: ring.Version, Scoped: ring.Scoped}, nil
}

// keepCapabilities gives up what the process has as root of the outer user namespace, but
// for those named.
func keepCapabilities(keep []int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var kept [2]unix.CapUserData // 64 capabilities in two halves (capget(2))
	for _, c := range keep {
		kept[c/32].Effective |= 1 << (c % 32)
		kept[c/32].Permitted |= 1 << (c % 32)
	}
	err := onAllThreads("capset", unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&kept)), 0)
	if err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// onAllThreads makes a system call whose effect is on the thread.
func onAllThreads(name string, nr, a1, a2, a3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(nr, a1, a2, a3); errno != 0 {
		return os.NewSyscallError(name, errno)
	}
	return nil
}
