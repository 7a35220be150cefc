//go:build !front

package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"rbox/rootfs/filecopy"
)

const (
	whiteoutPrefix = ".wh."
	metaPrefix     = ".wh..wh."     // AUFS's own files, which mean nothing to others
	opaqueMark     = ".wh..wh..opq" // image-spec, layer.md
	opaqueXattr    = "user.overlay.opaque"

	copySize = 256 << 10 // bytes of a file written at a time
)

// An EntryError reports what went wrong with one entry of the archive.
type EntryError struct {
	Name  string // as the archive has it
	After bool   // it went wrong behind that entry
	Err   error
}

func (e *EntryError) Error() string {
	if e.After {
		return "after " + clip(e.Name) + ": " + e.Err.Error()
	}
	return clip(e.Name) + ": " + e.Err.Error()
}

func (e *EntryError) Unwrap() error { return e.Err }

// A LimitError reports a layer that is larger than Options allow.
type LimitError struct {
	What  string // "bytes" or "files"
	Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("the layer holds more than %d %s", e.Limit, e.What)
}

// Hint is what the user can do.
func (e *LimitError) Hint() string {
	if e.What == "bytes" {
		return "if you trust the image: rbox pull --max-size SIZE"
	}
	return "such a layer is made to fill the disk; if it is not, ask its maker to split it"
}

var (
	errTruncated  = errors.New("the archive is cut off here")
	errNotTar     = errors.New("not a tar archive")
	errLeavesTree = errors.New("the name leads out of the layer")
)

// Apply unpacks the archive r, packed or not, into the existing, empty
// directory dir. Deleted files of lower layers become overlay's marks, with
// user attributes (mount option userxattr). Whatever the archive holds,
// nothing outside dir is touched. Devices, which a user namespace may not
// make, become empty files; so no device is ever made.
//
// Apply sets the umask of the process to 0. After an error r may still be
// read from until it is closed.
func Apply(ctx context.Context, dir string, r io.Reader, o Options) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	unix.Umask(0)
	u, err := newUnpacker(dir, o)
	if err != nil {
		return Result{}, err
	}
	defer u.tree.close()

	plain, packed, err := Decompress(r)
	if err != nil {
		return Result{}, err
	}
	u.res.Packed = packed
	s := newStream(ctx, plain, u.MaxBytes)
	if err := u.all(s); err != nil {
		return Result{}, err
	}
	if u.res.DiffID, u.res.Plain, err = s.finish(); err != nil {
		return Result{}, u.after(err)
	}
	if o.Sync {
		if err := unix.Syncfs(u.tree.root.fd); err != nil {
			return Result{}, fmt.Errorf("flush %s: %w", dir, err)
		}
	}
	return u.res, nil
}

// An unpacker is one Apply.
type unpacker struct {
	Options
	tree *tree
	res  Result
	last string // name of the entry before
	buf  []byte // what is on its way to a file

	euid, egid       int    // owner that new files get
	rootUID, rootGID uint32 // the image's root
	holes            int64  // bytes in sparse files, which the archive does not hold

	dirs  []string // directories whose time is set at the end, when no file is made in them any more
	times map[string]time.Time
}

func newUnpacker(dir string, o Options) (*unpacker, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = DefaultMaxEntries
	}
	t, err := openTree(dir)
	if err != nil {
		return nil, err
	}
	u := &unpacker{
		Options: o, tree: t, buf: make([]byte, copySize), times: map[string]time.Time{},
		euid: unix.Geteuid(), egid: unix.Getegid(),
	}
	if !o.Single {
		u.rootUID, _ = shift(o.UIDs, 0)
		u.rootGID, _ = shift(o.GIDs, 0)
		t.uid, t.gid = int(u.rootUID), int(u.rootGID)
	}
	if err := u.prepareRoot(); err != nil {
		t.close()
		return nil, fmt.Errorf("prepare %s: %w", dir, err)
	}
	return u, nil
}

// prepareRoot rids the root of what it has from the directory above, which
// all files would inherit: a group, a default access list.
func (u *unpacker) prepareRoot() error {
	fd := u.tree.root.fd
	unix.Fremovexattr(fd, "system.posix_acl_default")
	if !u.Single {
		if err := unix.Fchown(fd, int(u.rootUID), int(u.rootGID)); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return err
	}
	return u.tree.noteGroup(u.tree.root)
}

