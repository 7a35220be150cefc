package confine

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (seccomp(2)).
const (
	offNr   = 0
	offArch = 4
	offArgs = 16 // 8 bytes an argument, the low half first on little-endian machines
)

// pretended lists the numbers of system calls that fail in a user namespace of
// one id and are answered with success: package managers set owners and groups
// that do not exist here.
type pretended struct {
	arch    uint32
	owners  []uint32 // chown and its like, setgroups
	mknod   uint32   // 0: the machine has mknodat alone
	mknodat uint32
}

// pretendHere are this machine's numbers, none for an architecture we do not know.
func pretendHere() (p pretended, ok bool) {
	switch runtime.GOARCH {
	case "amd64": // chown, fchown, lchown, setgroups, fchownat
		return pretended{unix.AUDIT_ARCH_X86_64, []uint32{92, 93, 94, 116, 260}, 133, 259}, true
	case "arm64": // fchownat, fchown, setgroups
		return pretended{unix.AUDIT_ARCH_AARCH64, []uint32{54, 55, 159}, 0, 33}, true
	}
	return p, false
}

// Pretend returns the seccomp filter of the single-id rung: chown and its
// like, setgroups, and mknod of a device return 0 and do nothing. All else,
// FIFOs and regular files by mknod too, goes to the kernel.
func Pretend() []unix.SockFilter {
	m, ok := pretendHere()
	if !ok {
		return nil
	}
	const success = unix.SECCOMP_RET_ERRNO // errno 0: the call returns 0
	var f []unix.SockFilter
	f = append(f,
		load(offArch),
		unless(m.arch, 1),
		ret(unix.SECCOMP_RET_ALLOW),
		load(offNr))
	for _, nr := range m.owners {
		f = append(f, onlyIf(nr, 1), ret(success))
	}
	f = append(f, deviceNode(m.mknodat, 2)...)
	if m.mknod != 0 {
		f = append(f, deviceNode(m.mknod, 1)...)
	}
	return append(f, ret(unix.SECCOMP_RET_ALLOW))
}

// deviceNode answers call nr, whose argument arg is a file mode, with success
// if it asks for a character or block device other than overlay's whiteout,
// which needs no privilege.
func deviceNode(nr, arg uint32) []unix.SockFilter {
	body := []unix.SockFilter{
		load(offArgs + 8*arg),
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: unix.S_IFMT},
		unless(unix.S_IFBLK, 3), // to the last but one
		onlyIf(unix.S_IFCHR, 3), // to the last
		load(offArgs + 8*(arg+1)),
		unless(0, 1),
		ret(unix.SECCOMP_RET_ERRNO),
		ret(unix.SECCOMP_RET_ALLOW),
	}
	return append([]unix.SockFilter{onlyIf(nr, uint8(len(body)))}, body...)
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func ret(value uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
}

// onlyIf goes on if the loaded word is k, else passes skip instructions over.
func onlyIf(k uint32, skip uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: skip}
}

// unless passes skip instructions over if the loaded word is k.
func unless(k uint32, skip uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: skip}
}
