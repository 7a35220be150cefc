package main

import (
	"fmt"
	"path/filepath"
	"time"

	"rbox/rootfs/volume"
	"rbox/userns/container"
)

// Volumes is where volumes are kept.
func (a *App) Volumes() *volume.Store { return &volume.Store{Dir: filepath.Join(a.Root, "volumes")} }

// nameVolumes gives the volumes among the container's mounts their names and
// places, and returns them.
func (a *App) nameVolumes(f *container.Folder, c *container.Config) (all []volume.Volume) {
	store := a.Volumes()
	for i := range c.Plan.Mounts {
		m := &c.Plan.Mounts[i]
		if m.Type != "volume" {
			continue
		}
		v := volume.Volume{Name: m.Source, CreatedAt: time.Now(), Anonymous: m.Source == ""}
		if v.Anonymous {
			v.Name = volume.NewName()
		}
		m.Source = store.Mountpoint(v.Name)
		if v.Anonymous {
			f.Volumes = append(f.Volumes, volume.FolderOf(m.Source))
		}
		c.Volumes = append(c.Volumes, container.VolumeUse{Name: v.Name, Target: m.Target, Anonymous: v.Anonymous})
		all = append(all, v)
	}
	return all
}

// makeVolumes makes those volumes that there are not, and holds them all: none
// is removed before config.json is there to keep it.
func (a *App) makeVolumes(all []volume.Volume) error {
	store := a.Volumes()
	for _, v := range all {
		hold, made, err := store.Use(v)
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if made {
			a.recordVolume("create", v.Name)
		}
		a.held = append(a.held, hold)
	}
	return nil
}

// letGo is for when config.json is there to keep the volumes and networks.
func (a *App) letGo() {
	for _, hold := range a.held {
		hold.Close()
	}
	a.held = nil
}
