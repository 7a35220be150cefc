package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
	"rbox/rootfs/layer"
	"rbox/userns/wire"
)

// layerWorkers is how many layers of one image are worked on at a time.
const layerWorkers = 3

// A layerRecord is layer.json, which lies next to the unpacked layer.
type layerRecord struct {
	DiffID     image.Digest
	Bytes      int64 // in its files
	Plain      int64 // bytes of the plain archive
	OpaqueRoot bool  // it hides the layers below

	// A layer is not flushed to the disk when it is unpacked, which would take
	// longer than the unpacking. So the machine that did it believes in it
	// until its next boot, and then makes it again, flushed, from its blob.
	Synced bool
	Boot   string // random boot id, of the kernel
	Host   string // machine id and host name

	Unmapped int64 `json:",omitempty"` // files whose owner had no id
}

// keyPath returns where layers unpacked for m lie.
func (s *Store) keyPath(m Mapping, elem ...string) string {
	return filepath.Join(append([]string{s.layers(), m.Key}, elem...)...)
}

// readyLayer returns the record of an unpacked layer, or nil if there is none to rely on.
func (s *Store) readyLayer(m Mapping, id image.Digest, here *machine) *layerRecord {
	dir := s.layers() + "/" + m.Key + "/" + id.Hex()
	data, err := readSmall(dir + "/layer.json")
	if err != nil {
		return nil
	}
	// Temporary directories are cleaned of what nobody used for long, file by
	// file. The layer's lock is older than the rest, and nobody uses it.
	if s.layerRoot() != "" && unix.Access(dir+"/lock", unix.F_OK) != nil {
		return nil
	}
	r := &layerRecord{}
	if wire.ReadJSON(data, r) != nil || r.DiffID != id {
		return nil
	}
	if !r.Synced && r.Boot != here.boot() && r.Host == here.name() {
		return nil
	}
	return r
}

// A machine reads at most once what names this one and its boot.
type machine struct{ bootID, hostName string }

func (m *machine) boot() string {
	if m.bootID == "" {
		b, _ := readSmall("/proc/sys/kernel/random/boot_id")
		m.bootID = strings.TrimSpace(string(b))
	}
	return m.bootID
}

func (m *machine) name() string {
	if m.hostName == "" {
		id, _ := readSmall("/etc/machine-id")
		host, _ := os.Hostname()
		m.hostName = strings.TrimSpace(string(id)) + " " + host
	}
	return m.hostName
}

// A Hold keeps an image from being deleted while it is used.
type Hold struct {
	// File carries the lock: it can be handed on to another process, which
	// keeps it for as long as it has the file open.
	File *os.File
}

// Release ends the hold of this process.
func (h *Hold) Release() { h.File.Close() }

// ErrNotUnpacked says that layers are to be unpacked first, and by whom was not said.
var ErrNotUnpacked = errors.New("the image's layers are not unpacked here")

