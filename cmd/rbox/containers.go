package main

import (
	"errors"
	"fmt"
	"io/fs"

	"rbox/userns/container"
)

// each calls f for the containers that names mean, goes on after a failure,
// and reports all.
func (a *App) each(names []string, f func(home *container.Home, id, name string) error) error {
	home, err := a.Home()
	if err != nil {
		return err
	}
	var failed error
	for _, name := range names {
		id, err := home.Find(name)
		if err == nil {
			err = f(home, id, name)
		}
		var status exitStatus
		if errors.As(err, &status) || errors.Is(err, errBeyond) {
			return err
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// findContainer returns what there is to know of the container that the user
// calls name.
func findContainer(home *container.Home, name string) (container.Info, error) {
	id, err := home.Find(name)
	if err != nil {
		return container.Info{}, err
	}
	info, err := home.Inspect(id)
	if errors.Is(err, fs.ErrNotExist) { // it was removed just now
		err = &container.NoContainerError{Name: name}
	}
	return info, err
}

// missingNames is the error of a command that was given neither names nor --all.
func missingNames(verb, argument, lister string) error {
	return &adviceError{fmt.Errorf("%s: %s is missing", verb, argument), "name one that rbox " + lister + " lists, or give --all"}
}

// runningOr is names, or with all the ids of the containers that run.
func runningOr(app *App, verb string, names []string, all bool) ([]string, error) {
	switch {
	case !all && len(names) == 0:
		return nil, missingNames(verb, "CONTAINER", "ps")
	case !all:
		return names, nil
	case len(names) > 0:
		return nil, errors.New("--all excludes names")
	}
	home, err := app.Home()
	if err != nil {
		return nil, err
	}
	list, err := home.List()
	for _, info := range list {
		if info.Running {
			names = append(names, info.Config.ID)
		}
	}
	return names, err
}

// An outcome is what became of one of several names.
type outcome struct {
	name string
	err  error
}

// concurrently calls f for all names at once and yields the outcomes in their order.
func concurrently(names []string, f func(name string) error) func(yield func(outcome) bool) {
	results := make([]chan error, len(names))
	for i, name := range names {
		results[i] = make(chan error, 1)
		go func() { results[i] <- f(name) }()
	}
	return func(yield func(outcome) bool) {
		for i, name := range names {
			if !yield(outcome{name, <-results[i]}) {
				return
			}
		}
	}
}

// dial connects to the monitor of the container id, which the user calls name, by
// a method of its home.
func dial(reach func(id string) (*container.Client, error), id, name string) (*container.Client, error) {
	client, err := reach(id)
	var off *container.NotRunningError
	if errors.As(err, &off) {
		off.Name = name
	}
	if err == nil {
		client.Name = name
	}
	return client, err
}

// ended is the error that main makes of a program's end.
func ended(status int, err error) error {
	if errors.Is(err, container.ErrDetached) {
		return nil
	}
	if err != nil {
		return err
	}
	return exitStatus(status)
}
