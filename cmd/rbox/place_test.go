package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
)

// The choice of a place for layers, on hosts where some directories serve and others do not.
func TestChooser(t *testing.T) {
	type host struct {
		wanted string
		dirs   []string
		kinds  map[string]string // what a place in a directory is: "", "copy", "unfit", "full", "unsafe", "noexec copy"; home is the data directory
	}
	for name, tc := range map[string]struct {
		host
		place   string // the directory that it is in
		driver  rootfs.Driver
		notices string // a regular expression for all of them
		err     string
	}{
		"a good home":           {host: host{dirs: []string{"tmp"}}, driver: rootfs.Overlay},
		"a home of copies":      {host: host{dirs: []string{"tmp"}, kinds: map[string]string{"home": "copy"}}, driver: rootfs.Copy},
		"a bad home":            {host: host{dirs: []string{"tmp", "shm"}, kinds: map[string]string{"home": "useless"}}, place: "tmp", driver: rootfs.Overlay, notices: "^layers and what containers write lie in DIR/tmp/rbox-.* since useless$"},
		"one without xattrs":    {host: host{dirs: []string{"tmp"}, kinds: map[string]string{"home": "unfit"}}, place: "tmp", driver: rootfs.Overlay, notices: "since unfit$"},
		"the next":              {host: host{dirs: []string{"a", "b", "c", "d", "e", "tmp"}, kinds: map[string]string{"home": "useless", "a": "unfit", "b": "full", "c": "unsafe", "d": "useless", "e": "noexec copy"}}, place: "tmp", driver: rootfs.Overlay, notices: "lie in DIR/tmp/"},
		"better than copies":    {host: host{dirs: []string{"a", "b", "tmp", "shm"}, kinds: map[string]string{"home": "useless", "a": "copy", "b": "copy"}}, place: "tmp", driver: rootfs.Overlay, notices: "lie in DIR/tmp/"},
		"copies for want":       {host: host{dirs: []string{"a", "b"}, kinds: map[string]string{"home": "useless", "a": "copy", "b": "copy"}}, place: "a", driver: rootfs.Copy, notices: "lie in DIR/a/"},
		"nowhere":               {host: host{dirs: []string{"a", "gone"}, kinds: map[string]string{"home": "useless", "a": "full"}}, err: "^no place for layers: useless; DIR/a: only 1MB are free; DIR/gone: no such file or directory$"},
		"nowhere better":        {host: host{dirs: []string{"a"}, kinds: map[string]string{"home": "unfit", "a": "full"}}, driver: rootfs.Overlay},
		"wanted":                {host: host{wanted: "want", dirs: []string{"tmp"}}, place: "want", driver: rootfs.Overlay, notices: `^layers and what containers write lie in DIR/want/rbox-.* \(RBOX_LAYERS\)$`},
		"wanted, not safe":      {host: host{wanted: "want", kinds: map[string]string{"want": "unsafe"}}, place: "want", driver: rootfs.Overlay, notices: "RBOX_LAYERS"},
		"wanted, in vain":       {host: host{wanted: "want", dirs: []string{"tmp"}, kinds: map[string]string{"want": "unfit"}}, driver: rootfs.Overlay, notices: "^RBOX_LAYERS=DIR/want: unfit$"},
		"wanted, in vain twice": {host: host{wanted: "gone", dirs: []string{"tmp"}, kinds: map[string]string{"home": "useless"}}, place: "tmp", driver: rootfs.Overlay, notices: "lie in DIR/tmp/"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			in := func(name string) string {
				if name == "" {
					return ""
				}
				if path := filepath.Join(dir, name); name == "gone" || os.MkdirAll(path, 0o700) == nil {
					return filepath.Join(dir, name)
				}
				t.Fatal(name)
				return ""
			}
			kind := func(path string) string {
				first, _, _ := strings.Cut(strings.TrimPrefix(path, dir+"/"), "/")
				return tc.kinds[first]
			}
			f := &chooser{
				data: in("home"), links: filepath.Join(dir, "links"), wanted: in(tc.wanted),
				try: func(path string) (rootfs.Choice, error) {
					k, c := kind(path), rootfs.Choice{Driver: rootfs.Overlay}
					if strings.HasSuffix(k, "copy") {
						c.Driver, c.Skipped = rootfs.Copy, []string{"no overlay"}
					}
					if k == "unfit" || k == "useless" {
						c.Unfit, c.Useless = k, k == "useless"
					}
					return c, nil
				},
				parent: func(path string) (string, error) {
					if kind(path) == "unsafe" {
						return "", errors.New("unsafe")
					}
					return path, nil
				},
				room: func(path string) (int64, error) {
					if kind(path) == "full" {
						return 1e6, nil
					}
					_, err := os.Stat(path)
					return 1e12, err
				},
				noexec: func(path string) bool { return strings.HasPrefix(kind(path), "noexec") },
			}
			for _, d := range tc.dirs {
				f.dirs = append(f.dirs, in(d))
			}
			var first rootfs.Choice
			for round := range 2 { // the second finds the place of the first
				c, notices, err := f.choose()
				if tc.err != "" {
					if err == nil || !regexp.MustCompile(strings.ReplaceAll(tc.err, "DIR", dir)).MatchString(err.Error()) {
						t.Fatalf("got %v, want %s", err, tc.err)
					}
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if c.Driver != tc.driver || c.Place == "" != (tc.place == "") || c.Place != "" && filepath.Dir(c.Place) != in(tc.place) {
					t.Errorf("got %+v, want %s with %s", c, tc.place, tc.driver)
				}
				if text := strings.Join(notices, "\n"); tc.notices == "" != (text == "") || !regexp.MustCompile(strings.ReplaceAll(tc.notices, "DIR", dir)).MatchString(text) {
					t.Errorf("notices %q, want %s", text, tc.notices)
				}
				if round == 1 && !reflect.DeepEqual(c, first) {
					t.Errorf("first %+v, then %+v", first, c)
				}
				first = c
			}
			made, _ := filepath.Glob(dir + "/*/rbox-*")
			made = slices.DeleteFunc(made, func(m string) bool { return filepath.Dir(m) == f.links })
			var want []string
			if first.Place != "" {
				want = []string{first.Place}
			}
			if linked := linkedPlaces(f.links); !slices.Equal(made, want) || !slices.Equal(linked, want) {
				t.Errorf("places %v, links to %v; want %v", made, linked, want)
			}
		})
	}
}

