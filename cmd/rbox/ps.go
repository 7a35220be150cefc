//go:build !front

package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"rbox/userns/container"
)

// PsCmd lists containers.
type PsCmd struct {
	All     bool `short:"a" help:"Show those that have ended, too."`
	Quiet   bool `short:"q" help:"Show ids only."`
	NoTrunc bool `help:"Show ids and commands in full."`
}

// Run prints Docker's columns.
func (c *PsCmd) Run(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	all, err := home.List()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(app.Stdout, 0, 0, 3, ' ', 0)
	if !c.Quiet {
		fmt.Fprintln(w, "CONTAINER ID\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tNAMES")
	}
	for _, info := range all {
		if !info.Running && !c.All {
			continue
		}
		id, command := info.Config.ID, strings.Join(info.Config.Plan.Process.Args, " ")
		if !c.NoTrunc {
			id, command = container.Short(id), ellipsis(command, 20)
		}
		if c.Quiet {
			fmt.Fprintln(w, id)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%q\t%s ago\t%s\t%s\n", id, info.Config.Image, command,
			humanDuration(time.Since(info.Config.Created)), status(info), info.Config.Name)
	}
	return w.Flush()
}

// status is a container's state in Docker's words.
func status(info container.Info) string {
	s := info.State
	switch {
	case info.Running:
		return "Up " + humanDuration(time.Since(s.Started))
	case s.Started.IsZero():
		return "Created"
	case s.Finished.IsZero():
		return "Dead"
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitStatus, humanDuration(time.Since(s.Finished)))
}

// ellipsis shortens s to n characters.
func ellipsis(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// humanDuration is d as Docker writes it, in its largest unit.
func humanDuration(d time.Duration) string {
	seconds := int(d.Seconds())
	switch {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	}
	minutes, hours := int(d.Minutes()), int(d.Hours()+0.5)
	switch {
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case hours < 24*7*2:
		return fmt.Sprintf("%d days", hours/24)
	case hours < 24*30*2:
		return fmt.Sprintf("%d weeks", hours/24/7)
	case hours < 24*365*2:
		return fmt.Sprintf("%d months", hours/24/30)
	}
	return fmt.Sprintf("%d years", hours/24/365)
}

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
