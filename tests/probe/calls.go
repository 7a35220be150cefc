package main

import (
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bad is an address that nothing is at.
const bad = ^uintptr(4095)

func faults(errs ...error) []error { return append(errs, unix.EFAULT) }

func namespaces() []probe {
	unshare := func(flag int) func() error { return func() error { return unix.Unshare(flag) } }
	mount := func(kind string) func() error { return func() error { return unix.Mount(kind, "/mnt", kind, 0, "") } }
	return []probe{
		{"unshare(2) of the user namespace", unshare(unix.CLONE_NEWUSER), nil},
		{"unshare(2) of the mount namespace", unshare(unix.CLONE_NEWNS), nil},
		{"unshare(2) of the PID namespace", unshare(unix.CLONE_NEWPID), nil},
		{"unshare(2) of the network namespace", unshare(unix.CLONE_NEWNET), nil},
		{"unshare(2) of the IPC namespace", unshare(unix.CLONE_NEWIPC), nil},
		{"unshare(2) of the UTS namespace", unshare(unix.CLONE_NEWUTS), nil},
		{"unshare(2) of the cgroup namespace", unshare(unix.CLONE_NEWCGROUP), nil},
		{"unshare(2) of the time namespace", unshare(unix.CLONE_NEWTIME), nil},
		{"clone(2) with a user namespace", func() error { return cloneWith(unix.CLONE_NEWUSER) }, nil},
		{"clone3(2) with a user namespace", func() error {
			args := [8]uint64{unix.CLONE_NEWUSER, 0, 0, 0, uint64(unix.SIGCHLD)}
			return call(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), 4) // too short for the kernel
		}, []error{unix.EINVAL}},
		{"setns(2) into one's own mount namespace", func() error { return enter("/proc/self/ns/mnt", unix.CLONE_NEWNS) }, nil},
		{"setns(2) into one's own network namespace", func() error { return enter("/proc/self/ns/net", unix.CLONE_NEWNET) }, nil},
		{"mount(2) of a tmpfs", mount("tmpfs"), nil},
		{"mount(2) of proc", mount("proc"), nil},
		{"mount(2) of sysfs", mount("sysfs"), nil},
		{"mount(2) of a bind", func() error { return unix.Mount("/etc", "/mnt", "", unix.MS_BIND, "") }, nil},
		{"mount(2) of an overlay", func() error {
			return unix.Mount("overlay", "/mnt", "overlay", 0, "lowerdir=/etc:/bin")
		}, nil},
		{"mount(2) that makes /proc/sys writable", func() error {
			return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "")
		}, nil},
		{"mount(2) that makes / shared", func() error { return unix.Mount("", "/", "", unix.MS_SHARED, "") }, nil},
		{"umount(2) of a masked file", func() error { return unix.Unmount("/proc/keys", unix.MNT_DETACH) }, nil},
		{"umount(2) of a masked directory", func() error { return unix.Unmount("/sys/firmware", unix.MNT_DETACH) }, nil},
		{"umount(2) of /proc", func() error { return unix.Unmount("/proc", unix.MNT_DETACH) }, nil},
		{"fsopen(2)", func() error { _, err := unix.Fsopen("tmpfs", 0); return err }, nil},
		{"open_tree(2) of a copy", func() error { _, err := unix.OpenTree(unix.AT_FDCWD, "/etc", unix.OPEN_TREE_CLONE); return err }, nil},
		{"mount_setattr(2)", func() error {
			return unix.MountSetattr(unix.AT_FDCWD, "/proc/sys", 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
		}, nil},
		{"pivot_root(2)", func() error { return unix.PivotRoot("/mnt", "/mnt") }, []error{unix.EINVAL, unix.EBUSY}},
		{"mount(2) in a new user namespace", func() error {
			return inUserNamespace("/proc/self/exe", "mount(2) of a tmpfs")
		}, nil},
		{"umount(2) of a mask in a new user namespace", func() error {
			return inUserNamespace("/proc/self/exe", "umount(2) of a masked file")
		}, nil},
	}
}

// cloneWith starts this program's first instruction in new namespaces.
func cloneWith(flags uintptr) error {
	cmd := exec.Command("/proc/self/exe", "nothing")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	return cmd.Run()
}

// inUserNamespace runs a probe as root of new user and mount namespaces.
func inUserNamespace(exe, name string) error {
	cmd := exec.Command(exe, name)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.Output()
	if err == nil && string(out) != "allowed" {
		err = unix.EPERM
	}
	return err
}

func enter(path string, kind int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return unix.Setns(int(f.Fd()), kind)
}

