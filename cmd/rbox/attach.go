package main

import "rbox/userns/container"

// detachFlags are those of what connects a terminal.
type detachFlags struct {
	DetachKeys string `help:"Keys that leave a program with a terminal to itself." default:"ctrl-p,ctrl-q" placeholder:"KEYS"`
}

// attachFlags are those of what connects to a container's own program.
type attachFlags struct {
	detachFlags
	SigProxy bool `help:"Hand signals on to the program (--sig-proxy=false: keep them)." default:"true" negatable:""`
}

// AttachCmd connects to a running container.
type AttachCmd struct {
	NoStdin bool `help:"Do not connect stdin."`
	attachFlags
	ID string `arg:"" name:"CONTAINER" help:"Name or id."`
}

// Run ends with the container's exit status.
func (c *AttachCmd) Run(app *App) error {
	keys, err := container.ParseKeys(c.DetachKeys)
	if err != nil {
		return err
	}
	return app.each([]string{c.ID}, func(home *container.Home, id, name string) error {
		info, err := home.Inspect(id)
		if err != nil {
			return err
		}
		client, err := dial(home.Dial, id, name)
		if err != nil {
			return err
		}
		defer client.Close()
		status, err := client.Attach(container.Streams{
			Input: !c.NoStdin && info.Config.OpenStdin, Output: true,
			Terminal: info.Config.Plan.Process.Terminal, Signals: c.SigProxy, Keys: keys,
		}, app.Notice)
		return ended(status, err)
	})
}
