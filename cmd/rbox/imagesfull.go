//go:build !front

package main

import (
	"path"
	"slices"

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
	values, err := filterValues(filters, "reference", "dangling", "label", "before", "since")
	if err != nil {
		return nil, err
	}
	var tests []imageTest
	for key, values := range values {
		test, err := imageFilter(s, key, values)
		if err != nil {
			return nil, err
		}
		tests = append(tests, test)
	}
	return func(m *store.Image, ref *image.Reference) bool {
		return !slices.ContainsFunc(tests, func(t imageTest) bool { return !t(m, ref) })
	}, nil
}

// imageFilter is the test of one key.
func imageFilter(s *store.Store, key string, values []string) (imageTest, error) {
	switch key {
	case "reference":
		return func(_ *store.Image, ref *image.Reference) bool {
			return ref != nil && slices.ContainsFunc(values, func(p string) bool { return matchesReference(p, *ref) })
		}, nil
	case "dangling":
		want, err := boolFilter(key, values)
		return func(_ *store.Image, ref *image.Reference) bool { return want(ref == nil) }, err
	case "label":
		return func(m *store.Image, _ *image.Reference) bool { return hasLabels(m.Config.Config.Labels, values) }, nil
	}
	return imageAgeFilter(s, key, values)
}

// imageAgeFilter compares with other images.
func imageAgeFilter(s *store.Store, key string, values []string) (imageTest, error) {
	var others []*store.Image
	for _, v := range values {
		other, err := s.Lookup(v)
		if err != nil {
			return nil, err
		}
		others = append(others, other)
	}
	return func(m *store.Image, _ *image.Reference) bool {
		return !slices.ContainsFunc(others, func(other *store.Image) bool {
			c := m.Created().Compare(other.Created())
			return key == "before" && c >= 0 || key == "since" && c <= 0
		})
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
