package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rbox/rootfs"
	"rbox/rootfs/volume"
)

// fillVolumes gives empty volumes what the image, mounted as t, has in their
// place, if the container whose folder is dir starts for the first time. notice
// is told what is lost.
func (c *Config) fillVolumes(t *rootfs.Tree, dir string, notice func(string)) error {
	isNew := func(mount rootfs.Mount) bool { return mount.Type == "volume" && !mount.NoCopy }
	if !slices.ContainsFunc(c.Plan.Mounts, isNew) {
		return nil
	}
	var s State
	if readJSON(dir, "state.json", &s) == nil && !s.Started.IsZero() {
		return nil
	}
	temporary := c.passingVolumes()
	for _, m := range c.Plan.Mounts {
		if !isNew(m) {
			continue
		}
		folder := volume.FolderOf(m.Source)
		err := volume.Fill(t, folder, m.Target, !slices.Contains(temporary, folder))
		if errors.As(err, new(*volume.OwnersLostError)) {
			notice(err.Error())
		} else if err != nil {
			return err
		}
	}
	return nil
}

// passingVolumes are those that end with the container.
func (c *Config) passingVolumes() []string {
	if !c.AutoRemove {
		return nil
	}
	return c.AnonymousVolumes()
}

// AnonymousVolumes are the folders of the volumes that were made for the container.
func (c *Config) AnonymousVolumes() (dirs []string) {
	for _, use := range c.Volumes {
		i := slices.IndexFunc(c.Plan.Mounts, func(m rootfs.Mount) bool { return m.Type == "volume" && m.Target == use.Target })
		if use.Anonymous && i >= 0 {
			dirs = append(dirs, volume.FolderOf(c.Plan.Mounts[i].Source))
		}
	}
	return dirs
}

// removeVolumes deletes the volumes that were made for the container and that
// no other below dir, the folder of all hosts' containers, uses. Like the
// monitor its caller is root of the outer user namespace.
func (c *Config) removeVolumes(dir string) error { return c.eachUnused(dir, volume.Remove) }

// doomVolumes has no command find those volumes any more; removeVolumes, which
// may take long, deletes them.
func (c *Config) doomVolumes(dir string) error { return c.eachUnused(dir, volume.Hide) }

// eachUnused calls f for the folders of those volumes.
func (c *Config) eachUnused(dir string, f func(folder string) error) error {
	dirs := c.AnonymousVolumes()
	if len(dirs) == 0 {
		return nil
	}
	users, err := VolumeUsers(dir)
	if err != nil {
		return err
	}
	for _, v := range dirs {
		if len(users[filepath.Base(v)]) == 0 {
			err = errors.Join(err, f(v))
		}
	}
	return err
}

// delete deletes the folder dir of what is no container yet, or none any more,
// and the volumes that nobody else knows of. It may close lock, the folder's.
func (h *Home) delete(dir string, lock *os.File) error {
	var c Config
	err := readJSON(dir, "config.json", &c)
	h.forgetDoomed(dir, &c)
	if err == nil && (c.AutoRemove || strings.HasPrefix(filepath.Base(dir), unborn)) {
		return errors.Join(c.removeVolumes(filepath.Dir(h.Dir)), removeFolder(dir, lock))
	}
	return removeFolder(dir, lock)
}

// VolumeUsers tells which containers mount a volume: their ids by its name, of
// all hosts that keep theirs below dir.
func VolumeUsers(dir string) (map[string][]string, error) {
	return usersOf(dir, func(folder string) (names []string) {
		var c struct{ Volumes []VolumeUse }
		// One that is being made holds the locks of its volumes.
		if readJSON(folder, "config.json", &c) == nil {
			for _, use := range c.Volumes {
				names = append(names, use.Name)
			}
		}
		return names
	})
}

// usersOf tells which containers use what: their ids by the names that names
// finds in a container's folder, of all hosts that keep theirs below dir.
func usersOf(dir string, names func(folder string) []string) (map[string][]string, error) {
	users := map[string][]string{}
	return users, eachOfAll(dir, func(h *Home, id string) {
		for _, name := range names(h.folder(id)) {
			if !slices.Contains(users[name], id) {
				users[name] = append(users[name], id)
			}
		}
	})
}

// eachOfAll calls f for the containers of all hosts that keep theirs below dir.
func eachOfAll(dir string, f func(h *Home, id string)) error {
	hosts, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, host := range hosts {
		h := &Home{filepath.Join(dir, host.Name())}
		ids, err := h.IDs()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, id := range ids {
			f(h, id)
		}
	}
	return nil
}