// all unpacks every entry.
func (u *unpacker) all(s *stream) error {
	tr := tar.NewReader(s)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return u.setDirTimes()
		}
		if err != nil {
			return u.after(err)
		}
		if u.res.Entries++; u.res.Entries > u.MaxEntries {
			return u.after(&LimitError{What: "files", Limit: u.MaxEntries})
		}
		if err := u.entry(h, tr); err != nil {
			if limit := (*LimitError)(nil); errors.As(err, &limit) {
				err = limit
			}
			return &EntryError{Name: h.Name, Err: cutOff(err)}
		}
		u.last = h.Name
	}
}

// after is err, met where the next entry should be.
func (u *unpacker) after(err error) error {
	if errors.Is(err, tar.ErrHeader) && u.last == "" {
		return errNotTar
	}
	if limit := (*LimitError)(nil); errors.As(err, &limit) {
		err = limit
	}
	if u.last == "" {
		return cutOff(err)
	}
	return &EntryError{Name: u.last, After: true, Err: cutOff(err)}
}

func cutOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errTruncated
	}
	return err
}

// entry unpacks one.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader, 'V': // defaults, as git writes them; the label of a GNU volume
		return nil
	}
	name, err := inside(h.Name)
	if err != nil || isMeta(name) {
		return err
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the root of the layer is not a directory")
		}
		return u.attributes(node{fd: u.tree.root.fd, kind: unix.S_IFDIR, existed: true}, ".", h)
	}
	parent, base := path.Split(name)
	d, err := u.tree.dir(path.Clean(parent))
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(d, base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(d, base, name, h)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(d, base, h, content)
	case tar.TypeSymlink:
		return u.create(d, base, h, unix.S_IFLNK, func() error {
			return unix.Symlinkat(h.Linkname, d.fd, base)
		})
	case tar.TypeFifo:
		return u.create(d, base, h, unix.S_IFIFO, func() error {
			return unix.Mknodat(d.fd, base, unix.S_IFIFO|perm(h), 0)
		})
	case tar.TypeChar, tar.TypeBlock:
		return u.file(d, base, h, bytes.NewReader(nil))
	case tar.TypeLink:
		return u.link(base, name, h.Linkname)
	}
	return fmt.Errorf("entries of type %q are not supported", h.Typeflag)
}

// inside returns the clean form of a name in the archive, relative to its root.
func inside(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	switch {
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return "", errLeavesTree
	case len(clean) >= unix.PathMax:
		return "", unix.ENAMETOOLONG
	}
	return clean, nil
}

// isMeta says that name is one of AUFS's own files, or in one of its
// directories, other than the mark of an opaque directory.
func isMeta(name string) bool {
	if !strings.HasPrefix(name, metaPrefix) && !strings.Contains(name, "/"+metaPrefix) {
		return false
	}
	return path.Base(name) != opaqueMark || isMeta(path.Dir(name))
}

// perm returns the permission bits that h asks for, those that open(2) takes.
func perm(h *tar.Header) uint32 { return uint32(h.Mode) & 0o777 }

