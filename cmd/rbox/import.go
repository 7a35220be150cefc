//go:build !front

package main

import (
	"errors"
	"fmt"
	"os"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
)

// ImportCmd makes an image from the archive of a root file system.
type ImportCmd struct {
	Change   []string `short:"c" sep:"none" placeholder:"INSTRUCTION" help:"Apply a line of a Dockerfile to the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR."`
	Message  string   `short:"m" placeholder:"TEXT" help:"Message for the image's history."`
	Platform string   `placeholder:"OS/ARCH" help:"Platform of the files, if it is not this machine's."`
	Quiet    bool     `short:"q" help:"Accepted for compatibility: only the image's id is printed."`
	Archive  string   `arg:"" name:"FILE" help:"The archive, a tar packed with gzip, zstd, xz or bzip2 or not at all; - reads stdin."`
	Name     string   `arg:"" optional:"" name:"NAME[:TAG]" help:"Name of the image."`
}

// Run prints the new image's id.
func (c *ImportCmd) Run(app *App) error {
	o := store.ImportOptions{Changes: c.Change, Message: c.Message, Platform: image.Host()}
	if c.Platform != "" {
		p, err := image.ParsePlatform(c.Platform)
		if err != nil {
			return err
		}
		o.Platform = p
	}
	if c.Name != "" {
		ref, err := tagName(c.Name)
		if err != nil {
			return err
		}
		o.Reference = &ref
	}
	in, err := openArchive(c.Archive, "")
	if err != nil {
		return err
	}
	defer in.Close()
	if st, err := in.Stat(); err == nil && st.IsDir() {
		return &adviceError{fmt.Errorf("import %s: it is a directory", c.Archive), fmt.Sprintf("tar -C %s -c . | rbox import -", c.Archive)}
	}
	s, err := app.Images()
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
	m, err := s.Import(ctx, in, o)
	if err != nil {
		return orInterrupted(ctx, fmt.Errorf("import %s: %w", c.Archive, err))
	}
	app.recordImage("import", string(m.ID), c.Name)
	_, err = fmt.Fprintln(app.Stdout, m.ID)
	return err
}

// tagName reads a name that an image may be given.
func tagName(name string) (image.Reference, error) {
	ref, err := image.ParseReference(name)
	if err == nil && ref.Digest != "" {
		err = &adviceError{fmt.Errorf("image name %q: a new name cannot have a digest", name), "give a tag: NAME:TAG"}
	}
	return ref, err
}

// openArchive opens a file to read, or stdin for "-" and "", which must not be
// a terminal. flag names how else a file can be given.
func openArchive(name, flag string) (*os.File, error) {
	if name != "" && name != "-" {
		return os.Open(name)
	}
	if isTerminal(0) {
		hint := "name a file, or redirect stdin"
		if flag != "" {
			hint = "name a file with " + flag + ", or redirect stdin"
		}
		return nil, &adviceError{errors.New("cannot read an archive from a terminal"), hint}
	}
	return os.Stdin, nil
}
