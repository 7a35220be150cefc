//go:build !front

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// errTerminal refuses to write an archive to the terminal.
var errTerminal = &adviceError{errors.New("cannot write an archive to a terminal"), "name a file with -o, or redirect stdout"}

// ExportCmd writes a container's files to an archive.
type ExportCmd struct {
	Output    string `short:"o" placeholder:"FILE" help:"Write to FILE instead of stdout."`
	Container string `arg:"" name:"CONTAINER" help:"Name or id."`
}

// Run prints nothing.
func (c *ExportCmd) Run(app *App) error {
	if c.Output == "" && isTerminal(1) {
		return errTerminal
	}
	ctx, stop := interruptible()
	defer stop()
	files, err := openFiles(ctx, app, c.Container, "export")
	if err != nil {
		return err
	}
	defer files.stop()
	if files.info.Config.Image == hostImage && files.image == nil {
		return &adviceError{fmt.Errorf("container %s has this machine's own files, which are not exported", c.Container), "tar"}
	}
	return orInterrupted(ctx, c.export(ctx, files))
}

func (c *ExportCmd) export(ctx context.Context, files *containerFiles) error {
	if c.Output == "" {
		if err := files.start(ctx, nil, os.Stdout); err != nil {
			return err
		}
		return files.finish("export")
	}
	return writeFile(c.Output, func(f *os.File) error {
		if err := files.start(ctx, nil, f); err != nil {
			return err
		}
		return files.finish("export")
	})
}

// writeFile has write fill the file name, which appears complete or not at
// all; what is there and no regular file, such as a pipe, is written to as it is.
func writeFile(name string, write func(*os.File) error) error {
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	temp, err := os.OpenFile(fmt.Sprintf("%s.rbox-%d", name, os.Getpid()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	err = write(temp)
	if cerr := temp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp.Name(), name)
	}
	return err
}
