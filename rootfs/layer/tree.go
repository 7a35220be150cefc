//go:build !front

package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxOpenDirs = 200 // directories kept open
	maxLinks    = 40  // symbolic links followed for one name, as the kernel does
	dirFlags    = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// A tree is the directory a layer is unpacked into, the only one who writes
// there. It opens directories one component at a time without following
// links, and follows those that the layer itself made by its own hand, so that
// whatever they say no name leads outside.
//
// Names are as path.Clean gives them, relative to the root, which is ".".
type tree struct {
	root    *openDir
	open    map[string]*openDir // by the name that holds no link
	alias   map[string]string   // a name that holds links to the one that does not
	tick    uint64              // counts uses, for picking what to close
	uid     int                 // owner of directories that the archive leaves out, or -1 for that of the process
	gid     int
	scratch unix.Stat_t
}

// An openDir is a directory of the tree.
type openDir struct {
	fd   int
	name string // holds no link
	gid  int    // group of what is made in it, or -1 for that of the process
	used uint64
}

func openTree(dir string) (*tree, error) {
	fd, err := openat(unix.AT_FDCWD, dir, dirFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	root := &openDir{fd: fd, name: ".", gid: -1}
	return &tree{root: root, open: map[string]*openDir{}, alias: map[string]string{}, uid: -1, gid: -1}, nil
}

func (t *tree) close() {
	t.forget()
	unix.Close(t.root.fd)
}

// forget closes all directories: one of them, or a link to one, was removed.
func (t *tree) forget() {
	for _, d := range t.open {
		unix.Close(d.fd)
	}
	clear(t.open)
	clear(t.alias)
}

// makeRoom closes the directory that was not used for longest, if many are open.
func (t *tree) makeRoom() {
	if len(t.open) < maxOpenDirs {
		return
	}
	var oldest *openDir
	for _, d := range t.open {
		if oldest == nil || d.used < oldest.used {
			oldest = d
		}
	}
	unix.Close(oldest.fd)
	delete(t.open, oldest.name)
}

// dir opens the directory name, making what is missing of it. The result is
// good until the next call that opens or
// removes a directory.
func (t *tree) dir(name string) (*openDir, error) {
	if d := t.cached(name); d != nil {
		return d, nil
	}
	from, rest := t.root, name
	for at := len(name); at > 0; {
		at = strings.LastIndexByte(name[:at], '/')
		if at < 0 {
			break
		}
		if d := t.cached(name[:at]); d != nil {
			from, rest = d, name[at+1:]
			break
		}
	}
	links := maxLinks
	d, err := t.walk(from, rest, &links)
	if err != nil {
		return nil, err
	}
	if d.name != name {
		t.alias[name] = d.name
	}
	return d, nil
}

func (t *tree) cached(name string) *openDir {
	if name == "." {
		return t.root
	}
	d := t.open[name]
	if d == nil {
		if to, ok := t.alias[name]; ok {
			if to == "." {
				return t.root
			}
			d = t.open[to]
		}
	}
	if d != nil {
		t.tick++
		d.used = t.tick
	}
	return d
}

// walk opens rest, a path of any form, from the directory d.
func (t *tree) walk(d *openDir, rest string, links *int) (*openDir, error) {
	if strings.HasPrefix(rest, "/") {
		d = t.root
	}
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		var err error
		switch name {
		case "", ".":
			continue
		case "..":
			d, err = t.dir(path.Dir(d.name))
		default:
			d, err = t.child(d, name, links)
		}
		if err != nil {
			return nil, err
		}
	}
	return d, nil
}

// child opens the directory name in d, follows it if it is a link, and makes
// it if there is none.
func (t *tree) child(d *openDir, name string, links *int) (*openDir, error) {
	if c := t.cached(join(d.name, name)); c != nil {
		return c, nil
	}
	c, err := t.openChild(d, name)
	switch err {
	case unix.ENOENT:
		return t.missing(d, name)
	case unix.ENOTDIR, unix.ELOOP:
		return t.follow(d, name, links)
	}
	return c, err
}

// missing makes a directory that the archive has files in but no entry of.
func (t *tree) missing(d *openDir, name string) (*openDir, error) {
	if _, err := t.mkdir(d, name, 0o755); err != nil {
		return nil, err
	}
	c, err := t.openChild(d, name)
	if err == nil && t.uid >= 0 {
		err = unix.Fchown(c.fd, t.uid, t.gid)
	}
	return c, err
}

