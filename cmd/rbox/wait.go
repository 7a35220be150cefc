package main

import (
	"errors"
	"fmt"
	"time"

	"rbox/userns/container"
)

// WaitCmd waits for containers.
type WaitCmd struct {
	Condition string   `help:"What to wait for: not-running, next-exit or removed." default:"not-running" enum:"not-running,next-exit,removed,stopped,exited,running" placeholder:"STATE"`
	Ignore    bool     `short:"i" help:"Print -1 for containers that do not exist."`
	IDs       []string `arg:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints the exit status of each, a line each, in the order they are named.
func (c *WaitCmd) Run(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	var failed error
	for _, name := range c.IDs {
		status, err := c.wait(app, home, name)
		if c.Ignore && errors.As(err, new(*container.NoContainerError)) {
			status, err = -1, nil
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		fmt.Fprintln(app.Stdout, status)
	}
	return failed
}

const waitPause = 20 * time.Millisecond // between looks at what nobody tells of

func (c *WaitCmd) wait(app *App, home *container.Home, name string) (status int, err error) {
	id, err := home.Find(name)
	if err != nil {
		return 0, err
	}
	told := false
	for before, first := (time.Time{}), true; ; first = false {
		info, err := home.Inspect(id)
		gone := err != nil
		if first {
			before = info.State.Finished
		}
		switch {
		case gone && status == 0 && c.Condition != "removed":
			return 0, &container.NoContainerError{Name: name}
		case gone:
			return status, nil
		case c.Condition == "running" && info.Running:
			return 0, nil
		case !info.Running && (c.Condition == "not-running" || c.Condition == "stopped" || c.Condition == "exited"):
			return info.State.ExitStatus, nil
		case !info.Running && c.Condition == "next-exit" && !info.State.Finished.Equal(before):
			return info.State.ExitStatus, nil // it was over before we saw it run
		case !info.Running:
			status = info.State.ExitStatus
			time.Sleep(waitPause)
			continue
		}
		client, err := home.Dial(id)
		if errors.As(err, new(*container.NotRunningError)) {
			continue // it ended just now
		}
		if err != nil { // its lock tells of its end all the same
			if !told {
				app.Notice(err.Error())
			}
			told = true
			time.Sleep(waitPause)
			continue
		}
		n, ended, _, err := client.Ended(-1)
		client.Close()
		if ended && err == nil {
			if status = n; c.Condition != "removed" {
				return n, nil
			}
		}
	}
}
