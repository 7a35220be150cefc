//go:build !front

package main

import (
	"fmt"
	"os"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
)

// LoadCmd keeps the images of an archive.
type LoadCmd struct {
	Input    string `short:"i" placeholder:"FILE" help:"Read FILE, an archive of docker save, podman save or rbox save, packed or not, or an OCI layout's directory, instead of stdin."`
	Platform string `placeholder:"OS/ARCH" help:"Platform to pick from an image of several, if not this machine's."`
	Quiet    bool   `short:"q" help:"Print ids alone."`
}

// Run prints each name loaded.
func (c *LoadCmd) Run(app *App) error {
	o := store.LoadOptions{Platform: image.Host(), Loaded: func(m *store.Image, r *store.Ref) { c.loaded(app, m, r) }}
	if c.Platform != "" {
		p, err := image.ParsePlatform(c.Platform)
		if err != nil {
			return err
		}
		o.Platform = p
	}
	s, err := app.Images()
	if err != nil {
		return err
	}
	in, err := openArchive(c.Input, "-i")
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	unpacking, done, err := app.Unpacking()
	if err != nil {
		return err
	}
	defer done()
	o.Unpacking = unpacking
	ctx, stop := interruptible()
	defer stop()
	if st.IsDir() {
		return orInterrupted(ctx, s.LoadDir(ctx, c.Input, o))
	}
	name := c.Input
	if in == os.Stdin {
		name = "stdin"
	}
	return orInterrupted(ctx, s.Load(ctx, in, name, o))
}

func (c *LoadCmd) loaded(app *App, m *store.Image, r *store.Ref) {
	name := ""
	if r != nil {
		name = r.Reference().Familiar()
	}
	app.recordImage("load", string(m.ID), name)
	switch {
	case c.Quiet:
		fmt.Fprintln(app.Stdout, m.ID)
	case r == nil:
		fmt.Fprintln(app.Stdout, "Loaded image ID:", m.ID)
	default:
		fmt.Fprintln(app.Stdout, "Loaded image:", name)
	}
}
