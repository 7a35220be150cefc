package main

import (
	"encoding/json"
	"errors"
	"io"
	"slices"

	"rbox/rootfs/store"
	"rbox/userns/container"
)

// InspectCmd shows all about containers, images, volumes and networks.
type InspectCmd struct {
	Type   string   `enum:",container,image,volume,network" default:"" placeholder:"KIND" help:"Look for a container, an image, a volume or a network only."`
	Format string   `short:"f" placeholder:"TEMPLATE" help:"json, or a Go template over Docker's fields."`
	Size   bool     `short:"s" help:"Tell how much containers have written, too."`
	Names  []string `arg:"" name:"CONTAINER|IMAGE|VOLUME|NETWORK" help:"Names or ids, looked for in this order."`
}

// ContainerInspectCmd is InspectCmd for containers alone.
type ContainerInspectCmd struct {
	Format string   `short:"f" placeholder:"TEMPLATE" help:"json, or a Go template over Docker's fields."`
	Size   bool     `short:"s" help:"Tell how much they have written, too."`
	Names  []string `arg:"" name:"CONTAINER" help:"Names or ids."`
}

// Run prints a JSON list.
func (c *ContainerInspectCmd) Run(app *App) error {
	return (&InspectCmd{Type: "container", Format: c.Format, Size: c.Size, Names: c.Names}).Run(app)
}

// A NoObjectError reports a name that nothing has.
type NoObjectError struct{ Name string }

func (e *NoObjectError) Error() string { return "no such object: " + e.Name }

// Hint lists what there is.
func (e *NoObjectError) Hint() string {
	return "rbox ps -a, rbox images, rbox volume ls and rbox network ls list what there is"
}

// Run prints a JSON list of all that is there.
func (c *InspectCmd) Run(app *App) error {
	if c.Size || c.Format != "" && c.Format != "json" {
		if err := wholeOnly(); err != nil {
			return err
		}
	}
	found := []any{}
	var failed error
	for _, name := range c.Names {
		v, err := c.find(app, name)
		if errors.Is(err, errBeyond) {
			return err
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		found = append(found, v)
	}
	if err := c.print(app, found); err != nil {
		return err
	}
	return failed
}

// print writes what was found. Templates are for the whole of rbox.
func (c *InspectCmd) print(app *App, found []any) error {
	switch c.Format {
	case "":
		return printJSON(app.Stdout, found, "    ")
	case "json":
		return printJSON(app.Stdout, found, "")
	}
	return printTemplate(app.Stdout, c.Format, found)
}

func printJSON(w io.Writer, v any, indent string) error {
	e := json.NewEncoder(visibleWriter{w}) // which writes them as JSON does
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	return e.Encode(v)
}

// find returns Docker's answer about what has the name.
func (c *InspectCmd) find(app *App, name string) (any, error) {
	if c.Type == "" || c.Type == "container" {
		v, err := c.container(app, name)
		if err == nil || c.Type != "" || !errors.As(err, new(*container.NoContainerError)) {
			return v, err
		}
	}
	if c.Type == "" || c.Type == "image" {
		v, err := inspectImage(app, name)
		if missing := errors.As(err, new(*store.NotFoundError)); err == nil || c.Type != "" && missing {
			return v, err
		}
	}
	return inspectOther(app, c.Type, name)
}

func (c *InspectCmd) container(app *App, name string) (any, error) {
	home, err := app.Home()
	if err != nil {
		return nil, err
	}
	info, err := findContainer(home, name)
	if err != nil {
		return nil, err
	}
	d := newContainerDetail(app, info)
	if c.Size {
		err = d.addSizes(app, home, info)
	}
	return d, err
}

func inspectImage(app *App, name string) (any, error) {
	s, err := app.Images()
	if err != nil {
		return nil, err
	}
	m, err := s.Inspect(name)
	if err != nil {
		return nil, err
	}
	return detail(m), nil
}

// mountPoint is a directory or volume that a container mounts (Engine API, MountPoint).
type mountPoint struct {
	Type        string
	Name        string `json:",omitempty"`
	Source      string
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string
	RW          bool
	Propagation string
}

// mountPoints are the binds and volumes of a container.
func mountPoints(c container.Config) []mountPoint {
	list := []mountPoint{}
	for _, m := range c.Plan.Mounts {
		p := mountPoint{Type: m.Type, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly, Propagation: "rprivate"}
		if m.ReadOnly {
			p.Mode = "ro"
		}
		if i := slices.IndexFunc(c.Volumes, func(v container.VolumeUse) bool { return v.Target == m.Target }); i >= 0 {
			p.Type, p.Name, p.Driver, p.Propagation = "volume", c.Volumes[i].Name, "local", ""
		}
		if p.Type == "bind" || p.Type == "volume" {
			list = append(list, p)
		}
	}
	return list
}
