// Package rootfs mounts a container's root file system: its layers, /dev, the
// volumes. It runs in the monitor, as root of the outer user namespace, in a
// mount namespace of its own; what it mounts there is locked for the container.
package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// A Tree is a container's root directory as the monitor sees it. Every path
// given to its methods is the container's: links are followed inside the tree
// only, whatever the image holds and whoever changes it meanwhile.
type Tree struct {
	Path     string
	UID, GID int // owner of what is created, the container's root, in our ids
	dir      int // O_PATH descriptor
}

// OpenTree opens the directory at path.
func OpenTree(path string, uid, gid int) (*Tree, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &Tree{path, uid, gid, fd}, nil
}

// Close closes the tree's descriptor.
func (t *Tree) Close() error { return unix.Close(t.dir) }

// Open opens name as open(2) does.
func (t *Tree) Open(name string, flags int, mode uint32) (*os.File, error) {
	fd, err := t.openat2(name, flags, mode, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openat2 opens name below the tree's root; resolve adds to RESOLVE_IN_ROOT.
func (t *Tree) openat2(name string, flags int, mode uint32, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Mode:    uint64(mode),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	for range 64 { // EAGAIN: something was renamed during the walk
		fd, err := unix.Openat2(t.dir, path.Clean("/"+name), &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			if err == unix.ENOSYS {
				return t.openSlowly(name, flags, mode)
			}
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// openSlowly is openat2 before Linux 5.6: the links are followed first, and
// the last one not at all.
func (t *Tree) openSlowly(name string, flags int, mode uint32) (int, error) {
	full, err := securejoin.SecureJoin(t.Path, name)
	if err != nil {
		return -1, err
	}
	return unix.Open(full, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
}

// Mountpoint opens name with O_PATH to mount on it, and makes it, with the
// directories that lead to it, where it does not exist: a directory or an
// empty file. A link leads on, within the tree, even if it dangles.
func (t *Tree) Mountpoint(name string, directory bool) (*os.File, error) {
	fd, err := t.openat2(name, unix.O_PATH, 0, 0)
	if err == unix.ENOENT {
		fd, err = t.create(name, directory)
	}
	if err != nil {
		return nil, &os.PathError{Op: "make mount point", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// create makes name and what leads to it. Links are resolved to a plain path
// first; should one appear since, the walk fails rather than follow it.
func (t *Tree) create(name string, directory bool) (int, error) {
	full, err := securejoin.SecureJoin(t.Path, name)
	if err != nil {
		return -1, err
	}
	parts := strings.Split(strings.Trim(strings.TrimPrefix(full, t.Path), "/"), "/")
	dir, err := unix.FcntlInt(uintptr(t.dir), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, err
	}
	for i, part := range parts {
		flags := unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if i < len(parts)-1 {
			flags |= unix.O_DIRECTORY
		}
		next, err := unix.Openat(dir, part, flags, 0)
		if err == unix.ENOENT {
			next, err = t.createAt(dir, part, directory || i < len(parts)-1)
		}
		unix.Close(dir)
		if err != nil {
			return -1, err
		}
		dir = next
	}
	return dir, nil
}

// createAt makes one directory or file of mode 0755 or 0644 in dir.
func (t *Tree) createAt(dir int, name string, directory bool) (int, error) {
	if directory {
		if err := unix.Mkdirat(dir, name, 0o755); err != nil && err != unix.EEXIST {
			return -1, err
		}
	} else {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, 0o644)
		if err != nil && err != unix.EEXIST {
			return -1, err
		}
		unix.Close(fd)
	}
	if t.UID != 0 || t.GID != 0 {
		if err := unix.Fchownat(dir, name, t.UID, t.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return -1, err
		}
	}
	return unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// MkdirAll makes the directory name, and reports whether it is one.
func (t *Tree) MkdirAll(name string) error {
	f, err := t.Mountpoint(name, true)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && !st.IsDir() {
		return &os.PathError{Op: "mkdir", Path: name, Err: unix.ENOTDIR}
	}
	return nil
}

// ReadFile returns at most limit bytes of the regular file name.
func (t *Tree) ReadFile(name string, limit int) ([]byte, error) {
	f, err := t.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil && st.Size() > int64(limit) {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	if err != nil {
		return nil, &os.PathError{Op: "read", Path: name, Err: err}
	}
	b := make([]byte, st.Size())
	n, err := f.ReadAt(b, 0)
	if n < len(b) {
		return nil, err
	}
	return b, nil
}

// fdPath names an open file for system calls that take only a path.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
