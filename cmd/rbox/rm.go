//go:build !front

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"rbox/userns/container"
)

// RmCmd removes containers.
type RmCmd struct {
	Force   bool     `short:"f" help:"Kill those that run; say nothing of those that do not exist."`
	Volumes bool     `short:"v" help:"Remove the anonymous volumes that were made for them, too."`
	All     bool     `short:"a" help:"Remove all containers."`
	Ignore  bool     `short:"i" help:"Say nothing of containers that do not exist."`
	Cidfile []string `sep:"none" placeholder:"FILE" help:"Remove the container whose id the file holds, too."`
	Filter  []string `sep:"none" placeholder:"KEY=VALUE" help:"Remove those that ps -a shows with this filter."`
	IDs     []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run removes each, goes on after a failure, and prints what is gone.
func (c *RmCmd) Run(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	names, err := c.names(app, home)
	if err != nil {
		return err
	}
	var failed error
	r := removal{app: app, home: home, force: c.Force, volumes: c.Volumes}
	for _, name := range names {
		err := r.add(name)
		if missing := errors.As(err, new(*container.NoContainerError)); missing && (c.Force || c.Ignore) {
			continue
		}
		failed = errors.Join(failed, err)
	}
	err = r.run(func(name string, err error) {
		if err == nil {
			fmt.Fprintln(app.Stdout, name)
		}
		failed = errors.Join(failed, err)
	})
	return errors.Join(failed, err)
}

// names are those of the containers to remove.
func (c *RmCmd) names(app *App, home *container.Home) ([]string, error) {
	names := slices.Clone(c.IDs)
	for _, file := range c.Cidfile {
		id, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) && c.Ignore {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("--cidfile: %w", err)
		}
		names = append(names, strings.TrimSpace(string(id)))
	}
	switch {
	case (c.All || len(c.Filter) > 0) && len(names) > 0:
		return nil, errors.New("--all and --filter exclude names")
	case c.All || len(c.Filter) > 0:
		list, err := (&PsCmd{All: true, Filter: c.Filter}).filtered(app, home)
		for _, info := range list {
			names = append(names, info.Config.ID)
		}
		return names, err
	case len(names) == 0 && len(c.Cidfile) == 0:
		return nil, missingNames("rm", "CONTAINER", "ps -a")
	}
	return names, nil
}

// A removal removes several containers at a time.
type removal struct {
	app     *App
	home    *container.Home
	force   bool // kill those that run
	volumes bool // remove their anonymous volumes
	named   map[string]string
	infos   map[string]container.Info
	ids     []string
}

// add looks a container up. One that runs is an error, unless it is to be killed.
func (r *removal) add(name string) error {
	id, err := r.home.Find(name)
	if err != nil {
		return err
	}
	info, err := r.home.Inspect(id)
	if err == nil && info.Running && !info.State.IsOver() && !r.force {
		return runningError(name, info)
	}
	if r.named == nil {
		r.named, r.infos = map[string]string{}, map[string]container.Info{}
	}
	if _, twice := r.named[id]; twice {
		return nil
	}
	// One whose configuration cannot be read is removed all the same.
	r.named[id], r.infos[id], r.ids = name, info, append(r.ids, id)
	return nil
}

// runningError tells in Docker's words that a container is not to be removed.
func runningError(name string, info container.Info) error {
	err := fmt.Errorf("cannot remove container %q: container is %s: stop the container before removing or force remove", info.Name(), info.Status())
	return &adviceError{err, "rbox rm -f " + name}
}

// run removes what was added, and then calls done for each, in order, with the
// name it was added by.
func (r *removal) run(done func(name string, err error)) error {
	if len(r.ids) == 0 {
		return nil
	}
	outer, stage, err := r.app.outerAndStage()
	if err != nil {
		return err
	}
	outcomes := map[string]error{}
	err = container.RemoveAll(r.home, outer, stage, r.ids, r.force, func(id string, err error) {
		if err == nil {
			err = r.gone(r.infos[id])
		}
		outcomes[id] = err
	})
	for _, id := range r.ids {
		if err, known := outcomes[id]; known {
			done(r.named[id], err)
		}
	}
	return err
}

// gone does what is left to do when a container is removed.
func (r *removal) gone(info container.Info) error {
	if info.Config.ID == "" {
		return nil
	}
	if !info.Config.AutoRemove { // else its monitor has recorded it
		container.Record(r.home, info, "destroy", nil)
	}
	if !r.volumes {
		return nil
	}
	return removeAnonymous(r.app, &info.Config)
}
