package main

import (
	"fmt"

	"rbox/idmap"
	"rbox/rootfs/layer"
	"rbox/rootfs/store"
)

// Images returns the store of images.
func (a *App) Images() (*store.Store, error) {
	return store.Open(a.Root, store.Options{Warn: a.Notice})
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
