package sandbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"rbox/slirp"
)

// What is tried inside is tried by this executable again: helperEnv names the sandbox, the
// deed and a directory.
const helperEnv = "RBOX_SANDBOX_HELPER"

func TestMain(m *testing.M) {
	if what := os.Getenv(helperEnv); what != "" {
		inside(strings.SplitN(what, "|", 3))
		return
	}
	os.Exit(m.Run())
}

// inside enters the sandbox, says on stdout what came of that, and does the deed.
func inside(what []string) {
	kind, name, dir := what[0], what[1], what[2]
	many := threads(4) // filters and domains are a thread's own
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); errno != 0 {
		fail(errno)
	}
	if errno, ok := strings.CutPrefix(kind, "without "); ok {
		forbid(errno)
	}
	need := Need{Follow: []string{"/etc/resolv.conf", filepath.Join(dir, "etc/resolv.conf")}}
	if kind == "named" {
		need.Named, need.Dir = true, dir
	}
	begun := time.Now()
	s, err := Enter(need)
	if err != nil {
		fail(err)
	}
	fmt.Println("entered", s.Landlock, s.Scoped, time.Since(begun))
	close(many)
	if deed, ok := deeds[name]; ok {
		fmt.Println("errno", int(deed.do(dir)))
		return
	}
	if err := work[name](dir); err != nil {
		fail(err)
	}
	fmt.Println("done")
}

func fail(err error) {
	fmt.Println("failed", err)
	os.Exit(3)
}

// forbid makes the calls that restrict a process fail with errno, as kernels without them do, and
// sandboxes that allow none inside.
func forbid(errno string) {
	n, err := strconv.Atoi(errno)
	if err != nil {
		fail(err)
	}
	const number = 0 // where struct seccomp_data has the call's
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_SECCOMP, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(n)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		fail(errno)
	}
	runtime.KeepAlive(filter)
}

// threads starts some that wait until the channel is closed.
func threads(n int) chan struct{} {
	over := make(chan struct{})
	var ready sync.WaitGroup
	for range n {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			<-over
		}()
	}
	ready.Wait()
	return over
}

// enter runs this executable in the sandbox kind and returns what it said there.
func enter(t *testing.T, kind, name string, during func(cmd *exec.Cmd, dir string)) (out string, landlock bool, err error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "networks", "net")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(dir+"/../other", nil, 0o600),
		os.Mkdir(dir+"/etc", 0o700), os.Mkdir(dir+"/run", 0o700),
		os.WriteFile(dir+"/run/resolv.conf", []byte("before"), 0o600), os.Symlink("../run/resolv.conf", dir+"/etc/resolv.conf"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+kind+"|"+name+"|"+dir)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	first, _ := lines.ReadString('\n')
	if !strings.HasPrefix(first, "entered") {
		rest, _ := io.ReadAll(lines)
		t.Fatalf("%s%s%s", first, rest, &said)
	}
	t.Log(strings.TrimSpace(first))
	if during != nil {
		during(cmd, dir)
	}
	rest, _ := io.ReadAll(lines)
	err = cmd.Wait()
	return string(rest) + said.String(), !strings.HasPrefix(first, "entered 0"), err
}

// killed is what a deed has that ends the process, in place of an errno.
const killed = unix.Errno(1<<31 - 1)

// A deed is an attack: what one who has taken the process over could do.
type deed struct {
	do             func(dir string) unix.Errno
	private, named unix.Errno // what comes of it in either sandbox
	landlock       bool       // which only Landlock hinders
}

func call(nr uintptr, args ...uintptr) func(string) unix.Errno {
	args = append(args, make([]uintptr, 6)...)
	return func(string) unix.Errno {
		_, _, errno := unix.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
		return errno
	}
}

// open is open(2) of a path below dir.
func open(path string, flags int) func(string) unix.Errno {
	return func(dir string) unix.Errno {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		_, err := unix.Open(path, flags, 0o600)
		return number(err)
	}
}

