//go:build !front

package main

import (
	"errors"
	"regexp"
	"slices"
	"strconv"

	"rbox/rootfs/image"
	"rbox/slirp"
	"rbox/slirp/network"
	"rbox/userns/container"
)

// psFilters decide which containers ps shows.
type psFilters struct {
	tests []func(*container.Info) bool
	ended bool // a filter speaks of containers that do not run: show them without -a
}

// keeps tells whether info meets all filters.
func (f *psFilters) keeps(info *container.Info) bool {
	for _, t := range f.tests {
		if !t(info) {
			return false
		}
	}
	return true
}

// parsePsFilters reads filters. List is what they are about.
func parsePsFilters(app *App, home *container.Home, list []*container.Info, filters []string) (*psFilters, error) {
	f := new(psFilters)
	if len(filters) == 0 {
		return f, nil
	}
	values, err := filterValues(filters, "name", "id", "label", "exited", "status", "ancestor", "before", "since", "volume", "network", "publish", "expose", "health")
	if err != nil {
		return nil, err
	}
	for key, values := range values {
		test, err := psFilter(app, home, list, key, values)
		if err != nil {
			return nil, err
		}
		f.ended = f.ended || key == "status" || key == "exited"
		f.tests = append(f.tests, test)
	}
	return f, nil
}

// psFilter is the test of one key.
func psFilter(app *App, home *container.Home, list []*container.Info, key string, values []string) (func(*container.Info) bool, error) {
	switch key {
	case "name":
		return textFilter(values, func(info *container.Info) []string { return []string{info.Name(), "/" + info.Name()} }), nil
	case "id":
		return textFilter(values, func(info *container.Info) []string { return []string{info.Config.ID} }), nil
	case "label":
		return func(info *container.Info) bool { return hasLabels(info.Config.Labels, values) }, nil
	case "exited":
		return exitedFilter(values)
	case "status":
		if err := among(key, values, "created", "restarting", "running", "removing", "paused", "exited", "dead"); err != nil {
			return nil, err
		}
		return func(info *container.Info) bool { return slices.Contains(values, info.Status()) }, nil
	case "health":
		if err := among(key, values, "starting", "healthy", "unhealthy", "none"); err != nil {
			return nil, err
		}
		return func(info *container.Info) bool { return slices.Contains(values, healthStatus(info.State.Health)) }, nil
	case "before", "since":
		return ageFilter(home, list, key, values)
	case "ancestor":
		return ancestorFilter(app, values)
	case "volume":
		return volumeFilter(home, values), nil
	case "network":
		return networkFilter(app, values)
	}
	return portFilter(key, values)
}

// textFilter is met by a container of whose texts one is, or matches as a
// regular expression, one of values.
func textFilter(values []string, texts func(*container.Info) []string) func(*container.Info) bool {
	var patterns []*regexp.Regexp
	for _, v := range values {
		if re, err := regexp.Compile(v); err == nil { // else it can only be equal
			patterns = append(patterns, re)
		}
	}
	return func(info *container.Info) bool {
		for _, text := range texts(info) {
			if slices.Contains(values, text) || slices.ContainsFunc(patterns, func(re *regexp.Regexp) bool { return re.MatchString(text) }) {
				return true
			}
		}
		return false
	}
}

func exitedFilter(values []string) (func(*container.Info) bool, error) {
	var statuses []int
	for _, v := range values {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, &filterError{"exited=" + v, "that is no exit status", "such as --filter exited=0"}
		}
		statuses = append(statuses, n)
	}
	return func(info *container.Info) bool {
		return info.Status() == "exited" && slices.Contains(statuses, info.State.ExitStatus)
	}, nil
}

func healthStatus(h *container.Health) string {
	if h == nil || h.Status == "" {
		return "none"
	}
	return h.Status
}

