package main

import (
	"fmt"

	"rbox/userns/container"
)

// PauseCmd freezes containers.
type PauseCmd struct {
	All bool     `short:"a" help:"Pause all that run."`
	IDs []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints what it froze.
func (c *PauseCmd) Run(app *App) error { return freeze(app, c.IDs, c.All, true) }

// UnpauseCmd thaws containers.
type UnpauseCmd struct {
	All bool     `short:"a" help:"Unpause all that are paused."`
	IDs []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints what it thawed.
func (c *UnpauseCmd) Run(app *App) error { return freeze(app, c.IDs, c.All, false) }

func freeze(app *App, names []string, all, on bool) error {
	verb := "pause"
	if !on {
		verb = "unpause"
	}
	names, err := runningOr(app, verb, names, all)
	if err != nil {
		return err
	}
	return app.each(names, func(home *container.Home, id, name string) error {
		client, err := dial(home.Dial, id, name)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := client.Pause(on); err != nil {
			return err
		}
		_, err = fmt.Fprintln(app.Stdout, name)
		return err
	})
}
