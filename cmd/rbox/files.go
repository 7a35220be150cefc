//go:build !front

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/rootfs"
	"rbox/rootfs/layer"
	"rbox/rootfs/volume"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// The files of containers are read and written by a second rbox process, under
// the name filesName, that is root of the outer user namespace: it may do what
// the container's root may. What lies outside of containers, rbox itself reads
// and writes, as the user. Archives go from one to the other: by the process's
// stdin and stdout. It finds its job as JSON at descriptor 3 and answers, one
// filesReply after the other, at descriptor 4.
const filesName = "rbox-files"

// A filesJob is what the process is asked to do.
type filesJob struct {
	Op   string // "get", "put", "export", "diff" or "commit"
	Name string // of the container, for messages

	Pid       int    // its first process, whose tree it is; 0: it does not run
	StartTime uint64 // of that process
	Root      stage.Root
	Binds     []rootfs.Mount // to be mounted on Root
	Scratch   string         // where
	ReadOnly  bool           // the container's root
	Unused    bool           // it never ran

	UIDs, GIDs []idmap.Mapping // the container's ids → ours
	Single     bool

	Path   rawText // in the container, as the user wrote it
	Follow bool    // get: what a link leads to
	Stream bool    // get: the archive is the user's, put: it was
	Owners bool    // put: keep them
	Source localSource

	Diff layer.DiffOptions // diff, commit
}

// A localSource is what put copies.
type localSource struct {
	Name rawText // "." for what is in a directory
	Dir  bool
}

// A filesReply is one answer. The last has Done set.
type filesReply struct {
	Notice  string       `json:",omitempty"`
	Ready   bool         `json:",omitempty"` // get: the archive follows; put: it may come
	Name    rawText      `json:",omitempty"` // get: of the archive's first entry; put: what that shall be
	Dir     bool         `json:",omitempty"` // get: it is a directory
	Changes []fileChange `json:",omitempty"` // diff
	Done    bool         `json:",omitempty"`
	Bytes   int64        `json:",omitempty"`
	Error   string       `json:",omitempty"`
	Hint    string       `json:",omitempty"`
}

// rawText is text that need not be UTF-8: JSON carries it as base64.
type rawText []byte

// A fileChange is a layer.Change on its way.
type fileChange struct {
	Kind byte
	Path rawText
}

// filesMain is the process. It returns its exit status.
func filesMain() int {
	runtime.LockOSThread() // what it starts dies with this thread
	unix.Umask(0)
	in, out := os.NewFile(3, "job"), os.NewFile(4, "answer")
	s := &filesServer{answer: json.NewEncoder(out)}
	err := json.NewDecoder(in).Decode(&s.filesJob)
	if err == nil {
		err = s.do(context.Background())
	}
	last := filesReply{Done: true, Bytes: s.bytes}
	if err != nil {
		last.Error = err.Error()
		var hinted interface{ Hint() string }
		if errors.As(err, &hinted) {
			last.Hint = hinted.Hint()
		}
	}
	s.answer.Encode(last)
	s.close()
	return 0
}

type filesServer struct {
	filesJob
	answer *json.Encoder
	tree   *rootfs.Tree
	fuse   *rootfs.FuseMount
	bytes  int64
}

func (s *filesServer) do(ctx context.Context) error {
	switch s.Op {
	case "diff", "commit":
		return s.changes(ctx)
	}
	if err := s.open(); err != nil {
		return err
	}
	switch s.Op {
	case "get":
		return s.get(ctx)
	case "put":
		return s.put(ctx)
	case "export":
		return s.export(ctx)
	}
	return fmt.Errorf("no such job: %q", s.Op)
}

func (s *filesServer) notice(text string) { s.answer.Encode(filesReply{Notice: text}) }

// close unmounts what does not vanish with the process.
func (s *filesServer) close() {
	if s.tree != nil {
		s.tree.Close()
	}
	if s.fuse != nil {
		s.fuse.Unmount()
	}
}

