package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
	"rbox/userns/wire"
)

// An Image is one that the store has whole.
type Image struct {
	ID             image.Digest // of its configuration
	ManifestDigest image.Digest
	MediaType      string // of the manifest
	Config         image.Config
	Layers         []Layer   // lowest first
	Size           int64     // bytes of its files, unpacked
	Stored         time.Time // when it came here

	// Refs are its names: from Lookup, the one it was found by, if any; from
	// List and Inspect, all, in order.
	Refs []Ref `json:"-"`
}

// A Layer is one of an image's.
type Layer struct {
	DiffID    image.Digest // of the plain archive
	Digest    image.Digest // of the blob that holds it, packed or not
	Size      int64        // bytes of the blob
	MediaType string
	Unpacked  int64 // bytes of its files
	Plain     int64 // bytes of the plain archive
}

// A Ref is a name that stands for an image.
type Ref struct {
	Name   string       // canonical, with a tag or a digest
	ID     image.Digest // of the image
	Digest image.Digest // what the registry calls it: of the index if there is one; empty if it never had one
}

// Reference returns the name in its parts.
func (r Ref) Reference() image.Reference {
	ref, err := image.ParseReference(r.Name)
	if err != nil { // never: it was one when it was written
		return image.Reference{Repository: r.Name}
	}
	return ref
}

// Created is when the image was built, zero if it does not say.
func (m *Image) Created() time.Time {
	if m.Config.Created == nil {
		return time.Time{}
	}
	return *m.Config.Created
}

// refFile returns where the name lies: itself, with slashes escaped, or where
// that is too long for a file name its hash.
func (s *Store) refFile(name string) string {
	escaped := url.PathEscape(name)
	if len(escaped) > unix.NAME_MAX {
		escaped = "long-" + image.DigestOf([]byte(name)).Hex()
	}
	return s.path("refs", escaped)
}

// readRef returns what name stands for, or fs.ErrNotExist.
func (s *Store) readRef(name string) (Ref, error) { return readRefFile(s.refFile(name)) }

