//go:build !front

package main

import (
	"errors"
	"fmt"

	"rbox/cgroupv2"
	"rbox/userns/container"
)

// UpdateCmd changes limits, and the restart policy.
type UpdateCmd struct {
	limitFlags
	Restart string   `help:"Start it again when it ends: no, on-failure[:TIMES], always or unless-stopped." placeholder:"POLICY"`
	IDs     []string `arg:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints what it changed.
func (c *UpdateCmd) Run(app *App) error {
	var u updating
	var err error
	if u.limits, err = c.limits(); err != nil {
		return err
	}
	if c.Restart != "" {
		policy, err := parseRestart(c.Restart)
		if err != nil {
			return err
		}
		u.restart = &policy
	}
	if u.limits.IsZero() && u.restart == nil {
		return &adviceError{errors.New("update: nothing to change is given"), "rbox update --memory 512m CONTAINER"}
	}
	return app.each(c.IDs, func(home *container.Home, id, name string) error {
		if err := u.change(home, id, name); err != nil {
			return err
		}
		_, err = fmt.Fprintln(app.Stdout, name)
		return err
	})
}

// An updating is what is to change.
type updating struct {
	limits  cgroupv2.Limits
	restart *container.RestartPolicy // nil: it stays
}

// change changes a container, whether it runs or not.
func (u *updating) change(home *container.Home, id, name string) error {
	info, err := home.Inspect(id)
	if err != nil {
		return err
	}
	if u.restart != nil && u.restart.Name != "" && info.Config.AutoRemove {
		return fmt.Errorf("conflicting options: --restart, and container %s was made with --rm", name)
	}
	limits := u.limits.Completed(info.Limits())
	whole := info.Limits().With(limits)
	if !u.limits.IsZero() {
		if err := checkLimits(whole); err != nil {
			return err
		}
	}
	folder, _, err := home.Reopen(id)
	if err == nil {
		defer folder.Close()
		return u.ofStopped(folder, whole)
	}
	if !errors.As(err, new(*container.RunningError)) {
		return err
	}
	client, err := dial(home.Dial, id, name)
	if err != nil {
		return err
	}
	defer client.Close()
	return u.ofRunning(client, limits)
}

// ofStopped has the container come to limits in all.
func (u *updating) ofStopped(folder *container.Folder, limits cgroupv2.Limits) error {
	if !u.limits.IsZero() {
		if err := folder.SetLimits(limits); err != nil {
			return err
		}
	}
	if u.restart != nil {
		return folder.SetRestart(*u.restart)
	}
	return nil
}

// ofRunning changes what limits set.
func (u *updating) ofRunning(client *container.Client, limits cgroupv2.Limits) error {
	if !limits.IsZero() {
		if err := client.Limit(limits); err != nil {
			return err
		}
	}
	if u.restart != nil {
		return client.Restart(*u.restart)
	}
	return nil
}