// ageFilter compares with another container.
func ageFilter(home *container.Home, list []*container.Info, key string, values []string) (func(*container.Info) bool, error) {
	var others []*container.Info
	for _, v := range values {
		id, err := home.Find(v)
		if err != nil {
			return nil, err
		}
		for _, info := range list {
			if info.Config.ID == id {
				others = append(others, info)
			}
		}
	}
	return func(info *container.Info) bool {
		return !slices.ContainsFunc(others, func(other *container.Info) bool {
			c := info.Config.Created.Compare(other.Config.Created)
			return key == "before" && c >= 0 || key == "since" && c <= 0
		})
	}, nil
}

// ancestorFilter is met by containers of the images, and of images built upon them.
func ancestorFilter(app *App, values []string) (func(*container.Info) bool, error) {
	s, err := app.Images()
	if err != nil {
		return nil, err
	}
	var bases [][]image.Digest
	ids := map[string]bool{}
	for _, v := range values {
		m, err := s.Lookup(v)
		if err != nil { // a directory, the host, or an image that is gone
			continue
		}
		ids[string(m.ID)] = true
		if diffs := m.Config.RootFS.DiffIDs; len(diffs) > 0 {
			bases = append(bases, diffs)
		}
	}
	known := map[string]bool{}
	descends := func(id string) bool {
		if answer, ok := known[id]; ok {
			return answer
		}
		m, err := s.Lookup(id)
		known[id] = err == nil && slices.ContainsFunc(bases, func(base []image.Digest) bool {
			diffs := m.Config.RootFS.DiffIDs
			return len(diffs) > len(base) && slices.Equal(diffs[:len(base)], base)
		})
		return known[id]
	}
	return func(info *container.Info) bool {
		id := info.Config.ImageID
		return slices.Contains(values, info.Config.Image) || ids[id] || id != "" && descends(id)
	}, nil
}

// volumeFilter is met by containers that mount a volume, or a source, of that
// name, or mount something at that place.
func volumeFilter(home *container.Home, values []string) func(*container.Info) bool {
	return func(info *container.Info) bool {
		full, err := home.Inspect(info.Config.ID)
		return err == nil && slices.ContainsFunc(mountPoints(full.Config), func(m mountPoint) bool {
			return slices.Contains(values, m.Name) && m.Name != "" || slices.Contains(values, m.Source) || slices.Contains(values, m.Destination)
		})
	}
}

// networkFilter is met by containers on a network of that name or id.
func networkFilter(app *App, values []string) (func(*container.Info) bool, error) {
	names := slices.Clone(values)
	for i, v := range values {
		switch n, err := app.Networks().Find(v); {
		case err == nil:
			names[i] = n.Name
		case v == "bridge" || v == "default": // as --network takes them
			names[i] = container.Private
		case !errors.As(err, new(*network.NotFoundError)):
			return nil, err
		}
	}
	return func(info *container.Info) bool {
		return slices.ContainsFunc(info.NetworkNames(), func(name string) bool { return slices.Contains(names, name) })
	}, nil
}

// portFilter is met by containers with a port of the host, or for the key
// expose of their own, among values: PORT[-LAST][/PROTOCOL].
func portFilter(key string, values []string) (func(*container.Info) bool, error) {
	wanted := map[string]bool{}
	for _, v := range values {
		ports, err := slirp.ParseExposed(v)
		if err != nil {
			return nil, &filterError{key + "=" + v, "that is no port", "such as --filter " + key + "=80/tcp"}
		}
		for _, p := range ports {
			wanted[p] = true
		}
	}
	return func(info *container.Info) bool {
		published := publishedPorts(info)
		if key == "expose" && slices.ContainsFunc(info.Config.Options.Exposed, func(p string) bool { return wanted[p] }) {
			return true
		}
		return slices.ContainsFunc(published, func(p slirp.Port) bool {
			if key == "expose" {
				return wanted[p.Inside()]
			}
			return wanted[strconv.Itoa(int(p.HostPort))+"/"+p.Protocol]
		})
	}, nil
}
