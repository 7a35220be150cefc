//go:build !front

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"rbox/rootfs/volume"
	"rbox/userns/container"
)

// A volumeRemover removes volumes, whose files belong to ids that only the
// unpacking process has.
type volumeRemover struct {
	app    *App
	store  *volume.Store
	client *unpackClient
}

// volumeRemover also clears away what killed processes left.
func (a *App) volumeRemover() (*volumeRemover, error) {
	r := &volumeRemover{a, a.Volumes(), &unpackClient{outer: a.Outer}}
	home, err := a.Home()
	if err != nil {
		return nil, err
	}
	if len(home.Dead()) > 0 { // they would count as users
		if err := a.sweep(home); err != nil {
			return nil, err
		}
	}
	if left := r.store.Leftovers(); len(left) > 0 {
		if err := r.client.Remove(context.Background(), left...); err != nil {
			a.Notice(err.Error())
		}
	}
	return r, nil
}

func (r *volumeRemover) close() { r.client.Close() }

func (a *App) sweep(home *container.Home) error {
	outer, stage, err := a.outerAndStage()
	if err != nil {
		return err
	}
	return container.Sweep(home, outer, stage)
}

// volumeInUseError reports a volume that containers use.
type volumeInUseError struct {
	name string
	ids  []string
}

func (e *volumeInUseError) Error() string {
	return fmt.Sprintf("remove %s: volume is in use - [%s]", e.name, strings.Join(e.ids, ", "))
}

// Hint is how to be rid of the users.
func (e *volumeInUseError) Hint() string {
	short := make([]string, len(e.ids))
	for i, id := range e.ids {
		short[i] = container.Short(id)
	}
	return "rbox rm " + strings.Join(short, " ")
}

// unused returns *volumeInUseError if a container uses the volume.
func (r *volumeRemover) unused(name string) error {
	users, err := r.app.volumeUsers()
	if err == nil && len(users[name]) > 0 {
		err = &volumeInUseError{name, users[name]}
	}
	return err
}

// remove deletes a volume that no container uses.
func (r *volumeRemover) remove(name string) error {
	dir, err := r.doom(name)
	if err != nil {
		return err
	}
	r.app.recordVolume("destroy", name)
	return r.client.Remove(context.Background(), dir)
}

// doom prefers to name the containers that use it over the command that runs one.
func (r *volumeRemover) doom(name string) (string, error) {
	if _, err := r.store.Get(name); err != nil {
		return "", err
	}
	if err := r.unused(name); err != nil {
		return "", err
	}
	return r.store.Doom(name, func() error { return r.unused(name) })
}

// removeSized is remove, and tells how many bytes were in it.
func (r *volumeRemover) removeSized(v volume.Volume) (int64, error) {
	dir, err := r.doom(v.Name)
	if err != nil {
		return 0, err
	}
	r.app.recordVolume("destroy", v.Name)
	size, err := r.client.Size(context.Background(), filepath.Join(dir, filepath.Base(r.store.Mountpoint(v.Name))))
	if err != nil {
		r.app.Notice(err.Error())
	}
	return size, r.client.Remove(context.Background(), dir)
}

// removeAnonymous removes the volumes that were made for a container which is
// gone: rm -v. What another container uses stays.
func removeAnonymous(app *App, config *container.Config) error {
	names := slices.DeleteFunc(slices.Clone(config.Volumes), func(u container.VolumeUse) bool { return !u.Anonymous })
	if len(names) == 0 {
		return nil
	}
	r, err := app.volumeRemover()
	if err != nil {
		return err
	}
	defer r.close()
	var failed error
	for _, use := range names {
		err := r.remove(use.Name)
		if !errors.As(err, new(*volumeInUseError)) && !errors.As(err, new(*volume.NotFoundError)) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
