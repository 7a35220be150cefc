package main

import (
	"fmt"
	"path/filepath"

	"rbox/idmap"
	"rbox/rootfs"
	"rbox/rootfs/layer"
	"rbox/rootfs/store"
)

// Images returns the store of images.
func (a *App) Images() (*store.Store, error) {
	return store.Open(a.Root, store.Options{LayerRoot: a.layerRoot, LayerRoots: a.placeRoots, Warn: a.Notice})
}

// layersDir is the directory of layers in a place.
const layersDir = "layers"

// layerRoot returns where unpacked layers lie, "" for the data directory. Who
// is about to unpack some has had that chosen.
func (a *App) layerRoot() string {
	var c rootfs.Choice
	if a.storage != nil {
		c = *a.storage
	} else if home, err := a.Home(); err == nil {
		c = rootfs.LastChoice(driverFile(home.Dir))
	}
	if c.Place == "" || rootfs.OwnPlace(c.Place) != nil {
		return ""
	}
	return filepath.Join(c.Place, layersDir)
}

// layerIDs turns the maps of a container's user namespace, nested in the outer
// one, into those that unpacking for it takes.
func layerIDs(maps []idmap.Mapping) (ranges []layer.IDRange) {
	for _, m := range maps {
		ranges = append(ranges, layer.IDRange{From: m.Inside, To: m.Outside, Count: m.Count})
	}
	return ranges
}

// keepKey is the key of layers unpacked for --userns keep-id, where key is that of others.
func keepKey(key string, uid, gid uint32) string { return fmt.Sprintf("%s-keep-%d-%d", key, uid, gid) }
