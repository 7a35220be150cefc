package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
	"rbox/userns"
	"rbox/userns/container"
)

// StartCmd starts containers that were created, or have ended.
type StartCmd struct {
	Attach      bool     `short:"a" help:"Show what the program writes, hand signals on to it, and end with its exit status."`
	Interactive bool     `short:"i" help:"Connect stdin; implies --attach."`
	DetachKeys  string   `help:"Keys that leave a container with a terminal to itself." default:"ctrl-p,ctrl-q" placeholder:"KEYS"`
	SigProxy    bool     `help:"With --attach, hand signals on (--sig-proxy=false: keep them)." default:"true" negatable:""`
	Restart     string   `help:"This time, start it again by this policy in place of its own." placeholder:"POLICY"`
	IDs         []string `arg:"" name:"CONTAINER" help:"Names or ids."`
}

// Run starts each, and prints what it was called by; those that run already are no failure.
func (c *StartCmd) Run(app *App) error {
	c.Attach = c.Attach || c.Interactive
	if c.Attach && len(c.IDs) > 1 {
		return errors.New("you cannot start and attach multiple containers at once")
	}
	return app.each(c.IDs, func(home *container.Home, id, name string) error {
		return c.start(app, home, id, name)
	})
}

func (c *StartCmd) start(app *App, home *container.Home, id, name string) error {
	keys, err := container.ParseKeys(c.DetachKeys)
	if err != nil {
		return err
	}
	policy, err := parseRestart(c.Restart)
	if err != nil {
		return err
	}
	status, err := app.start(home, id, func(l *container.Launch) {
		l.Detach = !c.Attach
		if c.Restart != "" {
			l.Config.Restart = policy
		}
		terminal := l.Config.Plan.Process.Terminal
		l.Streams = container.Streams{
			Input: c.Interactive && l.Config.OpenStdin, Output: true, Terminal: terminal, Signals: c.SigProxy, Keys: keys,
			Direct: c.Attach && l.Config.Log.Driver == passthrough && !terminal,
		}
	})
	switch {
	case errors.As(err, new(*container.RunningError)) && !c.Attach:
		err = nil
	case errors.As(err, new(*container.RunningError)):
		return (&AttachCmd{NoStdin: !c.Interactive, DetachKeys: c.DetachKeys, SigProxy: c.SigProxy, ID: name}).Run(app)
	case errors.Is(err, container.ErrDetached):
		return nil
	}
	if err != nil {
		return err
	}
	if c.Attach {
		return exitStatus(status)
	}
	_, err = fmt.Fprintln(app.Stdout, name)
	return err
}

// each calls f for the containers that names mean, goes on after a failure,
// and reports all.
func (a *App) each(names []string, f func(home *container.Home, id, name string) error) error {
	home, err := a.Home()
	if err != nil {
		return err
	}
	var failed error
	for _, name := range names {
		id, err := home.Find(name)
		if err == nil {
			err = f(home, id, name)
		}
		var status exitStatus
		if errors.As(err, &status) || errors.Is(err, errBeyond) {
			return err
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// start runs the container id, which must not run, as how says.
func (a *App) start(home *container.Home, id string, how func(*container.Launch)) (int, error) {
	outer, err := a.Outer()
	if err != nil {
		return 0, err
	}
	stage, err := a.Stage()
	if err != nil {
		return 0, err
	}
	folder, config, err := home.Reopen(id)
	if err != nil {
		return 0, err
	}
	l := &container.Launch{Folder: folder, Config: config, Notice: a.Notice}
	defer folder.Close()
	if err := a.renew(l, home, outer); err != nil {
		return 0, err
	}
	how(l)
	if config.AutoRemove {
		if err := folder.Pass(&l.Config); err != nil {
			return 0, err
		}
	}
	monitor, err := container.StartMonitor(home, outer, stage, id)
	if err != nil {
		return 0, err
	}
	return monitor.Run(l)
}

// renew makes the plan of a container fit for this moment: its ids as they
// are granted now, its image's layers where they are, the host's name servers.
func (a *App) renew(l *container.Launch, home *container.Home, outer *userns.Outer) error {
	o, p := &l.Config.Options, &l.Config.Plan
	n, err := containerIDs(home, outer, o)
	if err != nil {
		return err
	}
	n.TimeOffsets = p.Namespaces.TimeOffsets
	p.Namespaces = n.Namespaces
	if l.Config.ImageID != "" && p.Root.Driver != "dir" {
		s, err := a.Images()
		if err != nil {
			return err
		}
		m, err := s.Lookup(l.Config.ImageID)
		if err != nil {
			return fmt.Errorf("the image of container %s: %w", l.Config.Name, err)
		}
		from, err := imageBase(a, m, n, l.Config.Image)
		if err != nil {
			return err
		}
		p.Root.Lowers, l.Layers = from.root.Lowers, from.layers
		if from.root.Driver != string(rootfs.Copy) {
			p.Root.Driver = from.root.Driver
		}
	}
	for i, f := range p.Files {
		if f.Target == "/etc/resolv.conf" && len(o.DNS) == 0 {
			p.Files[i].Text = resolvFile(nil)
		}
	}
	p.Process.Preserve = 0
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil && p.Process.Terminal {
		p.Process.Rows, p.Process.Cols = size.Row, size.Col
	}
	return nil
}

// AttachCmd connects to a running container.
type AttachCmd struct {
	NoStdin    bool   `help:"Do not connect stdin."`
	DetachKeys string `help:"Keys that leave a container with a terminal to itself." default:"ctrl-p,ctrl-q" placeholder:"KEYS"`
	SigProxy   bool   `help:"Hand signals on to the program (--sig-proxy=false: keep them)." default:"true" negatable:""`
	ID         string `arg:"" name:"CONTAINER" help:"Name or id."`
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
		client, err := dial(home, id, name)
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

// ended is the error that main makes of a program's end.
func ended(status int, err error) error {
	if errors.Is(err, container.ErrDetached) {
		return nil
	}
	if err != nil {
		return err
	}
	return exitStatus(status)
}

// dial connects to the monitor of the container id, which the user calls name.
func dial(home *container.Home, id, name string) (*container.Client, error) {
	client, err := home.Dial(id)
	var off *container.NotRunningError
	if errors.As(err, &off) {
		off.Name = name
	}
	return client, err
}

// ExecCmd runs a further program in a running container.
type ExecCmd struct {
	Detach      bool     `short:"d" help:"Let the program run in the background."`
	DetachKeys  string   `help:"Keys that leave a program with a terminal to itself." default:"ctrl-p,ctrl-q" placeholder:"KEYS"`
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
		client, err := dial(home, id, name)
		if err != nil {
			return err
		}
		defer client.Close()
		status, err := client.Exec(request, streams, inherited(c.PreserveFDs), app.Notice)
		return ended(status, err)
	})
}
