package main

import "golang.org/x/sys/unix"

// machineCalls are this machine's alone.
func machineCalls() []probe {
	return []probe{
		{"iopl(2)", func() error { return call(unix.SYS_IOPL, 3) }, nil},
		{"ioperm(2)", func() error { return call(unix.SYS_IOPERM, 0x80, 1, 1) }, nil},
		{"modify_ldt(2)", func() error { return call(unix.SYS_MODIFY_LDT, 0, bad, 0) }, faults()},
		{"arch_prctl(2)", func() error { return call(unix.SYS_ARCH_PRCTL, 0x1003, bad) }, faults()}, // ARCH_GET_FS
		{"lookup_dcookie(2)", func() error { return call(unix.SYS_LOOKUP_DCOOKIE, 0, bad, 0) }, faults(unix.EINVAL)},
		{"uselib(2)", func() error { return call(unix.SYS_USELIB, bad) }, faults()},
		{"ustat(2)", func() error { return call(unix.SYS_USTAT, 0, bad) }, faults(unix.EINVAL)},
		{"sysfs(2)", func() error { return call(unix.SYS_SYSFS, 3) }, nil},
		{"x32's getpid(2)", func() error { return call(0x40000000 | unix.SYS_GETPID) }, nil},
	}
}
