// Package store keeps images on disk, as files without a database:
//
//	blobs/sha256/<hex>         manifests, configurations and packed layers
//	blobs/partial/             downloads under way, or to be resumed
//	images/<hex>/record.json   what an image consists of; <hex> is its id's
//	images/<hex>/lock          held shared by whoever runs the image
//	refs/<name>                one file per tag: the image it stands for
//	layers/<key>/<hex>/diff    a layer unpacked for the id mapping key; <hex> is its diff id's
//	layers/<key>/<hex>/layer.json
//	layers/<key>/<hex>/lock    of who unpacked it; older than all its files
//	lock                       held shared while content is added, exclusively to delete what no image uses
//	index.lock                 held for a change of images/ and refs/
//
// Each file comes into being complete, by renaming; a directory of layers/ too.
// A record is written after everything it names is on disk. So whatever
// process is killed when, an image is either whole or absent. Locks are
// flock(2)'s: the kernel drops them with the process.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
	"rbox/rootfs/layer"
)

// Options says how a store is used.
type Options struct {
	// LayerRoot says where unpacked layers lie, if not in layers/ of the store:
	// then it returns "". It is asked when that is first of importance, and may
	// be nil.
	LayerRoot func() string
	// LayerRoots lists where on this host layers may lie besides, to be deleted
	// there too when no image needs them; it may be nil.
	LayerRoots func() []string
	Warn       func(string) // told of what did not stop the work; may be nil
}

// A Store is one directory of images, which many processes use at a time.
type Store struct {
	root       string
	layerRoot  func() string // asked once
	layerRoots func() []string
	warn       func(string)
}

// Open returns the store at root. It touches nothing: directories are made
// when something is first kept.
func Open(root string, o Options) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s := &Store{root: root, layerRoot: func() string { return "" }, layerRoots: o.LayerRoots, warn: o.Warn}
	if o.LayerRoot != nil {
		s.layerRoot = sync.OnceValue(o.LayerRoot)
	}
	if s.warn == nil {
		s.warn = func(string) {}
	}
	return s, nil
}

// ownLayers is where unpacked layers lie unless they are told to elsewhere.
func (s *Store) ownLayers() string { return filepath.Join(s.root, "layers") }

// layers is where unpacked layers lie.
func (s *Store) layers() string {
	if dir := s.layerRoot(); dir != "" {
		return dir
	}
	return s.ownLayers()
}

// A Mapping says whose the files of unpacked layers are.
type Mapping struct {
	Key        string          // names the mapping among others on this file system
	UIDs, GIDs []layer.IDRange // image's ids → ids of the namespace that unpacks; none leaves them as they are
	Single     bool            // there is but one id
}

// noticeUnmapped tells of files whose owners have no id here.
func (s *Store) noticeUnmapped(what string, n int64) {
	if n > 0 {
		s.warn(fmt.Sprintf("%s: %d files belong to ids that have no place here: they are root's instead (rbox doctor)", what, n))
	}
}

// An Unpacker does, as root of the user namespace that owns the files of
// layers, what the user alone may not.
type Unpacker interface {
	// Unpack is layer.Apply. Once it returns, it reads blob no more.
	Unpack(ctx context.Context, dst string, blob io.Reader, o layer.Options) (layer.Result, error)
	// Remove is layer.Remove of each of dirs.
	Remove(ctx context.Context, dirs ...string) error
}

// ErrUnpackerDied is what an Unpacker's error wraps if its process was killed:
// that is nobody's fault who made the layer.
var ErrUnpackerDied = errors.New("the process that unpacks layers was killed")

// Unpacking says how images that come into the store are unpacked.
type Unpacking struct {
	Mapping  Mapping
	Unpacker Unpacker
	MaxBytes int64 // of one unpacked layer; 0 is layer.DefaultMaxBytes
}

func (u Unpacking) options() layer.Options {
	return layer.Options{UIDs: u.Mapping.UIDs, GIDs: u.Mapping.GIDs, Single: u.Mapping.Single, MaxBytes: u.MaxBytes}
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

func (s *Store) blobPath(d image.Digest) string {
	return s.path("blobs", d.Algorithm(), d.Hex())
}

func (s *Store) imagePath(id image.Digest, file string) string {
	return s.path("images", id.Hex(), file)
}

// prepare makes the directories of the store.
func (s *Store) prepare() error {
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return diskError(s.root, err)
	}
	for _, dir := range []string{
		s.path("blobs", "sha256"), s.path("blobs", "partial"), s.path("refs"), s.path("images"), s.layers(),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return diskError(dir, err)
		}
	}
	return nil
}

// adding takes the lock under which content is added: nothing is collected as
// garbage before release.
func (s *Store) adding(ctx context.Context) (release func(), err error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	f, err := lockFile(ctx, s.path("lock"), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	s.cleanPartial()
	return func() { f.Close() }, nil
}

// NotFoundError reports an image that is not in the store.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("%s: no such image here", e.Name) }

// Hint is what the user can do.
func (e *NotFoundError) Hint() string {
	if _, err := image.ParseReference(e.Name); err != nil {
		return "rbox images lists what is here"
	}
	return "rbox pull " + e.Name
}

// AmbiguousError reports the beginning of an id that several images share.
type AmbiguousError struct {
	Prefix string
	IDs    []image.Digest
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s: %d images have an id that starts so", e.Prefix, len(e.IDs))
}

// Hint is what the user can do.
func (e *AmbiguousError) Hint() string {
	return "give more digits: rbox images --no-trunc shows them all"
}

// A DiskError reports a file that cannot be written.
type DiskError struct {
	Path string
	Err  error
}

func (e *DiskError) Error() string {
	if isFull(e.Err) {
		return "the disk is full: " + e.Path
	}
	return e.Path + ": " + bare(e.Err).Error()
}

func (e *DiskError) Unwrap() error { return e.Err }

// Hint is what the user can do.
func (e *DiskError) Hint() string {
	switch {
	case errors.Is(e.Err, unix.EDQUOT):
		return "your quota is used up: delete images (rbox rmi), or set RBOX_ROOT (or RBOX_LAYERS, for unpacked layers alone) to a directory on another disk"
	case isFull(e.Err):
		return "delete images (rbox rmi), or set RBOX_ROOT (or RBOX_LAYERS, for unpacked layers alone) to a directory on a larger disk"
	}
	return "set RBOX_ROOT to a directory on a local disk that you can write to"
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// bare returns err without the path that package os adds: it is named already.
func bare(err error) error {
	path, link := (*fs.PathError)(nil), (*os.LinkError)(nil)
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// diskError gives err its object and, where the user can do something about
// it, a hint.
func diskError(path string, err error) error {
	if err == nil {
		return nil
	}
	if known := (*DiskError)(nil); errors.As(err, &known) {
		return err
	}
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EACCES, unix.EPERM} {
		if errors.Is(err, errno) {
			return &DiskError{Path: path, Err: err}
		}
	}
	return err
}
