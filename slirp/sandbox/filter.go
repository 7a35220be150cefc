package sandbox

import (
	"encoding/binary"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:generate go run ./gen

// ownPid is what profile.json has for the pid of the process, above all that there are
// (PID_MAX_LIMIT): "rbox" in ASCII.
const ownPid = 0x72626f78

// filter installs the seccomp filter, and sets no_new_privs, without which the kernel would
// take it from nobody but root. Where there are no filters it sets that alone.
func (n *Need) filter() error {
	program := program(n.Named, os.Getpid())
	installed := unix.ENOSYS
	if len(program) > 0 {
		installed = n.install(program)
	}
	switch installed {
	case 0:
		return nil
	case unix.ENOSYS, unix.EINVAL, unix.EPERM: // a kernel without seccomp, without filters, or a filter around us that forbids it
		return onAllThreads("prctl", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0)
	}
	return installed
}

// install has all threads have the filter, and no_new_privs. To install it once and have the
// others share it (SECCOMP_FILTER_FLAG_TSYNC) costs less than to do it on each; it has to be
// done on the thread that has another filter already, which all get, too.
func (n *Need) install(program []unix.SockFilter) (errno unix.Errno) {
	on := n.Filtered
	if on == nil {
		on = onOneThread
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	install := func(flags uintptr) unix.Errno {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err.(unix.Errno)
		}
		thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC|flags, uintptr(unsafe.Pointer(&prog)))
		if errno == 0 && thread != 0 { // which has a filter that we do not know of
			return unix.ESRCH
		}
		return errno
	}
	on(func() {
		// Without this flag, of Linux 4.17, kernels before 5.16 turn off speculation for the
		// process, which costs more than it protects.
		if errno = install(unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW); errno == unix.EINVAL {
			errno = install(0)
		}
	})
	runtime.KeepAlive(program)
	return errno
}

// onOneThread calls f on a thread that does nothing else meanwhile.
func onOneThread(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f()
}

// program is the filter of profile.json for this machine, with the pid in it; empty if
// there is none. The code is as the kernel has it: one struct sock_filter of 8 bytes after the other,
// little-endian, as both machines are.
func program(forNamed bool, pid int) []unix.SockFilter {
	code := []byte(private)
	if forNamed {
		code = []byte(named)
	}
	list := make([]unix.SockFilter, len(code)/8)
	for i := range list {
		b := code[8*i:]
		list[i] = unix.SockFilter{Code: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:])}
		if list[i].Code == unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K && list[i].K == ownPid {
			list[i].K = uint32(pid)
		}
	}
	return list
}
