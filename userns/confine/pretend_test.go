package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seccompData is struct seccomp_data (seccomp(2)) in 32-bit words, on a
// little-endian machine.
type seccompData [16]uint32

func call(arch, nr uint32, args ...uint64) (d seccompData) {
	d[0], d[1] = nr, arch
	for i, a := range args {
		d[4+2*i], d[5+2*i] = uint32(a), uint32(a>>32)
	}
	return d
}

// interpret runs a filter of the instructions that Pretend uses.
func interpret(filter []unix.SockFilter, d seccompData) (uint32, error) {
	var a uint32
	for pc := 0; pc < len(filter); pc++ {
		switch in := filter[pc]; in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K%4 != 0 || int(in.K/4) >= len(d) {
				return 0, fmt.Errorf("%d: load from %d", pc, in.K)
			}
			a = d[in.K/4]
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			if a == in.K {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return in.K, nil
		default:
			return 0, fmt.Errorf("%d: instruction %#x", pc, in.Code)
		}
	}
	return 0, errors.New("it runs over the end")
}

const (
	pretend = unix.SECCOMP_RET_ERRNO // errno 0
	allow   = unix.SECCOMP_RET_ALLOW
)

// Every system call there is, with each kind of file mode, on each machine.
func TestPretendAnswers(t *testing.T) {
	filter := Pretend()
	if filter == nil {
		t.Skip("no filter for " + runtime.GOARCH)
	}
	m, _ := pretendHere()
	const null = 1<<8 | 3
	for arch, here := range map[uint32]bool{m.arch: true, unix.AUDIT_ARCH_I386: false, unix.AUDIT_ARCH_ARM: false, 0: false} {
		for nr := range uint32(600) {
			for name, file := range map[string]struct {
				mode, dev uint64
				device    bool
			}{
				"character device": {unix.S_IFCHR | 0o666, null, true},
				"block device":     {unix.S_IFBLK | 0o660, null, true},
				"block device 0/0": {unix.S_IFBLK, 0, true},
				"whiteout":         {unix.S_IFCHR | 0o600, 0, false},
				"FIFO":             {unix.S_IFIFO | 0o644, null, false},
				"regular file":     {unix.S_IFREG | 0o644, null, false},
				"no kind":          {0o777, null, false},
				"socket":           {unix.S_IFSOCK | 0o777, null, false},
				"high half":        {1<<32 | unix.S_IFIFO, null, false}, // the kernel takes 32 bits
			} {
				want := uint32(allow)
				d := call(arch, nr, 0, file.mode, file.dev, 0, 0, 0)
				switch {
				case !here:
				case slices.Contains(m.owners, nr):
					want = pretend
				case nr == m.mknodat:
					d = call(arch, nr, 0, 0, file.mode, file.dev, 0, 0)
					fallthrough
				case m.mknod != 0 && nr == m.mknod:
					if file.device {
						want = pretend
					}
				}
				if got, err := interpret(filter, d); err != nil || got != want {
					t.Errorf("arch %#x, call %d, %s: got %#x, %v; want %#x", arch, nr, name, got, err, want)
				}
			}
		}
	}
}

// The numbers are this machine's.
func TestPretendNumbers(t *testing.T) {
	m, ok := pretendHere()
	if !ok {
		t.Skip("no filter for " + runtime.GOARCH)
	}
	for name, nr := range map[string]uint32{"fchown": unix.SYS_FCHOWN, "fchownat": unix.SYS_FCHOWNAT, "setgroups": unix.SYS_SETGROUPS} {
		if !slices.Contains(m.owners, nr) {
			t.Errorf("%s, %d, is not among %d", name, nr, m.owners)
		}
	}
	if m.mknodat != unix.SYS_MKNODAT {
		t.Errorf("mknodat is %d, want %d", m.mknodat, unix.SYS_MKNODAT)
	}
}

// found is what system calls did under the filter.
type found struct {
	Chown, Lchown, Setgroups, Device, Block, Whiteout, Fifo, File bool // answered with success
	Owner                                                         bool // a file really changed hands
	Made                                                          []string
}

const helperEnv = "RBOX_CONFINE_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		if err := json.NewEncoder(os.Stdout).Encode(underFilter(dir)); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// underFilter installs the filter on every thread and tries what it answers, in dir.
func underFilter(dir string) (f found) {
	filter := Pretend()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, e := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); e != 0 {
		panic(e)
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))); e != 0 {
		panic(e)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	before, err := os.Lstat(dir)
	if err != nil {
		panic(err)
	}
	f.Chown = os.Chown(dir, 12345, 12345) == nil
	f.Lchown = os.Lchown(dir, 12345, 12345) == nil
	f.Setgroups = syscall.Setgroups([]int{12345}) == nil
	f.Device = unix.Mknod(in("char"), unix.S_IFCHR|0o600, 1<<8|3) == nil
	f.Block = unix.Mknodat(unix.AT_FDCWD, in("block"), unix.S_IFBLK|0o600, 7<<8) == nil
	f.Whiteout = unix.Mknod(in("whiteout"), unix.S_IFCHR, 0) == nil
	f.Fifo = unix.Mkfifo(in("fifo"), 0o600) == nil
	f.File = unix.Mknod(in("file"), unix.S_IFREG|0o600, 0) == nil
	after, err := os.Lstat(dir)
	if err != nil {
		panic(err)
	}
	f.Owner = before.Sys().(*syscall.Stat_t).Uid != after.Sys().(*syscall.Stat_t).Uid
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		f.Made = append(f.Made, e.Name())
	}
	return f
}

func TestPretendOnThisKernel(t *testing.T) {
	if Pretend() == nil {
		t.Skip("no filter for " + runtime.GOARCH)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got found
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := found{true, true, true, true, true, true, true, true, false, []string{"fifo", "file", "whiteout"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
