package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
	"rbox/rootfs/filecopy"
)

// What a volume gets is copied to copying, beside its content; renamed to
// copied once that is whole; and moved from there into its place, which
// containers may have mounted already.
const (
	copying = ".copying"
	copied  = ".copied"
)

// Fill gives an empty volume, whose folder is dir, what t has at target, and
// its owner and mode. Of several that do it at a time one copies, and the others
// wait for it. If flush is set the content is on the disk before it counts.
// *OwnersLostError is of a volume that is filled.
func Fill(t *rootfs.Tree, dir, target string, flush bool) error {
	if full, err := isFull(dir); err != nil || full {
		return wrapFill(dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, fillLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := flock(lock, unix.LOCK_EX); err != nil {
		return wrapFill(dir, err)
	}
	full, err := isFull(dir)
	if err == nil && !full {
		err = fill(t, dir, target, flush)
	}
	return wrapFill(dir, err)
}

func wrapFill(dir string, err error) error {
	if err != nil && !errors.As(err, new(*OwnersLostError)) {
		return fmt.Errorf("fill volume %s: %w", filepath.Base(dir), err)
	}
	return err
}

// isFull tells whether the volume needs nothing of an image: it has content, or
// is a directory of the user's.
func isFull(dir string) (bool, error) {
	data, err := filecopy.Open(unix.AT_FDCWD, filepath.Join(dir, dataDir), openDir, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return true, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: filepath.Join(dir, dataDir), Err: err}
	}
	names, err := list(data)
	if err != nil || len(names) == 0 {
		return false, err
	}
	// In this order: content comes before copied goes.
	_, err = os.Lstat(filepath.Join(dir, copied))
	return err != nil, nil
}

// fill copies, or goes on where a killed process stopped. The caller holds the lock.
func fill(t *rootfs.Tree, dir, target string, flush bool) error {
	var lost *OwnersLostError
	ready := filepath.Join(dir, copied)
	if _, err := os.Lstat(ready); err != nil {
		source, err := t.Open(target, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil {
			return err
		}
		defer source.Close()
		err = copyBeside(source, dir, flush, false)
		if why := rootfs.OwnsOthers(dir); errors.Is(err, unix.EPERM) && why != nil {
			lost = &OwnersLostError{filepath.Base(dir), why}
			err = copyBeside(source, dir, flush, true)
		}
		if err != nil {
			return err
		}
	}
	from, err := os.OpenFile(ready, openDir, 0)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, dataDir), openDir, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := move(int(from.Fd()), int(to.Fd())); err != nil {
		return err
	}
	if err := os.RemoveAll(ready); err != nil || lost == nil {
		return err
	}
	return lost
}

// An OwnersLostError reports a volume that has been filled, with files that are
// all the container root's.
type OwnersLostError struct {
	Volume string
	Why    error
}

func (e *OwnersLostError) Error() string {
	return fmt.Sprintf("the files of volume %s are all root's, since %v", e.Volume, e.Why)
}

// copyBeside makes copied; if ours is set all is ours there.
func copyBeside(source *os.File, dir string, flush, ours bool) error {
	part := filepath.Join(dir, copying)
	if err := os.RemoveAll(part); err != nil { // a killed process's
		return err
	}
	if err := os.Mkdir(part, 0o700); err != nil {
		return err
	}
	to, err := os.OpenFile(part, openDir, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	c := &copier{root: int(to.Fd()), links: map[inode]string{}, ours: ours}
	err = c.directory(int(to.Fd()), int(source.Fd()), "")
	if err == nil && flush {
		err = unix.Syncfs(int(to.Fd()))
	}
	if err == nil {
		return os.Rename(part, filepath.Join(dir, copied))
	}
	os.RemoveAll(part)
	return err
}

// move moves all that is in the directory from to to, with its attributes. What
// is there already, since a container that does without copies wrote it, stays.
func move(from, to int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil { // moving changes its time
		return err
	}
	names, err := list(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Renameat2(from, name, to, name, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL || err == unix.ENOSYS { // the file system lacks the flag
			var there unix.Stat_t
			if unix.Fstatat(to, name, &there, unix.AT_SYMLINK_NOFOLLOW) == nil {
				continue
			}
			err = unix.Renameat(from, name, to, name)
		}
		if err != nil && err != unix.EEXIST {
			return &fs.PathError{Op: "move", Path: name, Err: err}
		}
	}
	return filecopy.Finish(from, to, &st)
}
