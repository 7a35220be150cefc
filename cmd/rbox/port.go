//go:build !front

package main

import (
	"fmt"
	"slices"
	"strings"

	"rbox/slirp"
	"rbox/userns/container"
)

// PortCmd shows the ports of this host that lead to a container.
type PortCmd struct {
	All       bool   `short:"a" help:"Show those of all containers that run."`
	Container string `arg:"" optional:"" name:"CONTAINER" help:"Name or id."`
	Port      string `arg:"" optional:"" name:"PORT[/PROTOCOL]" help:"Only what leads to this port of the container."`
}

// Run prints PORT/PROTOCOL -> ADDRESS for each, or the addresses alone that
// lead to one port.
func (c *PortCmd) Run(app *App) error {
	switch {
	case c.All && c.Container != "":
		return fmt.Errorf("--all excludes names")
	case c.All:
		return c.all(app)
	case c.Container == "":
		return missingNames("port", "CONTAINER", "ps")
	}
	home, err := app.Home()
	if err != nil {
		return err
	}
	info, err := findContainer(home, c.Container)
	if err != nil {
		return err
	}
	if c.Port == "" {
		printPorts(app, "", publishedPorts(&info))
		return nil
	}
	return c.one(app, &info)
}

// all prints the ports of all containers, with the id before each.
func (c *PortCmd) all(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	list, err := home.Brief(false)
	for _, info := range list {
		printPorts(app, container.Short(info.Config.ID)+"\t", publishedPorts(info))
	}
	return err
}

func printPorts(app *App, before string, ports []slirp.Port) {
	slices.SortStableFunc(ports, func(a, b slirp.Port) int {
		if a.ContainerPort != b.ContainerPort {
			return int(a.ContainerPort) - int(b.ContainerPort)
		}
		return strings.Compare(a.Protocol, b.Protocol)
	})
	for _, p := range ports {
		for _, b := range p.Bindings() {
			fmt.Fprintf(app.Stdout, "%s%s -> %s\n", before, p.Inside(), b)
		}
	}
}

// one prints what leads to c.Port.
func (c *PortCmd) one(app *App, info *container.Info) error {
	wanted, err := slirp.ParseExposed(c.Port)
	if err != nil || len(wanted) != 1 {
		return fmt.Errorf("%q is not a port, as 80/tcp is", c.Port)
	}
	found := false
	for _, p := range publishedPorts(info) {
		if p.Inside() != wanted[0] {
			continue
		}
		found = true
		for _, b := range p.Bindings() {
			fmt.Fprintln(app.Stdout, b)
		}
	}
	if !found {
		return &adviceError{fmt.Errorf("no public port '%s' published for %s", wanted[0], c.Container), "rbox port " + c.Container}
	}
	return nil
}
