package main

import (
	"errors"
	"fmt"
	"strings"

	"rbox/userns/container"
)

// RenameCmd gives a container another name.
type RenameCmd struct {
	Container string `arg:"" name:"CONTAINER" help:"Name or id."`
	Name      string `arg:"" name:"NAME" help:"The new name."`
}

// Run renames it, whether it runs or not.
func (c *RenameCmd) Run(app *App) error {
	name := strings.TrimPrefix(c.Name, "/")
	if err := container.CheckName(name); err != nil {
		return err
	}
	return app.each([]string{c.Container}, func(home *container.Home, id, old string) error {
		info, err := home.Inspect(id)
		if err != nil {
			return err
		}
		if info.Name() == name {
			return fmt.Errorf("container %s has that name already", name)
		}
		folder, config, err := home.Reopen(id)
		if err == nil {
			defer folder.Close()
			if err := folder.Rename(config, name); err != nil {
				return err
			}
			old := "/" + info.Name()
			info.State.Name = name
			container.Record(home, info, "rename", map[string]string{"oldName": old})
			return nil
		}
		if !errors.As(err, new(*container.RunningError)) {
			return err
		}
		client, err := dial(home.Dial, id, old)
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Rename(name)
	})
}
