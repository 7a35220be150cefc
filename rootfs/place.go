package rootfs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A place is a directory for unpacked layers and for what containers write, on
// a file system that takes them, where that of the data directory does not. It
// lies where others make directories too: so it has a name that nobody can
// guess, it is made by mkdir(2), which follows no link and takes no other's
// directory, and nobody else may enter it.

// NewPlaceName returns the path of a place to be made in parent.
func NewPlaceName(parent string) string {
	var b [8]byte
	rand.Read(b[:])
	return filepath.Join(parent, fmt.Sprintf("rbox-%d-%s", os.Geteuid(), hex.EncodeToString(b[:])))
}

// MakePlace makes dir, which must not be there.
func MakePlace(dir string) error {
	if err := unix.Mkdir(dir, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return OwnPlace(dir)
}

// OwnPlace returns an error unless dir is a directory of ours, not a link to
// one, that nobody else may enter. One that is not there matches fs.ErrNotExist.
func OwnPlace(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Uid != uint32(os.Geteuid()) || st.Mode&0o077 != 0 {
		return fmt.Errorf("%s belongs to another user, or others may enter it", dir)
	}
	return nil
}

// SafeParent returns the real path of dir, and an error if others than root
// and we could put something else in place of what we make in it.
func SafeParent(dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%s is not absolute", dir)
	}
	for above := dir; ; above = filepath.Dir(above) {
		var st unix.Stat_t
		if err := unix.Lstat(above, &st); err != nil {
			return "", &os.PathError{Op: "stat", Path: above, Err: err}
		}
		others := st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0
		if others || st.Uid != 0 && st.Uid != uint32(os.Geteuid()) {
			return "", fmt.Errorf("others may replace what is in %s", above)
		}
		if above == "/" {
			return dir, nil
		}
	}
}

// Room returns how many bytes the user may still write to the file system of dir.
func Room(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// TakesLayers tries whether unpacked layers keep in scratch all that they
// have. *UnfitError says what they lose.
func TakesLayers(scratch string) error {
	if err := OwnsOthers(scratch); err != nil {
		return &UnfitError{true, err}
	}
	if err := keepsXattrs(scratch); err != nil {
		return &UnfitError{false, err}
	}
	return nil
}

// keepsXattrs tries whether directories in scratch can have user xattrs.
func keepsXattrs(scratch string) error {
	dir, err := os.MkdirTemp(scratch, ".probe-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	err = unix.Setxattr(dir, "user.rbox.probe", []byte("1"), 0)
	if err == nil || errors.Is(err, unix.ENOSPC) { // which says nothing of the kind of file system
		return nil
	}
	return fmt.Errorf("%s keeps no user xattrs: %w", fileSystem(scratch), err)
}

// An UnfitError tells why layers should lie on another file system.
type UnfitError struct {
	Useless bool // they cannot lie on this one at all
	Err     error
}

func (e *UnfitError) Error() string { return e.Err.Error() }

// Unwrap is the step that failed.
func (e *UnfitError) Unwrap() error { return e.Err }
