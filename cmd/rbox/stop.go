package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"rbox/userns/container"
)

// stopFlags are those of what stops containers.
type stopFlags struct {
	Time   *seconds `short:"t" aliases:"timeout" help:"Seconds to wait before it is killed; -1: for ever." placeholder:"SECONDS"`
	Signal string   `short:"s" help:"Signal that asks it to end, instead of its own." placeholder:"SIGNAL"`
}

// StopCmd ends containers in order.
type StopCmd struct {
	stopFlags
	All    bool     `short:"a" help:"Stop all that run."`
	Ignore bool     `short:"i" help:"Say nothing of containers that do not exist."`
	IDs    []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run stops each and prints what it was called by; one that does not run is no failure.
func (c *StopCmd) Run(app *App) error {
	names, err := runningOr(app, "stop", c.IDs, c.All)
	if err != nil {
		return err
	}
	var failed error
	for result := range concurrently(names, func(name string) error {
		return app.each([]string{name}, func(home *container.Home, id, name string) error {
			return stop(home, id, name, c.Signal, c.Time)
		})
	}) {
		switch {
		case result.err == nil:
			fmt.Fprintln(app.Stdout, result.name)
		case c.Ignore && errors.As(result.err, new(*container.NoContainerError)):
		default:
			failed = errors.Join(failed, result.err)
		}
	}
	return failed
}

// stop asks the container to end, and kills it if it does not in time.
func stop(home *container.Home, id, name, signal string, grant *seconds) error {
	info, err := home.Inspect(id)
	if err != nil {
		return err
	}
	sig := unix.SIGTERM
	for _, text := range []string{info.Config.StopSignal, signal} {
		if text == "" {
			continue
		}
		if sig, err = parseSignal(text); err != nil {
			return err
		}
	}
	if grant == nil {
		grant = (*seconds)(&info.Config.StopTimeout)
	}
	client, err := dial(home.DialToEnd, id, name)
	if errors.As(err, new(*container.NotRunningError)) {
		return nil
	}
	if err == nil {
		defer client.Close()
		if err = client.Stop(sig); err == nil {
			err = awaitEnd(client, int(*grant))
		}
	}
	if errors.As(err, new(*container.DeafError)) {
		if err = home.End(id); err == nil { // the monitor cannot tell
			container.Record(home, info, "stop", nil)
		}
	}
	if over(home, id) {
		return nil
	}
	return err
}

// awaitEnd waits as long as is granted, for ever if that is negative, then kills.
func awaitEnd(client *container.Client, seconds int) error {
	limit := time.Duration(seconds) * time.Second
	for {
		_, ended, again, err := client.Ended(limit)
		switch {
		case err != nil:
			return err
		case ended && !again:
			return nil
		case !ended:
			limit = -1
			// Refused by one that rests between two runs: it ends all the same.
			if err := client.Stop(unix.SIGKILL); errors.As(err, new(*container.DeafError)) {
				return err
			}
		}
	}
}

// over tells whether the container has ended, or is gone.
func over(home *container.Home, id string) bool {
	info, err := home.Inspect(id)
	return err != nil || !info.Running
}

// seconds are a span of time on the command line; negative is for ever.
type seconds int
