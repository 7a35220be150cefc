//go:build !front

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
)

// A Finding is something that is not as it should be.
type Finding struct {
	What string                          // in one line
	Mend func(ctx context.Context) error // nil if only the user can do something
	Hint string                          // what that is
	Idle bool                            // it harms nothing, and takes room alone
}

// Check looks for what is damaged or left over, and calls found for each. It
// reads every blob. Of unpacked layers it looks at those for u's mapping, where
// size returns the bytes of the files in a directory.
func (s *Store) Check(ctx context.Context, u Unpacking, size func(dir string) (int64, error), found func(Finding)) error {
	c := checker{Store: s, u: u, size: size, found: found, bad: map[image.Digest]bool{}, users: map[image.Digest][]*Image{}}
	for _, step := range []func(context.Context) error{c.leftovers, c.blobs, c.images, c.names, c.unpacked} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	*Store
	u     Unpacking
	size  func(dir string) (int64, error)
	found func(Finding)
	bad   map[image.Digest]bool     // blobs
	users map[image.Digest][]*Image // by diff ids of their layers
}

// leftovers are what killed processes left: nobody holds their locks.
func (c *checker) leftovers(context.Context) error {
	entries, _ := os.ReadDir(c.path("blobs", "partial"))
	for _, e := range entries {
		path := c.path("blobs", "partial", e.Name())
		if !unlocked(path) {
			continue
		}
		c.found(Finding{What: "a download that was not finished: " + path, Mend: func(context.Context) error {
			removeUnlocked(path)
			return nil
		}})
	}
	for _, dir := range []string{c.path("blobs", "sha256"), c.path("refs"), c.path("images")} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || !strings.HasPrefix(e.Name(), tempPrefix) || !isOld(info) {
				continue
			}
			path := filepath.Join(dir, e.Name())
			c.found(Finding{What: "a file that was not finished: " + path, Mend: func(context.Context) error { return os.RemoveAll(path) }})
		}
	}
	return nil
}

// unlocked tells whether nobody works on the file path.
func unlocked(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// blobs compares each with its name.
func (c *checker) blobs(ctx context.Context) error {
	for _, algorithm := range []string{"sha256", "sha512"} {
		entries, err := os.ReadDir(c.path("blobs", algorithm))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			d := image.Digest(algorithm + ":" + e.Name())
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if strings.HasPrefix(e.Name(), tempPrefix) {
				continue
			}
			err := d.Validate()
			if err == nil {
				err = c.checkBlob(d)
			}
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				continue
			}
			c.bad[d] = true
			path := c.path("blobs", algorithm, e.Name())
			c.found(Finding{What: "a blob that is not what its name says: " + path, Mend: func(context.Context) error { return os.Remove(path) }})
		}
	}
	return nil
}

