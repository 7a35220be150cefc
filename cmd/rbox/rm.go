//go:build !front

package main

import (
	"errors"
	"fmt"

	"rbox/userns/container"
)

// RmCmd removes containers.
type RmCmd struct {
	Force bool     `short:"f" help:"End running containers; say nothing of those that do not exist."`
	IDs   []string `arg:"" name:"container" help:"Names or ids."`
}

// Run removes each, goes on after a failure, and prints what is gone.
func (c *RmCmd) Run(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	outer, err := app.Outer()
	if err != nil {
		return err
	}
	stage, err := app.Stage()
	if err != nil {
		return err
	}
	var failed error
	for _, name := range c.IDs {
		err := c.remove(home, name, func(id string) error { return container.Remove(home, outer, stage, id, c.Force) })
		switch {
		case err == nil:
			fmt.Fprintln(app.Stdout, name)
		case c.Force && errors.As(err, new(*container.NoContainerError)):
		default:
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

func (c *RmCmd) remove(home *container.Home, name string, remove func(id string) error) error {
	id, err := home.Find(name)
	if err != nil {
		return err
	}
	if info, err := home.Inspect(id); err == nil && info.Running && !c.Force {
		return &adviceError{fmt.Errorf("container %s is running", name), "rbox rm -f " + name}
	}
	return remove(id)
}
