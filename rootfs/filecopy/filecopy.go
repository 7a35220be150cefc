// Package filecopy copies single files with all that belongs to them: owner,
// mode, attributes, times. What walks a tree is elsewhere. It takes directories
// as descriptors and follows no link.
package filecopy

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bufSize is what is copied at a time where the kernel does not copy, bytes.
const bufSize = 128 << 10

// A Copier copies between two file systems. It remembers what they cannot do.
type Copier struct {
	buf       []byte
	noReflink bool
}

// Leaf copies base, which is no directory and of which st tells, from the
// directory from to the directory to, where it is new. Devices are left out.
func (c *Copier) Leaf(to, from int, base string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return c.file(to, from, base, st)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, base, buf)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buf[:n]), to, base); err != nil {
			return err
		}
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := unix.Mknodat(to, base, st.Mode, 0); err != nil {
			return err
		}
	default:
		return nil
	}
	if err := unix.Fchownat(to, base, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK { // the umask had its say, and so had chown
		if err := unix.Fchmodat(to, base, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(to, base, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func (c *Copier) file(to, from int, base string, st *unix.Stat_t) error {
	src, err := Open(from, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := Open(to, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if err = c.content(dst, src); err == nil {
		err = Finish(src, dst, st)
	}
	if cerr := unix.Close(dst); err == nil {
		err = cerr
	}
	return err
}

// content shares src's content with dst, or copies it.
func (c *Copier) content(dst, src int) error {
	if !c.noReflink {
		if unix.IoctlFileClone(dst, src) == nil {
			return nil
		}
		c.noReflink = true
	}
	for {
		n, err := unix.CopyFileRange(src, nil, dst, nil, 1<<30, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return c.bytes(dst, src) // goes on where copy_file_range stopped
		case n == 0:
			return nil
		}
	}
}

func (c *Copier) bytes(dst, src int) error {
	if c.buf == nil {
		c.buf = make([]byte, bufSize)
	}
	for {
		n, err := unix.Read(src, c.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		for rest := c.buf[:n]; len(rest) > 0; {
			n, err := unix.Write(dst, rest)
			if err != nil && err != unix.EINTR {
				return err
			}
			rest = rest[max(n, 0):]
		}
	}
}

// Finish gives the file or directory dst owner, mode, attributes and times of
// src, of which st tells.
func Finish(src, dst int, st *unix.Stat_t) error {
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(src, dst); err != nil {
		return err
	}
	return SetTimes(dst, [2]unix.Timespec{st.Atim, st.Mtim})
}

// SetTimes sets the times of last access and change of the open file fd.
func SetTimes(fd int, both [2]unix.Timespec) error {
	// Without a name, utimensat(2) is of the descriptor itself.
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&both)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func copyXattrs(src, dst int) error {
	names := make([]byte, 1<<10)
	n, err := unix.Flistxattr(src, names)
	if err == unix.ERANGE {
		names = make([]byte, 64<<10) // XATTR_LIST_MAX
		n, err = unix.Flistxattr(src, names)
	}
	if err == unix.ENOTSUP || n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if !WantedXattr(name) {
			continue
		}
		n, err := unix.Fgetxattr(src, name, value)
		if err != nil {
			continue
		}
		switch err := unix.Fsetxattr(dst, name, value[:n], 0); err {
		case nil, unix.EPERM, unix.ENOTSUP: // the same as when the layer was unpacked
		default:
			return fmt.Errorf("attribute %q: %w", name[:min(len(name), 200)], err)
		}
	}
	return nil
}

// WantedXattr tells which attributes are a file's own, not those of the
// storage below it.
func WantedXattr(name string) bool {
	switch {
	case name == "security.capability", name == "system.posix_acl_access":
		return true
	case strings.HasPrefix(name, "user.overlay."), strings.HasPrefix(name, "user.fuseoverlayfs."), strings.HasPrefix(name, "user.containers."):
		return false
	}
	return strings.HasPrefix(name, "user.")
}

// Open is openat(2), closed on exec, and again when a signal interrupts it: it
// can wait on network file systems.
func Open(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_LARGEFILE|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
