package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rbox/userns/container"
)

func TestDirectoryBase(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := directoryBase("."); err != nil || b.root.Driver != "dir" || b.root.Dir != dir {
		t.Errorf("got %+v, %v", b, err)
	}
	for path, want := range map[string]string{
		file:       "--rootfs: " + file + " is not a directory",
		dir + "/x": "--rootfs: stat " + dir + "/x: no such file or directory",
	} {
		if _, err := directoryBase(path); text(err) != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

func TestHostBase(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("PATH", "/x:/y")
	t.Setenv("SECRET", "x")
	work := filepath.Join(home, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	for cwd, want := range map[string]string{"/": home, home: home, work: work} {
		t.Chdir(cwd)
		b := hostBase()
		if b.config.WorkingDir != want || !b.root.ReadOnly || b.root.Dir != "/" {
			t.Errorf("from %s: works in %s, root %+v", cwd, b.config.WorkingDir, b.root)
		}
		if !slices.Contains(b.config.Env, "HOME="+home) || !slices.Contains(b.config.Env, "PATH=/x:/y") || slices.Contains(b.config.Env, "SECRET=x") {
			t.Errorf("environment %q", b.config.Env)
		}
		if last := b.mounts[len(b.mounts)-1]; last.Type != "bind" || last.Target != home || last.ReadOnly {
			t.Errorf("home is %+v", last)
		}
	}
	for _, home := range []string{"/", "/nonexistent"} {
		t.Setenv("HOME", home)
		for _, m := range hostBase().mounts {
			if m.Type == "bind" {
				t.Errorf("HOME=%s is bound: %+v", home, m)
			}
		}
	}
}

func TestRandomName(t *testing.T) {
	for range 1000 {
		if err := container.CheckName(randomName()); err != nil {
			t.Fatal(err)
		}
	}
}
