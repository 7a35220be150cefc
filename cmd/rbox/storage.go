package main

import (
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
