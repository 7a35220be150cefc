package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// read wants something in the file: one masked by /dev/null has nothing.
func read(path string) func() error {
	return func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if n, err := f.Read(make([]byte, 1)); n == 0 {
			return errors.Join(err, unix.EACCES)
		}
		return nil
	}
}

// write opens the file for writing, which changes nothing.
func write(path string) func() error {
	return func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err
	}
}

// list wants something in the directory.
func list(path string) func() error {
	return func() error {
		names, err := os.ReadDir(path)
		if err == nil && len(names) == 0 {
			err = unix.EACCES
		}
		return err
	}
}

func kernelFiles() []probe {
	probes := []probe{
		{"read /proc/kallsyms' addresses", func() error {
			b, err := os.ReadFile("/proc/kallsyms")
			if err == nil && strings.Trim(firstField(b), "0") == "" {
				err = unix.EACCES
			}
			return err
		}, nil},
		{"read /proc/kmsg", func() error {
			fd, err := unix.Open("/proc/kmsg", unix.O_RDONLY|unix.O_NONBLOCK, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}, nil},
		{"lower one's oom_score_adj", func() error { return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0) }, nil},
		{"write one's uid_map again", func() error { return os.WriteFile("/proc/self/uid_map", []byte("0 0 1"), 0) }, nil},
		{"make a directory in /sys/fs/cgroup", func() error {
			err := os.Mkdir("/sys/fs/cgroup/probe", 0o755)
			if err == nil {
				os.Remove("/sys/fs/cgroup/probe")
			}
			return err
		}, nil},
		{"list /sys/kernel/debug", list("/sys/kernel/debug"), nil},
		{"list /sys/fs/bpf", list("/sys/fs/bpf"), nil},
	}
	for _, path := range []string{"kcore", "keys", "interrupts", "timer_list", "latency_stats", "sched_debug", "config.gz", "iomem"} {
		probes = append(probes, probe{"read /proc/" + path, read("/proc/" + path), nil})
	}
	for _, path := range []string{"/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"} {
		probes = append(probes, probe{"list " + path, list(path), nil})
	}
	for _, path := range []string{
		"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/shmmax",
		"/proc/sys/kernel/ns_last_pid", "/proc/sys/fs/mqueue/msg_max", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/drop_caches",
		"/proc/sys/vm/overcommit_memory", "/proc/sys/user/max_user_namespaces", "/proc/irq/default_smp_affinity", "/proc/mtrr",
		"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory.max", "/sys/kernel/uevent_helper", "/sys/power/state",
		"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/class/net/lo/mtu",
	} {
		probes = append(probes, probe{"write " + path, write(path), nil})
	}
	return probes
}

func firstField(b []byte) string {
	f, _, _ := bytes.Cut(b, []byte(" "))
	return string(f)
}

func devices() []probe {
	var probes []probe
	for _, name := range []string{
		"null", "ptmx", "mem", "kmsg", "port", "fuse", "kvm", "loop-control", "loop0", "sda", "vda", "tty0", "tty1", "net/tun",
		"mapper/control", "vhost-net", "hwrng", "userfaultfd",
	} {
		probes = append(probes, probe{"open /dev/" + name, func() error {
			fd, err := unix.Open("/dev/"+name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}, nil})
	}
	return append(probes,
		probe{"add to the entropy count of /dev/random", func() error {
			f, err := os.Open("/dev/random")
			if err != nil {
				return err
			}
			return call(unix.SYS_IOCTL, f.Fd(), unix.RNDADDTOENTCNT, bad)
		}, faults()},
		probe{"open a node made by oneself", inDir(func(p string) error {
			if err := unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
				return err
			}
			return write(p)()
		}), nil})
}

func others() []probe {
	socket := func(family, kind, protocol int) func() error {
		return func() error { _, err := unix.Socket(family, kind, protocol); return err }
	}
	return []probe{
		{"see processes from outside", func() error { return foreign() }, nil},
		{"see one's parent's parent", func() error {
			b, err := os.ReadFile("/proc/1/status")
			if err == nil && strings.Contains(string(b), "PPid:\t0\n") {
				err = unix.EACCES
			}
			return err
		}, nil},
		{"ptrace(2) of process 1", func() error { return unix.PtraceSeize(1) }, nil},
		{"signal a process of another user by kill(2) without CAP_KILL", func() error {
			pid, err := forkAs(1234)
			if err != nil {
				return err
			}
			defer unix.Kill(pid, unix.SIGKILL)
			if err := call(unix.SYS_SETRESUID, 4321, 4321, 4321); err != nil {
				return err
			}
			return unix.Kill(pid, 0)
		}, nil},
		{"read the memory of another user's process", func() error {
			pid, err := forkAs(1234)
			if err != nil {
				return err
			}
			defer unix.Kill(pid, unix.SIGKILL)
			if err := call(unix.SYS_SETRESUID, 4321, 4321, 4321); err != nil {
				return err
			}
			return read("/proc/" + strconv.Itoa(pid) + "/environ")()
		}, nil},
		{"find sockets with abstract names of the host", func() error {
			b, err := os.ReadFile("/proc/net/unix")
			if err == nil && !strings.Contains(string(b), "@") {
				err = unix.EACCES
			}
			return err
		}, nil},
		{"see interfaces of the host", func() error {
			list, err := net.Interfaces()
			if err == nil && len(list) < 2 {
				err = unix.EACCES
			}
			return err
		}, nil},
		{"have the caller's session keyring", func() error {
			b, err := os.ReadFile("/proc/keys")
			if err == nil && !strings.Contains(string(b), "_ses") {
				err = unix.EACCES
			}
			return err
		}, nil},
		{"have files open beyond the first three", func() error {
			names, err := filepath.Glob("/proc/1/fd/*")
			if err == nil && len(names) <= 3 {
				err = unix.EACCES
			}
			return err
		}, nil},
		{"gain privileges by a program's setuid bit", func() error {
			b, err := os.ReadFile("/proc/self/status")
			if err == nil && strings.Contains(string(b), "NoNewPrivs:\t1") {
				err = unix.EPERM
			}
			return err
		}, nil},
		{"socket(2) of AF_VSOCK", socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0), []error{unix.EAFNOSUPPORT}},
		{"socket(2) of AF_ALG", socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), []error{unix.EAFNOSUPPORT}},
		{"socket(2) of AF_KEY", socket(unix.AF_KEY, unix.SOCK_RAW, 2), []error{unix.EAFNOSUPPORT}},
		{"hear of devices by a netlink socket", func() error {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT)
			if err == nil {
				err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})
			}
			return err
		}, nil},
		{"read the host's kernel log by /dev/kmsg", read("/dev/kmsg"), nil},
		{"write into a file that the image's root owns", func() error { return write("/etc/passwd")() }, nil},
	}
}

// foreign finds a process that has no parent here but is not the first.
func foreign() error {
	folders, err := filepath.Glob("/proc/[0-9]*")
	for _, f := range folders {
		b, err := os.ReadFile(f + "/status")
		if err == nil && strings.Contains(string(b), "PPid:\t0\n") && f != "/proc/1" {
			return nil
		}
	}
	return errors.Join(err, unix.ESRCH)
}

// forkAs starts a process of uid that waits until it is killed.
func forkAs(uid uint32) (pid int, err error) {
	cmd := exec.Command("/proc/self/exe", waitWord)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// waitWord makes this program wait, in place of a probe.
const waitWord = "wait"