func number(err error) unix.Errno {
	var errno unix.Errno
	errors.As(err, &errno)
	return errno
}

// setns enters the namespace that a descriptor is for which there is not.
func setns(flags uintptr) func(string) unix.Errno {
	return func(dir string) unix.Errno { return call(unix.SYS_SETNS, 1<<20, flags)(dir) }
}

func socket(family, kind, protocol uintptr) func(string) unix.Errno {
	return call(unix.SYS_SOCKET, family, kind, protocol)
}

// option sets one of a socket that there is.
func option(level, name int) func(string) unix.Errno {
	return func(string) unix.Errno {
		sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return number(err)
		}
		return number(unix.SetsockoptInt(sock, level, name, 1))
	}
}

const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD

var deeds = map[string]deed{
	"execve":               {call(unix.SYS_EXECVE), killed, killed, false},
	"execveat":             {call(unix.SYS_EXECVEAT), killed, killed, false},
	"a process":            {call(unix.SYS_CLONE, uintptr(unix.SIGCHLD)), killed, killed, false},
	"a user namespace":     {call(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)), killed, killed, false},
	"a thread's namespace": {call(unix.SYS_CLONE, threadFlags|unix.CLONE_NEWNET), killed, killed, false},
	"a traced thread":      {call(unix.SYS_CLONE, threadFlags|unix.CLONE_PTRACE), killed, killed, false},
	"clone3":               {call(unix.SYS_CLONE3), unix.ENOSYS, unix.ENOSYS, false},
	"ptrace":               {call(unix.SYS_PTRACE), killed, killed, false},
	"process_vm_readv":     {call(unix.SYS_PROCESS_VM_READV), killed, killed, false},
	"pidfd_getfd":          {call(unix.SYS_PIDFD_GETFD), killed, killed, false},
	"code":                 {call(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON), killed, killed, false},
	"data made code":       {call(unix.SYS_MPROTECT, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC), killed, killed, false},
	"mount":                {call(unix.SYS_MOUNT), killed, killed, false},
	"umount":               {call(unix.SYS_UMOUNT2), killed, killed, false},
	"pivot_root":           {call(unix.SYS_PIVOT_ROOT), killed, killed, false},
	"open_tree":            {call(unix.SYS_OPEN_TREE), killed, killed, false},
	"chroot":               {call(unix.SYS_CHROOT), killed, killed, false},
	"bpf":                  {call(unix.SYS_BPF), killed, killed, false},
	"keyctl":               {call(unix.SYS_KEYCTL), killed, killed, false},
	"perf_event_open":      {call(unix.SYS_PERF_EVENT_OPEN), killed, killed, false},
	"userfaultfd":          {call(unix.SYS_USERFAULTFD), killed, killed, false},
	"io_uring_setup":       {call(unix.SYS_IO_URING_SETUP), unix.EPERM, unix.EPERM, false},
	"seccomp":              {call(unix.SYS_SECCOMP), killed, killed, false},
	"setuid":               {call(unix.SYS_SETUID, 0), killed, killed, false},
	"a call of no name":    {call(1000), unix.ENOSYS, unix.ENOSYS, false},
	"unshare, users":       {call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER), killed, killed, false},
	"unshare, mounts":      {call(unix.SYS_UNSHARE, unix.CLONE_NEWNS), killed, killed, false},
	"setns, any":           {setns(0), killed, killed, false},
	"setns, mounts":        {setns(unix.CLONE_NEWNS), killed, killed, false},
	"setns, network":       {setns(unix.CLONE_NEWNET), killed, unix.EBADF, false},
	"capset":               {call(unix.SYS_CAPSET), killed, unix.EFAULT, false},

	"kill":                {func(string) unix.Errno { return number(unix.Kill(os.Getppid(), 0)) }, unix.EPERM, unix.EPERM, false},
	"kill all":            {func(string) unix.Errno { return number(unix.Kill(-1, 0)) }, unix.EPERM, unix.EPERM, false},
	"tgkill":              {func(string) unix.Errno { return number(unix.Tgkill(os.Getppid(), os.Getppid(), 0)) }, killed, killed, false},
	"tkill":               {call(unix.SYS_TKILL, 1, 0), killed, killed, false},
	"rt_sigqueueinfo":     {call(unix.SYS_RT_SIGQUEUEINFO, 1, 0), killed, killed, false},
	"fcntl, F_SETOWN":     {call(unix.SYS_FCNTL, 0, unix.F_SETOWN, 1), unix.EINVAL, unix.EINVAL, false},
	"prctl, PR_SET_DUMPA": {call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1), unix.EINVAL, unix.EINVAL, false},
	"ioctl, TIOCSTI":      {call(unix.SYS_IOCTL, 0, unix.TIOCSTI), unix.ENOTTY, unix.ENOTTY, false},
	"ioctl, SIOCSIFFLAGS": {call(unix.SYS_IOCTL, 0, unix.SIOCSIFFLAGS), unix.ENOTTY, unix.ENOTTY, false},
	"prlimit, another's":  {call(unix.SYS_PRLIMIT64, 1, unix.RLIMIT_NOFILE), unix.EPERM, unix.EPERM, false},

	"AF_PACKET":         {socket(unix.AF_PACKET, unix.SOCK_DGRAM, 0), killed, killed, false},
	"AF_PACKET, raw":    {socket(unix.AF_PACKET, unix.SOCK_RAW, 3<<8), killed, killed, false},
	"AF_INET, raw":      {socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW), killed, killed, false},
	"AF_INET6, raw":     {socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW), killed, killed, false},
	"AF_UNIX":           {socket(unix.AF_UNIX, unix.SOCK_STREAM, 0), killed, killed, false},
	"AF_VSOCK":          {socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0), killed, killed, false},
	"AF_ALG":            {socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), killed, killed, false},
	"NETLINK_NETFILTER": {socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER), killed, killed, false},
	"socketpair":        {call(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM), killed, killed, false},
	"SO_ATTACH_BPF":     {option(unix.SOL_SOCKET, unix.SO_ATTACH_BPF), unix.ENOPROTOOPT, unix.ENOPROTOOPT, false},
	"IPT_SO_SET_REPLAC": {option(unix.SOL_IP, 64), unix.ENOPROTOOPT, unix.ENOPROTOOPT, false},
	"TCP_ULP":           {option(unix.SOL_TCP, unix.TCP_ULP), unix.ENOPROTOOPT, unix.ENOPROTOOPT, false},

	"make a file":            {open("../new", unix.O_WRONLY|unix.O_CREAT), killed, unix.EACCES, true},
	"make a file of its own": {open("lock", unix.O_RDWR|unix.O_CREAT), killed, 0, false},
	"write a file":           {open("/dev/null", unix.O_WRONLY), killed, unix.EACCES, true},
	"append to a file":       {open("/dev/null", unix.O_APPEND), killed, unix.EACCES, true},
	"truncate a file":        {open("/dev/null", unix.O_TRUNC), killed, unix.EACCES, true},
	"read a file":            {open("/proc/self/exe", 0), unix.EACCES, unix.EACCES, true},
	"read the memory":        {open("/proc/self/mem", 0), unix.EACCES, unix.EACCES, true},
	"list a directory":       {open("/", unix.O_DIRECTORY), unix.EACCES, unix.EACCES, true},
	"unlink":                 {func(dir string) unix.Errno { return number(unix.Unlinkat(unix.AT_FDCWD, dir+"/../other", 0)) }, killed, unix.EACCES, true},
	"mkdir":                  {func(dir string) unix.Errno { return number(unix.Mkdirat(unix.AT_FDCWD, dir+"/../new", 0)) }, killed, unix.EACCES, true},
	"rename":                 {call(unix.SYS_RENAMEAT2), killed, killed, false},
	"link":                   {call(unix.SYS_LINKAT), killed, killed, false},
	"chmod":                  {call(unix.SYS_FCHMODAT), killed, killed, false},
	"chown":                  {call(unix.SYS_FCHOWNAT), killed, killed, false},
	"setxattr":               {call(unix.SYS_SETXATTR), killed, killed, false},
	"open_by_handle_at":      {call(unix.SYS_OPEN_BY_HANDLE_AT), killed, killed, false},
}

