package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rbox/rootfs"
	"rbox/rootfs/volume"
	"rbox/userns/stage"
)

// withVolumes makes the folder of a container in dir that mounts the volumes of
// s; the name of an anonymous one begins with 0.
func withVolumes(t *testing.T, s *volume.Store, dir string, autoRemove bool, names ...string) {
	t.Helper()
	c := Config{ID: filepath.Base(dir), AutoRemove: autoRemove}
	for i, name := range names {
		if _, err := s.Create(volume.Volume{Name: name}); err != nil {
			t.Fatal(err)
		}
		target := fmt.Sprint("/", i)
		c.Volumes = append(c.Volumes, VolumeUse{Name: name, Target: target, Anonymous: strings.HasPrefix(name, "0")})
		c.Plan.Mounts = append(c.Plan.Mounts, rootfs.Mount{Type: "volume", Source: s.Mountpoint(name), Target: target})
	}
	text, err := json.Marshal(c)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func namesOf(t *testing.T, s *volume.Store) string {
	t.Helper()
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range all {
		names = append(names, v.Name)
	}
	return strings.Join(names, " ")
}

// Containers of all hosts use their volumes, those half made or removed do not.
func TestVolumeUsers(t *testing.T) {
	dir := t.TempDir()
	s := &volume.Store{Dir: t.TempDir()}
	for _, path := range []string{"here/kept", "here/passing", "there/kept", "there/passing"} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	withVolumes(t, s, filepath.Join(dir, "here/kept/aa"), false, "one", "two", "one")
	withVolumes(t, s, filepath.Join(dir, "there/passing/bb"), true, "one")
	withVolumes(t, s, filepath.Join(dir, "there/passing", doomed+"cc"), true, "one", "three")
	withVolumes(t, s, filepath.Join(dir, "here/passing", unborn+"dd"), true, "three")
	if err := os.Mkdir(filepath.Join(dir, "here/kept/ee"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := VolumeUsers(dir)
	if err != nil || fmt.Sprint(got) != "map[one:[aa bb] two:[aa]]" {
		t.Errorf("%v, %v", got, err)
	}
}

// With what a killed process left go the volumes that nobody else can know of.
func TestDeleteWithVolumes(t *testing.T) {
	for name, tc := range map[string]struct {
		folder     string
		autoRemove bool
		want       string
	}{
		"removed":   {"passing/" + doomed + "aa", true, "0shared named"},
		"half made": {"passing/" + unborn + "aa", false, "0shared named"},
		"kept":      {"passing/" + doomed + "aa", false, "00 0shared named"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := OpenHome(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			s := &volume.Store{Dir: t.TempDir()}
			withVolumes(t, s, filepath.Join(h.Dir, kept, "bb"), false, "0shared")
			dir := filepath.Join(h.Dir, tc.folder)
			withVolumes(t, s, dir, tc.autoRemove, "00", "named", "0shared")
			if err := h.delete(dir, nil); err != nil {
				t.Fatal(err)
			}
			if got := namesOf(t, s); got != tc.want {
				t.Errorf("left: %s, want %s", got, tc.want)
			}
			if _, err := os.Lstat(dir); err == nil {
				t.Error("the folder is still there")
			}
		})
	}
}

// A doomed container's volumes are found no more before they are deleted.
func TestDoomVolumes(t *testing.T) {
	h, err := OpenHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &volume.Store{Dir: t.TempDir()}
	withVolumes(t, s, filepath.Join(h.Dir, kept, "bb"), false, "0shared")
	dir := filepath.Join(h.Dir, passing, "aa")
	withVolumes(t, s, dir, true, "00", "named", "0shared")
	if _, err := h.doomNamed("aa", ""); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(h.Dir, passing, doomed+"aa")
	var c Config
	if err := readJSON(dir, "config.json", &c); err != nil {
		t.Fatal(err)
	}
	if err := c.doomVolumes(filepath.Dir(h.Dir)); err != nil {
		t.Fatal(err)
	}
	if got, want := namesOf(t, s), "0shared named"; got != want {
		t.Errorf("found: %s, want %s", got, want)
	}
	if err := h.delete(dir, nil); err != nil {
		t.Fatal(err)
	}
	if left := s.Leftovers(); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
}

// What was made for a container that came to nothing goes with it.
func TestDiscardWithVolumes(t *testing.T) {
	h, err := OpenHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &volume.Store{Dir: t.TempDir()}
	f, err := h.Create("aa", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"00", "named"} {
		if _, err := s.Create(volume.Volume{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	f.Volumes = append(f.Volumes, volume.FolderOf(s.Mountpoint("00")))
	f.Discard()
	if got := namesOf(t, s); got != "named" {
		t.Errorf("left: %s", got)
	}
}

// Volumes are filled at the first start, and not if they want no copy.
func TestFillVolumes(t *testing.T) {
	image := t.TempDir()
	for i := range 2 {
		if err := os.Mkdir(filepath.Join(image, fmt.Sprint(i)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(image, fmt.Sprint(i), "file"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := rootfs.OpenTree(image, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for name, tc := range map[string]struct {
		state string
		want  []string
	}{
		"new":                  {"", []string{"a0"}},
		"did not start":        {`{"Error":"x"}`, []string{"a0"}},
		"has started":          {`{"Started":"2026-01-02T03:04:05Z"}`, nil},
		"state is half there":  {`{"Sta`, []string{"a0"}},
		"renamed before start": {`{"Name":"x"}`, []string{"a0"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &volume.Store{Dir: t.TempDir()}
			c := Config{Plan: stage.Plan{Mounts: []rootfs.Mount{
				{Type: "volume", Source: s.Mountpoint("a0"), Target: "/0"}, {Type: "volume", Source: s.Mountpoint("a1"), Target: "/1", NoCopy: true},
				{Type: "bind", Source: "/", Target: "/host"},
			}}}
			for _, name := range []string{"a0", "a1"} {
				if _, err := s.Create(volume.Volume{Name: name}); err != nil {
					t.Fatal(err)
				}
			}
			dir := t.TempDir()
			if tc.state != "" {
				if err := os.WriteFile(filepath.Join(dir, "state.json"), []byte(tc.state), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.fillVolumes(tree, dir, func(string) {}); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, name := range []string{"a0", "a1"} {
				if _, err := os.Stat(filepath.Join(s.Mountpoint(name), "file")); err == nil {
					got = append(got, name)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("filled %q, want %q", got, tc.want)
			}
		})
	}
}
