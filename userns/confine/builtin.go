package confine

import "golang.org/x/sys/unix"

// Builtin is the filter of the default seccomp profile for DefaultCapabilities,
// as the kernel reads it: one struct sock_filter of 8 bytes after the other. It
// is "" for an architecture without one. Package seccomp compiles it beforehand.
func Builtin() string { return builtin }

// BuiltinDepends are the capabilities on which rules of the default profile depend.
const BuiltinDepends = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_BOOT | 1<<unix.CAP_SYS_CHROOT |
	1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_PACCT | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SYS_RAWIO | 1<<unix.CAP_SYS_TIME |
	1<<unix.CAP_SYS_TTY_CONFIG | 1<<unix.CAP_SYS_NICE | 1<<unix.CAP_SYSLOG | 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON

// The names of profiles that are no file.
const (
	BuiltinProfile = "builtin"
	Unconfined     = "unconfined"
)
