package main

import (
	"fmt"
	"path/filepath"
	"time"

	"rbox/rootfs"
	"rbox/rootfs/volume"
	"rbox/userns/container"
	"rbox/userns/container/events"
)

// Volumes is where volumes are kept.
func (a *App) Volumes() *volume.Store { return &volume.Store{Dir: filepath.Join(a.Root, "volumes")} }

// makeVolumes makes the volumes among mounts that there are not, fills in where
// they lie, and keeps them from being removed until letVolumesGo or the end of
// this process.
func (a *App) makeVolumes(f *container.Folder, mounts []rootfs.Mount) (uses []container.VolumeUse, err error) {
	store := a.Volumes()
	for i := range mounts {
		m := &mounts[i]
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
		hold, made, err := store.Use(v)
		if err != nil {
			return uses, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if made {
			a.volumeEvent("create", v.Name)
		}
		a.held = append(a.held, hold)
		uses = append(uses, container.VolumeUse{Name: v.Name, Target: m.Target, Anonymous: v.Anonymous})
	}
	return uses, nil
}

// letVolumesGo is for when config.json is there to keep the volumes.
func (a *App) letVolumesGo() {
	for _, hold := range a.held {
		hold.Close()
	}
	a.held = nil
}

// volumeEvent records what happened to a volume; that this fails is no reason
// to fail anything else.
func (a *App) volumeEvent(action, name string) {
	if home, err := a.Home(); err == nil {
		events.Append(home.Dir, events.Event{Type: "volume", Action: action, ID: name, Attributes: map[string]string{"driver": "local"}})
	}
}
