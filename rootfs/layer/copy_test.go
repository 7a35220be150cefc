package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

// TestCopy compares the copy with what overlayfs shows of the same layers,
// where that can be mounted, and both with what is right.
func TestCopy(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for name, tc := range map[string]struct {
		layers [][]tar.Header
		want   string
	}{
		"one": {[][]tar.Header{{file("a/b"), symlink("c", "a/b")}}, "a/\na/b=a/b\nc -> a/b"},
		"upper hides lower": {
			[][]tar.Header{{file("d/low"), file("d/x")}, {symlink("d/x", "up"), file("d/high")}},
			"d/\nd/high=d/high\nd/low=d/low\nd/x -> up",
		},
		"deleted": {
			[][]tar.Header{{file("d/x"), file("d/y"), file("e/z")}, {file("d/.wh.x"), file(".wh.e")}},
			"d/\nd/y=d/y",
		},
		"deleted and made again": {
			[][]tar.Header{{file("d/x")}, {file(".wh.d")}, {file("d/y")}},
			"d/\nd/y=d/y",
		},
		"deleted and made again in one layer": {
			[][]tar.Header{{file("d/x")}, {file(".wh.d"), file("d/y")}},
			"d/\nd/y=d/y",
		},
		"opaque": {
			[][]tar.Header{{file("d/x"), file("d/e/x")}, {file("d/.wh..wh..opq"), file("d/e/y")}},
			"d/\nd/e/\nd/e/y=d/e/y",
		},
		"file for directory": {[][]tar.Header{{file("d/x")}, {file("d")}, {file("e")}}, "d=d\ne=e"},
		"directory for file": {[][]tar.Header{{file("d")}, {file("d/x")}}, "d/\nd/x=d/x"},
		"directory, file, directory": {
			[][]tar.Header{{file("d/x")}, {file("d")}, {file("d/y")}}, "d/\nd/y=d/y",
		},
		"three": {
			[][]tar.Header{{file("d/1"), file("d/all")}, {file("d/2"), file("d/.wh.1")}, {file("d/3"), file("d/all")}},
			"d/\nd/2=d/2\nd/3=d/3\nd/all=d/all",
		},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			var lowers []string
			for i, entries := range tc.layers {
				dir := filepath.Join(top, fmt.Sprint(i))
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if _, err := apply(t, dir, archive(t, entries...), Options{}); err != nil {
					t.Fatal(err)
				}
				lowers = append(lowers, dir)
			}
			dst := filepath.Join(top, "copy")
			if err := os.Mkdir(dst, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := Copy(context.Background(), dst, lowers); err != nil {
				t.Fatal(err)
			}
			if got := listTree(t, dst); got != tc.want {
				t.Errorf("the copy is\n%s\nwant\n%s", got, tc.want)
			}
			checkOverlay(t, lowers, tc.want)
		})
	}
}

// checkOverlay tests the test: overlayfs must agree.
func checkOverlay(t *testing.T, lowers []string, want string) {
	t.Helper()
	at, empty := t.TempDir(), t.TempDir()
	stack := ""
	for _, dir := range lowers {
		stack = ":" + dir + stack
	}
	err := unix.Mount("overlay", at, "overlay", unix.MS_RDONLY, "userxattr,lowerdir="+stack[1:]+":"+empty)
	if err != nil {
		return // a kernel before 5.11: Copy is what there is
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	if got := listTree(t, at); got != want {
		t.Errorf("overlayfs shows\n%s\nwant\n%s", got, want)
	}
}

func TestCopyAttributes(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	single := nstest.Mapped(t) == 1
	top := t.TempDir()
	lower, dst := filepath.Join(top, "lower"), filepath.Join(top, "dst")
	for _, dir := range []string{lower, dst} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	big := make([]tar.Header, 0)
	big = append(big,
		tar.Header{Name: "suid", Mode: 0o4755, Uid: 3, Gid: 4},
		tar.Header{Name: "d/", Mode: 0o2500, Uid: 3, Gid: 4},
		tar.Header{Name: "d/f", Mode: 0o400},
		hardlink("d/g", "d/f"), hardlink("h", "d/f"),
		tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o622},
		tar.Header{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"}},
		tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8},
	)
	if _, err := apply(t, lower, archive(t, big...), Options{Single: single}); err != nil {
		t.Fatal(err)
	}
	if err := Copy(context.Background(), dst, []string{lower}); err != nil {
		t.Fatal(err)
	}
	a, b := snapshot(t, lower), snapshot(t, dst)
	for name := range a {
		if a[name] != b[name] {
			t.Errorf("%s: %s became %s", name, a[name], b[name])
		}
	}
	for name, attr := range map[string]string{"x": "user.x", "sda": OwnerXattr} {
		if got, want := xattr(filepath.Join(dst, name), attr), xattr(filepath.Join(lower, name), attr); got != want || got == "" {
			t.Errorf("%s: %s is %q, was %q", name, attr, got, want)
		}
	}
	f, err := os.OpenFile(filepath.Join(dst, "h"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "more")
	f.Close()
	if data, _ := os.ReadFile(filepath.Join(lower, "h")); string(data) != "d/f" {
		t.Errorf("writing to the copy changed the layer: %q", data)
	}
	if data, _ := os.ReadFile(filepath.Join(dst, "d/g")); string(data) != "d/fmore" {
		t.Errorf("hard links of the layer are not links in the copy: %q", data)
	}
}
