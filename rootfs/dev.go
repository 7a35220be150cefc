package rootfs

import (
	"errors"
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

// PrepareDev makes at path, an empty directory, what is the same in every
// /dev: a tmpfs with device nodes, links and empty directories.
func PrepareDev(path string) error {
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: path, Err: err}
	}
	if err := checkNull("/dev/null"); err != nil {
		return err
	}
	for _, name := range devices {
		if err := bindNode("/dev/"+name, path+"/"+name); err != nil {
			return err
		}
	}
	for _, l := range devLinks {
		if err := os.Symlink(l[0], path+"/"+l[1]); err != nil {
			return err
		}
	}
	for _, name := range [...]string{"pts", "shm", "mqueue"} {
		if err := os.Mkdir(path+"/"+name, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// checkNull returns an error if path is not the null device: files are hidden by it.
func checkNull(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3)) {
		err = errors.New("it is not the character device 1:3 (null(4))")
	}
	if err != nil {
		return &os.PathError{Op: "use", Path: path, Err: err}
	}
	return nil
}

// MountDev moves what PrepareDev made at prepared to /dev and adds terminals
// and a shm of shmSize bytes. tty is the outer id of the container's group 5,
// which devpts gives terminals to, or -1.
func (t *Tree) MountDev(prepared string, shmSize int64, tty int) error {
	dev, err := t.Mountpoint("/dev", true)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := unix.Mount(prepared, fdPath(int(dev.Fd())), "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move /dev into place: %w", err)
	}
	if t.UID != 0 || t.GID != 0 {
		if err := t.chownDev(); err != nil {
			return err
		}
	}
	pts, err := t.Mountpoint("/dev/pts", true)
	if err != nil {
		return err
	}
	defer pts.Close()
	options := "newinstance,ptmxmode=0666,mode=0620"
	if tty >= 0 {
		options += ",gid=" + strconv.Itoa(tty)
	}
	if err := unix.Mount("devpts", fdPath(int(pts.Fd())), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, options); err != nil {
		return fmt.Errorf("mount devpts: %w", err)
	}
	return t.Mount(Mount{Type: "tmpfs", Target: "/dev/shm", Size: shmSize, Flags: unix.MS_NOEXEC})
}

// chownDev gives what PrepareDev made to the container's root.
func (t *Tree) chownDev() error {
	dev, err := t.Open("/dev", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	names := []string{".", "pts", "shm", "mqueue"}
	for _, l := range devLinks {
		names = append(names, l[1])
	}
	for _, name := range names {
		if err := unix.Fchownat(int(dev.Fd()), name, t.UID, t.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: "/dev/" + name, Err: err}
		}
	}
	return nil
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
// id). name is the container's path of it.
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
	return master, name, os.Chown(fdPath(int(terminal.Fd())), uid, -1)
}

// BindConsole makes the terminal name /dev/console.
func (t *Tree) BindConsole(name string) error {
	terminal, err := t.Open(name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer terminal.Close()
	console, err := t.Mountpoint("/dev/console", false)
	if err != nil {
		return err
	}
	defer console.Close()
	err = unix.Mount(fdPath(int(terminal.Fd())), fdPath(int(console.Fd())), "", unix.MS_BIND, "")
	return os.NewSyscallError("bind /dev/console", err)
}
