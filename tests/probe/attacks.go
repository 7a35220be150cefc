package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attacks are asked for by name with an argument, and are in no table.
func attacks() map[string]func(arg string) error {
	return map[string]func(string) error{
		"type":     typeIntoTerminals,
		"trespass": trespass,
		"knock":    knock,
		"ambush":   ambush,
		"swap":     swap,
	}
}

// knock connects to the socket at path. It fails with EPERM if the other side
// hangs up, and not if it is ready to listen.
func knock(path string) error {
	if err := unix.Chdir(filepath.Dir(path)); err != nil { // a socket's name may be 107 bytes long
		return err
	}
	for _, kind := range []int{unix.SOCK_SEQPACKET, unix.SOCK_STREAM} {
		fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Base(path)})
		if errors.Is(err, unix.EPROTOTYPE) {
			continue
		}
		if err != nil {
			return err
		}
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
		n, err := unix.Read(fd, make([]byte, 64<<10))
		if n == 0 || errors.Is(err, unix.ECONNRESET) {
			return unix.EPERM
		}
		return err
	}
	return unix.EPROTOTYPE
}

// ambush makes dir a file system that never answers (fuse(4)): whoever enters it
// waits. It tries to get into the next process that there is, and tells which
// ways lead in.
func ambush(dir string) error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) // which ends the wait
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("none", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		return err
	}
	known := processes()
	fmt.Println("ready")
	for {
		for pid := range processes() {
			if known[pid] {
				continue
			}
			if ways := intrusions(pid); ways != nil {
				fmt.Println(strings.Join(ways, "; "))
				return nil
			}
			if unix.Kill(pid, 0) != nil { // it was too quick
				known[pid] = true
				continue
			}
			return unix.EPERM
		}
	}
}

// swap makes two names, with a comma, each what the other was, again and again:
// neither is missing in between.
func swap(arg string) error {
	a, b, _ := strings.Cut(arg, ",")
	fmt.Println("up")
	for {
		if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
	}
}

// processes are the numbers of those in sight.
func processes() map[int]bool {
	all := map[int]bool{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all[pid] = true
		}
	}
	return all
}

// typeIntoTerminals pushes arg into the input of all terminals there are to be
// had, as if it had been typed (TIOCSTI).
func typeIntoTerminals(arg string) error {
	files := []int{0, 1, 2}
	for _, name := range []string{"/dev/tty", "/dev/console"} {
		if fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY, 0); err == nil {
			files = append(files, fd)
		}
	}
	failed := error(unix.ENOTTY)
	for _, fd := range files {
		for _, b := range []byte(arg) {
			if err := call(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&b))); err == nil {
				return nil
			} else if !errors.Is(err, unix.ENOTTY) {
				failed = err
			}
		}
	}
	return failed
}

// trespass tries to get into processes of arg, their numbers with commas. It
// tells which ways lead in. Signals and limits (kill(2), prlimit(2)) do not: for
// these the kernel asks for the same user alone.
func trespass(arg string) error {
	var ways []string
	for number := range strings.SplitSeq(arg, ",") {
		pid, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		if unix.Kill(pid, 0) != nil {
			return fmt.Errorf("there is no process %d", pid)
		}
		for _, way := range intrusions(pid) {
			ways = append(ways, number+": "+way)
		}
	}
	if ways != nil {
		fmt.Println(strings.Join(ways, "; "))
		return nil
	}
	return unix.EPERM
}

// intrusions are the ways that lead into the process pid.
func intrusions(pid int) (ways []string) {
	try := func(way string, err error) {
		if err == nil {
			ways = append(ways, way)
		}
	}
	dir := "/proc/" + strconv.Itoa(pid)
	for _, name := range []string{"mem", "environ", "maps", "auxv", "syscall", "io"} {
		f, err := os.Open(dir + "/" + name)
		if err == nil && name != "mem" {
			_, err = f.Read(make([]byte, 1))
		}
		try("read "+name, err)
	}
	_, err := os.OpenFile(dir+"/mem", os.O_RDWR, 0)
	try("write mem", err)
	for _, name := range []string{"root/etc", "cwd/.", "exe"} {
		_, err := os.Stat(filepath.Join(dir, name))
		try(name, err)
	}
	_, err = os.Readlink(dir + "/fd/0")
	try("fd", err)
	_, err = os.Open(dir + "/fd/0")
	try("open fd", err)
	for _, kind := range []string{"user", "mnt", "net", "pid", "ipc", "uts", "cgroup"} {
		ns, err := os.Open(dir + "/ns/" + kind)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), 0)
		}
		try("enter "+kind, err)
	}
	local, there := [1]byte{}, uintptr(0x400000)
	_, err = unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &local[0], Len: 1}}, []unix.RemoteIovec{{Base: there, Len: 1}}, 0)
	if errors.Is(err, unix.EFAULT) { // nothing is mapped there, but we may look
		err = nil
	}
	try("process_vm_readv", err)
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		_, err = unix.PidfdGetfd(fd, 0, 0)
		try("pidfd_getfd", err)
		try("setns by pidfd", unix.Setns(fd, unix.CLONE_NEWNS))
	}
	try("ptrace", call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0))
	return ways
}
