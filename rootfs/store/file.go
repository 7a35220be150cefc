package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// lockFile opens path, making it if there is none, and takes its lock, how
// being unix.LOCK_SH or LOCK_EX, with LOCK_NB or without. The lock is held
// until the file is closed. A lock that is held elsewhere gives, with LOCK_NB,
// unix.EWOULDBLOCK.
func lockFile(ctx context.Context, path string, how int) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, diskError(path, err)
		}
		if err := flock(ctx, f, how); err != nil {
			f.Close()
			if err != unix.EWOULDBLOCK {
				err = fmt.Errorf("lock %s: %w", path, err)
			}
			return nil, err
		}
		if isAt(f, path) {
			return f, nil
		}
		f.Close() // deleted or renamed while we waited
	}
}

// flock takes the lock of f, waiting no longer than ctx.
func flock(ctx context.Context, f *os.File, how int) error {
	fd := int(f.Fd())
	err := unix.Flock(fd, how|unix.LOCK_NB)
	if err != unix.EWOULDBLOCK || how&unix.LOCK_NB != 0 {
		return err
	}
	// The wait goes on without us if ctx ends it, on a descriptor of its own:
	// it has the same lock, which goes when both are closed.
	wait, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	locked := make(chan error, 1)
	go func() {
		err := unix.Flock(wait, how)
		for err == unix.EINTR {
			err = unix.Flock(wait, how)
		}
		unix.Close(wait)
		locked <- err
	}()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isAt says that path still is f.
func isAt(f *os.File, path string) bool {
	var open, there unix.Stat_t
	if unix.Fstat(int(f.Fd()), &open) != nil || unix.Lstat(path, &there) != nil {
		return false
	}
	return open.Dev == there.Dev && open.Ino == there.Ino
}

// readSmall returns what the file path holds. It does with four system calls
// what os.ReadFile needs seven for: each container reads several files.
func readSmall(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 8<<10)
	for {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		buf = buf[:len(buf)+n]
		if len(buf) < cap(buf) { // a file gives less only at its end
			return buf, nil
		}
		buf = slices.Grow(buf, len(buf))
	}
}

// writeFile makes path hold data, wholly or not at all, across a power cut too.
func writeFile(path string, data []byte) error { return replaceFile(path, data, true) }

// replaceFile makes path hold data, wholly or not at all whatever process is
// killed, and with sync across a power cut too.
func replaceFile(path string, data []byte, sync bool) error {
	temp, err := os.OpenFile(tempName(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return diskError(path, err)
	}
	_, err = temp.Write(data)
	if err == nil && sync {
		err = temp.Sync()
	}
	if cerr := temp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		os.Remove(temp.Name())
	}
	return diskError(path, err)
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(path, append(data, '\n'))
}

// tempPrefix begins the names of files that are not complete. Those that a
// killed process left are deleted by the next that changes the directory.
const tempPrefix = ".tmp-"

// tempName returns a name, next to path, that no other process uses.
func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix+random())
}

func random() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// syncDir makes the names in dir last across a power cut, where the file
// system can.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}
