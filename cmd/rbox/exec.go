package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"rbox/userns/container"
)

// ExecCmd runs a further program in a running container.
type ExecCmd struct {
	Detach bool `short:"d" help:"Let the program run in the background."`
	detachFlags
	Env         []string `short:"e" sep:"none" help:"Set an environment variable; without =VALUE, take it from here." placeholder:"NAME[=VALUE]"`
	EnvFile     []string `sep:"none" help:"Read environment variables from a file." placeholder:"FILE"`
	Interactive bool     `short:"i" help:"Connect stdin."`
	PreserveFDs int      `name:"preserve-fds" help:"Keep so many descriptors beyond 0 to 2." placeholder:"N"`
	Privileged  bool     `help:"Give the program all capabilities of the container's user namespace."`
	TTY         bool     `short:"t" name:"tty" help:"Give the program a terminal."`
	User        string   `short:"u" help:"Run as this user and group of the image." placeholder:"USER[:GROUP]"`
	Workdir     string   `short:"w" help:"Working directory inside." placeholder:"DIR"`
	Words       []string `arg:"" passthrough:"partial" name:"CONTAINER COMMAND [ARG...]" help:"Name or id of the container, and what to run in it."`
}

// Run ends with the program's exit status.
func (c *ExecCmd) Run(app *App) error {
	open := markInherited()
	if len(c.Words) > 1 && c.Words[0] == "--" {
		c.Words = c.Words[1:]
	}
	if len(c.Words) < 2 {
		return &adviceError{errors.New("exec: want a container and a command"), "rbox exec -it " + c.Words[0] + " sh"}
	}
	if c.PreserveFDs > open {
		return fmt.Errorf("--preserve-fds %d: descriptor %d is not open", c.PreserveFDs, 3+open)
	}
	if c.TTY && c.Interactive && !c.Detach && !isTerminal(0) {
		return &adviceError{errors.New("the input device is not a terminal"), "leave out -t, or run rbox in a terminal"}
	}
	if c.Workdir != "" && c.Workdir[0] != '/' {
		return fmt.Errorf("the working directory %q is not absolute", c.Workdir)
	}
	keys, err := container.ParseKeys(c.DetachKeys)
	if err != nil {
		return err
	}
	env, err := givenEnv(c.EnvFile, c.Env)
	if err != nil {
		return err
	}
	request := container.ExecRequest{
		Args: c.Words[1:], Env: lastOfEach(env), Cwd: c.Workdir, User: c.User, Terminal: c.TTY,
		Privileged: c.Privileged, Detach: c.Detach, Preserve: c.PreserveFDs,
	}
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil && c.TTY {
		request.Rows, request.Cols = size.Row, size.Col
	}
	streams := container.Streams{Direct: !c.TTY && !c.Detach, Input: c.Interactive, Output: true, Terminal: c.TTY, Signals: true, Keys: keys}
	return app.each(c.Words[:1], func(home *container.Home, id, name string) error {
		client, err := dial(home.Dial, id, name)
		if err != nil {
			return err
		}
		defer client.Close()
		status, err := client.Exec(request, streams, inherited(c.PreserveFDs), app.Notice)
		return ended(status, err)
	})
}
