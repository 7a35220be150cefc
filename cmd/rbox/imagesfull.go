//go:build !front

package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
)

// full is Run with all that images can do.
func (c *ImagesCmd) full(app *App) error {
	s, err := app.Images()
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
	rows, err := c.rows(s, keep)
	if err != nil {
		return err
	}
	if c.Format == "" {
		return c.plain(app.Stdout, rows)
	}
	list := make([]any, len(rows))
	for i, r := range rows {
		list[i] = r
	}
	return c.listing().print(app.Stdout, c.Format, list)
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

// imageFilters returns what decides whether an image is shown under a name,
// nil for an image without one.
func imageFilters(s *store.Store, filters []string) (imageTest, error) {
	var tests []imageTest
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