// A place in which others left something, or that is another's now, is no place.
func TestPlaceThatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	f := &chooser{links: filepath.Join(dir, "links")}
	place, err := f.make(dir)
	if err != nil {
		t.Fatal(err)
	}
	if f.placeBelow(dir) != place {
		t.Error("the place is not found")
	}
	for name, spoil := range map[string]func() error{
		"open to others": func() error { return os.Chmod(place, 0o750) },
		"a link": func() error {
			return errors.Join(os.Rename(place, place+".away"), os.Symlink(place+".away", place))
		},
		"a file": func() error { return errors.Join(os.Remove(place), os.WriteFile(place, nil, 0o600)) },
		"gone":   func() error { return os.Remove(place) },
	} {
		t.Run(name, func(t *testing.T) {
			os.RemoveAll(place)
			if err := os.Mkdir(place, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			if rootfs.OwnPlace(place) == nil || f.placeBelow(dir) != "" {
				t.Error("it is taken")
			}
		})
	}
	if err := rootfs.MakePlace(dir); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a place is made of a directory that is there: %v", err)
	}
}

func TestPlaceDirs(t *testing.T) {
	env := map[string]string{"TMPDIR": "/var", "XDG_RUNTIME_DIR": "relative"}
	got := placeDirs(func(name string) string { return env[name] })
	if len(got) != 4 || got[0] != "/var" && rootfs.FileSystem("/var") != "tmpfs" {
		t.Errorf("got %v", got)
	}
	if rootfs.FileSystem("/dev/shm") == "tmpfs" && got[3] != "/dev/shm" {
		t.Errorf("memory is not last: %v", got)
	}
}
