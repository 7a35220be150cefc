package confine

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultCapabilities is Docker's default set (docker run(1), "Runtime
// privilege and Linux capabilities"); bit n is capability n.
const DefaultCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FSETID |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_MKNOD | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SETGID |
	1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_NET_BIND_SERVICE |
	1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_KILL | 1<<unix.CAP_AUDIT_WRITE

// AllCapabilities are those that there are, and those that there will be.
const AllCapabilities = ^uint64(0)

// LastCapability is the highest number to drop; the kernel refuses with EINVAL
// those it does not have yet.
const LastCapability = 63

// capabilities are the names, by number (linux/capability.h).
var capabilities = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// A NoCapabilityError reports a name that no capability has.
type NoCapabilityError struct{ Name string }

func (e *NoCapabilityError) Error() string { return fmt.Sprintf("no capability is called %q", e.Name) }

// Hint shows the form, and where the names are.
func (e *NoCapabilityError) Hint() string {
	return "a name as capabilities(7) lists them, with or without CAP_, or ALL: --cap-add NET_ADMIN"
}

// Capability is the set that name stands for: one capability, in either case,
// with or without CAP_, or ALL.
func Capability(name string) (uint64, error) {
	upper := strings.ToUpper(name)
	if upper == "ALL" || upper == "CAP_ALL" {
		return AllCapabilities, nil
	}
	n := slices.Index(capabilities[:], strings.TrimPrefix(upper, "CAP_"))
	if n < 0 {
		return 0, &NoCapabilityError{name}
	}
	return 1 << n, nil
}

// CapabilityNames lists the set as Docker writes it, in the order of the
// alphabet. Capabilities that have no name yet are left out.
func CapabilityNames(set uint64) []string {
	names := []string{}
	for set &= 1<<len(capabilities) - 1; set != 0; set &= set - 1 {
		names = append(names, "CAP_"+capabilities[bits.TrailingZeros64(set)])
	}
	slices.Sort(names)
	return names
}

// Tweak is the set that is left of Docker's own after --cap-add and --cap-drop,
// by Docker's rules: what is added by its name stays whatever is dropped, and of
// ALL that are added those are dropped that are named.
func Tweak(add, drop []string) (uint64, error) {
	added, err := union(add)
	if err != nil {
		return 0, err
	}
	dropped, err := union(drop)
	switch {
	case err != nil:
		return 0, err
	case added != AllCapabilities:
		return DefaultCapabilities&^dropped | added, nil
	case dropped == AllCapabilities:
		return AllCapabilities, nil
	}
	return AllCapabilities &^ dropped, nil
}

// union is the set of all that names stand for.
func union(names []string) (set uint64, err error) {
	for _, name := range names {
		c, err := Capability(name)
		if err != nil {
			return 0, err
		}
		set |= c
	}
	return set, nil
}
