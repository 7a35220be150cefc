package main

import (
	"fmt"

	"rbox/userns/container"
)

// CreateCmd is `rbox create`: a container that `rbox start` runs.
type CreateCmd struct {
	createFlags
	Words []string `arg:"" passthrough:"partial" name:"IMAGE [COMMAND [ARG...]]" help:"The image, and the command to run in place of its own."`
}

// Run makes the container and prints its id.
func (c *CreateCmd) Run(app *App) error {
	r := &RunCmd{createFlags: c.createFlags, Words: c.Words, create: true}
	if err := r.check(0); err != nil {
		return err
	}
	outer, err := app.Outer()
	if err != nil {
		return err
	}
	launch, err := r.launch(app, outer, container.NewID())
	if err != nil {
		return err
	}
	launch.Folder.Close()
	_, err = fmt.Fprintln(app.Stdout, launch.Config.ID)
	return err
}
