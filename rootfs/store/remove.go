package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
)

// Tag makes name stand for the image m, and for no other any more.
func (s *Store) Tag(ctx context.Context, m *Image, name image.Reference) error {
	if name.Digest != "" {
		return fmt.Errorf("tag %s: a digest names what it is the digest of, and nothing else", name.Familiar())
	}
	lock, err := s.indexLock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := s.readRecord(m.ID); err != nil {
		return &NotFoundError{Name: m.ID.Short()}
	}
	r := Ref{Name: name.String(), ID: m.ID}
	for _, known := range m.Refs { // the registry's digest holds for its own name only
		if known.Reference().Name() == name.Name() {
			r.Digest = known.Digest
		}
	}
	return s.writeRef(r)
}

// RemoveOptions says how Remove works.
type RemoveOptions struct {
	// Force removes all names of an image that is named by its id, and the
	// names of one that containers use, which stays without a name.
	Force bool
	// AllNames removes all names of an image that is named by its id, but of one
	// that containers use none.
	AllNames bool
	Unpacker Unpacker
	// UsedBy names a container that needs the image and says whether it runs;
	// the name is empty if none does. It may be nil.
	UsedBy func(id image.Digest) (container string, running bool)
}

// A Removed is what Remove did.
type Removed struct {
	Untagged []Ref
	Deleted  []image.Digest // images
}

// An InUseError reports an image that cannot be deleted.
type InUseError struct {
	What, Why string
	hint      string
}

func (e *InUseError) Error() string { return e.What + " - " + e.Why }

// Hint is what the user can do.
func (e *InUseError) Hint() string { return e.hint }

// Remove takes name off its image, and deletes an image that has no name left
// with all that no other uses. Named by its id, the image loses all its names
// if they are of one repository, or with o.Force.
func (s *Store) Remove(ctx context.Context, name string, o RemoveOptions) (*Removed, error) {
	removed, err := s.untag(ctx, name, o)
	if err != nil {
		return removed, err
	}
	if len(removed.Deleted) > 0 {
		return removed, s.GC(ctx, o.Unpacker)
	}
	return removed, nil
}

// untag is Remove without the collection of garbage.
func (s *Store) untag(ctx context.Context, name string, o RemoveOptions) (*Removed, error) {
	if _, err := s.Lookup(name); err != nil { // before there is anything to lock
		return nil, err
	}
	lock, err := s.indexLock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	m, err := s.Lookup(name)
	if err != nil {
		return nil, err
	}
	byName := len(m.Refs) > 0
	going := m.Refs
	all, err := s.Inspect(string(m.ID))
	if err != nil {
		return nil, err
	}
	if !byName {
		going = all.Refs
		if !o.Force && !o.AllNames && len(repositories(going)) > 1 {
			return nil, &InUseError{
				What: "unable to delete " + m.ID.Short() + " (must be forced)", Why: "image is referenced in multiple repositories",
				hint: "remove its names, or all with rbox rmi -f " + name,
			}
		}
	}
	return s.removeRefs(m, going, len(all.Refs) == len(going), o)
}

func repositories(refs []Ref) map[string]bool {
	set := map[string]bool{}
	for _, r := range refs {
		set[r.Reference().Name()] = true
	}
	return set
}