// images looks at the records, and for the blobs that they name.
func (c *checker) images(context.Context) error {
	entries, err := os.ReadDir(c.path("images"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		id := image.Digest("sha256:" + e.Name())
		if strings.HasPrefix(e.Name(), tempPrefix) || id.Validate() != nil {
			continue
		}
		m, err := c.readRecord(id)
		if info, ierr := e.Info(); errors.Is(err, fs.ErrNotExist) && (ierr != nil || !isOld(info)) {
			continue // it is being made
		}
		if err == nil && m.ID == id {
			c.layers(m)
			continue
		}
		c.found(Finding{What: fmt.Sprintf("image %s has no readable record", id.Short()), Mend: func(ctx context.Context) error {
			return c.underIndexLock(ctx, func() error { return c.deleteRecord(id, nil) })
		}})
	}
	return nil
}

// layers looks for the blobs of m.
func (c *checker) layers(m *Image) {
	for _, l := range m.Layers {
		c.users[l.DiffID] = append(c.users[l.DiffID], m)
		if !c.bad[l.Digest] && c.hasBlob(l.Digest, l.Size) {
			continue
		}
		c.found(Finding{What: fmt.Sprintf("image %s lacks the archive of layer %s", m.ID.Short(), l.DiffID.Short()), Hint: "pull or load the image again"})
	}
}

func (c *checker) underIndexLock(ctx context.Context, do func() error) error {
	lock, err := c.indexLock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	return do()
}

// names looks for those that stand for no image.
func (c *checker) names(context.Context) error {
	entries, err := os.ReadDir(c.path("refs"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		path := c.path("refs", e.Name())
		if strings.HasPrefix(e.Name(), tempPrefix) || c.leads(path) {
			continue
		}
		c.found(Finding{What: "an image's name that points nowhere: " + path, Mend: func(ctx context.Context) error {
			return c.underIndexLock(ctx, func() error {
				if c.leads(path) {
					return nil
				}
				return os.Remove(path)
			})
		}})
	}
	return nil
}

// leads tells whether the file of a name leads to an image.
func (c *checker) leads(path string) bool {
	r, err := readRefFile(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	_, err = os.Lstat(c.imagePath(r.ID, "record.json"))
	return err == nil
}

// unpacked looks at the layers that are unpacked for the mapping.
func (c *checker) unpacked(ctx context.Context) error {
	entries, err := os.ReadDir(c.keyPath(c.u.Mapping))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		dir := c.keyPath(c.u.Mapping, e.Name())
		id := image.Digest("sha256:" + e.Name())
		switch {
		case strings.HasPrefix(e.Name(), tempPrefix):
			if unlocked(filepath.Join(dir, "lock")) {
				c.found(Finding{What: "an unpacking that was not finished: " + dir, Mend: func(ctx context.Context) error {
					c.cleanBuilds(ctx, c.u)
					return nil
				}})
			}
		case id.Validate() != nil: // a lock
		case len(c.users[id]) == 0:
			c.found(Finding{What: "a layer that no image has: " + dir, Mend: func(ctx context.Context) error { return c.GC(ctx, c.u.Unpacker) }})
		default:
			if err := c.oneLayer(ctx, id, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// oneLayer compares an unpacked layer with its record. One of an earlier boot is
// unpacked again before it is used, whatever has become of it.
func (c *checker) oneLayer(ctx context.Context, id image.Digest, dir string) error {
	why := "its record is damaged"
	here := &machine{}
	r := c.readyLayer(c.u.Mapping, id, here)
	if r == nil {
		data, err := readSmall(filepath.Join(dir, "layer.json"))
		var old layerRecord
		if err == nil && json.Unmarshal(data, &old) == nil && old.DiffID == id {
			return nil
		}
	} else {
		n, err := c.size(filepath.Join(dir, "diff"))
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err == nil && n == r.Bytes {
			return nil
		}
		why = fmt.Sprintf("it holds %d bytes instead of %d", n, r.Bytes)
		if err != nil {
			why = err.Error()
		}
	}
	c.found(Finding{What: fmt.Sprintf("unpacked layer %s is damaged: %s", id.Short(), why), Mend: func(ctx context.Context) error { return c.again(ctx, id, dir) }})
	return nil
}

// again unpacks a layer once more. No container may use it meanwhile.
func (c *checker) again(ctx context.Context, id image.Digest, dir string) error {
	for _, m := range c.users[id] {
		hold, err := c.unused(m, RemoveOptions{})
		if err != nil {
			return err
		}
		defer hold.Close()
	}
	release, err := c.adding(ctx)
	if err != nil {
		return err
	}
	defer release()
	lock, err := c.lockLayer(ctx, c.u.Mapping, id)
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, m := range c.users[id] {
		for _, l := range m.Layers {
			if l.DiffID == id && c.checkBlob(l.Digest) == nil {
				_, err := c.unpackBlob(ctx, l.Digest, id, c.u, true)
				return err
			}
		}
	}
	return &MissingBlobError{Layer: id}
}

// isOld tells of files that are too old for anyone to be working on.
func isOld(info fs.FileInfo) bool { return time.Since(info.ModTime()) > time.Minute }