// Layers returns the directories of m's layers, unpacked for mapping, the
// lowest first; a layer that hides all below it is the first. What is not
// unpacked yet, or lost in a power cut, is unpacked from its blob: only that
// needs u.Unpacker. The hold must be released when the directories are not
// used any more.
func (s *Store) Layers(ctx context.Context, m *Image, u Unpacking) (dirs []string, hold *Hold, err error) {
	hold, err = s.holdImage(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	dirs, missing := s.layerDirs(m, u.Mapping)
	if len(missing) > 0 {
		if u.Unpacker == nil {
			hold.Release()
			return nil, nil, ErrNotUnpacked
		}
		if err := s.rebuild(ctx, missing, u); err != nil {
			hold.Release()
			return nil, nil, err
		}
		if dirs, missing = s.layerDirs(m, u.Mapping); len(missing) > 0 {
			hold.Release()
			return nil, nil, fmt.Errorf("layer %s of %s vanished", missing[0].DiffID.Short(), m.ID.Short())
		}
	}
	return dirs, hold, nil
}

// holdImage takes the shared lock of m.
func (s *Store) holdImage(ctx context.Context, m *Image) (*Hold, error) {
	path := s.imagePath(m.ID, "lock")
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil, &NotFoundError{Name: m.ID.Short()} // deleted since it was looked up
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if err := flock(ctx, f, unix.LOCK_SH); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err == nil && st.Nlink == 0 {
		f.Close()
		return nil, &NotFoundError{Name: m.ID.Short()}
	}
	return &Hold{File: f}, nil
}

// layerDirs returns where m's layers lie, and which of them are not there.
func (s *Store) layerDirs(m *Image, mapping Mapping) (dirs []string, missing []Layer) {
	here := &machine{}
	seen := map[image.Digest]bool{}
	for _, l := range m.Layers {
		r := s.readyLayer(mapping, l.DiffID, here)
		if r == nil {
			if !seen[l.DiffID] {
				missing = append(missing, l)
			}
			seen[l.DiffID] = true
			continue
		}
		if r.OpaqueRoot {
			dirs = dirs[:0]
		}
		dirs = append(dirs, s.layers()+"/"+mapping.Key+"/"+l.DiffID.Hex()+"/diff")
	}
	return dirs, missing
}

// rebuild unpacks layers from their blobs, a few at a time.
func (s *Store) rebuild(ctx context.Context, layers []Layer, u Unpacking) error {
	release, err := s.adding(ctx)
	if err != nil {
		return err
	}
	defer release()
	return each(ctx, len(layers), func(ctx context.Context, i int) error {
		_, err := s.ensureLayer(ctx, layers[i], u)
		return err
	})
}

// ensureLayer unpacks l from its blob unless that is done.
func (s *Store) ensureLayer(ctx context.Context, l Layer, u Unpacking) (*layerRecord, error) {
	lock, err := s.lockLayer(ctx, u.Mapping, l.DiffID)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if r := s.readyLayer(u.Mapping, l.DiffID, &machine{}); r != nil {
		return r, nil
	}
	return s.unpackBlob(ctx, l.Digest, l.DiffID, u, true)
}

// lockLayer takes the lock under which the layer is unpacked for m.
func (s *Store) lockLayer(ctx context.Context, m Mapping, id image.Digest) (*os.File, error) {
	dir := s.keyPath(m)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diskError(dir, err)
	}
	return lockFile(ctx, s.keyPath(m, id.Hex()+".lock"), unix.LOCK_EX)
}

// A MissingBlobError reports a layer that is neither unpacked nor packed here.
type MissingBlobError struct{ Layer image.Digest }

func (e *MissingBlobError) Error() string {
	return fmt.Sprintf("layer %s is neither unpacked here nor can it be: its archive is gone", e.Layer.Short())
}

// Hint is what the user can do.
func (e *MissingBlobError) Hint() string { return "pull or load the image again" }

// unpackBlob unpacks the layer from its blob, which is here. The caller holds the layer's lock.
func (s *Store) unpackBlob(ctx context.Context, blob, id image.Digest, u Unpacking, sync bool) (*layerRecord, error) {
	f, err := os.Open(s.blobPath(blob))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingBlobError{Layer: id}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o := u.options()
	o.Sync = sync
	b, err := s.build(ctx, f, u, o)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", id.Short(), err)
	}
	return s.finish(ctx, b, id, u)
}

// A built is a layer unpacked into a temporary directory.
type built struct {
	dir  string   // holds diff
	lock *os.File // says that it is alive
	res  layer.Result
	sync bool
}

// build unpacks blob into a new directory. What is left of it after an error is removed.
func (s *Store) build(ctx context.Context, blob io.Reader, u Unpacking, o layer.Options) (*built, error) {
	b, err := s.newBuild(ctx, u)
	if err != nil {
		return nil, err
	}
	diff := filepath.Join(b.dir, "diff")
	b.sync = o.Sync
	if err = os.Mkdir(diff, 0o700); err == nil {
		b.res, err = u.Unpacker.Unpack(ctx, diff, blob, o)
	}
	if err != nil {
		s.drop(b, u)
		return nil, diskError(diff, err)
	}
	return b, nil
}

