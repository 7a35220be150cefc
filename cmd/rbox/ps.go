package main

import (
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"rbox/rootfs/image"
	"rbox/userns/container"
)

// PsCmd lists containers.
type PsCmd struct {
	All     bool     `short:"a" help:"Show those that do not run, too."`
	Quiet   bool     `short:"q" help:"Show ids only."`
	Last    int      `short:"n" placeholder:"N" help:"Show the N that were made last, whether they run or not."`
	Latest  bool     `short:"l" help:"Show the one that was made last, whether it runs or not."`
	Size    bool     `short:"s" help:"Show how much each has written, too, and how much it is with its image."`
	NoTrunc bool     `help:"Show ids and commands in full."`
	NoHead  bool     `name:"noheading" help:"Leave the headings out."`
	Format  string   `placeholder:"TEMPLATE" help:"json, table, or a Go template over Docker's fields."`
	Filter  []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"Only those with id=, name=, label=, exited=, status=, ancestor=, before=, since=, volume=, network=, publish=, expose= or health= of this value."`
}

// psColumns are those of the table.
var psColumns = []string{"CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"}

// Run prints Docker's columns. What needs templates, images or the sizes of
// files is in psfull.go: starting it takes longer than a plain listing.
func (c *PsCmd) Run(app *App) error {
	if c.Size || c.Format != "" || len(c.Filter) > 0 {
		return c.full(app)
	}
	// We are gone before collecting garbage pays, but for a great many containers.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(256 << 20)
	home, err := app.Home()
	if err != nil {
		return err
	}
	list, err := home.Brief(c.All || c.count() > 0)
	if err != nil {
		return err
	}
	return c.plain(app.Stdout, c.cut(list), time.Now())
}

// count is how many of the newest are wanted, 0 for all.
func (c *PsCmd) count() int {
	if c.Latest {
		return 1
	}
	return max(c.Last, 0)
}

// cut leaves as many of list, the newest first, as are wanted.
func (c *PsCmd) cut(list []*container.Info) []*container.Info {
	if n := c.count(); n > 0 {
		return list[:min(n, len(list))]
	}
	return list
}

// plain writes ids, or the table without a format.
func (c *PsCmd) plain(w io.Writer, list []*container.Info, now time.Time) error {
	if c.Quiet {
		var ids []byte
		for _, info := range list {
			ids = append(append(ids, c.id(info)...), '\n')
		}
		_, err := w.Write(ids)
		return err
	}
	cells := make([]string, 0, (1+len(list))*len(psColumns))
	if !c.NoHead {
		cells = append(cells, psColumns...)
	}
	for _, info := range list {
		cells = append(cells,
			c.id(info), c.image(info), c.command(info), humanDuration(now.Sub(info.Config.Created))+" ago",
			statusText(info, now), portsText(info), info.Name(),
		)
	}
	return writeColumns(w, len(psColumns), cells)
}

func (c *PsCmd) id(info *container.Info) string {
	if c.NoTrunc {
		return info.Config.ID
	}
	return container.Short(info.Config.ID)
}

// image is as the user wrote it; an id in full is shortened.
func (c *PsCmd) image(info *container.Info) string {
	name := info.Config.Image
	if len(name) < 64 || c.NoTrunc {
		return name
	}
	if id := image.Digest("sha256:" + strings.TrimPrefix(name, "sha256:")); id.Validate() == nil {
		return id.Short()
	}
	return name
}

// command is the program with its arguments, those with spaces in quotes, as
// Docker writes it.
func (c *PsCmd) command(info *container.Info) string {
	var b strings.Builder
	for _, words := range [][]string{info.Config.Entrypoint, info.Config.Command} {
		for _, word := range words {
			if b.Len() > 0 {
				b.WriteByte(' ')
				if strings.Contains(word, " ") {
					word = "'" + word + "'"
				}
			}
			b.WriteString(word)
		}
	}
	text := b.String()
	if !c.NoTrunc {
		text = ellipsis(text, 20)
	}
	return strconv.Quote(text)
}

// statusText is a container's condition in Docker's words.
func statusText(info *container.Info, now time.Time) string {
	s := info.State
	switch info.Status() {
	case "created":
		return "Created"
	case "paused":
		return "Up " + humanDuration(now.Sub(s.Started)) + " (Paused)"
	case "restarting":
		return "Restarting (" + strconv.Itoa(s.ExitStatus) + ")" + ago(s, now)
	case "running":
		return "Up " + humanDuration(now.Sub(s.Started)) + healthText(s.Health)
	}
	return "Exited (" + strconv.Itoa(s.ExitStatus) + ")" + ago(s, now)
}

// ago is how long ago the container ended. When it was killed together with
// its monitor, or the host went down, nobody knows.
func ago(s container.State, now time.Time) string {
	if s.Finished.IsZero() || s.Finished.Before(s.Started) {
		return ""
	}
	return " " + humanDuration(now.Sub(s.Finished)) + " ago"
}

func healthText(h *container.Health) string {
	switch {
	case h == nil || h.Status == "" || h.Status == "none":
		return ""
	case h.Status == "starting":
		return " (health: starting)"
	}
	return " (" + h.Status + ")"
}

// ellipsis shortens s to n characters.
func ellipsis(s string, n int) string {
	if len(s) <= n {
		return s
	}
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// humanDuration is d as Docker writes it, in its largest unit.
func humanDuration(d time.Duration) string {
	seconds := int(d.Seconds())
	switch {
	case seconds < 1:
		return "Less than a second"
	case seconds == 1:
		return "1 second"
	case seconds < 60:
		return fmt.Sprintf("%d seconds", seconds)
	}
	minutes, hours := int(d.Minutes()), int(d.Hours()+0.5)
	switch {
	case minutes == 1:
		return "About a minute"
	case minutes < 60:
		return fmt.Sprintf("%d minutes", minutes)
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return fmt.Sprintf("%d hours", hours)
	case hours < 24*7*2:
		return fmt.Sprintf("%d days", hours/24)
	case hours < 24*30*2:
		return fmt.Sprintf("%d weeks", hours/24/7)
	case hours < 24*365*2:
		return fmt.Sprintf("%d months", hours/24/30)
	}
	return fmt.Sprintf("%d years", hours/24/365)
}
