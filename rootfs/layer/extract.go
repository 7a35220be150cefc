//go:build !front

package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Target is the directory that Extract writes to.
type Target interface {
	// Dir opens the directory name below it, "." for itself, and makes what is
	// missing. Whatever links there are, it stays inside. The caller closes it.
	Dir(name string) (fd int, err error)
}

// ExtractOptions says how Extract writes.
type ExtractOptions struct {
	// Rename returns what an entry is called in the target, "" to leave it out.
	// nil keeps names.
	Rename func(name string) string

	UIDs, GIDs []IDRange // the archive's ids → ids of this namespace
	Single     bool      // there is one id: others are kept in OwnerXattr
	Owners     bool      // keep the archive's owners
	Chown      bool      // else files belong to UID and GID; without Chown, to the process
	UID, GID   uint32
	NoSetID    bool // files lose the set-user-id and set-group-id bits, and capabilities
	Notice     func(string)
}

// ConflictError reports a directory where the archive has a file, or the other
// way round.
type ConflictError struct {
	Name      string
	Directory bool // there is one
}

func (e *ConflictError) Error() string {
	if e.Directory {
		return fmt.Sprintf("cannot overwrite directory %s with non-directory", clip(e.Name))
	}
	return fmt.Sprintf("cannot overwrite non-directory %s with directory", clip(e.Name))
}

// Extracted tells what Extract did.
type Extracted struct {
	Entries, Bytes int64
	Unmapped       int64 // files whose owner has no id here
}

// An extractor is one Extract.
type extractor struct {
	ExtractOptions
	ctx  context.Context
	to   Target
	buf  []byte
	res  Extracted
	made map[string]bool // files that later entries may be links to
	dirs []madeDir       // whose modes and times are set at the end

	lastName string // of a directory that is open
	last     int
}

type madeDir struct {
	name string
	mode uint32
	time time.Time
}

// Extract unpacks the plain archive r into to, over what is there, as cp does:
// a file takes the place of a file, and directories are merged. The target may
// change meanwhile. Nothing outside is touched, no link in it is written
// through and no device is made.
func Extract(ctx context.Context, to Target, r io.Reader, o ExtractOptions) (Extracted, error) {
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Rename == nil {
		o.Rename = func(name string) string { return name }
	}
	x := &extractor{ExtractOptions: o, ctx: ctx, to: to, buf: make([]byte, copySize), made: map[string]bool{}, last: -1}
	defer x.forget()
	err := x.all(r)
	return x.res, err
}

func (x *extractor) all(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			// What follows the end is read, lest the writer be killed by it.
			io.Copy(io.Discard, r)
			return x.finish()
		}
		if err != nil {
			if errors.Is(err, tar.ErrHeader) && x.res.Entries == 0 {
				return errNotTar
			}
			return cutOff(err)
		}
		if err := x.entry(h, tr); err != nil {
			return wrap(h.Name, cutOff(err))
		}
		x.res.Entries++
	}
}

func (x *extractor) entry(h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == 'V' {
		return nil
	}
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	if name = x.Rename(name); name == "" {
		return nil
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return &ConflictError{".", true}
		}
		return nil // that is there, and the user's
	}
	parent, base := path.Split(name)
	dir, err := x.dir(path.Clean(parent))
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return x.directory(dir, base, name, h)
	}
	return x.leaf(dir, base, name, h, content)
}

// dir opens a directory. The result is good until the next call.
func (x *extractor) dir(name string) (int, error) {
	if x.last >= 0 && name == x.lastName {
		return x.last, nil
	}
	fd, err := x.to.Dir(name)
	if err != nil {
		return -1, err
	}
	x.forget()
	x.last, x.lastName = fd, name
	return fd, nil
}

func (x *extractor) forget() {
	if x.last >= 0 {
		unix.Close(x.last)
	}
	x.last = -1
}

func (x *extractor) directory(dir int, base, name string, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o7777
	err := unix.Mkdirat(dir, base, 0o700)
	existed := err == unix.EEXIST
	if err != nil && !existed {
		return err
	}
	fd, err := openat(dir, base, dirFlags, 0)
	if existed && (err == unix.ENOTDIR || err == unix.ELOOP) {
		return &ConflictError{Name: name}
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n := node{fd: fd, kind: unix.S_IFDIR, existed: existed}
	if err := x.own(n, h); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode|0o700); err != nil && !(existed && err == unix.EPERM) {
		return err
	}
	x.attributes(n, h)
	x.dirs = append(x.dirs, madeDir{name, mode, h.ModTime})
	return nil
}

