package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"rbox/userns/container"
)

// KillCmd sends a signal.
type KillCmd struct {
	Signal string   `short:"s" help:"The signal, by name or number." default:"KILL" placeholder:"SIGNAL"`
	All    bool     `short:"a" help:"Send it to all that run."`
	IDs    []string `arg:"" optional:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints what got the signal.
func (c *KillCmd) Run(app *App) error {
	sig, err := parseSignal(c.Signal)
	if err != nil {
		return err
	}
	names, err := runningOr(app, "kill", c.IDs, c.All)
	if err != nil {
		return err
	}
	return app.each(names, func(home *container.Home, id, name string) error {
		reach := home.Dial
		if sig == unix.SIGKILL {
			reach = home.DialToEnd
		}
		client, err := dial(reach, id, name)
		if err != nil {
			return err
		}
		defer client.Close()
		if sig == unix.SIGKILL { // nobody wants it back then
			err = client.Kill()
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
