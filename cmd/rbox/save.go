//go:build !front

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"rbox/rootfs/store"
)

// SaveCmd writes images to an archive.
type SaveCmd struct {
	Output string   `short:"o" placeholder:"FILE" help:"Write to FILE, or the directory of oci-dir, instead of stdout."`
	Format string   `enum:"docker-archive,oci-archive,oci-dir" default:"docker-archive" help:"Form of the archive: ${enum}."`
	Quiet  bool     `short:"q" help:"Accepted for compatibility: nothing is printed anyway."`
	Images []string `arg:"" name:"IMAGE" help:"Names or ids. An image given by its id is saved without a name."`
}

// Run prints nothing.
func (c *SaveCmd) Run(app *App) error {
	s, err := app.Images()
	if err != nil {
		return err
	}
	images, err := c.images(s)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	if err := c.save(ctx, app, s, images); err != nil {
		return orInterrupted(ctx, err)
	}
	for _, m := range images {
		app.recordImage("save", string(m.ID), string(m.ID))
	}
	return nil
}

func (c *SaveCmd) save(ctx context.Context, app *App, s *store.Store, images []*store.Image) error {
	format := store.Format(c.Format)
	switch {
	case format == store.OCIDir && c.Output == "":
		return &adviceError{errors.New("oci-dir is a directory, which cannot go to stdout"), "name it with -o"}
	case format == store.OCIDir:
		return s.SaveDir(ctx, c.Output, images)
	case c.Output != "":
		return saveFile(ctx, s, c.Output, format, images)
	case isTerminal(1):
		return errTerminal
	}
	return saveTo(ctx, s, app.Stdout, format, images)
}

// images looks all up first, so that nothing is written if one is missing. An
// image under several names is saved once.
func (c *SaveCmd) images(s *store.Store) (images []*store.Image, err error) {
	for _, name := range c.Images {
		m, err := s.Lookup(name)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(images, func(have *store.Image) bool { return have.ID == m.ID })
		if i < 0 {
			images = append(images, m)
		} else {
			images[i].Refs = append(images[i].Refs, m.Refs...)
		}
	}
	return images, nil
}

func saveTo(ctx context.Context, s *store.Store, w io.Writer, format store.Format, images []*store.Image) error {
	b := bufio.NewWriterSize(w, 256<<10)
	if err := s.Save(ctx, b, format, images); err != nil {
		return err
	}
	return b.Flush()
}

// saveFile writes name, complete or not at all.
func saveFile(ctx context.Context, s *store.Store, name string, format store.Format, images []*store.Image) error {
	return writeFile(name, func(f *os.File) error { return saveTo(ctx, s, f, format, images) })
}