func (t *tree) openChild(d *openDir, name string) (*openDir, error) {
	fd, err := openat(d.fd, name, dirFlags, 0)
	if err != nil {
		return nil, err
	}
	t.makeRoom()
	t.tick++
	c := &openDir{fd: fd, name: join(d.name, name), gid: -1, used: t.tick}
	if err := t.noteGroup(c); err != nil {
		unix.Close(fd)
		return nil, err
	}
	t.open[c.name] = c
	return c, nil
}

// noteGroup finds whether what is made in c gets its group.
func (t *tree) noteGroup(c *openDir) error {
	if err := unix.Fstat(c.fd, &t.scratch); err != nil {
		return err
	}
	c.gid = -1
	if t.scratch.Mode&unix.S_ISGID != 0 {
		c.gid = int(t.scratch.Gid)
	}
	return nil
}

// follow opens where name, which is no directory, leads to.
func (t *tree) follow(d *openDir, name string, links *int) (*openDir, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.fd, name, buf)
	if err == unix.EINVAL && t.isWhiteout(d, name) {
		return t.missing(d, name)
	}
	if err == unix.EINVAL {
		return nil, fmt.Errorf("%s is no directory", clip(join(d.name, name)))
	}
	if err != nil {
		return nil, err
	}
	if *links--; *links < 0 {
		return nil, fmt.Errorf("%s: %w", clip(join(d.name, name)), unix.ELOOP)
	}
	return t.walk(d, string(buf[:n]), links)
}

// mkdir makes the directory name in d, where there may be something else. It
// says whether there was a directory already. One that takes the place of a
// whiteout hides what is below, as the whiteout did.
func (t *tree) mkdir(d *openDir, name string, mode uint32) (existed bool, err error) {
	err = unix.Mkdirat(d.fd, name, mode)
	if err != unix.EEXIST {
		return false, err
	}
	if err := unix.Fstatat(d.fd, name, &t.scratch, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if t.scratch.Mode&unix.S_IFMT == unix.S_IFDIR {
		return true, nil
	}
	hides := isWhiteout(&t.scratch)
	if err := t.remove(d, name); err != nil {
		return false, err
	}
	if err := unix.Mkdirat(d.fd, name, mode); err != nil || !hides {
		return false, err
	}
	c, err := t.openChild(d, name)
	if err != nil {
		return false, err
	}
	return false, setOpaque(c.fd)
}

// remove deletes name in d, with all that is in it. The directories the caller
// holds stay open if name is no directory and no link.
func (t *tree) remove(d *openDir, name string) error {
	if err := unix.Fstatat(d.fd, name, &t.scratch, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if f := t.scratch.Mode & unix.S_IFMT; f == unix.S_IFDIR || f == unix.S_IFLNK {
		t.forgetAllBut(d)
	}
	return removeAt(d.fd, name)
}

func (t *tree) forgetAllBut(keep *openDir) {
	delete(t.open, keep.name)
	t.forget()
	if keep != t.root {
		t.open[keep.name] = keep
	}
}

func (t *tree) isWhiteout(d *openDir, name string) bool {
	err := unix.Fstatat(d.fd, name, &t.scratch, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && isWhiteout(&t.scratch)
}

// isWhiteout says that st is overlay's mark of a deleted file: a character
// device 0/0 (filesystems/overlayfs.rst).
func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// setOpaque marks the directory fd as hiding the same directory of the layers
// below: with overlay's attribute, or with the archive's own mark, which
// fuse-overlayfs and Copy understand, where the file system keeps no
// attributes.
func setOpaque(fd int) error {
	err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0)
	if !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	mark, err := openat(fd, opaqueMark, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(mark)
}

// join is path.Join for a clean directory and one component.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// openat is openat(2), again when a signal interrupts it: it can wait on
// network file systems.
func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_LARGEFILE, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// clip quotes name for an error, shortened so that hostile input cannot fill
// the screen.
func clip(name string) string {
	const most = 200
	if len(name) > most {
		return fmt.Sprintf("%q…", name[:most])
	}
	return fmt.Sprintf("%q", name)
}
