package seccomp

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"rbox/userns/confine"
)

// unheard is an errno that no system call returns: it marks what the filter refuses.
const unheard = 4000

// Calls that cannot be tried: they end or stop the process, break its stack, or
// are the kernel's own, which no filter sees since Linux 6.14.
var untried = []string{"exit", "exit_group", "fork", "vfork", "pause", "sync", "rt_sigreturn", "sigreturn", "uretprobe", "uprobe"}

// A trial is a system call under the filter: what the interpreter says of it, and
// what the kernel returned.
type trial struct {
	Interface string
	Nr        uint32
	Args      []uint64
	Want      uint32 // what the filter returns
	Errno     uint32
}

const helperEnv = "RBOX_SECCOMP_HELPER"

func TestMain(m *testing.M) {
	if kind := os.Getenv(helperEnv); kind != "" {
		if err := json.NewEncoder(os.Stdout).Encode(try(kind == "32")); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// refusing is the default profile, with an errno of its own for what it refuses.
func refusing() *Profile {
	p, errno := Builtin(), uint32(unheard)
	p.DefaultErrnoRet = &errno
	return p
}

// try makes system calls under the filter, on a thread of its own: all that there
// are, with arguments of ones that no call can do anything with, and those
// with conditions with others.
func try(narrow bool) (trials []trial) {
	runtime.LockOSThread()
	target := BuiltinTarget(runtime.GOARCH, confine.DefaultCapabilities)
	f, err := refusing().Compile(target)
	if err != nil {
		panic(err)
	}
	syscall := syscall64
	if narrow {
		syscall = syscall32()
	}
	for _, s := range spacesOf(target.Arch) {
		for _, abi := range s.abis {
			if narrow == (abi.word == 32) {
				trials = append(trials, trialsOf(&abi, s.audit)...)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	prog := unix.SockFprog{Len: uint16(len(f.Program)), Filter: &f.Program[0]}
	if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), uintptr(unsafe.Pointer(&prog))); e != 0 {
		panic(e)
	}
	for i := range trials {
		t := &trials[i]
		t.Errno = syscall(t.Nr, t.Args)
	}
	return trials
}

func trialsOf(abi *abi, audit uint32) (trials []trial) {
	skip := map[uint32]bool{}
	numbers := abi.numbers()
	for _, name := range untried {
		if nr, ok := numbers[name]; ok {
			skip[nr] = true
		}
	}
	f, err := refusing().Compile(BuiltinTarget(runtime.GOARCH, confine.DefaultCapabilities))
	if err != nil {
		panic(err)
	}
	add := func(nr uint32, args ...uint64) {
		want, err := interpret(f.Program, call(audit, nr, args...))
		if err != nil {
			panic(err)
		}
		trials = append(trials, trial{abi.oci, nr, args, want, 0})
	}
	const ones = ^uint64(0)
	for nr := range uint32(560) {
		if nr |= abi.first; !skip[nr] {
			add(nr, ones, ones, ones, ones, ones, ones)
		}
	}
	for _, family := range []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_ALG, unix.AF_VSOCK, unix.AF_XDP, 1<<32 | unix.AF_ALG, 1<<32 | unix.AF_UNIX, 99} {
		if nr, ok := numbers["socket"]; ok {
			add(nr, family, ones, 0, 0, 0, 0)
		}
	}
	for _, persona := range []uint64{0, 8, 0x20000, 0x40000, 1<<32 | 0x40000, 0xffffffff} {
		if persona != 0x20000 { // which it would take on
			add(numbers["personality"], persona, 0, 0, 0, 0, 0)
		}
	}
	return trials
}

func syscall64(nr uint32, a []uint64) uint32 {
	_, _, e := unix.RawSyscall6(uintptr(nr), uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
	return uint32(e)
}

// syscall32 enters the kernel as 32-bit programs do. Go passes a function's first
// words in the very registers that int 0x80 takes them from: AX, BX and CX.
func syscall32() func(nr uint32, a []uint64) uint32 {
	code, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	copy(code, []byte{0xcd, 0x80, 0xc3}) // int $0x80; ret
	if err := unix.Mprotect(code, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		panic(err)
	}
	entry := &code[0]
	function := &entry
	enter := *(*func(nr, a, b uintptr) uintptr)(unsafe.Pointer(&function))
	return func(nr uint32, a []uint64) uint32 {
		if r := int32(enter(uintptr(nr), uintptr(a[0]), uintptr(a[1]))); r < 0 && r > -maxErrno {
			return uint32(-r)
		}
		return 0
	}
}

// What the kernel does under the default profile's filter is what the
// interpreter says, for calls of this machine and by int 0x80.
func TestKernelAgrees(t *testing.T) {
	kinds := map[string]string{"native": "64"}
	if runtime.GOARCH == "amd64" {
		kinds["int 0x80"] = "32"
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), helperEnv+"="+kind)
			out, err := cmd.Output()
			var trials []trial
			if err == nil {
				err = json.Unmarshal(out, &trials)
			}
			if err != nil {
				t.Fatal(err, helperOutput(err))
			}
			refused := 0
			for _, tr := range trials {
				switch action, errno := tr.Want&unix.SECCOMP_RET_ACTION_FULL, tr.Want&unix.SECCOMP_RET_DATA; {
				case action == unix.SECCOMP_RET_ALLOW && tr.Errno != unheard:
				case action == unix.SECCOMP_RET_ERRNO && tr.Errno == errno:
					refused++
				default:
					t.Errorf("%s: call %d of %#x: errno %d, the filter says %#x", tr.Interface, tr.Nr, tr.Args, tr.Errno, tr.Want)
				}
			}
			if refused < 100 || len(trials) < 500 {
				t.Errorf("%d of %d calls were refused", refused, len(trials))
			}
		})
	}
}

func helperOutput(err error) string {
	if e, ok := err.(*exec.ExitError); ok {
		return fmt.Sprintf("%.2000s", e.Stderr)
	}
	return ""
}
