package rootfs

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Devices are the host's device nodes that every container has, by bind mount.
var devices = [...]string{"null", "zero", "full", "random", "urandom", "tty"}

// devLinks are /dev's symbolic links, as Docker has them.
var devLinks = [...][2]string{
	{"pts/ptmx", "ptmx"},
	{"/proc/self/fd", "fd"},
	{"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"/proc/kcore", "core"},
}

// MountDev fills /dev: a tmpfs with device nodes, links, pts and a shm of
// shmSize bytes. tty is the outer id of the container's group 5, which devpts
// gives terminals to, or -1. The directory mqueue waits for the container's
// own mount.
func (t *Tree) MountDev(shmSize int64, tty int) error {
	if err := t.Mount(Mount{Type: "tmpfs", Target: "/dev", Mode: 0o755, Size: 64 << 10, Flags: unix.MS_NOEXEC}); err != nil {
		return err
	}
	dev, err := t.Open("/dev", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	in := fdPath(int(dev.Fd())) + "/"
	for _, name := range devices {
		if err := bindNode("/dev/"+name, in+name); err != nil {
			return err
		}
	}
	for _, l := range devLinks {
		if err := os.Symlink(l[0], in+l[1]); err != nil {
			return err
		}
	}
	for _, name := range [...]string{"pts", "shm", "mqueue"} {
		if err := os.Mkdir(in+name, 0o755); err != nil {
			return err
		}
	}
	pts := "newinstance,ptmxmode=0666,mode=0620"
	if tty >= 0 {
		pts += ",gid=" + strconv.Itoa(tty)
	}
	if err := unix.Mount("devpts", in+"pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, pts); err != nil {
		return fmt.Errorf("mount devpts: %w", err)
	}
	return t.Mount(Mount{Type: "tmpfs", Target: "/dev/shm", Size: shmSize, Flags: unix.MS_NOEXEC})
}

// bindNode mounts the host's node on a new empty file.
func bindNode(node, target string) error {
	fd, err := unix.Open(target, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &os.PathError{Op: "create", Path: node, Err: err}
	}
	unix.Close(fd)
	if err := unix.Mount(node, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", node, err)
	}
	return nil
}

// OpenTerminal makes a terminal in the tree's devpts, owned by uid (an outer
// id), and binds it to /dev/console. name is the container's path of it.
func (t *Tree) OpenTerminal(uid int) (master *os.File, name string, err error) {
	master, err = t.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, "", err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, "", os.NewSyscallError("ioctl TIOCSPTLCK", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, "", os.NewSyscallError("ioctl TIOCGPTN", err)
	}
	name = "/dev/pts/" + strconv.Itoa(n)
	terminal, err := t.Open(name, unix.O_PATH, 0)
	if err != nil {
		return nil, "", err
	}
	defer terminal.Close()
	path := fdPath(int(terminal.Fd()))
	if err := os.Chown(path, uid, -1); err != nil {
		return nil, "", err
	}
	console, err := t.Mountpoint("/dev/console", false)
	if err != nil {
		return nil, "", err
	}
	defer console.Close()
	err = unix.Mount(path, fdPath(int(console.Fd())), "", unix.MS_BIND, "")
	return master, name, os.NewSyscallError("bind /dev/console", err)
}