// What one who has taken the network process over tries ends it, or fails.
func TestAttacks(t *testing.T) {
	for name, d := range deeds {
		for kind, want := range map[string]unix.Errno{"private": d.private, "named": d.named} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				out, landlock, err := enter(t, kind, name, nil)
				if d.landlock && want == unix.EACCES && !landlock {
					t.Skip("the kernel has no Landlock")
				}
				var exit *exec.ExitError
				if want == killed {
					if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
						t.Errorf("it goes on: %v, %s", err, out)
					}
				} else if out != fmt.Sprintf("errno %d\n", int(want)) || err != nil {
					t.Errorf("%v, %s; want errno %d (%v)", err, out, int(want), want)
				}
			})
		}
	}
}

// work is what the process and Go's runtime do, or may have to.
var work = map[string]func(dir string) error{
	"threads":  comeAndGo,
	"memory":   collect,
	"tcp":      func(string) error { return talk("tcp", "127.0.0.1:0") },
	"tcp6":     func(string) error { return talk("tcp", "[::1]:0") },
	"datagram": datagrams,
	"resolver": func(string) error { _, err := os.ReadFile("/etc/resolv.conf"); return err },
	"follow":   follow,
	"zone":     func(string) error { _, err := net.InterfaceByName("lo"); return err },
	"messages": messages,
	"files":    func(string) error { _, err := net.LookupPort("tcp", "domain"); return err },
	"splice":   splice,
	"sleep":    func(string) error { return pause() },
	"stopped":  func(string) error { return pause() },
	"panic":    func(string) error { panic("mishap") },
	"segv":     func(string) error { return errors.New(*(*string)(nil)) },
	"fatal": func(string) error { // which no recover catches
		var mu sync.Mutex
		mu.Unlock()
		return nil
	},
	"overflow": func(string) error {
		debug.SetMaxStack(1 << 20)
		return deep(1000, new([1 << 16]byte))
	},
	"abort": func(string) error {
		debug.SetTraceback("crash") // which ends with SIGABRT
		panic("mishap")
	},
	"quit":     func(string) error { time.Sleep(time.Minute); return nil },
	"deadlock": func(string) error { select {} },
}