// leaf makes what is no directory, in place of what else there is.
func (x *extractor) leaf(dir int, base, name string, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse, tar.TypeSymlink, tar.TypeFifo, tar.TypeLink:
	case tar.TypeChar, tar.TypeBlock:
		x.Notice(fmt.Sprintf("%s: a device, left out: it takes root to make one", clip(h.Name)))
		return nil
	default:
		return fmt.Errorf("entries of type %q are not supported", h.Typeflag)
	}
	if h.Typeflag == tar.TypeLink {
		return x.link(name, h)
	}
	if err := clearWay(dir, base, name); err != nil {
		if err == unix.EBUSY && isFile(h) {
			return x.overwrite(dir, base, h, content)
		}
		return err
	}
	x.made[name] = true
	if isFile(h) {
		return x.file(dir, base, h, content)
	}
	n := node{fd: -1, dir: &openDir{fd: dir}, name: base, kind: unix.S_IFLNK}
	if h.Typeflag == tar.TypeSymlink {
		if err := unix.Symlinkat(h.Linkname, dir, base); err != nil {
			return err
		}
		if err := x.own(n, h); err != nil {
			return err
		}
	} else {
		if err := unix.Mknodat(dir, base, unix.S_IFIFO|0o600, 0); err != nil {
			return err
		}
		n.kind = unix.S_IFIFO
		if err := x.own(n, h); err != nil {
			return err
		}
		if err := chmodAt(dir, base, unix.S_IFIFO, uint32(h.Mode)&0o777); err != nil {
			return err
		}
	}
	return n.setTime(h.ModTime)
}

func isFile(h *tar.Header) bool {
	return h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeCont || h.Typeflag == tar.TypeGNUSparse
}

// chmodAt sets the mode of base if it still is of that kind.
func chmodAt(dir int, base string, kind, mode uint32) error {
	fd, err := openPath(dir, base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != kind {
		return err
	}
	return unix.Chmod(fdName(fd), mode)
}

// clearWay deletes base unless it is a directory.
func clearWay(dir int, base, name string) error {
	err := unix.Unlinkat(dir, base, 0)
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR, unix.EPERM:
		var st unix.Stat_t
		if unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return &ConflictError{name, true}
		}
	}
	return err
}

var errIrregular = errors.New("not a regular file")

// openRegular opens a file of dir that must be regular, and never waits for the
// other end of a pipe or for a device.
func openRegular(dir int, base string, flags int) (fd int, st unix.Stat_t, err error) {
	p, err := openPath(dir, base)
	if err != nil {
		return -1, st, err
	}
	defer unix.Close(p)
	if err := unix.Fstat(p, &st); err != nil {
		return -1, st, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, st, errIrregular
	}
	fd, err = reopen(p, flags|unix.O_NONBLOCK)
	return fd, st, err
}

