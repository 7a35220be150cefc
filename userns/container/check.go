package container

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Finding is something in a Home that is not as it should be.
type Finding struct {
	What   string
	Remove string       // a folder that Remove deletes
	Mend   func() error // nil: Remove, or nobody can
}

// Check looks for containers that are half made or half removed, damaged files
// of containers, and names that point nowhere.
func (h *Home) Check() (list []Finding, err error) {
	for _, id := range h.Dead() {
		list = append(list, Finding{What: "what is left of container " + Short(strings.TrimPrefix(strings.TrimPrefix(id, unborn), doomed)), Remove: id})
	}
	entries, err := os.ReadDir(filepath.Join(h.Dir, kept))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		list = append(list, h.checkFolder(e)...)
	}
	entries, err = os.ReadDir(filepath.Join(h.Dir, names))
	for _, e := range entries {
		path := filepath.Join(h.Dir, names, e.Name())
		if id, err := os.Readlink(path); err == nil && !h.hasName(id, e.Name()) {
			list = append(list, Finding{What: "the name " + e.Name() + " is that of no container", Mend: func() error {
				h.forget(id, e.Name())
				return nil
			}})
		}
	}
	return list, err
}

// checkFolder looks at one container that is kept.
func (h *Home) checkFolder(e fs.DirEntry) (list []Finding) {
	id, dir := e.Name(), filepath.Join(h.Dir, kept, e.Name())
	lock, err := lockConfig(dir)
	if err != nil && !(errors.Is(err, fs.ErrNotExist) && old(e)) {
		return nil // it runs, or is about to
	}
	if lock != nil {
		defer lock.Close()
	}
	var c Config
	if readJSON(dir, "config.json", &c) != nil || c.ID != id {
		return []Finding{{What: "container " + Short(id) + " has no readable configuration", Remove: id}}
	}
	var s State
	if b, err := os.ReadFile(filepath.Join(dir, "state.json")); err == nil && json.Unmarshal(b, &s) != nil {
		list = append(list, Finding{What: "container " + Short(id) + " has a state that cannot be read", Mend: func() error {
			defer markChanged(dir)
			return os.Remove(filepath.Join(dir, "state.json"))
		}})
	}
	if lost := c.CheckWritings(dir, Info{Config: c, State: s}.Name()); lost != nil {
		list = append(list, Finding{What: lost.Error()})
		c.Plan.Root.Upper, c.Plan.Root.Work = "", ""
	}
	for _, sub := range []string{c.Plan.Root.Upper, c.Plan.Root.Work} {
		if _, err := os.Lstat(sub); sub != "" && errors.Is(err, fs.ErrNotExist) {
			list = append(list, Finding{What: "container " + Short(id) + " has lost " + sub, Mend: func() error { return os.Mkdir(sub, 0o755) }})
		}
	}
	name := Info{Config: c, State: s}.Name()
	if owner, err := os.Readlink(filepath.Join(h.Dir, names, name)); err != nil || owner != id {
		list = append(list, Finding{What: "container " + Short(id) + " is not found by its name " + name, Mend: func() error { return h.takeName(name, id) }})
	}
	return list
}