// removeRefs takes going off m, and deletes m if these are the last. The
// caller holds the index's lock.
func (s *Store) removeRefs(m *Image, going []Ref, last bool, o RemoveOptions) (*Removed, error) {
	removed := &Removed{}
	var hold *os.File
	if last {
		var err error
		hold, err = s.unused(m, o)
		if err != nil && (!o.Force || len(going) == 0) {
			return nil, err
		}
		if hold != nil {
			defer hold.Close()
		}
	}
	for _, r := range going {
		if err := os.Remove(s.refFile(r.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, diskError(s.refFile(r.Name), err)
		}
		removed.Untagged = append(removed.Untagged, r)
	}
	if hold == nil {
		return removed, nil
	}
	if err := s.deleteRecord(m.ID, hold); err != nil {
		return removed, err
	}
	removed.Deleted = append(removed.Deleted, m.ID)
	return removed, nil
}

// unused returns the lock of m, held for deleting it, or an *InUseError.
func (s *Store) unused(m *Image, o RemoveOptions) (*os.File, error) {
	if o.UsedBy != nil {
		if container, running := o.UsedBy(m.ID); container != "" {
			return nil, inUse(m, container, running)
		}
	}
	hold, err := lockFile(context.Background(), s.imagePath(m.ID, "lock"), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return nil, inUse(m, "", true)
	}
	return hold, err
}

// inUse says in Docker's words that a container needs m, which was named by
// its id or by one of its names.
func inUse(m *Image, container string, running bool) error {
	e := &InUseError{hint: "rbox rm " + container}
	which := "container " + container
	if container == "" { // it is about to start, or belongs to another host
		which, e.hint = "a running container", "stop the container first"
	} else if running {
		e.hint = "rbox rm -f " + container
	}
	if len(m.Refs) > 0 {
		e.What = fmt.Sprintf("unable to remove repository reference %q (must force)", m.Refs[0].Reference().Familiar())
		e.Why = fmt.Sprintf("%s is using its referenced image %s", which, m.ID.Short())
		return e
	}
	e.What = fmt.Sprintf("unable to delete %s (must be forced)", m.ID.Short())
	e.Why = "image is being used by stopped " + which
	if running {
		e.What = fmt.Sprintf("unable to delete %s (cannot be forced)", m.ID.Short())
		e.Why = "image is being used by running " + strings.TrimPrefix(which, "a running ")
	}
	return e
}

// deleteRecord deletes the image's folder: first, and at once, its name. hold is
// its lock, or nil: network file systems keep a file that is open, and its
// directory, under another name.
func (s *Store) deleteRecord(id image.Digest, hold *os.File) error {
	dir, gone := s.path("images", id.Hex()), tempName(s.path("images", id.Hex()))
	if err := os.Rename(dir, gone); err != nil {
		return diskError(dir, err)
	}
	if hold != nil {
		os.Remove(filepath.Join(gone, "lock"))
		hold.Close()
	}
	return os.RemoveAll(gone)
}

// GC deletes blobs and unpacked layers that no image uses. While another
// process adds an image it does nothing: the next will.
func (s *Store) GC(ctx context.Context, u Unpacker) error {
	lock, err := lockFile(ctx, s.path("lock"), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	used, err := s.used()
	if err != nil {
		return err
	}
	if err := s.sweepBlobs(used); err != nil {
		return err
	}
	return s.sweepLayers(ctx, used, u)
}

// used returns the digests that images need. A record that cannot be read
// stops the collection: what it needs is not known.
func (s *Store) used() (map[image.Digest]bool, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	used := map[image.Digest]bool{}
	for _, id := range ids {
		m, err := s.readRecord(id)
		if err != nil {
			return nil, err
		}
		used[m.ID], used[m.ManifestDigest] = true, true
		for _, l := range m.Layers {
			used[l.Digest], used[l.DiffID] = true, true
		}
	}
	return used, nil
}

func (s *Store) sweepBlobs(used map[image.Digest]bool) error {
	for _, algorithm := range []string{"sha256", "sha512"} {
		entries, err := os.ReadDir(s.path("blobs", algorithm))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if used[image.Digest(algorithm+":"+e.Name())] {
				continue
			}
			path := s.path("blobs", algorithm, e.Name())
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return diskError(path, err)
			}
		}
	}
	return nil
}

// sweepLayers deletes the layers that are not among used, wherever this host
// may have unpacked some.
func (s *Store) sweepLayers(ctx context.Context, used map[image.Digest]bool, u Unpacker) error {
	roots := []string{s.ownLayers(), s.layers()}
	if s.layerRoots != nil {
		roots = append(roots, s.layerRoots()...)
	}
	slices.Sort(roots)
	var doomed []string
	for _, root := range slices.Compact(roots) {
		gone, err := doomLayers(root, used)
		doomed = append(doomed, gone...)
		if err != nil {
			return err
		}
	}
	if len(doomed) == 0 {
		return nil
	}
	return u.Remove(ctx, doomed...)
}

// doomLayers gives the layers in root that are not among used names that tell
// their fate, and returns these.
func doomLayers(root string, used map[image.Digest]bool) (doomed []string, err error) {
	keys, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, key := range keys {
		entries, err := os.ReadDir(filepath.Join(root, key.Name()))
		if err != nil {
			return doomed, err
		}
		for _, e := range entries {
			path := filepath.Join(root, key.Name(), e.Name())
			digits, isLock := strings.CutSuffix(e.Name(), ".lock")
			if used[image.Digest("sha256:"+digits)] {
				continue
			}
			if isLock {
				os.Remove(path)
				continue
			}
			// Renamed first: half a layer must not pass for a whole one.
			gone := tempName(path)
			if strings.HasPrefix(e.Name(), tempPrefix) {
				gone = path
			} else if err := os.Rename(path, gone); err != nil {
				return doomed, diskError(path, err)
			}
			doomed = append(doomed, gone)
		}
	}
	slices.Sort(doomed)
	return doomed, nil
}
