package main

import (
	"fmt"

	"rbox/userns/container"
)

// RestartCmd stops and starts containers.
type RestartCmd struct {
	stopFlags
	All bool     `short:"a" help:"Restart all that run."`
	IDs []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints what was restarted.
func (c *RestartCmd) Run(app *App) error {
	names, err := runningOr(app, "restart", c.IDs, c.All)
	if err != nil {
		return err
	}
	return app.each(names, func(home *container.Home, id, name string) error {
		if info, err := home.Inspect(id); err == nil && info.Running && info.Config.AutoRemove {
			return &adviceError{fmt.Errorf("cannot restart container %s: it is removed when it ends", name), "make it without --rm"}
		}
		if err := stop(home, id, name, c.Signal, c.Time); err != nil {
			return err
		}
		if _, err := app.start(home, id, func(l *container.Launch) { l.Detach = true }); err != nil {
			return err
		}
		if info, err := home.Inspect(id); err == nil {
			container.Record(home, info, "restart", nil)
		}
		_, err := fmt.Fprintln(app.Stdout, name)
		return err
	})
}
