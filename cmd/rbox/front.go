//go:build front

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"syscall"

	"rbox/rootfs"
	"rbox/rootfs/store"
	"rbox/userns"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// bin/rbox is this small program: it starts containers of images that are
// here, by the common forms of `rbox run`, and carries the whole of rbox, the
// same package built without the tag front, which it becomes for all else. To
// start and to end, the whole takes 2 ms more.

// wholeFiles holds the whole program and its hash; see stageFiles.
//
//go:embed whole
var wholeFiles embed.FS

func main() {
	app := newApp()
	if len(os.Args) > 1 {
		args := shorter(os.Args[1:])
		if args[0] == "run" {
			app.early = startEarly(app)
		}
		if cmd := quickCommand(args[0]); cmd != nil && quickParse(cmd, args[1:]) {
			if err := cmd.Run(app); !errors.Is(err, errBeyond) {
				os.Exit(app.report(err))
			}
		}
		if app.early != nil {
			app.early.abandon()
		}
	}
	os.Exit(app.report(app.becomeWhole()))
}

// becomeWhole replaces this process by the whole program. It returns only with an error.
func (a *App) becomeWhole() error {
	path, err := a.carried(wholeFiles, "whole/rbox.sum", wholeFiles, "whole/rbox", "rbox")
	if err != nil {
		// There is a use for commands where nothing can be written.
		if path, err = a.inMemory(wholeFiles, "whole/rbox"); err != nil {
			return err
		}
	}
	if exe, err := os.Executable(); err == nil {
		os.Setenv("RBOX_EXE", exe)
	}
	if err := syscall.Exec(path, os.Args, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// networkProgram opens the network process's executable, which the whole carries
// and has written out if it has ever run a container that needs it.
func (a *App) networkProgram() (*os.File, error) {
	path, err := a.carriedPath(stageFiles, networkSum, networkExe)
	if err != nil {
		return nil, err
	}
	if noexec(a.Root) || writtenOut(path) < 0 {
		return nil, errBeyond
	}
	return os.Open(path)
}

// pullRequest is the whole's.
type pullRequest struct {
	registryFlags
	name, policy, platform string
	quiet                  bool
}

// pullIfNeeded returns an image that is here and that nobody wants looked for elsewhere.
func pullIfNeeded(app *App, r pullRequest) (*store.Image, error) {
	if r.policy != "missing" && r.policy != "never" || r.platform != "" {
		return nil, errBeyond
	}
	s, err := app.Images()
	if err != nil {
		return nil, err
	}
	m, err := s.Lookup(r.name)
	if err != nil {
		return nil, errBeyond
	}
	return m, nil
}

// compileSeccomp is the whole's.
func compileSeccomp(string, uint64) (stage.Seccomp, error) { return stage.Seccomp{}, errBeyond }

// Unpacking unpacks nothing.
func (a *App) Unpacking() (u store.Unpacking, done func(), err error) {
	outer, err := a.Outer()
	if err != nil {
		return u, nil, err
	}
	u.Mapping = store.Mapping{Key: outer.Maps.Key(), Single: outer.Maps.Single}
	return u, func() {}, nil
}

// unpackClient is the whole's, too.
type unpackClient struct{ outer any }

func (*unpackClient) Copy(context.Context, string, []string) error { return errBeyond }
func (*unpackClient) Remove(context.Context, ...string) error      { return errBeyond }
func (*unpackClient) Close()                                       {}

// choose is the whole's.
func (a *App) choose(*userns.Outer, *container.Home, string) (rootfs.Choice, error) {
	return rootfs.Choice{}, errBeyond
}

// placeRoots is needed to delete.
func (a *App) placeRoots() []string { return nil }

// beyond tells of an error that the whole has a cure for, and of the driver
// copy, before anything is made.
func beyond(copies bool, err error) error {
	if copies || errors.Is(err, store.ErrNotUnpacked) {
		return errBeyond
	}
	return err
}
