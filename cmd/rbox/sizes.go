//go:build !front

package main

import (
	"context"
	"errors"

	"rbox/rootfs"
	"rbox/rootfs/volume"
	"rbox/slirp/network"
	"rbox/userns/container"
)

// wholeOnly is for the front.
func wholeOnly() error { return nil }

// inspectOther returns Docker's answer about a volume or a network.
func inspectOther(app *App, kind, name string) (any, error) {
	if kind != "network" {
		v, err := app.Volumes().Get(name)
		if err == nil {
			return newVolumeDetail(app.Volumes(), v), nil
		}
		if kind == "volume" || !errors.As(err, new(*volume.NotFoundError)) {
			return nil, err
		}
	}
	d, err := app.networkDetail(name)
	if err == nil {
		return d, nil
	}
	if kind == "" && errors.As(err, new(*network.NotFoundError)) {
		err = &NoObjectError{name}
	}
	return nil, err
}

// written returns how many bytes each of list has written to its root file
// system. Its files may be closed to all but root of the outer user namespace.
func (a *App) written(ctx context.Context, home *container.Home, list []*container.Info) ([]int64, error) {
	client := &unpackClient{outer: a.Outer}
	defer client.Close()
	sizes := make([]int64, len(list))
	for i, info := range list {
		full, err := home.Inspect(info.Config.ID)
		if err != nil {
			continue // it was removed meanwhile
		}
		dir := full.Config.Plan.Root.Upper
		if dir == "" && driverName(full.Config.Plan.Root) == string(rootfs.Copy) {
			dir = full.Config.Plan.Root.Dir
		}
		if dir == "" {
			continue
		}
		if sizes[i], err = client.Size(ctx, dir); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

// imageSizes returns what tells the bytes of an image's files, by its id.
func (a *App) imageSizes() func(id string) int64 {
	known := map[string]int64{}
	s, err := a.Images()
	return func(id string) int64 {
		size, ok := known[id]
		if !ok && err == nil && id != "" {
			if m, err := s.Lookup(id); err == nil {
				size = m.Size
			}
			known[id] = size
		}
		return size
	}
}

// addSizes completes d.
func (d *containerDetail) addSizes(app *App, home *container.Home, info container.Info) error {
	written, err := app.written(context.Background(), home, []*container.Info{&info})
	if err != nil {
		return err
	}
	whole := written[0] + app.imageSizes()(info.Config.ImageID)
	d.SizeRw, d.SizeRootFs = &written[0], &whole
	return nil
}
