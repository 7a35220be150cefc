//go:build !front

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"rbox/userns/container"
)

// A psRow is one line of the listing, with Docker's field names.
type psRow struct {
	Command      string
	CreatedAt    string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
	head   bool // it holds the headings of a table
}

// Label is the value of one label, for templates.
func (r psRow) Label(name string) string {
	if r.head {
		name = name[strings.LastIndexByte(name, '.')+1:]
		return strings.ToUpper(strings.NewReplacer("-", " ", "_", " ").Replace(name))
	}
	return r.labels[name]
}

// full is Run with all that ps can do.
func (c *PsCmd) full(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	list, err := c.filtered(app, home)
	if err != nil {
		return err
	}
	if c.Quiet && c.Format == "" {
		return c.plain(app.Stdout, list, time.Now())
	}
	sizes, err := c.sizes(app, home, list)
	if err != nil {
		return err
	}
	rows := make([]any, len(list))
	for i, info := range list {
		row, err := c.row(home, info)
		if err != nil {
			return err
		}
		row.Size = "0B"
		if sizes != nil {
			row.Size = sizes[i]
		}
		rows[i] = row
	}
	return c.listing().print(app.Stdout, c.Format, rows)
}

// filtered lists those that are asked for.
func (c *PsCmd) filtered(app *App, home *container.Home) ([]*container.Info, error) {
	list, err := home.Brief(true)
	if err != nil {
		return nil, err
	}
	f, err := parsePsFilters(app, home, list, c.Filter)
	if err != nil {
		return nil, err
	}
	all := c.All || c.count() > 0 || f.ended
	list = slices.DeleteFunc(list, func(info *container.Info) bool { return !all && !info.Running || !f.keeps(info) })
	return c.cut(list), nil
}

func (c *PsCmd) listing() listing {
	l := listing{
		columns: []column{
			{"Command", "COMMAND"}, {"CreatedAt", "CREATED AT"}, {"ID", "CONTAINER ID"}, {"Image", "IMAGE"}, {"Labels", "LABELS"},
			{"LocalVolumes", "LOCAL VOLUMES"}, {"Mounts", "MOUNTS"}, {"Names", "NAMES"}, {"Networks", "NETWORKS"}, {"Ports", "PORTS"},
			{"RunningFor", "CREATED"}, {"Size", "SIZE"}, {"State", "STATE"}, {"Status", "STATUS"},
		},
		standard: []string{"ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"},
		noHead:   c.NoHead,
	}
	if c.Size {
		l.standard = append(l.standard, "Size")
	}
	head := psRow{head: true}
	l.fill(&head)
	l.head = head
	return l
}

func (c *PsCmd) row(home *container.Home, info *container.Info) (psRow, error) {
	now := time.Now()
	row := psRow{
		Command: c.command(info), ID: c.id(info), Image: c.image(info), Names: info.Name(), Ports: portsText(info),
		CreatedAt:  info.Config.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"),
		RunningFor: humanDuration(now.Sub(info.Config.Created)) + " ago",
		State:      info.Status(), Status: statusText(info, now), Networks: strings.Join(info.NetworkNames(), ","),
		labels: info.Config.Labels,
	}
	var labels []string
	for k, v := range info.Config.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	row.Labels = strings.Join(labels, ",")
	mounts, err := c.mounts(home, info)
	row.Mounts = strings.Join(mounts, ",")
	row.LocalVolumes = strconv.Itoa(len(info.Config.Volumes))
	return row, err
}

// mounts names the volumes and the sources of binds, if a format shows them.
func (c *PsCmd) mounts(home *container.Home, info *container.Info) (names []string, err error) {
	if c.Format != "json" && !strings.Contains(c.Format, ".Mounts") && !strings.Contains(c.Format, "json") {
		return nil, nil
	}
	full, err := home.Inspect(info.Config.ID)
	if err != nil {
		return nil, nil // it was removed meanwhile
	}
	for _, m := range mountPoints(full.Config) {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if !c.NoTrunc {
			name = ellipsis(name, 15)
		}
		names = append(names, name)
	}
	return names, nil
}

// sizes says for each of list how much it has written and how much it is with
// its image, if that is to be shown.
func (c *PsCmd) sizes(app *App, home *container.Home, list []*container.Info) ([]string, error) {
	if !c.Size && !strings.Contains(c.Format, ".Size") {
		return nil, nil
	}
	written, err := app.written(context.Background(), home, list)
	if err != nil {
		return nil, err
	}
	whole := app.imageSizes()
	texts := make([]string, len(list))
	for i, info := range list {
		texts[i] = fmt.Sprintf("%s (virtual %s)", humanSize(written[i], 3), humanSize(written[i]+whole(info.Config.ImageID), 3))
	}
	return texts, nil
}
