package volume

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"rbox/rootfs/filecopy"
)

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// A copier copies a tree, which may be hostile but does not change: links are
// copied, never followed, and devices left out. Hard links within the tree stay
// links.
type copier struct {
	root  int // of the copy
	links map[inode]string
	files filecopy.Copier
	ours  bool // all is to be ours: the file system takes no files of others
}

// owned is st with the owner that the copy is to have.
func (c *copier) owned(st *unix.Stat_t) *unix.Stat_t {
	if c.ours {
		st.Uid, st.Gid = uint32(os.Geteuid()), uint32(os.Getegid())
	}
	return st
}

// An inode is a file that has several names; links has the first of its copy.
type inode struct{ dev, ino uint64 }

// directory fills the new directory to, named name, with what is in from.
func (c *copier) directory(to, from int, name string) error {
	names, err := list(from)
	if err != nil {
		return fmt.Errorf("%s: %w", clip(name), err)
	}
	for _, base := range names {
		if err := c.entry(to, from, base, name+base); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	return wrap(name, filecopy.Finish(from, to, c.owned(&st)))
}

func (c *copier) entry(to, from int, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return wrap(name, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return c.subdirectory(to, from, base, name)
	}
	if id := (inode{uint64(st.Dev), st.Ino}); st.Nlink > 1 {
		first, ok := c.links[id]
		if ok && unix.Linkat(c.root, first, to, base, 0) == nil {
			return nil
		}
		c.links[id] = name
	}
	return wrap(name, c.files.Leaf(to, from, base, c.owned(&st)))
}

func (c *copier) subdirectory(to, from int, base, name string) error {
	source, err := filecopy.Open(from, base, openDir, 0)
	if err != nil {
		return wrap(name, err)
	}
	defer unix.Close(source)
	if err := unix.Mkdirat(to, base, 0o700); err != nil {
		return wrap(name, err)
	}
	sub, err := filecopy.Open(to, base, openDir, 0)
	if err != nil {
		return wrap(name, err)
	}
	defer unix.Close(sub)
	return c.directory(sub, source, name+"/")
}

// list returns the names in the directory fd.
func list(fd int) ([]string, error) {
	own, err := filecopy.Open(fd, ".", openDir, 0) // os closes what it reads
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err == io.EOF {
		err = nil
	}
	return names, err
}

func wrap(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", clip(name), err)
	}
	return nil
}

// clip quotes name, shortened so that a hostile one cannot fill the screen.
func clip(name string) string {
	if len(name) > 200 {
		return fmt.Sprintf("%q…", name[:200])
	}
	return fmt.Sprintf("%q", name)
}
