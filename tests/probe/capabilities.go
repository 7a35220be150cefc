package main

import (
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// scratch is a new file, in a directory that all can write.
func scratch() (string, error) {
	f, err := os.CreateTemp("/tmp", "probe-")
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// onFile tries f on a new file.
func onFile(f func(path string) error) func() error {
	return func() error {
		path, err := scratch()
		if err != nil {
			return err
		}
		defer os.Remove(path)
		return f(path)
	}
}

func capabilities() []probe {
	socket := func(family, kind, protocol int) func() error {
		return func() error { _, err := unix.Socket(family, kind, protocol); return err }
	}
	return []probe{
		{"CHOWN: give a file away", onFile(func(p string) error { return os.Chown(p, 1234, 1234) }), nil},
		{"DAC_OVERRIDE: read another's file", onFile(func(p string) error {
			if err := os.Chown(p, 1234, 1234); err != nil {
				return err
			}
			if err := os.Chmod(p, 0); err != nil {
				return err
			}
			_, err := os.ReadFile(p)
			return err
		}), nil},
		{"FOWNER: change the mode of another's file", onFile(func(p string) error {
			if err := os.Chown(p, 1234, 1234); err != nil {
				return err
			}
			return os.Chmod(p, 0o600)
		}), nil},
		{"SETUID: become another user", func() error { return call(unix.SYS_SETRESUID, 1234, 1234, 1234) }, nil},
		{"SETGID: change groups", func() error { return call(unix.SYS_SETGROUPS, 0, 0) }, nil},
		{"SETPCAP: drop from the bounding set", func() error { return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_KILL, 0, 0, 0) }, nil},
		{"SETFCAP: give a file capabilities", onFile(func(p string) error {
			return unix.Setxattr(p, "security.capability", append([]byte{1, 0, 0, 2, 1}, make([]byte, 15)...), 0)
		}), nil},
		{"KILL: signal another user's process", func() error { return signalOther() }, nil},
		{"NET_BIND_SERVICE: listen on port 80", func() error {
			l, err := net.Listen("tcp", "127.0.0.1:80")
			if err == nil {
				l.Close()
			}
			return err
		}, nil},
		{"SYS_CHROOT: change the root", func() error { return unix.Chroot("/etc") }, nil},
		{"NET_RAW: open a raw socket", socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), nil},
		{"NET_RAW: open a packet socket", socket(unix.AF_PACKET, unix.SOCK_RAW, 0), nil},
		{"MKNOD: make a character device", inDir(func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) }), nil},
		{"MKNOD: make a block device", inDir(func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))) }), nil},
		{"AUDIT_WRITE: hold it", holds(unix.CAP_AUDIT_WRITE), nil},
		{"MKNOD: hold it", holds(unix.CAP_MKNOD), nil},
		{"NET_ADMIN: change an interface", func() error { return setMTU() }, nil},
		{"SYS_ADMIN: set the host name", func() error {
			name, err := os.Hostname()
			if err != nil {
				return err
			}
			return unix.Sethostname([]byte(name))
		}, nil},
		{"SYS_ADMIN: set the domain name", func() error { return unix.Setdomainname([]byte("(none)")) }, nil},
		{"SYS_ADMIN: set a trusted attribute", onFile(func(p string) error { return unix.Setxattr(p, "trusted.probe", []byte("x"), 0) }), []error{unix.EOPNOTSUPP}},
		{"SYS_NICE: raise one's priority", func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) }, nil},
		{"SYS_NICE: run in real time", func() error {
			return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
		}, nil},
		{"SYS_RESOURCE: raise a hard limit", func() error {
			var l unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_MSGQUEUE, &l); err != nil {
				return err
			}
			l.Max++
			return unix.Setrlimit(unix.RLIMIT_MSGQUEUE, &l)
		}, nil},
		{"DAC_READ_SEARCH: hold it", holds(unix.CAP_DAC_READ_SEARCH), nil},
		{"SYS_PTRACE: hold it", holds(unix.CAP_SYS_PTRACE), nil},
		{"IPC_LOCK: hold it", holds(unix.CAP_IPC_LOCK), nil},
		{"SYSLOG: hold it", holds(unix.CAP_SYSLOG), nil},
		{"BPF: hold it", holds(unix.CAP_BPF), nil},
	}
}

// inDir tries f on a name that nothing has.
func inDir(f func(path string) error) func() error {
	return func() error {
		dir, err := os.MkdirTemp("/tmp", "probe-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		return f(filepath.Join(dir, "node"))
	}
}

// holds tells whether the capability is effective.
func holds(capability int) func() error {
	return func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		if data[capability/32].Effective&(1<<(capability%32)) == 0 {
			return unix.EPERM
		}
		return nil
	}
}

// signalOther signals a process of another user's. Signal 0 does nothing to it.
func signalOther() error {
	pid, err := forkAs(1234)
	if err != nil {
		return err
	}
	defer unix.Kill(pid, unix.SIGKILL)
	return unix.Kill(pid, 0)
}

// setMTU sets that of the loopback interface to what it is.
func setMTU() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	request := struct {
		name [unix.IFNAMSIZ]byte
		mtu  int32
		_    [20]byte
	}{mtu: 65536}
	copy(request.name[:], "lo")
	return call(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFMTU, uintptr(unsafe.Pointer(&request)))
}