// open opens the container's tree.
func (s *filesServer) open() (err error) {
	at := s.Scratch
	if s.Pid != 0 {
		at = fmt.Sprintf("/proc/%d/root", s.Pid)
	} else if err := s.mount(); err != nil {
		return err
	}
	uid, gid := outsideID(s.UIDs, 0), outsideID(s.GIDs, 0)
	if s.tree, err = rootfs.OpenTree(at, int(uid), int(gid)); err != nil {
		if s.Pid != 0 && errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("container %s has just ended", s.Name)
		}
		return err
	}
	if s.Pid == 0 {
		s.bind()
		return nil
	}
	if err := s.readMaps(); err != nil {
		return err
	}
	s.tree.UID, s.tree.GID = int(outsideID(s.UIDs, 0)), int(outsideID(s.GIDs, 0))
	if !(container.State{Pid: s.Pid, StartTime: s.StartTime, BootID: container.BootID()}).Alive() {
		return fmt.Errorf("container %s has just ended", s.Name)
	}
	// It changes its tree under our hands: without openat2 it could lead us out.
	if _, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC}); err == unix.ENOSYS {
		return &adviceError{errors.New("the files of a running container take Linux 5.6 (openat2)"), "let it end first"}
	}
	return nil
}

// readMaps finds the ids that a running container has: they are granted anew
// at each start.
func (s *filesServer) readMaps() error {
	for file, maps := range map[string]*[]idmap.Mapping{"uid_map": &s.UIDs, "gid_map": &s.GIDs} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.Pid, file))
		if err != nil {
			return err
		}
		*maps = nil
		for line := range strings.Lines(string(text)) {
			var m idmap.Mapping
			if _, err := fmt.Sscan(line, &m.Inside, &m.Outside, &m.Count); err != nil {
				return fmt.Errorf("%s of process %d: %w", file, s.Pid, err)
			}
			*maps = append(*maps, m)
		}
	}
	return nil
}

// outsideID translates an id of the container; one it does not have is root's.
func outsideID(maps []idmap.Mapping, id uint32) uint32 {
	for _, m := range maps {
		if id >= m.Inside && id-m.Inside < m.Count {
			return m.Outside + (id - m.Inside)
		}
	}
	return 0
}

// mount mounts the root file system at Scratch. To read, it takes the writable
// layer as one more to look through: then it needs no lock.
func (s *filesServer) mount() error {
	r, write := &s.Root, s.Op == "put"
	lowers, upper, work := append(r.Lowers[:len(r.Lowers):len(r.Lowers)], r.Upper), "", ""
	if write {
		lowers, upper, work = r.Lowers, r.Upper, r.Work
	}
	switch r.Driver {
	case string(rootfs.Overlay):
		if !write {
			return rootfs.MountOverlayToRead(s.Scratch, lowers)
		}
		return rootfs.MountOverlay(s.Scratch, lowers, upper, work)
	case string(rootfs.Fuse):
		fuse, err := rootfs.MountFuse(s.Scratch, lowers, upper, work)
		s.fuse = fuse
		return err
	case "dir":
		if err := unix.Mount(r.Dir, s.Scratch, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return &os.PathError{Op: "mount", Path: r.Dir, Err: err}
		}
		if !write || r.ReadOnly {
			return rootfs.MakeReadOnly(s.Scratch)
		}
		return nil
	}
	return fmt.Errorf("no such storage driver: %q", r.Driver)
}

// bind mounts the binds as far as that is possible: a source may be gone, a
// mount point may never have been made.
func (s *filesServer) bind() {
	for _, m := range s.Binds {
		if s.Unused && m.Type == "volume" && !m.NoCopy {
			// As at the container's start, which would do it no more.
			if err := volume.Fill(s.tree, volume.FolderOf(m.Source), m.Target, true); err != nil {
				s.notice(err.Error())
			}
		}
		if err := s.tree.Mount(m); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EROFS) {
			s.notice(err.Error())
		}
	}
}

