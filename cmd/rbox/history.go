//go:build !front

package main

import (
	"fmt"
	"strings"
	"time"

	"rbox/rootfs/store"
)

// HistoryCmd shows how an image was built.
type HistoryCmd struct {
	Human   bool   `short:"H" default:"true" negatable:"" help:"Show sizes and dates for people (the default)."`
	NoTrunc bool   `help:"Show ids and commands in full."`
	Quiet   bool   `short:"q" help:"Show ids only."`
	Format  string `placeholder:"TEMPLATE" help:"json, table, or a Go template over Docker's fields."`
	Image   string `arg:"" name:"IMAGE" help:"Name or id."`
}

// A historyRow is one step, with Docker's field names.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

// Run prints Docker's columns, the last step first.
func (c *HistoryCmd) Run(app *App) error {
	s, err := app.Images()
	if err != nil {
		return err
	}
	m, err := s.Lookup(c.Image)
	if err != nil {
		return err
	}
	rows := c.rows(m)
	if c.Quiet {
		for _, r := range rows {
			fmt.Fprintln(app.Stdout, r.(historyRow).ID)
		}
		return nil
	}
	l := listing{
		columns: []column{
			{"ID", "IMAGE"}, {"CreatedAt", "CREATED AT"}, {"CreatedSince", "CREATED"},
			{"CreatedBy", "CREATED BY"}, {"Size", "SIZE"}, {"Comment", "COMMENT"},
		},
		standard: []string{"ID", "CreatedSince", "CreatedBy", "Size", "Comment"},
	}
	if !c.Human {
		l.standard[1] = "CreatedAt"
	}
	return l.print(app.Stdout, c.Format, rows)
}

func (c *HistoryCmd) rows(m *store.Image) (rows []any) {
	steps := m.Config.History
	next := 0 // layer
	for i, step := range steps {
		var size int64
		if !step.EmptyLayer && next < len(m.Layers) {
			size = m.Layers[next].Unpacked
			next++
		}
		row := historyRow{ID: "<missing>", CreatedBy: step.CreatedBy, Comment: step.Comment, Size: c.size(size)}
		if i == len(steps)-1 {
			row.ID = string(m.ID)
		}
		if step.Created != nil {
			row.CreatedAt = step.Created.Format(time.RFC3339)
			row.CreatedSince = humanDuration(time.Since(*step.Created)) + " ago"
		}
		if !c.NoTrunc {
			if i == len(steps)-1 {
				row.ID = shortID(row.ID)
			}
			row.CreatedBy = ellipsis(strings.ReplaceAll(row.CreatedBy, "\t", " "), 45)
		}
		rows = append([]any{row}, rows...)
	}
	if len(steps) == 0 {
		id := string(m.ID)
		if !c.NoTrunc {
			id = shortID(id)
		}
		rows = append(rows, historyRow{ID: id, Size: c.size(m.Size)})
	}
	return rows
}

func (c *HistoryCmd) size(n int64) string {
	if !c.Human {
		return fmt.Sprint(n)
	}
	return humanSize(n, 3)
}
