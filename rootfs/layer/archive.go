//go:build !front

package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ArchiveOptions says how files become an archive.
type ArchiveOptions struct {
	UIDs, GIDs []IDRange // ids of this namespace → the archive's; none leaves them as they are
	Single     bool      // there is one id: the owner is in OwnerXattr, else the root
	Caps       bool      // keep file capabilities
	OneMount   bool      // leave out what is mounted in the tree
	Pipe       bool      // it is for Extract: sparse files in a form that takes no reading of their holes
	Notice     func(string)
}

// An Archiver writes files to a tar archive, by descriptors alone: a tree that
// changes meanwhile cannot lead it elsewhere. It opens no devices, waits for
// no FIFOs and reads only the data of sparse files.
type Archiver struct {
	ArchiveOptions
	ctx   context.Context
	tw    *tar.Writer
	w     io.Writer
	links map[inode]string // the name under which a file of several names was first met
	buf   []byte

	Files int64 // entries written
	Bytes int64 // of content
}

// NewArchiver writes to w.
func NewArchiver(ctx context.Context, w io.Writer, o ArchiveOptions) *Archiver {
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	return &Archiver{ArchiveOptions: o, ctx: ctx, tw: tar.NewWriter(w), w: w, links: map[inode]string{}, buf: make([]byte, copySize)}
}

// Close writes the end of the archive.
func (a *Archiver) Close() error { return a.tw.Close() }

// maxDepth bounds the directories in each other: each takes a descriptor.
const maxDepth = 500

// Add writes base in the directory dir, with all that is in it, as name. A
// base of "." is dir itself.
func (a *Archiver) Add(dir int, base, name string) error {
	fd, err := openPath(dir, base)
	if err != nil {
		return fmt.Errorf("%s: %w", clip(base), err)
	}
	defer unix.Close(fd)
	return a.AddOpen(fd, name)
}

// AddOpen is Add of an open file, for which an O_PATH descriptor will do.
func (a *Archiver) AddOpen(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return a.node(fd, &st, name, 0)
}

