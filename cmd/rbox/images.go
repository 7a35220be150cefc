package main

import (
	"io"
	"time"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
)

// ImagesCmd lists images.
type ImagesCmd struct {
	All     bool     `short:"a" help:"Show all images; there are no hidden ones."`
	Quiet   bool     `short:"q" help:"Show ids only."`
	Digests bool     `help:"Show digests."`
	NoTrunc bool     `help:"Show ids in full."`
	NoHead  bool     `name:"noheading" help:"Leave the headings out."`
	Filter  []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"Only those with reference=PATTERN, dangling=BOOL, label=NAME[=VALUE], before=IMAGE or since=IMAGE."`
	Format  string   `placeholder:"TEMPLATE" help:"json, table, or a Go template over Docker's fields."`
	Name    string   `arg:"" optional:"" name:"NAME[:TAG]" help:"Only the images of this name, which may be a pattern."`
}

// An imageRow is one line of the listing, with Docker's field names.
type imageRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
	VirtualSize  string
}

// An imageTest tells whether an image is shown under a name, nil for one without.
type imageTest func(*store.Image, *image.Reference) bool

// everyImage keeps all.
func everyImage(*store.Image, *image.Reference) bool { return true }

// Run prints Docker's columns. What needs templates or filters is in
// imagesfull.go: starting it takes longer than a plain listing.
func (c *ImagesCmd) Run(app *App) error {
	if c.Format != "" || c.Name != "" || len(c.Filter) > 0 {
		return c.full(app)
	}
	s, err := app.Images()
	if err != nil {
		return err
	}
	rows, err := c.rows(s, everyImage)
	if err != nil {
		return err
	}
	return c.plain(app.Stdout, rows)
}

// rows are those of all images that keep keeps.
func (c *ImagesCmd) rows(s *store.Store, keep imageTest) (rows []imageRow, err error) {
	images, err := s.List()
	for _, m := range images {
		rows = append(rows, imageRows(m, keep)...)
	}
	if !c.NoTrunc {
		for i := range rows {
			rows[i].ID = shortID(rows[i].ID)
		}
	}
	return rows, err
}

// plain writes ids, or the table without a format.
func (c *ImagesCmd) plain(w io.Writer, rows []imageRow) error {
	if c.Quiet {
		return writeIDs(w, rows)
	}
	columns := []string{"REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"}
	var cells []string
	add := func(row ...string) {
		if !c.Digests {
			row = append(row[:2], row[3:]...)
		}
		cells = append(cells, row...)
	}
	if !c.NoHead {
		add(columns...)
	}
	for _, r := range rows {
		add(r.Repository, r.Tag, r.Digest, r.ID, r.CreatedSince, r.Size)
	}
	if !c.Digests {
		return writeColumns(w, len(columns)-1, cells)
	}
	return writeColumns(w, len(columns), cells)
}

// writeIDs writes each id once, however many names an image has.
func writeIDs(w io.Writer, rows []imageRow) error {
	var b []byte
	seen := map[string]bool{}
	for _, r := range rows {
		if !seen[r.ID] {
			b = append(append(b, r.ID...), '\n')
		}
		seen[r.ID] = true
	}
	_, err := w.Write(b)
	return err
}

const none = "<none>"

// imageRows makes a row of each name of m that keep keeps, or one for an image without.
func imageRows(m *store.Image, keep imageTest) (rows []imageRow) {
	row := imageRow{
		ID: string(m.ID), Repository: none, Tag: none, Digest: none,
		Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A",
		Size: humanSize(m.Size, 3), VirtualSize: humanSize(m.Size, 3),
		CreatedAt: "N/A", CreatedSince: "N/A",
	}
	if created := m.Created(); !created.IsZero() {
		row.CreatedAt = created.Local().Format("2006-01-02 15:04:05 -0700 MST")
		row.CreatedSince = humanDuration(time.Since(created)) + " ago"
	}
	tagged := map[string]bool{}
	for _, r := range m.Refs {
		if ref := r.Reference(); ref.Tag != "" {
			tagged[ref.Name()] = true
		}
	}
	for _, r := range m.Refs {
		ref := r.Reference()
		if !keep(m, &ref) || ref.Tag == "" && tagged[ref.Name()] {
			continue // Docker shows a digest alone only where there is no tag
		}
		named := row
		named.Repository = ref.FamiliarName()
		if ref.Tag != "" {
			named.Tag = ref.Tag
		}
		if r.Digest != "" {
			named.Digest = string(r.Digest)
		}
		rows = append(rows, named)
	}
	if len(m.Refs) == 0 && keep(m, nil) {
		rows = append(rows, row)
	}
	return rows
}
