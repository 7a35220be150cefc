//go:build !front

package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"rbox/rootfs/image"
	"rbox/userns/container/events"
)

// EventsCmd shows what happens to containers, images, volumes and networks.
type EventsCmd struct {
	Filter []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"Only events with container=NAME, event=ACTION, image=NAME, label=NAME[=VALUE], type=container, image, volume or network, volume=NAME or network=NAME."`
	Format string   `placeholder:"TEMPLATE" help:"json, or a Go template over Docker's fields."`
	Since  string   `placeholder:"TIME" help:"Begin with what happened at a time (2026-11-22T17:00, or seconds since 1970), or so long ago (10m)."`
	Until  string   `placeholder:"TIME" help:"End at a time, of the same forms."`
	Stream bool     `default:"true" negatable:"" help:"Go on with what is still to happen (--no-stream: end with what has)."`
}

// Run prints a line for each event until it is interrupted, which is no failure.
func (c *EventsCmd) Run(app *App) error {
	now := time.Now()
	since, err := parseWhen("--since", c.Since, now)
	if err != nil {
		return err
	}
	until, err := parseWhen("--until", c.Until, now)
	if err != nil {
		return err
	}
	keep, err := eventFilters(c.Filter)
	if err != nil {
		return err
	}
	show, err := c.printer(forPeople(app.Stdout))
	if err != nil {
		return err
	}
	home, err := app.Home()
	if err != nil {
		return err
	}
	each := func(e events.Event) error {
		if !keep(e) {
			return nil
		}
		return show(e)
	}
	if !c.Stream || !until.IsZero() && until.Before(now) {
		return events.Read(home.Dir, since, until, each)
	}
	ctx, stop := interruptible()
	defer stop()
	return events.Follow(ctx, home.Dir, since, until, each)
}

// printer returns what writes an event in the form that is asked for.
func (c *EventsCmd) printer(w io.Writer) (func(events.Event) error, error) {
	switch c.Format {
	case "":
		return func(e events.Event) error {
			_, err := io.WriteString(w, eventLine(e))
			return err
		}, nil
	case "json":
		c.Format = "{{json .}}"
	}
	t, err := parseFormat(c.Format)
	if err != nil {
		return nil, err
	}
	return func(e events.Event) error {
		var b bytes.Buffer
		if err := t.Execute(&b, newEventDetail(e)); err != nil {
			fields := []string{"Type", "Action", "Actor.ID", "Actor.Attributes", "Scope", "Time", "TimeNano", "Status", "ID", "From"}
			return &formatError{text: c.Format, err: err, fields: fields}
		}
		b.WriteByte('\n')
		_, err := w.Write(b.Bytes())
		return err
	}, nil
}

// eventLine is how Docker's command line writes an event, on one line whatever
// labels and commands hold.
func eventLine(e events.Event) string {
	line := fmt.Sprintf("%s %s %s %s", e.Time.Local().Format("2006-01-02T15:04:05.000000000Z07:00"), e.Type, e.Action, e.ID)
	if len(e.Attributes) == 0 {
		return inCell(line) + "\n"
	}
	var words []string
	for _, k := range slices.Sorted(maps.Keys(e.Attributes)) {
		words = append(words, k+"="+e.Attributes[k])
	}
	return inCell(line+" ("+strings.Join(words, ", ")+")") + "\n"
}

// An eventDetail is an event with Docker's names (Engine API, EventMessage).
// The first three are older names of the others, for containers and images.
type eventDetail struct {
	Status   string `json:"status,omitempty"`
	ID       string `json:"id,omitempty"`
	From     string `json:"from,omitempty"`
	Type     string
	Action   string
	Actor    eventActor
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

// An eventActor is what an event happened to.
type eventActor struct {
	ID         string
	Attributes map[string]string
}

func newEventDetail(e events.Event) eventDetail {
	d := eventDetail{
		Type: e.Type, Action: e.Action, Actor: eventActor{e.ID, e.Attributes},
		Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}
	if e.Type == "container" || e.Type == "image" {
		d.Status, d.ID, d.From = e.Action, e.ID, e.Attributes["image"]
	}
	return d
}

// eventFilters returns what decides whether an event is shown: of several
// values of one filter one must match, of labels all.
func eventFilters(filters []string) (func(events.Event) bool, error) {
	values, err := filterValues(filters, "container", "event", "image", "label", "type", "volume", "network")
	if err != nil {
		return nil, err
	}
	if err := among("type", values["type"], "container", "image", "volume", "network", "plugin", "daemon"); err != nil {
		return nil, err
	}
	return func(e events.Event) bool {
		for key, wanted := range values {
			if key == "label" && !hasLabels(e.Attributes, wanted) {
				return false
			}
			if key != "label" && !slices.ContainsFunc(wanted, func(value string) bool { return eventHas(e, key, value) }) {
				return false
			}
		}
		return true
	}, nil
}

// eventHas tells whether the filter KEY=VALUE is met, for all keys but label.
func eventHas(e events.Event, key, value string) bool {
	name := e.Attributes["name"]
	switch key {
	case "type":
		return e.Type == value
	case "event": // "exec_start" is also met by "exec_start: sh"
		return e.Action == value || strings.HasPrefix(e.Action, value+":")
	case "container", "volume", "network":
		return e.Type == key && (name == value || value != "" && strings.HasPrefix(e.ID, value))
	}
	// image: of a container, the one that it was made from
	if e.Type == "container" {
		name = e.Attributes["image"]
	}
	return e.Type == "image" && e.ID == value || e.Type != "volume" && e.Type != "network" && sameImage(name, value)
}

// sameImage compares names of images; a name without a tag is that of all tags.
func sameImage(name, wanted string) bool {
	if name == wanted {
		return true
	}
	have, err := image.ParseReference(name)
	if err != nil {
		return false
	}
	want, err := image.ParseReference(wanted)
	if err != nil {
		return false
	}
	tagged := strings.Contains(wanted[strings.LastIndexByte(wanted, '/')+1:], ":")
	return have.Registry == want.Registry && have.Repository == want.Repository && (!tagged || have.Tag == want.Tag)
}