// openPath opens name without following or reading it.
func openPath(dir int, name string) (int, error) {
	return openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// reopen opens what the O_PATH descriptor fd names.
func reopen(fd, flags int) (int, error) {
	return openat(unix.AT_FDCWD, fdName(fd), flags|unix.O_CLOEXEC, 0)
}

// node writes the O_PATH descriptor fd and, if it is a directory, what is in it.
func (a *Archiver) node(fd int, st *unix.Stat_t, name string, depth int) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return wrap(name, a.leaf(fd, st, name))
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories in each other", clip(name), maxDepth)
	}
	dir, err := openat(fd, ".", dirFlags, 0)
	if err != nil {
		return wrap(name, err)
	}
	defer unix.Close(dir)
	if err := a.directory(dir, st, name); err != nil {
		return wrap(name, err)
	}
	if isKernels(dir) {
		return nil
	}
	names, err := sortedNames(dir)
	if err != nil {
		return wrap(name, err)
	}
	for _, base := range names {
		if err := a.child(dir, st.Dev, base, join(name, base), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (a *Archiver) child(dir int, dev uint64, base, name string, depth int) error {
	fd, err := openPath(dir, base)
	if err == unix.ENOENT {
		return nil // it was there a moment ago
	}
	if err != nil {
		return wrap(name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrap(name, err)
	}
	if a.OneMount && st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Dev != dev {
		return wrap(name, a.directory(fd, &st, name))
	}
	return a.node(fd, &st, name, depth)
}

// isKernels says that dir is of a file system whose files are the kernel's
// answers: some block, some never end.
func isKernels(dir int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(dir, &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC,
		unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.SELINUX_MAGIC,
		mqueueMagic, unix.DEVPTS_SUPER_MAGIC, unix.EFIVARFS_MAGIC, unix.BINDERFS_SUPER_MAGIC:
		return true
	}
	return false
}

const mqueueMagic = 0x19800202

// IsKernels says that the open file fd is of /proc, /sys or their like.
func IsKernels(fd int) bool { return isKernels(fd) }

func sortedNames(dir int) (names []string, err error) {
	err = eachEntry(dir, func(name string, _ uint8) error {
		names = append(names, name)
		return nil
	})
	slices.Sort(names)
	return names, err
}

// directory writes the entry of an open directory.
func (a *Archiver) directory(fd int, st *unix.Stat_t, name string) error {
	h := a.header(fd, st, strings.TrimSuffix(name, "/")+"/")
	h.Typeflag = tar.TypeDir
	return a.put(h)
}

// leaf writes what is no directory.
func (a *Archiver) leaf(fd int, st *unix.Stat_t, name string) error {
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		a.Notice(fmt.Sprintf("%s: a socket, left out", clip(name)))
		return nil
	}
	if st.Nlink > 1 {
		id := inode{0, uint64(st.Dev), st.Ino}
		if first, ok := a.links[id]; ok {
			h := a.header(fd, st, name) // some readers apply it to the file
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return a.put(h)
		}
		a.links[id] = name
	}
	switch kind {
	case unix.S_IFREG:
		return a.file(fd, name)
	case unix.S_IFLNK:
		target, err := readlink(fd, "")
		if err != nil {
			return err
		}
		h := a.header(fd, st, name)
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		return a.put(h)
	}
	h := a.header(fd, st, name)
	switch kind {
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	default:
		h.Typeflag = tar.TypeBlock
	}
	if kind != unix.S_IFIFO {
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	}
	return a.put(h)
}

// readlink reads the link name in dir, or dir itself for "".
func readlink(dir int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// file writes a regular file. It may change, but not what was stat'ed of it.
func (a *Archiver) file(path int, name string) error {
	fd, err := reopen(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	h := a.header(fd, &st, name)
	h.Typeflag = tar.TypeReg
	if a.placeholder(fd, h) {
		return a.put(h)
	}
	h.Size = st.Size
	data, holes := extents(fd, &st)
	if holes {
		return a.sparse(fd, h, data)
	}
	if err := a.put(h); err != nil {
		return err
	}
	return a.content(a.tw, fd, extent{0, st.Size}, name)
}

// placeholder makes h the header of the device that an empty file stands for.
func (a *Archiver) placeholder(fd int, h *tar.Header) bool {
	o, ok := keptOwner(fd)
	if !ok || o.Mode == 0 {
		return false
	}
	switch o.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	default:
		return false
	}
	h.Mode, h.Devmajor, h.Devminor = int64(o.Mode&0o7777), int64(o.Major), int64(o.Minor)
	return true
}

// put writes a header.
func (a *Archiver) put(h *tar.Header) error {
	a.Files++
	return a.tw.WriteHeader(h)
}

// content writes the bytes of e to w, with zeros for what is not there any more.
func (a *Archiver) content(w io.Writer, fd int, e extent, name string) error {
	for at := e.at; at < e.at+e.n; {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		want := a.buf[:min(int64(len(a.buf)), e.at+e.n-at)]
		n, err := unix.Pread(fd, want, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			a.Notice(fmt.Sprintf("%s: it shrank while it was read", clip(name)))
			clear(want)
			n = len(want)
		}
		if _, err := w.Write(want[:n]); err != nil {
			return err
		}
		at += int64(n)
		a.Bytes += int64(n)
	}
	return nil
}

// header is what all kinds of files have. fd may be an O_PATH descriptor.
func (a *Archiver) header(fd int, st *unix.Stat_t, name string) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
	h.Uid, h.Gid = a.ids(fd, st)
	a.xattrs(fd, st, h)
	return h
}

// ids are the owner as the archive names it.
func (a *Archiver) ids(fd int, st *unix.Stat_t) (uid, gid int) {
	u, uok := shift(a.UIDs, st.Uid)
	g, gok := shift(a.GIDs, st.Gid)
	if !uok {
		u = overflowID
	}
	if !gok {
		g = overflowID
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		if a.Single {
			u, g = 0, 0
		}
		return int(u), int(g)
	}
	o, kept := keptOwner(fd)
	switch {
	case kept && a.Single:
		u, g = o.UID, o.GID
	case a.Single:
		u, g = 0, 0
	case kept: // what had no id here became root's
		if u == 0 && o.UID != noID {
			u = o.UID
		}
		if g == 0 && o.GID != noID {
			g = o.GID
		}
	}
	return int(u), int(g)
}

// overflowID stands for ids that have no number (/proc/sys/fs/overflowuid).
const overflowID = 65534

// keptOwner is what OwnerXattr says of fd, which may be an O_PATH descriptor.
func keptOwner(fd int) (Owner, bool) {
	value := make([]byte, 128)
	n, err := unix.Getxattr(fdName(fd), OwnerXattr, value)
	if err != nil {
		return Owner{}, false
	}
	o, err := ParseOwner(string(value[:n]))
	return o, err == nil
}

// xattrs adds the attributes that mean something elsewhere.
func (a *Archiver) xattrs(fd int, st *unix.Stat_t, h *tar.Header) {
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return
	}
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Listxattr(path, list)
	if err != nil || n == 0 {
		return
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		caps := name == capabilityXattr
		if !wanted(name) || name == "system.posix_acl_access" || caps && !a.Caps || strings.ContainsRune(name, '=') {
			continue // an access list names ids of this namespace
		}
		n, err := unix.Getxattr(path, name, value)
		if err != nil {
			continue
		}
		v := value[:n]
		if caps {
			v = withoutRoot(v)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(v)
	}
}

const capabilityXattr = "security.capability"

// withoutRoot is a file capability without the user namespace that it holds
// in: version 3 of capability.h becomes version 2.
func withoutRoot(v []byte) []byte {
	const version2, version3 = 2, 3
	if len(v) == 24 && v[3] == version3 {
		v = slices.Clone(v[:20])
		v[3] = version2
	}
	return v
}

// An extent is a piece of a file.
type extent struct{ at, n int64 }

// worthHoles is how much of a file must be missing for it to be written as a
// sparse one: less is not worth what older programs make of it.
const worthHoles = 256 << 10

// extents finds the data of a file with holes.
func extents(fd int, st *unix.Stat_t) (data []extent, holes bool) {
	if st.Size-st.Blocks*512 < worthHoles {
		return nil, false
	}
	for at := int64(0); at < st.Size; {
		begin, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return nil, false
		}
		end, err := unix.Seek(fd, begin, unix.SEEK_HOLE)
		if err != nil {
			return nil, false
		}
		end = min(end, st.Size)
		if begin >= end {
			break
		}
		data = append(data, extent{begin, end - begin})
		at = end
	}
	total := int64(0)
	for _, e := range data {
		total += e.n
	}
	return data, st.Size-total >= worthHoles
}

// sparse writes a file with holes in the form that GNU tar calls PAX 1.0: the
// list of what is data stands before the data ("Sparse Formats" in its
// manual). archive/tar reads but does not write it.
func (a *Archiver) sparse(fd int, h *tar.Header, data []extent) error {
	if n := len(data); n == 0 || data[n-1].at+data[n-1].n < h.Size {
		data = append(data, extent{h.Size, 0}) // where the file ends
	}
	var list bytes.Buffer
	fmt.Fprintf(&list, "%d\n", len(data))
	stored := int64(0)
	for _, e := range data {
		fmt.Fprintf(&list, "%d\n%d\n", e.at, e.n)
		stored += e.n
	}
	list.Write(make([]byte, padding(int64(list.Len()))))
	stored += int64(list.Len())
	w := a.w
	var err error
	if a.Pipe {
		w, err = a.tw, a.ownSparseHeader(h, stored)
	} else {
		err = errors.Join(a.tw.Flush(), a.sparseHeader(h, stored))
	}
	if err != nil {
		return err
	}
	if _, err := w.Write(list.Bytes()); err != nil {
		return err
	}
	for _, e := range data {
		if err := a.content(w, fd, e, h.Name); err != nil {
			return err
		}
	}
	if a.Pipe {
		return nil
	}
	_, err = w.Write(make([]byte, padding(stored)))
	return err
}

// ownSparse is the size of a sparse file in an archive for Extract. archive/tar
// would read all the zeros of GNU's form.
const ownSparse = "RBOX.sparse.size"

func (a *Archiver) ownSparseHeader(h *tar.Header, stored int64) error {
	if h.PAXRecords == nil {
		h.PAXRecords = map[string]string{}
	}
	h.PAXRecords[ownSparse] = strconv.FormatInt(h.Size, 10)
	h.Size = stored
	return a.put(h)
}

const tarBlock = 512

// padding is what follows n bytes up to the next block.
func padding(n int64) int { return int(-n & (tarBlock - 1)) }

func (a *Archiver) sparseHeader(h *tar.Header, stored int64) error {
	records := map[string]string{
		"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": h.Name,
		"GNU.sparse.realsize": strconv.FormatInt(h.Size, 10),
		"size":                strconv.FormatInt(stored, 10),
		"uid":                 strconv.Itoa(h.Uid), "gid": strconv.Itoa(h.Gid),
		"mtime": fmt.Sprintf("%d.%09d", h.ModTime.Unix(), h.ModTime.Nanosecond()),
	}
	if h.ModTime.Unix() < 0 {
		records["mtime"] = strconv.FormatInt(h.ModTime.Unix(), 10)
	}
	for key, value := range h.PAXRecords {
		records[key] = value
	}
	a.Files++
	var pax bytes.Buffer
	for _, key := range slices.Sorted(maps.Keys(records)) {
		pax.WriteString(paxRecord(key, records[key]))
	}
	size := int64(pax.Len())
	pax.Write(make([]byte, padding(size)))
	for _, b := range [][]byte{ustarBlock("PaxHeaders.0/sparse", 'x', size, 0o644), pax.Bytes(), ustarBlock("GNUSparseFile.0/sparse", '0', stored, h.Mode)} {
		if _, err := a.w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// paxRecord is "length key=value\n", where the length counts itself (pax(1)).
func paxRecord(key, value string) string {
	for n := len(key) + len(value) + 3; ; n++ {
		if record := fmt.Sprintf("%d %s=%s\n", n, key, value); len(record) == n {
			return record
		}
	}
}

// ustarBlock is a header of the old form: what it cannot say, the records
// before it do.
func ustarBlock(name string, kind byte, size, mode int64) []byte {
	b := make([]byte, tarBlock)
	octal := func(at, width int, v int64) { copy(b[at:], fmt.Sprintf("%0*o", width-1, v)) }
	copy(b, name)
	octal(100, 8, mode)
	octal(108, 8, 0)
	octal(116, 8, 0)
	octal(124, 12, min(size, 1<<33-1))
	octal(136, 12, 0)
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	copy(b[148:], "        ")
	sum := int64(0)
	for _, c := range b {
		sum += int64(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// Whiteout writes the mark that lower layers' name is deleted.
func (a *Archiver) Whiteout(name string) error {
	dir, base := path.Split(name)
	return a.put(&tar.Header{Typeflag: tar.TypeReg, Name: dir + whiteoutPrefix + base, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

// Opaque writes the mark that what lower layers have in the directory name is deleted.
func (a *Archiver) Opaque(name string) error {
	return a.put(&tar.Header{Typeflag: tar.TypeReg, Name: join(name, opaqueMark), Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

// fdName names an open file for system calls that take only a path.
func fdName(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