// follow reads a file that is a link until what that leads to has been replaced.
func follow(dir string) error {
	file := filepath.Join(dir, "etc/resolv.conf")
	for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if string(text) == "after" {
			return nil
		}
	}
	return errors.New("it is not replaced")
}

// comeAndGo has threads start and end by hundreds, with signals from one to another.
func comeAndGo(string) error {
	for range 20 {
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				runtime.LockOSThread() // it ends with the goroutine
				for end := time.Now().Add(time.Millisecond); time.Now().Before(end); {
				}
			})
		}
		runtime.GC() // stops the world
		all.Wait()
	}
	return nil
}

// collect takes memory, and gives it back to the kernel.
func collect(string) error {
	for range 5 {
		var list [][]byte
		for range 20 {
			list = append(list, bytes.Repeat([]byte{1}, 1<<20))
		}
		runtime.KeepAlive(list)
		list = nil
		runtime.GC()
		debug.FreeOSMemory()
	}
	debug.SetMemoryLimit(1 << 20)
	debug.SetGCPercent(10)
	return nil
}

// talk sends something over a connection, with what package net does on the way.
func talk(network, addr string) error {
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	defer l.Close()
	told := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c) // splice, sendfile
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
		told <- err
	}()
	c, err := net.DialTimeout(network, l.Addr().String(), 10*time.Second)
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	return <-told
}