func readRefFile(path string) (Ref, error) {
	data, err := readSmall(path)
	if err != nil {
		return Ref{}, err
	}
	var r Ref
	if err := wire.ReadJSON(data, &r); err != nil {
		return Ref{}, fmt.Errorf("%s: %w", path, err)
	}
	if err := r.ID.Validate(); err != nil {
		return Ref{}, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// readRecord returns the image id, or fs.ErrNotExist.
func (s *Store) readRecord(id image.Digest) (*Image, error) {
	path := s.imagePath(id, "record.json")
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	m := &Image{}
	if err := wire.ReadJSON(data, m); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i, l := range m.Layers {
		if err := errors.Join(l.DiffID.Validate(), l.Digest.Validate()); err != nil {
			return nil, fmt.Errorf("%s: layer %d: %w", path, i+1, err)
		}
	}
	return m, nil
}

// Lookup finds an image by its name, name@digest, id, or the beginning of an
// id. One that is not here gives a *NotFoundError, several an *AmbiguousError.
func (s *Store) Lookup(name string) (*Image, error) {
	ref, parseErr := image.ParseReference(name)
	if parseErr == nil {
		m, err := s.byReference(ref)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return m, err
		}
	}
	m, err := s.byID(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	if parseErr != nil && !isHex(strings.TrimPrefix(name, "sha256:")) {
		return nil, parseErr
	}
	return nil, &NotFoundError{Name: name}
}

func (s *Store) byReference(ref image.Reference) (*Image, error) {
	if ref.Digest != "" {
		return s.byDigest(ref)
	}
	r, err := s.readRef(ref.String())
	if err != nil {
		return nil, err
	}
	return s.refImage(r)
}

func (s *Store) refImage(r Ref) (*Image, error) {
	m, err := s.readRecord(r.ID)
	if err != nil {
		return nil, err
	}
	m.Refs = []Ref{r}
	return m, nil
}

// byDigest finds the image that ref's repository has under ref's digest, be it
// the index's or the manifest's. A tag besides the digest is but a label.
func (s *Store) byDigest(ref image.Reference) (*Image, error) {
	if r, err := s.readRef(ref.WithDigest(ref.Digest).String()); err == nil {
		return s.refImage(r)
	}
	refs, err := s.refs()
	if err != nil {
		return nil, err
	}
	for _, r := range refs {
		if r.Reference().Name() != ref.Name() {
			continue
		}
		m, err := s.refImage(r)
		if err == nil && (r.Digest == ref.Digest || m.ManifestDigest == ref.Digest) {
			return m, nil
		}
	}
	return nil, fs.ErrNotExist
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

// byID finds an image by its id or the beginning of it.
func (s *Store) byID(prefix string) (*Image, error) {
	digits := strings.TrimPrefix(prefix, "sha256:")
	if !isHex(digits) || len(digits) > 64 {
		return nil, fs.ErrNotExist
	}
	if len(digits) == 64 {
		return s.readRecord(image.Digest("sha256:" + digits))
	}
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	ids = slices.DeleteFunc(ids, func(id image.Digest) bool { return !strings.HasPrefix(id.Hex(), digits) })
	switch len(ids) {
	case 0:
		return nil, fs.ErrNotExist
	case 1:
		return s.readRecord(ids[0])
	}
	return nil, &AmbiguousError{Prefix: prefix, IDs: ids}
}

// ids lists the images, in order.
func (s *Store) ids() ([]image.Digest, error) {
	entries, err := os.ReadDir(s.path("images"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ids []image.Digest
	for _, e := range entries {
		if id := image.Digest("sha256:" + e.Name()); id.Validate() == nil {
			if _, err := os.Lstat(s.imagePath(id, "record.json")); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}

// refs lists the names, in order.
func (s *Store) refs() ([]Ref, error) {
	entries, err := os.ReadDir(s.path("refs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var refs []Ref
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		r, err := readRefFile(s.path("refs", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.warn(err.Error())
			continue
		}
		refs = append(refs, r)
	}
	slices.SortFunc(refs, func(a, b Ref) int { return strings.Compare(a.Name, b.Name) })
	return refs, nil
}

// List returns all images with their names, the newest first. An image whose
// record is damaged is warned of and left out.
func (s *Store) List() ([]*Image, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	refs, err := s.refs()
	if err != nil {
		return nil, err
	}
	var list []*Image
	for _, id := range ids {
		m, err := s.readRecord(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.warn(err.Error())
			continue
		}
		for _, r := range refs {
			if r.ID == id {
				m.Refs = append(m.Refs, r)
			}
		}
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b *Image) int { return b.Created().Compare(a.Created()) })
	return list, nil
}

// Inspect is Lookup, with all of the image's names.
func (s *Store) Inspect(name string) (*Image, error) {
	m, err := s.Lookup(name)
	if err != nil {
		return nil, err
	}
	refs, err := s.refs()
	if err != nil {
		return nil, err
	}
	m.Refs = slices.DeleteFunc(refs, func(r Ref) bool { return r.ID != m.ID })
	return m, nil
}

// indexLock is held for each change of images/ and refs/.
func (s *Store) indexLock(ctx context.Context) (*os.File, error) {
	f, err := lockFile(ctx, s.path("index.lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	cleanTemp(s.path("refs"))
	s.cleanImages()
	return f, nil
}

// cleanImages deletes what killed processes left of recording and deleting
// images. The caller holds the index's lock, under which both are done.
func (s *Store) cleanImages() {
	entries, _ := os.ReadDir(s.path("images"))
	for _, e := range entries {
		dir := s.path("images", e.Name())
		if _, err := os.Lstat(filepath.Join(dir, "record.json")); errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(e.Name(), tempPrefix) {
			os.RemoveAll(dir)
		}
	}
}

// cleanTemp deletes temporary files in dir, whose lock we hold.
func cleanTemp(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

// commit writes the record of m, whose content is all there, and gives it name
// unless that is empty.
func (s *Store) commit(ctx context.Context, m *Image, name string, digest image.Digest) error {
	if err := s.syncBlobs(m); err != nil {
		return err
	}
	lock, err := s.indexLock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.writeRecord(m); err != nil {
		return err
	}
	if name == "" {
		return nil
	}
	r := Ref{Name: name, ID: m.ID, Digest: digest}
	m.Refs = []Ref{r}
	return s.writeRef(r)
}

// writeRecord keeps an older record of the image if its blobs, which may be
// packed otherwise, are all there: a container may be about to read them.
func (s *Store) writeRecord(m *Image) error {
	dir := s.imagePath(m.ID, "")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return diskError(dir, err)
	}
	cleanTemp(dir)
	if old, err := s.readRecord(m.ID); err == nil && s.hasBlobs(old) {
		*m = *old
		return nil
	}
	lock, err := os.OpenFile(s.imagePath(m.ID, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return diskError(dir, err)
	}
	lock.Close()
	return writeJSON(s.imagePath(m.ID, "record.json"), m)
}

func (s *Store) hasBlobs(m *Image) bool {
	if !s.hasBlob(m.ManifestDigest, -1) || !s.hasBlob(m.ID, -1) {
		return false
	}
	for _, l := range m.Layers {
		if !s.hasBlob(l.Digest, l.Size) {
			return false
		}
	}
	return true
}

func (s *Store) writeRef(r Ref) error {
	path := s.refFile(r.Name)
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if old, err := readSmall(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return writeFile(path, data)
}
