package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

func TestRemove(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	outside := t.TempDir()
	kept := filepath.Join(outside, "kept")
	if err := os.WriteFile(kept, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, entries := range map[string][]tar.Header{
		"nothing":        {},
		"links out":      {symlink("a", outside), symlink("d/b", outside+"/kept"), symlink("c", "..")},
		"locked":         {{Name: "d/", Mode: 0o1}, {Name: "d/e/", Mode: 0o1}, {Name: "d/e/f", Mode: 0o1}},
		"of others":      {{Name: "d/", Uid: 50, Gid: 50, Mode: 0o700}, {Name: "d/f", Uid: 51, Gid: 50}},
		"marks, FIFOs":   {file(".wh.x"), {Name: "p", Typeflag: tar.TypeFifo}},
		"deep":           {file(strings.Repeat("d/", 700) + "f"), file(strings.Repeat("d/", 300) + "x/" + strings.Repeat("y/", 300) + "f")},
		"wide":           wide(3000),
		"its own prefix": {file(strings.Repeat("d/", 100) + "f"), file(".rbox-remove-1/a"), file(".rbox-remove-2")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "layer")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := apply(t, dir, archive(t, entries...), Options{Single: nstest.Mapped(t) == 1}); err != nil {
				t.Fatal(err)
			}
			if err := Remove(dir); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
			if _, err := os.Lstat(kept); err != nil {
				t.Error(err)
			}
			if err := Remove(dir); err != nil {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

func wide(n int) (list []tar.Header) {
	for i := range n {
		list = append(list, file(fmt.Sprintf("d/%d/f", i)), file(fmt.Sprintf("e/%d", i)))
	}
	return list
}

// TestRemoveDeeperThanPaths deletes a tree that no path reaches, made level by level.
func TestRemoveDeeperThanPaths(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	dir := filepath.Join(t.TempDir(), "deep")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := openat(unix.AT_FDCWD, dir, dirFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		if err := unix.Mkdirat(fd, "dir", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := openat(fd, "dir", dirFlags, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	if err := Remove(dir); err != nil {
		t.Error(err)
	}
}

func TestRemoveStopsAtMounts(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for name, source := range map[string]string{"another file system": "", "the same": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "layer")
			at := filepath.Join(dir, "a/b")
			if err := os.MkdirAll(at, 0o755); err != nil {
				t.Fatal(err)
			}
			var err error
			if source == "" {
				err = unix.Mount("tmpfs", at, "tmpfs", 0, "")
			} else {
				err = unix.Mount(source, at, "", unix.MS_BIND, "")
			}
			if err != nil {
				t.Skip(err)
			}
			if err := os.WriteFile(at+"/kept", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := Remove(dir); !errors.Is(err, unix.EBUSY) {
				t.Errorf("error %v, want %v", err, unix.EBUSY)
			}
			if _, err := os.Lstat(at + "/kept"); err != nil {
				t.Error(err)
			}
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				t.Fatal(err)
			}
		})
	}
}