func systemCalls() []probe {
	number := func(nr uintptr, args ...uintptr) func() error {
		return func() error { return call(nr, args...) }
	}
	return []probe{
		{"bpf(2)", number(unix.SYS_BPF, unix.BPF_PROG_LOAD, bad, 48), faults()},
		{"perf_event_open(2)", number(unix.SYS_PERF_EVENT_OPEN, bad, 0, 0, 0, 0), faults()},
		{"userfaultfd(2)", number(unix.SYS_USERFAULTFD, 0), nil},
		{"io_uring_setup(2)", number(unix.SYS_IO_URING_SETUP, 1, bad), faults()},
		{"keyctl(2)", number(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 0), []error{unix.ENOKEY}},
		{"add_key(2)", number(unix.SYS_ADD_KEY, bad, bad, bad, 1, 0), faults()},
		{"request_key(2)", number(unix.SYS_REQUEST_KEY, bad, bad, 0, 0), faults()},
		{"ptrace(2) of a child", number(unix.SYS_PTRACE, unix.PTRACE_TRACEME), nil},
		{"process_vm_readv(2)", number(unix.SYS_PROCESS_VM_READV, uintptr(os.Getpid()), 0, 0, 0, 0, 0), nil},
		{"kcmp(2)", func() error { pid := uintptr(os.Getpid()); return call(unix.SYS_KCMP, pid, pid, 0, 0, 0) }, nil},
		{"personality(2), ADDR_NO_RANDOMIZE", number(unix.SYS_PERSONALITY, 0x0040000), nil},
		{"personality(2), of 32 bits", number(unix.SYS_PERSONALITY, 8), nil},
		{"init_module(2)", number(unix.SYS_INIT_MODULE, 0, 0, bad), faults(unix.ENOEXEC)},
		{"finit_module(2)", number(unix.SYS_FINIT_MODULE, ^uintptr(0), bad, 0), faults(unix.EBADF)},
		{"delete_module(2)", number(unix.SYS_DELETE_MODULE, bad, 0), faults()},
		{"kexec_load(2)", number(unix.SYS_KEXEC_LOAD, 0, 99, bad, 0), faults(unix.EINVAL)},
		{"reboot(2)", number(unix.SYS_REBOOT, 0, 0, 0, 0), []error{unix.EINVAL}},
		{"swapon(2)", number(unix.SYS_SWAPON, bad, ^uintptr(0)), faults(unix.EINVAL)},
		{"swapoff(2)", number(unix.SYS_SWAPOFF, bad), faults()},
		{"acct(2)", number(unix.SYS_ACCT, bad), faults()},
		{"quotactl(2)", number(unix.SYS_QUOTACTL, 0x80000300, bad, 0, bad), faults(unix.ENOTBLK, unix.EINVAL)},
		{"syslog(2), all of the buffer", number(unix.SYS_SYSLOG, 3, bad, 0), faults(unix.EINVAL)},
		{"name_to_handle_at(2)", number(unix.SYS_NAME_TO_HANDLE_AT, ^uintptr(99), bad, bad, bad, 0), faults()},
		{"open_by_handle_at(2)", func() error {
			handle := [3]uint32{8}
			_, _, errno := unix.Syscall(unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(99), uintptr(unsafe.Pointer(&handle)), 0)
			if errno != 0 {
				return errno
			}
			return nil
		}, []error{unix.ESTALE, unix.EINVAL}},
		{"fanotify_init(2), for all of a mount", number(unix.SYS_FANOTIFY_INIT, 0x4|0x1, 0), nil}, // FAN_CLASS_CONTENT
		{"settimeofday(2)", number(unix.SYS_SETTIMEOFDAY, bad, 0), faults()},
		{"clock_settime(2), to what it is", func() error {
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
				return err
			}
			return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
		}, nil},
		{"clock_adjtime(2), to change", func() error {
			_, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, &unix.Timex{Modes: unix.ADJ_TICK, Tick: -1})
			return err
		}, []error{unix.EINVAL}},
		{"vhangup(2)", number(unix.SYS_VHANGUP), nil},
		{"mbind(2)", number(unix.SYS_MBIND, 0, 0, 0, 0, 0, 0), nil},
		{"set_mempolicy(2)", number(unix.SYS_SET_MEMPOLICY, 0, 0, 0), nil},
		{"move_pages(2)", number(unix.SYS_MOVE_PAGES, 0, 0, 0, 0, 0, 2), nil},
		{"migrate_pages(2)", number(unix.SYS_MIGRATE_PAGES, 0, 0, 0, 0), nil},
		{"pidfd_getfd(2)", func() error {
			fd, err := unix.PidfdOpen(os.Getpid(), 0)
			if err == nil {
				_, err = unix.PidfdGetfd(fd, 1, 0)
			}
			return err
		}, nil},
		{"memfd_secret(2)", number(unix.SYS_MEMFD_SECRET, 0), nil},
		{"landlock_create_ruleset(2)", number(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1), []error{unix.EOPNOTSUPP}},
		{"seccomp(2)", number(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, bad), faults(unix.EACCES)},
		{"fchmodat2(2)", number(452, ^uintptr(99), bad, 0, 0), faults()},
		{"a number that no call has", number(1022), []error{unix.ENOSYS}},
	}
}
