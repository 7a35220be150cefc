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
	Attach      bool `short:"a" help:"Show what the program writes, hand signals on to it, and end with its exit status."`
	Interactive bool `short:"i" help:"Connect stdin; implies --attach."`
	attachFlags
	Restart string   `help:"This time, start it again by this policy in place of its own." placeholder:"POLICY"`
	IDs     []string `arg:"" name:"CONTAINER" help:"Names or ids."`
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
		return (&AttachCmd{NoStdin: !c.Interactive, attachFlags: c.attachFlags, ID: name}).Run(app)
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

// start runs the container id, which must not run, as how says.
func (a *App) start(home *container.Home, id string, how func(*container.Launch)) (int, error) {
	outer, stage, err := a.outerAndStage()
	if err != nil {
		return 0, err
	}
	folder, config, err := home.Reopen(id)
	if err != nil {
		return 0, err
	}
	l := &container.Launch{Folder: folder, Config: config, Notice: a.Notice}
	defer folder.Close()
	if info, err := home.Inspect(id); err == nil {
		if err := config.CheckWritings(folder.Dir, info.Name()); err != nil {
			return 0, err
		}
	}
	if err := a.renew(l, home, outer); err != nil {
		return 0, err
	}
	if l.Network, err = a.networkProgramOf(&l.Config); err != nil {
		return 0, err
	}
	how(l)
	monitor, err := container.StartMonitor(home, outer, stage, id)
	if err != nil {
		return 0, err
	}
	if config.AutoRemove { // from here on it does not stay
		if err := folder.Pass(&l.Config); err != nil {
			monitor.Abandon()
			return 0, err
		}
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
	setCgroupUser(&l.Config.Cgroup)
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
	if err := a.renewNetworks(&l.Config, home, n); err != nil {
		return err
	}
	p.Process.Preserve = 0
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil && p.Process.Terminal {
		p.Process.Rows, p.Process.Cols = size.Row, size.Col
	}
	return nil
}
