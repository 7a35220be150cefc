//go:build !front

package main

import (
	"errors"

	"rbox/rootfs/store"
	"rbox/rootfs/volume"
	"rbox/userns/container"
)

// ContainerExistsCmd tells by its exit status whether there is a container.
type ContainerExistsCmd struct {
	Container string `arg:"" name:"CONTAINER" help:"Name or id."`
}

// Run prints nothing.
func (c *ContainerExistsCmd) Run(app *App) error {
	home, err := app.Home()
	if err == nil {
		_, err = home.Find(c.Container)
	}
	return absent(err, errors.As(err, new(*container.NoContainerError)))
}

// ImageExistsCmd tells by its exit status whether an image is here.
type ImageExistsCmd struct {
	Image string `arg:"" name:"IMAGE" help:"Name or id."`
}

// Run prints nothing.
func (c *ImageExistsCmd) Run(app *App) error {
	s, err := app.Images()
	if err == nil {
		_, err = s.Inspect(c.Image)
	}
	return absent(err, errors.As(err, new(*store.NotFoundError)))
}

// VolumeExistsCmd tells by its exit status whether there is a volume.
type VolumeExistsCmd struct {
	Name string `arg:"" name:"VOLUME" help:"Name."`
}

// Run prints nothing.
func (c *VolumeExistsCmd) Run(app *App) error {
	_, err := app.Volumes().Get(c.Name)
	return absent(err, errors.As(err, new(*volume.NotFoundError)))
}

// absent is err, or status 1 alone for what does not exist.
func absent(err error, missing bool) error {
	if missing {
		return exitStatus(1)
	}
	return err
}
