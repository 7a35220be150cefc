//go:build !front

package layer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/rootfs/filecopy"
)

// Copy makes dst, an empty directory, the union of the layers lowers, the
// lowest first, as an overlay of them would show it: for file systems that
// cannot stack. Deleted files are left out in both forms that Apply leaves.
// Content is shared with the layers where the file system can (reflink), else
// copied; hard links within a layer stay links. Nothing is ever hard-linked to
// a layer: writing to the copy would write to the image.
func Copy(ctx context.Context, dst string, lowers []string) error {
	unix.Umask(0)
	to, err := openat(unix.AT_FDCWD, dst, dirFlags, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dst, err)
	}
	defer unix.Close(to)
	var from []source
	defer func() { closeAll(from) }()
	for i := len(lowers) - 1; i >= 0; i-- {
		fd, err := openat(unix.AT_FDCWD, lowers[i], dirFlags, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", lowers[i], err)
		}
		from = append(from, source{fd: fd, layer: i})
	}
	c := &copier{ctx: ctx, root: to, links: map[inode]string{}}
	if len(from) == 0 {
		return nil
	}
	if err := c.merge(to, from, "."); err != nil {
		return fmt.Errorf("copy to %s: %w", dst, err)
	}
	return nil
}

// A source is one layer's version of a directory.
type source struct {
	fd    int
	layer int
}

// An inode is a file of a layer that has several names.
type inode struct {
	layer    int
	dev, ino uint64
}

type copier struct {
	ctx   context.Context
	root  int
	links map[inode]string // where its first name was copied to
	files filecopy.Copier
}

func closeAll(list []source) {
	for _, s := range list {
		unix.Close(s.fd)
	}
}

// merge fills the directory to, named name, from its versions, the topmost first.
func (c *copier) merge(to int, from []source, name string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	from = from[:visible(from)]
	seen := map[string]bool{}
	for i, s := range from {
		names, err := c.names(s.fd)
		if err != nil {
			return fmt.Errorf("%s: %w", clip(name), err)
		}
		// A mark hides what is below its layer, not its layer's own files.
		var hidden []string
		for _, base := range names {
			if gone, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
				hidden = append(hidden, gone)
				continue
			}
			if seen[base] {
				continue
			}
			seen[base] = true
			if err := c.entry(to, from[i:], base, join(name, base)); err != nil {
				return err
			}
		}
		for _, gone := range hidden {
			seen[gone] = true
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from[0].fd, &st); err != nil {
		return err
	}
	return filecopy.Finish(from[0].fd, to, &st)
}

// visible counts the versions of a directory down to the first that hides those below.
func visible(from []source) int {
	var st unix.Stat_t
	for i, s := range from {
		value := make([]byte, 1)
		if n, err := unix.Fgetxattr(s.fd, opaqueXattr, value); err == nil && n == 1 && value[0] == 'y' {
			return i + 1
		}
		if unix.Fstatat(s.fd, opaqueMark, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return i + 1
		}
	}
	return len(from)
}

func (c *copier) names(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return nil, err
	}
	var names []string
	err := eachEntry(fd, func(name string, _ uint8) error {
		names = append(names, name)
		return nil
	})
	return names, err
}

// entry copies base, of which the first of from has the visible version.
func (c *copier) entry(to int, from []source, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from[0].fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("%s: %w", clip(name), err)
	}
	if isWhiteout(&st) {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.directory(to, from, base, name)
	}
	id := inode{from[0].layer, uint64(st.Dev), st.Ino}
	if st.Nlink > 1 {
		if first, ok := c.links[id]; ok {
			err := unix.Linkat(c.root, first, to, base, 0)
			if err == nil || !errors.Is(err, unix.ENAMETOOLONG) && !errors.Is(err, unix.EMLINK) {
				return wrap(name, err)
			}
		} else {
			c.links[id] = name
		}
	}
	return wrap(name, c.files.Leaf(to, from[0].fd, base, &st))
}

func wrap(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", clip(name), err)
	}
	return nil
}

// directory copies the union of base in from, as far down as they are directories.
func (c *copier) directory(to int, from []source, base, name string) error {
	list, err := versions(from, base)
	defer func() { closeAll(list) }()
	if err != nil {
		return wrap(name, err)
	}
	if err := unix.Mkdirat(to, base, 0o700); err != nil {
		return wrap(name, err)
	}
	sub, err := openat(to, base, dirFlags, 0)
	if err != nil {
		return wrap(name, err)
	}
	defer unix.Close(sub)
	return c.merge(sub, list, name)
}

// versions opens the directories base in from, as far down as they are
// directories. The caller closes them, even after an error.
func versions(from []source, base string) (list []source, err error) {
	for _, s := range from {
		fd, err := openat(s.fd, base, dirFlags, 0)
		if err == unix.ENOENT && !hasMark(s.fd, base) {
			continue
		}
		if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
			break // a deletion, or a file
		}
		if err != nil {
			return list, err
		}
		list = append(list, source{fd, s.layer})
		if hasMark(s.fd, base) {
			break
		}
	}
	return list, nil
}

// hasMark says that dir holds the archive's own mark of base as deleted below.
func hasMark(dir int, base string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, whiteoutPrefix+base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}
