//go:build !front

package layer

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Size adds up the bytes of the regular files below dir, each file once
// whatever names it has. What vanishes meanwhile counts or does not.
func Size(dir string) (bytes int64, err error) {
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.Type().IsRegular() {
			return nil
		}
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return &fs.PathError{Op: "size of", Path: path, Err: err}
		}
		id := inode{uint64(st.Dev), st.Ino}
		if st.Nlink == 1 || !seen[id] {
			bytes += st.Size
		}
		if st.Nlink > 1 {
			seen[id] = true
		}
		return nil
	})
	return bytes, err
}
