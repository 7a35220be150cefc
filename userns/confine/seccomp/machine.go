package seccomp

import (
	_ "embed"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// An abi is a way to call the kernel, with numbers of its own.
type abi struct {
	oci     string // the name of its architecture in profiles
	column  int    // of numbers.txt, after the name
	first   uint32 // the smallest number
	private uint32 // from here on numbers follow other rules: the newest call has none of them
	word    int    // bits of an argument
}

// A space is all that the kernel gives a filter under one value of seccomp_data's arch.
type space struct {
	audit uint32
	abis  []abi // ascending
}

// x32Bit marks the numbers of x32 among those of x86-64 (__X32_SYSCALL_BIT).
const x32Bit = 0x40000000

// spacesOf are those of a GOARCH; the first, and its first abi, are its own.
func spacesOf(arch string) []space {
	switch arch {
	case "amd64":
		return []space{
			{unix.AUDIT_ARCH_X86_64, []abi{
				{"SCMP_ARCH_X86_64", 1, 0, x32Bit, 64},
				{"SCMP_ARCH_X32", 3, x32Bit, 1 << 31, 64},
			}},
			{unix.AUDIT_ARCH_I386, []abi{{"SCMP_ARCH_X86", 2, 0, noCall, 32}}},
		}
	case "arm64":
		return []space{
			{unix.AUDIT_ARCH_AARCH64, []abi{{"SCMP_ARCH_AARCH64", 4, 0, noCall, 64}}},
			{unix.AUDIT_ARCH_ARM, []abi{{"SCMP_ARCH_ARM", 5, 0, armPrivate, 32}}},
		}
	}
	return nil
}

// noCall is the number that a tracer sets to have a call passed over (ptrace(2)).
const noCall = math.MaxUint32

// armPrivate is the first number of Arm's own calls: cacheflush, set_tls and
// others (__ARM_NR_BASE).
const armPrivate = 0xf0000

// numbersFile has a line for each system call: its name, and its numbers for
// amd64, 386, x32, arm64 and arm, a dash where there is none.
//
//go:generate go run ./gen tables
//go:generate go run ./gen filters
//go:embed numbers.txt
var numbersFile string

// numbers are those of the calls that the interface has, by name.
func (a abi) numbers() map[string]uint32 {
	all := map[string]uint32{}
	for line := range strings.Lines(numbersFile) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		if nr, err := strconv.ParseUint(fields[a.column], 0, 32); err == nil {
			all[fields[0]] = uint32(nr)
		}
	}
	return all
}

// ints are the arguments of a call, by position, that the kernel declares as int
// or unsigned int (SYSCALL_DEFINE in its sources): of 64 bits it reads the low
// half. Rules about them are common, and one that compared all 64 could be got
// round (CVE-2019-7303).
func ints(name string) string {
	switch name {
	case "socket", "socketpair", "getsockopt", "setsockopt":
		return "012"
	case "ioctl", "fcntl", "setns", "seccomp":
		return "01"
	case "clone", "personality", "prctl", "keyctl", "bpf":
		return "0"
	case "futex":
		return "1"
	case "madvise":
		return "2"
	}
	return ""
}

// narrow are the arguments of a call of which the kernel reads 32 bits.
func (a abi) narrow(name string) (which [6]bool) {
	for i := range which {
		which[i] = a.word == 32 || strings.ContainsRune(ints(name), rune('0'+i))
	}
	return which
}

// Calls that 32-bit x86 also has as one: its first argument says which is
// meant (linux/net.h, linux/ipc.h).
var (
	bySocketcall = []string{1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
		"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg"}
	byIPC = []string{1: "semop", "semget", "semctl", "semtimedop",
		11: "msgsnd", "msgrcv", "msgget", "msgctl", 21: "shmat", "shmdt", "shmget", "shmctl"}
)

// multiplexed is what c, a rule for the call name, means for socketcall(2) or
// ipc(2). The arguments proper are in memory there, where no filter sees them: a
// rule that lets some pass lets none pass there, one that refuses some refuses all.
func (a abi) multiplexed(name string, c compiled, numbers map[string]uint32) (nr uint32, by compiled, ok bool) {
	if a.oci != "SCMP_ARCH_X86" {
		return 0, by, false
	}
	if len(c.conds) > 0 && !refuses(c.action) {
		return 0, by, false
	}
	for many, calls := range map[string][]string{"socketcall": bySocketcall, "ipc": byIPC} {
		if i := slices.Index(calls, name); i > 0 {
			return numbers[many], compiled{c.action, []condition{{0, uint64(i), 0, "SCMP_CMP_EQ"}}}, true
		}
	}
	return 0, by, false
}
