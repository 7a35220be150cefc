package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
)

// What a container writes lies in its folder or, where that file system does
// not take it, in a place (rootfs.MakePlace): PLACE/containers/ID. Then the
// folder has a link to it, made before it is, so that whatever removes the
// folder finds it.
const (
	elsewhere = "layer"      // the link
	inPlace   = "containers" // the directory of all in a place
)

// MakeWritable makes the directory for what the container writes, in place or,
// if that is "", in its folder. It returns where it is, and where it will be
// once the container is born.
func (f *Folder) MakeWritable(place string) (now, then string, err error) {
	if place == "" {
		return f.Unborn, f.Dir, nil
	}
	dir := filepath.Join(place, inPlace, f.id)
	if err := os.Symlink(dir, filepath.Join(f.Unborn, elsewhere)); err != nil {
		return "", "", err
	}
	if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", "", err
	}
	return dir, dir, os.Mkdir(dir, 0o700)
}

// writtenElsewhere is where the container in the folder dir writes, "" if in there.
func writtenElsewhere(dir string) string {
	to, err := os.Readlink(filepath.Join(dir, elsewhere))
	if err != nil || filepath.Base(filepath.Dir(to)) != inPlace {
		return ""
	}
	return to
}

// removeElsewhere deletes what the container in the folder dir wrote in a
// place. One that is gone, or another's now, is none of ours.
func removeElsewhere(dir string) error {
	to := writtenElsewhere(dir)
	if to == "" || rootfs.OwnPlace(filepath.Dir(filepath.Dir(to))) != nil {
		return nil
	}
	return os.RemoveAll(to)
}

// A WritingsLostError reports a container without what it wrote, which lay
// where nothing is kept for ever.
type WritingsLostError struct{ Name, Dir string }

func (e *WritingsLostError) Error() string {
	return fmt.Sprintf("container %s has lost its writable layer: %s is gone, by a reboot or a cleaner of temporary files", e.Name, e.Dir)
}

// Hint makes another, elsewhere.
func (e *WritingsLostError) Hint() string {
	return "rbox rm " + e.Name + ", and make it again; to keep such, export RBOX_LAYERS=/a/directory/on/a/local/disk first"
}

// CheckWritings returns *WritingsLostError if what the container wrote in a
// place is gone. dir is its folder.
func (c *Config) CheckWritings(dir, name string) error {
	root := &c.Plan.Root
	for _, path := range []string{root.Upper, root.Dir} {
		if path == "" || filepath.Base(filepath.Dir(path)) != c.ID || strings.HasPrefix(path, dir+"/") {
			continue
		}
		to := filepath.Dir(path)
		if writtenElsewhere(dir) != to {
			continue
		}
		if rootfs.OwnPlace(filepath.Dir(filepath.Dir(to))) != nil || unix.Access(path, unix.F_OK) != nil {
			return &WritingsLostError{name, path}
		}
	}
	return nil
}

// Written lists what containers wrote in place.
func (h *Home) Written(place string) (dirs []string) {
	entries, _ := os.ReadDir(filepath.Join(place, inPlace))
	for _, e := range entries {
		dirs = append(dirs, filepath.Join(place, inPlace, e.Name()))
	}
	return dirs
}

// Orphans lists what containers wrote in place that are no more.
func (h *Home) Orphans(place string) (dirs []string) {
	return slices.DeleteFunc(h.Written(place), func(dir string) bool { return h.remembers(filepath.Base(dir)) })
}

// remembers tells whether there is a folder of the container id, be it in the
// making or being removed; in the order of its life.
func (h *Home) remembers(id string) bool {
	for _, name := range []string{passing + "/" + unborn + id, kept + "/" + id, passing + "/" + id, passing + "/" + doomed + id} {
		if _, err := os.Lstat(filepath.Join(h.Dir, name)); err == nil {
			return true
		}
	}
	return false
}
