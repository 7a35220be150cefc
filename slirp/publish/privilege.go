package publish

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hold makes c this thread's only effective capability. It may take those of spare later.
func hold(c int, spare ...int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // 64 capabilities in two halves (capget(2))
	data[c/32].Effective = 1 << (c % 32)
	for _, s := range append(spare, c) {
		data[s/32].Permitted |= 1 << (s % 32)
	}
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}

// outlastCapset has this thread keep its capabilities for as long as it lives: also when
// the process gives up those of all its threads. Go can do that for all threads only
// (syscall.AllThreadsSyscall), and for all with the same result; so a filter, which is
// the thread's own (seccomp(2)), has the kernel do nothing here and call it success. Go
// starts no thread from one that is locked to its goroutine, so that none inherits this.
func outlastCapset() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	const nothing = unix.SECCOMP_RET_ERRNO // errno 0
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the call's number, first in struct seccomp_data
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CAPSET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: nothing},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	return os.NewSyscallError("seccomp", err)
}