func (s *Store) newBuild(ctx context.Context, u Unpacking) (*built, error) {
	for {
		dir := s.keyPath(u.Mapping, tempPrefix+random())
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, diskError(dir, err)
		}
		lock, err := lockFile(ctx, filepath.Join(dir, "lock"), unix.LOCK_EX)
		if err == nil {
			return &built{dir: dir, lock: lock}, nil
		}
		os.RemoveAll(dir)
		if !errors.Is(err, fs.ErrNotExist) { // else cleanBuilds came before the lock
			return nil, err
		}
	}
}

// drop removes a build that came to nothing, even if the user has given up.
func (s *Store) drop(b *built, u Unpacking) {
	err := u.Unpacker.Remove(context.Background(), b.dir)
	b.lock.Close()
	if errors.Is(err, unix.ENOTEMPTY) { // network file systems keep what is open, as the lock was
		err = u.Unpacker.Remove(context.Background(), b.dir)
	}
	if err != nil {
		s.warn("a temporary directory stays behind: " + err.Error())
	}
}

// finish puts b in its place as the layer id, which it must be. The caller
// holds the layer's lock.
func (s *Store) finish(ctx context.Context, b *built, id image.Digest, u Unpacking) (*layerRecord, error) {
	if b.res.DiffID != id {
		s.drop(b, u)
		return nil, &image.DigestError{What: "layer " + id.Short() + ", unpacked", Want: id, Got: b.res.DiffID}
	}
	here := &machine{}
	r := &layerRecord{
		DiffID: id, Bytes: b.res.Bytes, Plain: b.res.Plain, OpaqueRoot: b.res.OpaqueRoot, Unmapped: b.res.Unmapped,
		Synced: b.sync, Boot: here.boot(), Host: here.name(),
	}
	err := s.place(ctx, b, r, u)
	if err != nil {
		s.drop(b, u)
		return nil, err
	}
	b.lock.Close()
	return r, nil
}

func (s *Store) place(ctx context.Context, b *built, r *layerRecord, u Unpacking) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	record := filepath.Join(b.dir, "layer.json")
	// Not flushed: a record that a power cut damages is as good as none.
	if err := os.WriteFile(record, append(data, '\n'), 0o600); err != nil {
		return diskError(record, err)
	}
	dir := s.keyPath(u.Mapping, r.DiffID.Hex())
	if _, err := os.Lstat(dir); err == nil { // of an earlier boot
		old := s.keyPath(u.Mapping, tempPrefix+random())
		if err := os.Rename(dir, old); err != nil {
			return diskError(dir, err)
		}
		if err := u.Unpacker.Remove(ctx, old); err != nil {
			return err
		}
	}
	if err := os.Rename(b.dir, dir); err != nil {
		return diskError(dir, err)
	}
	return nil
}

// cleanBuilds removes what killed processes left of unpacking for m.
func (s *Store) cleanBuilds(ctx context.Context, u Unpacking) {
	entries, _ := os.ReadDir(s.keyPath(u.Mapping))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		dir := s.keyPath(u.Mapping, e.Name())
		lock, err := lockFile(ctx, filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			continue
		}
		// Under another name, since whoever is about to lock it must not find it.
		gone := s.keyPath(u.Mapping, tempPrefix+random())
		if err = os.Rename(dir, gone); err == nil {
			err = u.Unpacker.Remove(ctx, gone)
		}
		if err != nil {
			s.warn("a temporary directory stays behind: " + err.Error())
		}
		lock.Close()
	}
}

// each calls f for 0 to n-1, a few at a time. The first error ends the others.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	done := make(chan struct{})
	workers := min(layerWorkers, n)
	for range workers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		}()
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	for range workers {
		<-done
	}
	return context.Cause(ctx)
}
