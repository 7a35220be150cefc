//go:build !front

package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
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
	Filter  []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"Only those with reference=PATTERN, dangling=BOOL, label=KEY[=VALUE], before=IMAGE or since=IMAGE."`
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

// Run prints Docker's columns.
func (c *ImagesCmd) Run(app *App) error {
	s, err := app.Images()
	if err != nil {
		return err
	}
	images, err := s.List()
	if err != nil {
		return err
	}
	filters := c.Filter
	if c.Name != "" {
		filters = append(slices.Clone(filters), "reference="+c.Name)
	}
	keep, err := imageFilters(s, filters)
	if err != nil {
		return err
	}
	var rows []any
	seen := map[string]bool{}
	for _, m := range images {
		for _, r := range imageRows(m, keep, c.Digests) {
			if !c.NoTrunc {
				r.ID = shortID(r.ID)
			}
			if c.Quiet && c.Format == "" {
				if !seen[r.ID] {
					fmt.Fprintln(app.Stdout, r.ID)
				}
				seen[r.ID] = true
				continue
			}
			rows = append(rows, r)
		}
	}
	if c.Quiet && c.Format == "" {
		return nil
	}
	return c.listing().print(app.Stdout, c.Format, rows)
}

func (c *ImagesCmd) listing() listing {
	l := listing{
		columns: []column{
			{"Containers", "CONTAINERS"}, {"CreatedAt", "CREATED AT"}, {"CreatedSince", "CREATED"}, {"Digest", "DIGEST"},
			{"ID", "IMAGE ID"}, {"Repository", "REPOSITORY"}, {"SharedSize", "SHARED SIZE"}, {"Size", "SIZE"},
			{"Tag", "TAG"}, {"UniqueSize", "UNIQUE SIZE"}, {"VirtualSize", "VIRTUAL SIZE"},
		},
		standard: []string{"Repository", "Tag", "ID", "CreatedSince", "Size"},
		noHead:   c.NoHead,
	}
	if c.Digests {
		l.standard = []string{"Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"}
	}
	return l
}

const none = "<none>"

// imageRows makes a row of each name of m that keep keeps, or one for an image without.
func imageRows(m *store.Image, keep func(*store.Image, *image.Reference) bool, digests bool) (rows []imageRow) {
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

// imageFilters returns what decides whether an image is shown under a name,
// nil for an image without one.
func imageFilters(s *store.Store, filters []string) (func(*store.Image, *image.Reference) bool, error) {
	type test func(*store.Image, *image.Reference) bool
	var tests []test
	var patterns []string
	for _, f := range filters {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, &adviceError{fmt.Errorf("--filter %s: it has no value", f), "such as --filter dangling=true"}
		}
		switch key {
		case "reference":
			patterns = append(patterns, value)
		case "dangling":
			want := value == "true" || value == "1"
			tests = append(tests, func(_ *store.Image, ref *image.Reference) bool { return (ref == nil) == want })
		case "label":
			k, v, exact := strings.Cut(value, "=")
			tests = append(tests, func(m *store.Image, _ *image.Reference) bool {
				have, ok := m.Config.Config.Labels[k]
				return ok && (!exact || have == v)
			})
		case "before", "since":
			other, err := s.Lookup(value)
			if err != nil {
				return nil, err
			}
			tests = append(tests, func(m *store.Image, _ *image.Reference) bool {
				if key == "before" {
					return m.Created().Before(other.Created())
				}
				return m.Created().After(other.Created())
			})
		default:
			return nil, &adviceError{fmt.Errorf("--filter %s: there is no such filter", f), "filters are reference, dangling, label, before and since"}
		}
	}
	if len(patterns) > 0 {
		tests = append(tests, func(_ *store.Image, ref *image.Reference) bool {
			return ref != nil && slices.ContainsFunc(patterns, func(p string) bool { return matchesReference(p, *ref) })
		})
	}
	return func(m *store.Image, ref *image.Reference) bool {
		for _, t := range tests {
			if !t(m, ref) {
				return false
			}
		}
		return true
	}, nil
}

// matchesReference matches a name, with or without its tag and with or
// without its registry, against a pattern of path.Match.
func matchesReference(pattern string, ref image.Reference) bool {
	for _, name := range []string{ref.Familiar(), ref.FamiliarName(), ref.String(), ref.Name()} {
		if ok, err := path.Match(pattern, name); err == nil && ok {
			return true
		}
	}
	return false
}
