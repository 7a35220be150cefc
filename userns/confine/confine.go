// Package confine holds what a container may not do: the capabilities it
// keeps, the paths hidden from it, the system calls answered in the kernel's place.
package confine

import "golang.org/x/sys/unix"

// DefaultCapabilities is Docker's default set (docker run(1), "Runtime
// privilege and Linux capabilities"); bit n is capability n.
const DefaultCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID |
	1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE |
	1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL | 1<<unix.CAP_AUDIT_WRITE

// LastCapability is the highest number to drop; the kernel refuses with EINVAL
// those it does not have yet.
const LastCapability = 63

// MaskedPaths are what Docker hides: host facts that no container needs.
func MaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// ReadOnlyPaths are what Docker makes read-only.
func ReadOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
