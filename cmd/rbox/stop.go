package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/userns/container"
)

// StopCmd ends containers in order.
type StopCmd struct {
	Time   *seconds `short:"t" aliases:"timeout" help:"Seconds to wait before it is killed; -1: for ever." placeholder:"SECONDS"`
	Signal string   `short:"s" help:"Signal that asks it to end, instead of its own." placeholder:"SIGNAL"`
	All    bool     `short:"a" help:"Stop all that run."`
	Ignore bool     `short:"i" help:"Say nothing of containers that do not exist."`
	IDs    []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run stops each and prints what it was called by; one that does not run is no failure.
func (c *StopCmd) Run(app *App) error {
	names, err := runningOr(app, c.IDs, c.All)
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

// runningOr is names, or with all the ids of the containers that run.
func runningOr(app *App, names []string, all bool) ([]string, error) {
	switch {
	case !all && len(names) == 0:
		return nil, &adviceError{errors.New("want a container"), "rbox ps"}
	case !all:
		return names, nil
	case len(names) > 0:
		return nil, errors.New("--all excludes names")
	}
	home, err := app.Home()
	if err != nil {
		return nil, err
	}
	list, err := home.List()
	for _, info := range list {
		if info.Running {
			names = append(names, info.Config.ID)
		}
	}
	return names, err
}

// An outcome is what became of one of several names.
type outcome struct {
	name string
	err  error
}

// concurrently calls f for all names at once and yields the outcomes in their order.
func concurrently(names []string, f func(name string) error) func(yield func(outcome) bool) {
	results := make([]chan error, len(names))
	for i, name := range names {
		results[i] = make(chan error, 1)
		go func() { results[i] <- f(name) }()
	}
	return func(yield func(outcome) bool) {
		for i, name := range names {
			if !yield(outcome{name, <-results[i]}) {
				return
			}
		}
	}
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
	client, err := dial(home, id, name)
	if errors.As(err, new(*container.NotRunningError)) {
		return nil
	}
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.Stop(sig)
	if err == nil {
		err = awaitEnd(client, int(*grant))
	}
	if over(home, id) {
		container.Record(home, info, "stop", nil)
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
			client.Signal(unix.SIGKILL) // refused by one that rests between two runs: it ends all the same
		}
	}
}

// over tells whether the container has ended, or is gone.
func over(home *container.Home, id string) bool {
	info, err := home.Inspect(id)
	return err != nil || !info.Running
}

// KillCmd sends a signal.
type KillCmd struct {
	Signal string   `short:"s" help:"The signal, by name or number." default:"KILL" placeholder:"SIGNAL"`
	All    bool     `short:"a" help:"To all that run."`
	IDs    []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints what got the signal.
func (c *KillCmd) Run(app *App) error {
	sig, err := parseSignal(c.Signal)
	if err != nil {
		return err
	}
	names, err := runningOr(app, c.IDs, c.All)
	if err != nil {
		return err
	}
	return app.each(names, func(home *container.Home, id, name string) error {
		client, err := dial(home, id, name)
		if err != nil {
			return err
		}
		defer client.Close()
		if sig == unix.SIGKILL { // nobody wants it back then
			err = client.Stop(sig)
		} else {
			err = client.Signal(sig)
		}
		if err != nil {
			return err
		}
		if sig == unix.SIGKILL {
			client.Ended(-1)
		}
		_, err = fmt.Fprintln(app.Stdout, name)
		return err
	})
}

// RestartCmd stops and starts containers.
type RestartCmd struct {
	Time   *seconds `short:"t" aliases:"timeout" help:"Seconds to wait before it is killed; -1: for ever." placeholder:"SECONDS"`
	Signal string   `short:"s" help:"Signal that asks it to end, instead of its own." placeholder:"SIGNAL"`
	All    bool     `short:"a" help:"Restart all that run."`
	IDs    []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints what was restarted.
func (c *RestartCmd) Run(app *App) error {
	names, err := runningOr(app, c.IDs, c.All)
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
		status, err := c.wait(home, name)
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

func (c *WaitCmd) wait(home *container.Home, name string) (status int, err error) {
	id, err := home.Find(name)
	if err != nil {
		return 0, err
	}
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
		if err != nil {
			continue // it ended just now
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
	names, err := runningOr(app, names, all)
	if err != nil {
		return err
	}
	return app.each(names, func(home *container.Home, id, name string) error {
		client, err := dial(home, id, name)
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
		client, err := dial(home, id, old)
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Rename(name)
	})
}

// seconds are a span of time on the command line; negative is for ever.
type seconds int