// overwrite writes into a file that cannot be replaced, since something is mounted there.
func (x *extractor) overwrite(dir int, base string, h *tar.Header, content io.Reader) error {
	fd, _, err := openRegular(dir, base, unix.O_WRONLY|unix.O_TRUNC)
	if err == errIrregular {
		return unix.EBUSY
	}
	if err != nil {
		return err
	}
	err = x.fill(fd, h, content)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

func (x *extractor) file(dir int, base string, h *tar.Header, content io.Reader) error {
	fd, err := openat(dir, base, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	n := node{fd: fd, kind: unix.S_IFREG}
	if err = x.own(n, h); err == nil {
		err = x.fill(fd, h, content)
	}
	if err == nil {
		mode := uint32(h.Mode) & 0o7777
		if x.NoSetID {
			mode &^= unix.S_ISUID | unix.S_ISGID
		}
		err = unix.Fchmod(fd, mode)
	}
	if err == nil {
		x.attributes(n, h)
		err = n.setTime(h.ModTime)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr // network file systems report a full disk here
	}
	return err
}

// fill writes content. The holes of a sparse file stay holes.
func (x *extractor) fill(fd int, h *tar.Header, content io.Reader) error {
	if size := h.PAXRecords[ownSparse]; size != "" {
		return x.fillSparse(fd, size, content)
	}
	sparse := isSparse(h)
	if sparse {
		if err := unix.Ftruncate(fd, h.Size); err != nil {
			return err
		}
	}
	return x.write(fd, 0, content, sparse)
}

// write writes content from the offset at on, but for zeros where skip says so.
func (x *extractor) write(fd int, at int64, content io.Reader, skip bool) error {
	for {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		n, err := content.Read(x.buf)
		if n > 0 && !(skip && isZero(x.buf[:n])) {
			if err := writeAt(fd, x.buf[:n], at, true); err != nil {
				return err
			}
		}
		at += int64(n)
		x.res.Bytes += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fillSparse reads the list of what is data, then that.
func (x *extractor) fillSparse(fd int, size string, content io.Reader) error {
	total, err := strconv.ParseInt(size, 10, 64)
	if err != nil || total < 0 {
		return errNotTar
	}
	if err := unix.Ftruncate(fd, total); err != nil {
		return err
	}
	br := bufio.NewReaderSize(content, copySize)
	read := int64(0)
	number := func() int64 {
		line, err := br.ReadSlice('\n')
		read += int64(len(line))
		n, perr := strconv.ParseInt(strings.TrimSuffix(string(line), "\n"), 10, 64)
		if err != nil || perr != nil || n < 0 {
			return -1
		}
		return n
	}
	count := number()
	if count < 0 || count > 1<<24 {
		return errNotTar
	}
	var data []extent
	for range count {
		e := extent{number(), number()}
		if e.at < 0 || e.n < 0 || e.at > total || e.n > total-e.at {
			return errNotTar
		}
		data = append(data, e)
	}
	if _, err := br.Discard(padding(read)); err != nil {
		return err
	}
	for _, e := range data {
		l := &io.LimitedReader{R: br, N: e.n}
		if err := x.write(fd, e.at, l, false); err != nil {
			return err
		}
		if l.N > 0 {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// link makes name another name of a file that came before.
func (x *extractor) link(name string, h *tar.Header) error {
	target, err := inside(h.Linkname)
	if err == nil {
		target = x.Rename(target)
	}
	if err != nil || target == "" || !x.made[target] {
		return fmt.Errorf("a link to %s, which did not come before it", clip(h.Linkname))
	}
	if target == name {
		return nil
	}
	from, err := x.to.Dir(path.Dir(target))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	dir, err := x.dir(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if err := clearWay(dir, base, name); err != nil {
		return err
	}
	err = unix.Linkat(from, path.Base(target), dir, base, 0)
	switch err {
	case nil:
		x.made[name] = true
		return nil
	case unix.EXDEV, unix.EPERM, unix.EMLINK, unix.ENOTSUP:
		return x.copyFile(from, path.Base(target), dir, base)
	}
	return err
}

// copyFile stands in for a link where there can be none.
func (x *extractor) copyFile(from int, old string, dir int, base string) error {
	fd, st, err := openRegular(from, old, unix.O_RDONLY)
	if err == errIrregular {
		return unix.EXDEV
	}
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(fd), old)
	defer src.Close()
	dst, err := openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if err := x.write(dst, 0, src, false); err != nil {
		return err
	}
	if x.Chown && !x.Single {
		if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	return node{fd: dst}.setTimes([2]unix.Timespec{st.Atim, st.Mtim})
}

// own gives n its owner.
func (x *extractor) own(n node, h *tar.Header) error {
	if !x.Chown {
		return nil
	}
	if x.Single {
		if o := (Owner{UID: id32(h.Uid), GID: id32(h.Gid)}); x.Owners && n.fd >= 0 && (o.UID != 0 || o.GID != 0) {
			unix.Fsetxattr(n.fd, OwnerXattr, []byte(o.String()), 0)
		}
		return nil
	}
	uid, gid := x.UID, x.GID
	if x.Owners {
		u, uok := shift(x.UIDs, id32(h.Uid))
		g, gok := shift(x.GIDs, id32(h.Gid))
		if uok {
			uid = u
		}
		if gok {
			gid = g
		}
		if !uok || !gok {
			x.res.Unmapped++
		}
	}
	return n.chown(int(uid), int(gid))
}

// attributes sets those that the kernel will take.
func (x *extractor) attributes(n node, h *tar.Header) {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || !wanted(name) || name == "system.posix_acl_access" || x.NoSetID && name == capabilityXattr {
			continue
		}
		unix.Fsetxattr(n.fd, name, []byte(value), 0)
	}
}

// finish sets what the making of files in directories would undo.
func (x *extractor) finish() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		d := x.dirs[i]
		if err := x.finishDir(d); err != nil && err != unix.ENOENT && err != unix.ENOTDIR && err != unix.ELOOP && err != unix.EPERM {
			return wrap(d.name, err)
		}
	}
	return nil
}

func (x *extractor) finishDir(d madeDir) error {
	dir, err := x.dir(path.Dir(d.name))
	if err != nil {
		return err
	}
	fd, err := openat(dir, path.Base(d.name), dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := (node{fd: fd}).setTime(d.time); err != nil {
		return err
	}
	return unix.Fchmod(fd, d.mode)
}

// A Folder is a Target that no link leads out of or on in: the directory of
// its descriptor.
type Folder int

// Dir implements Target.
func (f Folder) Dir(name string) (int, error) {
	fd, err := openat(int(f), ".", dirFlags, 0)
	if err != nil || name == "." {
		return fd, err
	}
	for part := range strings.SplitSeq(name, "/") {
		next, err := openat(fd, part, dirFlags, 0)
		if err == unix.ENOENT {
			if err = unix.Mkdirat(fd, part, 0o755); err == nil || err == unix.EEXIST {
				next, err = openat(fd, part, dirFlags, 0)
			}
		}
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("%s: %w", clip(part), err)
		}
		fd = next
	}
	return fd, nil
}
