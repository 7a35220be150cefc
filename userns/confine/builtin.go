package confine

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Builtin is the filter of the default seccomp profile for containers with such
// capabilities, as the kernel reads it: one struct sock_filter of 8 bytes after
// the other. Package seccomp has compiled it beforehand. It is "" for sets that
// are not among Prebuilt, and for an architecture without one.
func Builtin(capabilities uint64) string {
	rest := builtin
	for _, set := range Prebuilt() {
		if len(rest) < 4 {
			return ""
		}
		n := 4 + int(binary.LittleEndian.Uint32([]byte(rest[:4])))
		if capabilities&BuiltinDepends == set {
			return rest[4:n]
		}
		rest = rest[n:]
	}
	return ""
}

// Prebuilt are the sets of capabilities, of those that matter, for which there
// are filters: the usual one, none, what --cap-add is mostly used for, and all.
func Prebuilt() [6]uint64 {
	const usual = DefaultCapabilities & BuiltinDepends
	return [...]uint64{usual, 0, usual | 1<<unix.CAP_SYS_ADMIN, usual | 1<<unix.CAP_SYS_PTRACE, usual | 1<<unix.CAP_SYS_NICE, BuiltinDepends}
}

// BuiltinDepends are the capabilities on which rules of the default profile depend.
const BuiltinDepends = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_BOOT | 1<<unix.CAP_SYS_CHROOT |
	1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_PACCT | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_SYS_TIME |
	1<<unix.CAP_SYS_TTY_CONFIG | 1<<unix.CAP_SYS_NICE | 1<<unix.CAP_SYSLOG | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON

// The names of profiles that are no file.
const (
	BuiltinProfile = "builtin"
	Unconfined     = "unconfined"
)
