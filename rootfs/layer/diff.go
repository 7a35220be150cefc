//go:build !front

package layer

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Kinds of changes, as Docker's diff has them.
const (
	Added    = 'A'
	Modified = 'C'
	Deleted  = 'D'
)

// A Change is one file that differs from the layers below.
type Change struct {
	Kind byte
	Path string // from the root, "/etc/passwd"
}

// DiffOptions says what Diff compares.
type DiffOptions struct {
	// Whole: the directory is not the upper one of an overlay but the whole
	// tree, as Copy made it.
	Whole bool
	Fuse  bool            // fuse-overlayfs wrote it: deletions can be .wh. files
	Own   map[string]bool // empty files and directories that were made to mount on
}

// Changes are what Diff found.
type Changes struct {
	DiffOptions
	dir int // what was compared
	top *changed
}

// changed is a file that differs, or a directory in which something does.
type changed struct {
	kind     byte
	name     string
	dir      bool
	opaque   bool // hides what lower layers have in it
	covered  bool // it or a directory above is opaque: nothing of lower layers is seen in it
	children []*changed
}

// Diff finds how dir, the upper directory of an overlay of lowers, lowest
// first, or a copy of them, differs from them. It must be closed.
func Diff(ctx context.Context, dir string, lowers []string, o DiffOptions) (*Changes, error) {
	fd, err := openat(unix.AT_FDCWD, dir, dirFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	c := &Changes{DiffOptions: o, dir: fd, top: &changed{kind: Modified, dir: true}}
	var from []source
	defer func() { closeAll(from) }()
	for i := len(lowers) - 1; i >= 0; i-- {
		low, err := openat(unix.AT_FDCWD, lowers[i], dirFlags, 0)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("open %s: %w", lowers[i], err)
		}
		from = append(from, source{fd: low, layer: i})
	}
	d := &differ{Changes: c, ctx: ctx}
	if _, err := d.directory(fd, from[:visible(from)], "/", c.top); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close closes what was compared.
func (c *Changes) Close() { unix.Close(c.dir) }

// List returns the changes in the order of their paths.
func (c *Changes) List() []Change {
	list := c.top.list("/", nil)
	slices.SortFunc(list, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return list
}

func (c *changed) list(at string, to []Change) []Change {
	for _, child := range c.children {
		name := path.Join(at, child.name)
		to = child.list(name, append(to, Change{child.kind, name}))
	}
	return to
}

type differ struct {
	*Changes
	ctx context.Context
}

// directory finds what differs between dir and its lower versions, the topmost
// first, and whether it holds files of rbox's own.
func (d *differ) directory(dir int, low []source, at string, to *changed) (own bool, err error) {
	if err := d.ctx.Err(); err != nil {
		return false, err
	}
	if strings.Count(at, "/") > maxDepth {
		return false, fmt.Errorf("%s: more than %d directories in each other", clip(at), maxDepth)
	}
	names, err := sortedNames(dir)
	if err != nil {
		return false, wrap(at, err)
	}
	seen := map[string]bool{}
	for _, name := range names {
		ours, err := d.entry(dir, low, name, at, to, seen)
		if err != nil {
			return false, err
		}
		own = own || ours
	}
	if !d.Whole && !to.covered {
		return own, nil
	}
	return own, d.missing(low, seen, at, to)
}

// missing adds those files of lower layers that are not seen as deleted.
func (d *differ) missing(low []source, seen map[string]bool, at string, to *changed) error {
	names, err := unionNames(low)
	if err != nil {
		return wrap(at, err)
	}
	for _, name := range names {
		if !seen[name] {
			to.children = append(to.children, &changed{kind: Deleted, name: name})
		}
	}
	return nil
}

// entry compares one name. It reports whether that is rbox's own.
func (d *differ) entry(dir int, low []source, name, at string, to *changed, seen map[string]bool) (own bool, err error) {
	if d.Fuse && strings.HasPrefix(name, whiteoutPrefix) {
		if name != opaqueMark {
			gone := strings.TrimPrefix(name, whiteoutPrefix)
			seen[gone] = true
			d.deleted(low, gone, to)
		}
		return false, nil
	}
	fd, err := openPath(dir, name)
	if err == unix.ENOENT {
		return false, nil // it was there a moment ago
	}
	full := path.Join(at, name)
	if err != nil {
		return false, wrap(full, err)
	}
	defer unix.Close(fd)
	var st, below unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, wrap(full, err)
	}
	seen[name] = true
	if !d.Whole && hides(fd, &st) {
		d.deleted(low, name, to)
		return false, nil
	}
	existed := find(low, name, &below)
	c := &changed{kind: Added, name: name}
	if existed {
		c.kind = Modified
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return d.subdirectory(dir, low, full, c, to, &st, &below, existed)
	}
	if !existed && d.Own[full] && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0 {
		return true, nil
	}
	if d.Whole && existed && same(fd, low, name, &st, &below) {
		return false, nil
	}
	to.children = append(to.children, c)
	return false, nil
}

func (d *differ) deleted(low []source, name string, to *changed) {
	var st unix.Stat_t
	if find(low, name, &st) {
		to.children = append(to.children, &changed{kind: Deleted, name: name})
	}
}

// subdirectory compares a directory, and adds it to the changes if it or
// something in it is one.
func (d *differ) subdirectory(dir int, low []source, full string, c, to *changed, st, below *unix.Stat_t, existed bool) (own bool, err error) {
	c.dir = true
	wasDir := existed && below.Mode&unix.S_IFMT == unix.S_IFDIR
	sub, err := openat(dir, c.name, dirFlags, 0)
	if err != nil {
		return false, wrap(full, err)
	}
	defer unix.Close(sub)
	var list []source
	if wasDir {
		list, err = versions(low, c.name)
		defer func() { closeAll(list) }()
		if err != nil {
			return false, wrap(full, err)
		}
		list = list[:visible(list)]
	}
	c.opaque = !d.Whole && isOpaque(sub, d.Fuse)
	c.covered = c.opaque || to.covered
	own, err = d.directory(sub, list, full, c)
	if err != nil {
		return false, err
	}
	if len(c.children) == 0 {
		if !existed && (own || d.Own[full]) {
			return true, nil
		}
		if wasDir && !attributesDiffer(st, below) && (own || d.Own[full] || st.Mtim == below.Mtim) {
			return own, nil
		}
	}
	to.children = append(to.children, c)
	return false, nil
}

func attributesDiffer(a, b *unix.Stat_t) bool {
	return a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid
}

// same says that a copied file is as it was copied.
func same(fd int, low []source, name string, st, below *unix.Stat_t) bool {
	if attributesDiffer(st, below) || st.Size != below.Size || st.Mtim != below.Mtim || st.Rdev != below.Rdev {
		return false
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return true
	}
	now, err := readlink(fd, "")
	for _, s := range low {
		if was, lerr := readlink(s.fd, name); lerr == nil {
			return err == nil && now == was
		}
	}
	return false
}

// find looks name up in the versions of a directory, the topmost first.
func find(low []source, name string, st *unix.Stat_t) bool {
	for _, s := range low {
		err := unix.Fstatat(s.fd, name, st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			return !isWhiteout(st)
		}
		if hasMark(s.fd, name) {
			return false
		}
	}
	return false
}

// unionNames lists what the versions of a directory show together.
func unionNames(low []source) (names []string, err error) {
	seen := map[string]bool{}
	for _, s := range low {
		if _, err := unix.Seek(s.fd, 0, 0); err != nil {
			return nil, err
		}
		list, err := sortedNames(s.fd)
		if err != nil {
			return nil, err
		}
		var gone []string // below this version, not in it
		for _, name := range list {
			if hidden, ok := strings.CutPrefix(name, whiteoutPrefix); ok {
				gone = append(gone, hidden)
				continue
			}
			var st unix.Stat_t
			if !seen[name] && unix.Fstatat(s.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && !isWhiteout(&st) {
				names = append(names, name)
			}
			gone = append(gone, name)
		}
		for _, name := range gone {
			seen[name] = true
		}
	}
	return names, nil
}

// hides says that a file of an upper directory is the mark of a deletion: a
// character device 0/0, or since Linux 6.7 an empty file with an attribute.
func hides(fd int, st *unix.Stat_t) bool {
	if isWhiteout(st) {
		return true
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false
	}
	_, err := unix.Getxattr(fdName(fd), whiteoutXattr, nil)
	return err == nil
}

const whiteoutXattr = "user.overlay.whiteout"

// isOpaque says that the directory dir hides what is below it.
func isOpaque(dir int, fuse bool) bool {
	attributes := []string{opaqueXattr}
	if fuse {
		attributes = append(attributes, "user.fuseoverlayfs.opaque")
		var st unix.Stat_t
		if unix.Fstatat(dir, opaqueMark, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			return true
		}
	}
	value := make([]byte, 1)
	for _, name := range attributes {
		if n, err := unix.Fgetxattr(dir, name, value); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}

// Archive writes the changes as a layer of an image. What has changed since
// they were found may or may not be in it.
func (c *Changes) Archive(a *Archiver) error {
	var st unix.Stat_t
	if err := unix.Fstat(c.dir, &st); err != nil {
		return err
	}
	if err := a.directory(c.dir, &st, "."); err != nil {
		return err
	}
	return c.archive(a, c.dir, c.top, ".", 0)
}

func (c *Changes) archive(a *Archiver, dir int, in *changed, at string, depth int) error {
	if in.opaque {
		if err := a.Opaque(at); err != nil {
			return err
		}
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories in each other", clip(at), maxDepth)
	}
	for _, child := range in.children {
		name := join(at, child.name)
		if child.kind == Deleted {
			if !in.covered {
				if err := a.Whiteout(name); err != nil {
					return err
				}
			}
			continue
		}
		if strings.HasPrefix(child.name, whiteoutPrefix) {
			a.Notice(fmt.Sprintf("%s: left out, since layers of images mark deleted files by such names", clip("/"+name)))
			continue
		}
		if err := c.archiveOne(a, dir, child, name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (c *Changes) archiveOne(a *Archiver, dir int, child *changed, name string, depth int) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	fd, err := openPath(dir, child.name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return wrap(name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrap(name, err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir != child.dir || isWhiteout(&st) {
		return nil // it is another file than a moment ago
	}
	if !isDir {
		return wrap(name, a.leaf(fd, &st, name))
	}
	sub, err := openat(fd, ".", dirFlags, 0)
	if err != nil {
		return wrap(name, err)
	}
	defer unix.Close(sub)
	if err := a.directory(sub, &st, name); err != nil {
		return wrap(name, err)
	}
	return c.archive(a, sub, child, name, depth+1)
}
