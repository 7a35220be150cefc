//go:build !front

package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	removeWorkers = 4  // directories of one tree emptied at a time: network file systems answer slowly
	removeDepth   = 64 // below this many levels a directory is moved up before it is emptied
)

// Remove deletes dir and all that is in it, whoever owns it and whatever its
// permissions, following no link and entering nothing mounted there. A dir
// that is not there is no error.
func Remove(dir string) error {
	parent, err := openat(unix.AT_FDCWD, filepath.Dir(dir), dirFlags&^unix.O_NOFOLLOW, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: filepath.Dir(dir), Err: err}
	}
	defer unix.Close(parent)
	if err := removeAt(parent, filepath.Base(dir)); err != nil {
		return fmt.Errorf("delete %s: %w", dir, err)
	}
	return nil
}

// A removal is one tree being deleted.
type removal struct {
	root  int // its directory
	busy  chan struct{}
	moved atomic.Int64 // directories moved up to root
}

// removeAt deletes name in the directory parent, whatever it is.
func removeAt(parent int, name string) error {
	err := unix.Unlinkat(parent, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	fd, derr := openToEmpty(parent, name)
	if derr == unix.ENOTDIR || derr == unix.ELOOP {
		return err
	}
	if derr != nil {
		return derr
	}
	defer unix.Close(fd)
	r := &removal{root: fd, busy: make(chan struct{}, removeWorkers-1)}
	for {
		before := r.moved.Load()
		if err := r.empty(fd, 0); err != nil {
			return err
		}
		if r.moved.Load() == before {
			return rmdir(parent, name)
		}
	}
}

func rmdir(parent int, name string) error {
	err := unix.Unlinkat(parent, name, unix.AT_REMOVEDIR)
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// openToEmpty opens the directory name, which must lie on the file system of
// parent: openat2 refuses what is mounted there.
func openToEmpty(parent int, name string) (int, error) {
	how := unix.OpenHow{Flags: dirFlags, Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(parent, name, &how)
	if err == unix.ENOSYS || err == unix.EPERM { // before Linux 5.6, or an old seccomp filter
		fd, err = openSameDevice(parent, name)
	}
	if err == unix.EACCES {
		if err := unix.Fchmodat(parent, name, 0o700, 0); err != nil {
			return -1, err
		}
		fd, err = openat(parent, name, dirFlags, 0)
	}
	if err == unix.EXDEV {
		return -1, fmt.Errorf("%s: something is mounted there: %w", clip(name), unix.EBUSY)
	}
	return fd, err
}

func openSameDevice(parent int, name string) (int, error) {
	fd, err := openat(parent, name, dirFlags, 0)
	if err != nil {
		return -1, err
	}
	var above, below unix.Stat_t
	if err = unix.Fstat(parent, &above); err == nil {
		err = unix.Fstat(fd, &below)
	}
	if err == nil && above.Dev != below.Dev {
		err = unix.EXDEV
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// empty deletes all that is in the directory fd, depth levels below the root.
// Subdirectories are emptied side by side as workers are free.
func (r *removal) empty(fd, depth int) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
	}
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return err
	}
	err := eachEntry(fd, func(name string, kind uint8) error {
		if kind != unix.DT_DIR {
			err := unix.Unlinkat(fd, name, 0)
			if err == nil || err == unix.ENOENT {
				return nil
			}
			if kind != unix.DT_UNKNOWN && !errors.Is(err, unix.EISDIR) {
				return fmt.Errorf("%s: %w", clip(name), err)
			}
		}
		if depth >= removeDepth {
			return r.moveUp(fd, name)
		}
		select {
		case r.busy <- struct{}{}:
			wg.Go(func() {
				defer func() { <-r.busy }()
				if err := r.subdirectory(fd, name, depth); err != nil {
					fail(err)
				}
			})
			return nil
		default:
			return r.subdirectory(fd, name, depth)
		}
	})
	wg.Wait()
	if err == nil {
		err = first
	}
	return err
}

func (r *removal) subdirectory(fd int, name string, depth int) error {
	sub, err := openToEmpty(fd, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", clip(name), err)
	}
	err = r.empty(sub, depth+1)
	unix.Close(sub)
	if err == nil {
		err = rmdir(fd, name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", clip(name), err)
	}
	return nil
}

// moveUp makes a deep directory one of the root's, so that no tree takes more
// descriptors than removeDepth.
func (r *removal) moveUp(fd int, name string) error {
	for {
		to := ".rbox-remove-" + strconv.FormatInt(r.moved.Add(1), 10)
		err := unix.Renameat2(fd, name, r.root, to, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL { // the file system lacks the flag
			err = unix.Renameat(fd, name, r.root, to)
		}
		if err != unix.EEXIST && err != unix.ENOTEMPTY {
			return err
		}
	}
}

// eachEntry calls f with each name in the directory fd and its type, DT_DIR
// and so on, or DT_UNKNOWN where the file system does not say.
func eachEntry(fd int, f func(name string, kind uint8) error) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		// struct linux_dirent64 (getdents64(2)): inode, offset, length, type, name
		for rest := buf[:n]; len(rest) > 19; {
			length := binary.NativeEndian.Uint16(rest[16:])
			kind, name := rest[18], rest[19:length]
			rest = rest[length:]
			if end := bytes.IndexByte(name, 0); end >= 0 {
				name = name[:end]
			}
			if s := string(name); s != "." && s != ".." {
				if err := f(s, kind); err != nil {
					return err
				}
			}
		}
	}
}