// whiteout marks the file that base, ".wh." and a name, says as deleted in
// lower layers, or all of them for an opaque mark. What this layer itself has
// under that name stays, whichever comes first (image-spec, layer.md).
func (u *unpacker) whiteout(d *openDir, base string) error {
	if base == opaqueMark {
		if d == u.tree.root {
			u.res.OpaqueRoot = true
			return nil
		}
		return setOpaque(d.fd)
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return errors.New("it deletes nothing that could be")
	}
	err := unix.Mknodat(d.fd, name, unix.S_IFCHR, 0)
	switch err {
	case unix.EEXIST:
		return u.hideBelow(d, name)
	case unix.EPERM, unix.EOPNOTSUPP: // before Linux 5.8, and on some network file systems
		u.res.FileWhiteouts++
		fd, err := openat(d.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	return err
}

// hideBelow hides what lower layers have under name, of which this layer has
// its own: that takes a mark only if it is a directory.
func (u *unpacker) hideBelow(d *openDir, name string) error {
	c, err := u.tree.openChild(d, name)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return nil
	}
	if err != nil {
		return err
	}
	return setOpaque(c.fd)
}

func (u *unpacker) directory(d *openDir, base, name string, h *tar.Header) error {
	existed, err := u.tree.mkdir(d, base, perm(h))
	if err != nil {
		return err
	}
	c := u.tree.cached(join(d.name, base))
	if c == nil {
		if c, err = u.tree.openChild(d, base); err != nil {
			return err
		}
	}
	n := node{fd: c.fd, dir: d, kind: unix.S_IFDIR, existed: existed}
	if existed {
		if err := unix.Fchmod(c.fd, uint32(h.Mode)&0o7777); err != nil {
			return err
		}
	}
	if err := u.attributes(n, name, h); err != nil {
		return err
	}
	if existed || h.Mode&unix.S_ISGID != 0 {
		return u.tree.noteGroup(c)
	}
	return nil
}

// file writes a regular file, or the empty one that stands for a device.
func (u *unpacker) file(d *openDir, base string, h *tar.Header, content io.Reader) error {
	fd := -1
	err := u.inPlace(d, base, func() (err error) {
		const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err = openat(d.fd, base, flags, perm(h))
		return err
	})
	if err != nil {
		return err
	}
	if err := u.fill(fd, h, content); err != nil {
		unix.Close(fd)
		return err
	}
	if err := u.attributes(node{fd: fd, dir: d, kind: unix.S_IFREG}, "", h); err != nil {
		unix.Close(fd)
		return err
	}
	return unix.Close(fd) // network file systems report a full disk here
}

// fill writes content. The holes of a sparse file stay holes.
func (u *unpacker) fill(fd int, h *tar.Header, content io.Reader) error {
	sparse := isSparse(h)
	if sparse {
		if u.holes += h.Size; u.holes > u.MaxBytes {
			return &LimitError{What: "bytes", Limit: u.MaxBytes}
		}
		if err := unix.Ftruncate(fd, h.Size); err != nil {
			return err
		}
	}
	for at := int64(0); ; {
		n, err := content.Read(u.buf)
		if n > 0 && !(sparse && isZero(u.buf[:n])) {
			if err := writeAt(fd, u.buf[:n], at, sparse); err != nil {
				return err
			}
		}
		at += int64(n)
		u.res.Bytes += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// isSparse says that h describes a file with holes: archive/tar gives them as zeros.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for _, key := range [...]string{"GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.realsize"} {
		if h.PAXRecords[key] != "" {
			return true
		}
	}
	return false
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if *(*uint64)(unsafe.Pointer(&b[0])) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// writeAt writes all of b, at the offset at where seek says so, else where the file stands.
func writeAt(fd int, b []byte, at int64, seek bool) error {
	for len(b) > 0 {
		var n int
		var err error
		if seek {
			n, err = unix.Pwrite(fd, b, at)
		} else {
			n, err = unix.Write(fd, b)
		}
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			b, at = b[n:], at+int64(n)
		}
	}
	return nil
}

// create makes something that is no regular file and has no descriptor.
func (u *unpacker) create(d *openDir, base string, h *tar.Header, kind uint32, mk func() error) error {
	if err := u.inPlace(d, base, mk); err != nil {
		return err
	}
	return u.attributes(node{fd: -1, dir: d, name: base, kind: kind}, "", h)
}

// inPlace calls mk, and again with nothing in its way if something was: an
// entry replaces the earlier ones of its name.
func (u *unpacker) inPlace(d *openDir, base string, mk func() error) error {
	err := mk()
	if err != unix.EEXIST {
		return err
	}
	if err := u.tree.remove(d, base); err != nil {
		return err
	}
	return mk()
}

// link makes name a hard link to the file that the layer has as target.
func (u *unpacker) link(base, name, target string) error {
	target, err := inside(target)
	if err != nil {
		return fmt.Errorf("link to %s: %w", clip(target), err)
	}
	if target == name {
		return nil
	}
	parent, targetBase := path.Split(target)
	from, err := u.tree.dir(path.Clean(parent))
	if err != nil {
		return fmt.Errorf("link to %s: %w", clip(target), err)
	}
	fromFD, err := unix.FcntlInt(uintptr(from.fd), unix.F_DUPFD_CLOEXEC, 0) // opening d may close it
	if err != nil {
		return err
	}
	defer unix.Close(fromFD)
	d, err := u.tree.dir(path.Dir(name))
	if err != nil {
		return err
	}
	err = u.inPlace(d, base, func() error { return unix.Linkat(fromFD, targetBase, d.fd, base, 0) })
	if err != nil {
		return fmt.Errorf("link to %s: %w", clip(target), err)
	}
	return nil
}

// attributes gives a new file its owner, the mode bits that its making does
// not take, its extended attributes and its time. name is a directory's.
func (u *unpacker) attributes(n node, name string, h *tar.Header) error {
	owner := Owner{UID: id32(h.Uid), GID: id32(h.Gid)}
	if isDevice(h) {
		u.res.Devices++
		owner.Mode, owner.Major, owner.Minor = deviceMode(h), uint32(h.Devmajor), uint32(h.Devminor)
	}
	if err := u.setOwner(n, owner); err != nil {
		return fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	if err := u.setMode(n, name, h); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && wanted(attr) {
			if err := u.setXattr(n, attr, value); err != nil {
				return err
			}
		}
	}
	if n.kind == unix.S_IFDIR {
		u.laterTime(name, h.ModTime)
		return nil
	}
	return n.setTime(h.ModTime)
}

// id32 returns id, or what is never an id if it is out of range.
func id32(id int) uint32 {
	if id < 0 || id > noID {
		return noID
	}
	return uint32(id)
}

func deviceMode(h *tar.Header) uint32 {
	if h.Typeflag == tar.TypeBlock {
		return unix.S_IFBLK | uint32(h.Mode)&0o7777
	}
	return unix.S_IFCHR | uint32(h.Mode)&0o7777
}

// setMode sets what the making of the file did not: chown(2) and write(2)
// clear the set-id bits, mkdir(2) ignores them.
func (u *unpacker) setMode(n node, name string, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o7777
	inherits := n.kind == unix.S_IFDIR && n.dir != nil && n.dir.gid >= 0 // the set-group-id bit
	if mode <= 0o777 && name != "." && !inherits {
		return nil
	}
	switch {
	case n.kind == unix.S_IFLNK, isDevice(h):
		return nil
	case n.fd >= 0:
		return unix.Fchmod(n.fd, mode)
	}
	return unix.Fchmodat(n.dir.fd, n.name, mode, 0)
}

// isDevice says that h is a device: the file in its place needs no set-id bits.
func isDevice(h *tar.Header) bool { return h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock }

// wanted says whether a layer may set the attribute: not those that mean
// something to overlayfs and rbox, nor those of the security modules of the
// machine that the image was built on, nor default access lists, which would
// change the modes of the files to come.
func wanted(attr string) bool {
	return filecopy.WantedXattr(attr) && !strings.HasPrefix(attr, "user.rbox.")
}

// setXattr sets an attribute, or counts it as lost where the kernel will not
// have it: symbolic links carry none of the user's, some file systems none at
// all, and security.capability needs a privilege.
func (u *unpacker) setXattr(n node, attr, value string) error {
	if n.fd < 0 {
		u.res.LostXattrs++
		return nil
	}
	err := unix.Fsetxattr(n.fd, attr, []byte(value), 0)
	switch err {
	case unix.EPERM, unix.EACCES, unix.ENOTSUP, unix.EINVAL, unix.E2BIG, unix.ERANGE, unix.EOVERFLOW:
		u.res.LostXattrs++
		return nil
	case nil:
		return nil
	}
	return fmt.Errorf("attribute %s: %w", clip(attr), err)
}

func (u *unpacker) laterTime(name string, t time.Time) {
	if _, ok := u.times[name]; !ok {
		u.dirs = append(u.dirs, name)
	}
	u.times[name] = t
}

// setDirTimes sets the times of directories, the last first, since archives
// have directories before what is in them.
func (u *unpacker) setDirTimes() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		name := u.dirs[i]
		n := node{fd: u.tree.root.fd, kind: unix.S_IFDIR}
		if name != "." {
			d, err := u.tree.dir(path.Dir(name))
			if err != nil {
				return &EntryError{Name: name, Err: err}
			}
			n.fd, n.dir, n.name = -1, d, path.Base(name)
		}
		if err := n.setTime(u.times[name]); err != nil && err != unix.ENOENT {
			return &EntryError{Name: name, Err: err}
		}
	}
	return nil
}

// setTime sets the time of access and of change, which both are t.
func (n node) setTime(t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil { // out of the range that the system can say
		return nil
	}
	return n.setTimes([2]unix.Timespec{ts, ts})
}

// setTimes sets the times of access and of change.
func (n node) setTimes(both [2]unix.Timespec) error {
	if n.fd < 0 {
		return unix.UtimesNanoAt(n.dir.fd, n.name, both[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	return filecopy.SetTimes(n.fd, both)
}
