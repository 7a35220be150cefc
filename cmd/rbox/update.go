//go:build !front

package main

import (
	"errors"
	"fmt"

	"rbox/cgroupv2"
	"rbox/userns/container"
)

// UpdateCmd changes limits.
type UpdateCmd struct {
	limitFlags
	IDs []string `arg:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints what it changed.
func (c *UpdateCmd) Run(app *App) error {
	changed, err := c.limits()
	if err != nil {
		return err
	}
	if changed.IsZero() {
		return &adviceError{errors.New("update: no limit is given"), "rbox update --memory 512m CONTAINER"}
	}
	return app.each(c.IDs, func(home *container.Home, id, name string) error {
		if err := updateLimits(home, id, name, changed); err != nil {
			return err
		}
		_, err = fmt.Fprintln(app.Stdout, name)
		return err
	})
}

// updateLimits changes the limits of a container, whether it runs or not.
func updateLimits(home *container.Home, id, name string, changed cgroupv2.Limits) error {
	info, err := home.Inspect(id)
	if err != nil {
		return err
	}
	folder, _, err := home.Reopen(id)
	if err == nil {
		defer folder.Close()
		return folder.SetLimits(info.Limits().With(changed))
	}
	if !errors.As(err, new(*container.RunningError)) {
		return err
	}
	client, err := dial(home.Dial, id, name)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Limit(changed)
}