func datagrams(string) error {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c, err := net.Dial("udp", l.LocalAddr().String())
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, _, err = l.ReadFrom(make([]byte, 5))
	return err
}

// messages sends a long message, which is a file in memory, over a socket that there is.
func messages(string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	r.Close()
	long := slirp.Reply{Notices: []string{strings.Repeat("x", 100<<10)}}
	if err := slirp.Send(int(w.Fd()), long); !errors.Is(err, unix.ENOTSOCK) {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// splice moves data as package publish does.
func splice(string) error {
	var a, b [2]int
	for _, p := range []*[2]int{&a, &b} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			return err
		}
		if _, err := unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, 1<<20); err != nil {
			return err
		}
	}
	if _, err := unix.Write(a[1], []byte("hello")); err != nil {
		return err
	}
	n, err := unix.Splice(a[0], nil, b[1], nil, 5, unix.SPLICE_F_NONBLOCK)
	if n != 5 {
		return fmt.Errorf("%d bytes: %w", n, err)
	}
	return err
}

// pause waits in the ways that the kernel goes on with after a stop (restart_syscall(2)).
func pause() error {
	var all sync.WaitGroup
	all.Go(func() { unix.Nanosleep(&unix.Timespec{Nsec: 3e8}, nil) })
	all.Go(func() { unix.Poll(nil, 300) })
	all.Go(func() { time.Sleep(300 * time.Millisecond) })
	all.Wait()
	return nil
}

// deep needs n times 64 KiB of stack.
func deep(n int, prior *[1 << 16]byte) error {
	var here [1 << 16]byte
	here[0] = byte(n)
	if n == 0 {
		return errors.New(string(prior[:1]))
	}
	return errors.Join(deep(n-1, &here), errors.New(string(prior[:1])))
}

// Where the kernel has none of this, or forbids it, the process goes on without.
func TestWithout(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOSYS, unix.EPERM} {
		out, landlock, err := enter(t, fmt.Sprintf("without %d", int(errno)), "tcp", nil)
		if out != "done\n" || landlock || err != nil {
			t.Errorf("%v: %v, %s", errno, err, out)
		}
	}
}

func TestWork(t *testing.T) {
	for name := range work {
		for _, kind := range []string{"private", "named"} {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				if name == "tcp6" {
					if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
						t.Skip("this host has no IPv6")
					} else {
						l.Close()
					}
				}
				out, _, err := enter(t, kind, name, func(cmd *exec.Cmd, dir string) {
					switch name {
					case "follow":
						if err := errors.Join(os.WriteFile(dir+"/run/new", []byte("after"), 0o600), os.Rename(dir+"/run/new", dir+"/run/resolv.conf")); err != nil {
							t.Error(err)
						}
					case "quit":
						cmd.Process.Signal(unix.SIGQUIT)
					case "stopped":
						cmd.Process.Signal(unix.SIGSTOP)
						awaitState(t, cmd.Process.Pid, 'T')
						cmd.Process.Signal(unix.SIGCONT)
					}
				})
				want := map[string]string{
					"panic": "panic: mishap", "segv": "nil pointer dereference", "fatal": "unlock of unlocked mutex",
					"overflow": "stack overflow", "abort": "panic: mishap", "quit": "SIGQUIT", "deadlock": "deadlock",
				}[name]
				switch {
				case want == "" && (err != nil || out != "done\n"):
					t.Errorf("%v, %s", err, out)
				case !strings.Contains(out, want), want != "" && (!strings.Contains(out, "goroutine ") || strings.Contains(err.Error(), "bad system call")):
					t.Errorf("%v, %.2000s", err, out)
				}
			})
		}
	}
}

// awaitState waits until a process is in the state that proc_pid_stat(5) calls so.
func awaitState(t *testing.T, pid int, state byte) {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.LastIndexByte(stat, ')'); stat[i+2] == state {
			return
		}
	}
	t.Fatalf("process %d does not become %c", pid, state)
}
