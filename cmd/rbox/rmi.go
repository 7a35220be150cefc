//go:build !front

package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
	"rbox/userns/container"
)

// RmiCmd removes images.
type RmiCmd struct {
	Force  bool     `short:"f" help:"Remove all names of an image given by its id, take the names off one that containers use, and ignore images that are not there."`
	All    bool     `short:"a" help:"Remove all images."`
	Images []string `arg:"" optional:"" name:"IMAGE" help:"Names or ids."`
}

// Run prints what was untagged and deleted.
func (c *RmiCmd) Run(app *App) error {
	s, err := app.Images()
	if err != nil {
		return err
	}
	names := c.Images
	switch {
	case c.All && len(names) > 0:
		return errors.New("--all excludes names")
	case c.All:
		if names, err = allImages(s); err != nil {
			return err
		}
	case len(names) == 0:
		return missingNames("rmi", "IMAGE", "images")
	}
	client := &unpackClient{outer: app.Outer}
	defer client.Close()
	o := store.RemoveOptions{Force: c.Force, AllNames: c.All, Unpacker: client, UsedBy: app.imageUser}
	ctx, stop := interruptible()
	defer stop()
	var failed error
	for _, name := range names {
		removed, err := s.Remove(ctx, name, o)
		printRemoved(app, removed)
		if !c.Force || !errors.As(err, new(*store.NotFoundError)) {
			failed = errors.Join(failed, err)
		}
	}
	if c.Force { // what a container kept from deletion may be free now
		failed = errors.Join(failed, s.GC(ctx, client))
	}
	return failed
}

func allImages(s *store.Store) (ids []string, err error) {
	images, err := s.List()
	for _, m := range images {
		ids = append(ids, string(m.ID))
	}
	return ids, err
}

// imageUser names a container that was made from the image, of whatever host,
// and is still there, or is empty.
func (a *App) imageUser(id image.Digest) (name string, running bool) {
	users, err := a.imageUsers()
	if err != nil {
		return "", false
	}
	for _, info := range users[string(id)] {
		if name == "" || info.Running {
			name, running = info.Name(), info.Running
		}
	}
	return name, running
}

// imageUsers lists the containers of all hosts by the images that they need.
func (a *App) imageUsers() (map[string][]*container.Info, error) {
	if _, err := a.Home(); err != nil { // makes the folder
		return nil, err
	}
	return container.ImageUsers(filepath.Join(a.Root, "containers"))
}

// printRemoved prints what is gone, and records it.
func printRemoved(app *App, removed *store.Removed) {
	if removed == nil {
		return
	}
	for _, r := range removed.Untagged {
		ref := r.Reference()
		fmt.Fprintln(app.Stdout, "Untagged:", ref.Familiar())
		if ref.Digest == "" && r.Digest != "" {
			fmt.Fprintln(app.Stdout, "Untagged:", ref.WithDigest(r.Digest).Familiar())
		}
		app.recordImage("untag", string(r.ID), ref.Familiar())
	}
	for _, id := range removed.Deleted {
		fmt.Fprintln(app.Stdout, "Deleted:", id)
		app.recordImage("delete", string(id), string(id))
	}
}