// ids are those of the container that our files have.
func (s *filesServer) ids(maps []idmap.Mapping) (ranges []layer.IDRange) {
	for _, m := range maps {
		ranges = append(ranges, layer.IDRange{From: m.Outside, To: m.Inside, Count: m.Count})
	}
	return ranges
}

// archiver writes to stdout.
func (s *filesServer) archiver(ctx context.Context) *layer.Archiver {
	return layer.NewArchiver(ctx, os.Stdout, layer.ArchiveOptions{
		UIDs: s.ids(s.UIDs), GIDs: s.ids(s.GIDs), Single: s.Single, Caps: true,
		OneMount: s.Op == "export", Pipe: s.Op == "get" && !s.Stream, Notice: s.notice,
	})
}

// export writes the whole tree.
func (s *filesServer) export(ctx context.Context) error {
	root, err := s.tree.Open("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	a := s.archiver(ctx)
	if err := a.Add(int(root.Fd()), ".", "."); err != nil {
		return err
	}
	return a.Close()
}

// changes tells what the container changed, or writes that as a layer.
func (s *filesServer) changes(ctx context.Context) error {
	dir := s.Root.Upper
	if s.Diff.Whole {
		dir = s.Root.Dir
	}
	c, err := layer.Diff(ctx, dir, s.Root.Lowers, s.Diff)
	if err != nil {
		return err
	}
	defer c.Close()
	if s.Op == "commit" {
		a := s.archiver(ctx)
		if err := c.Archive(a); err != nil {
			return err
		}
		return a.Close()
	}
	const chunk = 1000
	for list := range slices.Chunk(c.List(), chunk) {
		var r filesReply
		for _, change := range list {
			r.Changes = append(r.Changes, fileChange{change.Kind, rawText(change.Path)})
		}
		if err := s.answer.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// NotInContainerError reports a path that a container does not have.
type NotInContainerError struct{ Path, Container string }

func (e *NotInContainerError) Error() string {
	return fmt.Sprintf("could not find the file %s in container %s", e.Path, e.Container)
}

// get writes an archive of Path.
func (s *filesServer) get(ctx context.Context) error {
	as := string(s.Path)
	name := path.Clean("/" + as)
	flags := unix.O_PATH
	asserted := assertsDirectory(as)
	if !s.Follow && !asserted {
		flags |= unix.O_NOFOLLOW
	}
	f, err := s.tree.Open(name, flags, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return &NotInContainerError{as, s.Name}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if asserted && !st.IsDir() {
		return fmt.Errorf("%s in container %s: not a directory", as, s.Name)
	}
	if layer.IsKernels(int(f.Fd())) && st.Mode().IsRegular() {
		return fmt.Errorf("%s in container %s is no file but the kernel's answer, which cannot be copied", as, s.Name)
	}
	if st.Mode()&os.ModeSocket != 0 || st.Mode()&os.ModeDevice != 0 && !s.Stream {
		return fmt.Errorf("%s in container %s is a device or socket, which cannot be copied", as, s.Name)
	}
	first := path.Base(name)
	if name == "/" || strings.HasSuffix(as, "/.") || as == "." {
		first = "."
	}
	if err := s.answer.Encode(filesReply{Ready: true, Name: rawText(first), Dir: st.IsDir()}); err != nil {
		return err
	}
	a := s.archiver(ctx)
	if err := a.AddOpen(int(f.Fd()), first); err != nil {
		return err
	}
	s.bytes = a.Bytes
	return a.Close()
}

// put unpacks the archive of stdin.
func (s *filesServer) put(ctx context.Context) error {
	dst, err := s.destination()
	if err != nil {
		return err
	}
	var dir, name string
	if s.Stream {
		if !dst.dir {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", s.Name, s.Path)
		}
		dir = dst.path
	} else if dir, name, err = place(s.Source, dst); err != nil {
		return err
	}
	if err := s.writable(dir); err != nil {
		return err
	}
	if err := s.answer.Encode(filesReply{Ready: true, Name: rawText(name)}); err != nil {
		return err
	}
	in, _, err := layer.Decompress(os.Stdin)
	if err != nil {
		return err
	}
	defer in.Close()
	res, err := layer.Extract(ctx, containerTarget{s.tree, dir}, in, layer.ExtractOptions{
		UIDs: layerIDs(s.UIDs), GIDs: layerIDs(s.GIDs), Single: s.Single, Owners: s.Owners, Chown: true,
		UID: uint32(s.tree.UID), GID: uint32(s.tree.GID), Notice: s.notice,
	})
	s.bytes = res.Bytes
	if res.Unmapped > 0 {
		s.notice(fmt.Sprintf("%d files have owners without an id in the container: they are root's", res.Unmapped))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.EPIPE) {
		err = errors.New("the archive is cut off")
	}
	return err
}

// destination looks at what Path is. A link leads on, also to what is not there yet.
func (s *filesServer) destination() (destination, error) {
	d := destination{path: path.Clean("/" + string(s.Path)), asserted: assertsDirectory(string(s.Path))}
	const maxLinks = 40
	for range maxLinks {
		f, err := s.tree.Open(d.path, unix.O_PATH|unix.O_NOFOLLOW, 0)
		if errors.Is(err, unix.ENOENT) {
			return d, nil
		}
		if err != nil {
			return d, err
		}
		var st unix.Stat_t
		err = unix.Fstat(int(f.Fd()), &st)
		link := make([]byte, unix.PathMax)
		n := 0
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			n, err = unix.Readlinkat(int(f.Fd()), "", link)
		}
		f.Close()
		switch {
		case err != nil:
			return d, err
		case n > 0 && link[0] == '/':
			d.path = path.Clean(string(link[:n]))
			continue
		case n > 0:
			d.path = path.Join(path.Dir(d.path), string(link[:n]))
			continue
		}
		d.exists, d.dir = true, st.Mode&unix.S_IFMT == unix.S_IFDIR
		if !d.dir && st.Mode&unix.S_IFMT != unix.S_IFREG {
			return d, fmt.Errorf("destination \"%s:%s\" must be a directory or a regular file", s.Name, s.Path)
		}
		return d, nil
	}
	return d, &os.PathError{Op: "open", Path: string(s.Path), Err: unix.ELOOP}
}

// writable returns an error unless dir is a directory that can be written to.
func (s *filesServer) writable(dir string) error {
	f, err := s.tree.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		return &NotInContainerError{dir, s.Name}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var fsys unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fsys); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	here, root := device(int(f.Fd())), uint64(0)
	if r, err := s.tree.Open("/", unix.O_PATH, 0); err == nil {
		root = device(int(r.Fd()))
		r.Close()
	}
	switch onRoot := here == root; {
	case onRoot && (s.ReadOnly || s.Root.ReadOnly):
		return errors.New("container rootfs is marked read-only")
	case fsys.Flags&unix.ST_RDONLY != 0:
		return errors.New("mounted volume is marked read-only")
	}
	return nil
}

// device is the file system of the open file fd.
func device(fd int) uint64 {
	var st unix.Stat_t
	unix.Fstat(fd, &st)
	return uint64(st.Dev)
}

// A containerTarget is a directory of a container, whose links count in it.
type containerTarget struct {
	tree *rootfs.Tree
	dir  string
}

// Dir implements layer.Target.
func (t containerTarget) Dir(name string) (int, error) {
	full := path.Join(t.dir, name)
	f, err := t.tree.Open(full, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) && name != "." {
		if err := t.tree.MkdirAll(full); err != nil {
			return -1, err
		}
		f, err = t.tree.Open(full, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return -1, err
	}
	defer f.Close()
	return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 5)
}
