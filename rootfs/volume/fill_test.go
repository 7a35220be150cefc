package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
)

// files is how many lie in the image's directory.
const files = 200

// an image that has /data and links to it.
func newImage(t *testing.T) *rootfs.Tree {
	t.Helper()
	root := t.TempDir()
	data := filepath.Join(root, "data")
	if err := os.MkdirAll(filepath.Join(data, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		write(t, filepath.Join(data, "sub", fmt.Sprint(i)), strings.Repeat("x", i))
	}
	err := errors.Join(os.Symlink("/data", filepath.Join(root, "link")), os.Symlink("../..", filepath.Join(data, "up")),
		os.Mkdir(filepath.Join(root, "empty"), 0o700), os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := rootfs.OpenTree(root, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// newVolume returns the folder of one and its content's.
func newVolume(t *testing.T) (dir, data string) {
	t.Helper()
	s := newStore(t)
	if _, err := s.Create(Volume{Name: "vol"}); err != nil {
		t.Fatal(err)
	}
	return s.folder("vol"), s.Mountpoint("vol")
}

// whole reports what lacks in a copy of newImage's /data.
func whole(data string) error {
	for i := range files {
		if st, err := os.Stat(filepath.Join(data, "sub", fmt.Sprint(i))); err != nil || st.Size() != int64(i) {
			return fmt.Errorf("file %d: %v", i, err)
		}
	}
	if to, err := os.Readlink(filepath.Join(data, "up")); err != nil || to != "../.." {
		return fmt.Errorf("link: %q, %v", to, err)
	}
	return nil
}

func left(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{copying, copied} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("left behind: %s", name)
		}
	}
}

func TestFill(t *testing.T) {
	for name, tc := range map[string]struct {
		target string
		full   bool
	}{
		"what is there": {"/data", true}, "through a link": {"/link", true},
		"an empty directory": {"/empty", false}, "no directory": {"/file", false}, "nothing": {"/none", false},
	} {
		t.Run(name, func(t *testing.T) {
			tree := newImage(t)
			dir, data := newVolume(t)
			for range 2 {
				if err := Fill(tree, dir, tc.target, true); err != nil {
					t.Fatal(err)
				}
				if err := whole(data); (err == nil) != tc.full {
					t.Errorf("full: %v", err)
				}
				left(t, dir)
			}
		})
	}
}

// All that belongs to files comes along, those of the directory itself too.
func TestFillAttributes(t *testing.T) {
	tree := newImage(t)
	image := filepath.Join(tree.Path, "data")
	then := time.Unix(1e9, 500)
	write(t, filepath.Join(image, "a"), "a")
	err := errors.Join(
		os.Link(filepath.Join(image, "a"), filepath.Join(image, "sub", "b")),
		unix.Mkfifo(filepath.Join(image, "fifo"), 0o600), os.Chmod(filepath.Join(image, "fifo"), 0o622),
		os.Chmod(filepath.Join(image, "a"), os.ModeSetuid|0o751), os.Chtimes(filepath.Join(image, "a"), then, then),
		unix.Setxattr(filepath.Join(image, "a"), "user.mine", []byte("1"), 0),
		unix.Setxattr(filepath.Join(image, "a"), "user.overlay.metacopy", []byte("1"), 0),
		os.Chmod(image, os.ModeSticky|0o770),
	)
	if errors.Is(err, unix.ENOTSUP) {
		t.Skip("no user attributes here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, data := newVolume(t)
	if err := Fill(tree, dir, "/data", false); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{".": os.ModeDir | os.ModeSticky | 0o770, "a": os.ModeSetuid | 0o751, "fifo": os.ModeNamedPipe | 0o622} {
		if st, err := os.Lstat(filepath.Join(data, name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", name, st.Mode(), err, mode)
		}
	}
	a, _ := os.Stat(filepath.Join(data, "a"))
	b, _ := os.Stat(filepath.Join(data, "sub", "b"))
	if !os.SameFile(a, b) || !a.ModTime().Equal(then) {
		t.Errorf("%+v is not %+v, or is of %v", a, b, a.ModTime())
	}
	value := make([]byte, 9)
	if n, err := unix.Getxattr(filepath.Join(data, "a"), "user.mine", value); err != nil || string(value[:n]) != "1" {
		t.Errorf("attribute: %q, %v", value[:max(n, 0)], err)
	}
	if _, err := unix.Getxattr(filepath.Join(data, "a"), "user.overlay.metacopy", value); err != unix.ENODATA {
		t.Errorf("overlay's attribute: %v", err)
	}
}

func TestFillLeavesContentAlone(t *testing.T) {
	tree := newImage(t)
	dir, data := newVolume(t)
	write(t, filepath.Join(data, "mine"), "")
	if err := Fill(tree, dir, "/data", true); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(data); len(entries) != 1 {
		t.Errorf("%v", entries)
	}
	mine := t.TempDir()
	s := &Store{filepath.Dir(dir)}
	if _, err := s.Create(Volume{Name: "device", Device: mine}); err != nil {
		t.Fatal(err)
	}
	if err := Fill(tree, s.folder("device"), "/data", true); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(mine); len(entries) != 0 {
		t.Errorf("the user's directory: %v", entries)
	}
}

// Whatever instant it was killed at, the next goes on.
func TestFillAfterKill(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir, data string){
		"copying": func(t *testing.T, dir, data string) {
			if err := os.MkdirAll(filepath.Join(dir, copying, "sub"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, copying, "sub", "7"), "half")
		},
		"copied": func(t *testing.T, dir, data string) {},
		"moving": func(t *testing.T, dir, data string) {
			if err := os.Rename(filepath.Join(dir, copied, "sub"), filepath.Join(data, "sub")); err != nil {
				t.Fatal(err)
			}
		},
		"moved": func(t *testing.T, dir, data string) {
			for _, name := range []string{"sub", "up"} {
				if err := os.Rename(filepath.Join(dir, copied, name), filepath.Join(data, name)); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := newImage(t)
			dir, data := newVolume(t)
			if name != "copying" {
				source, err := tree.Open("/data", unix.O_RDONLY|unix.O_DIRECTORY, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := copyBeside(source, dir, false, false); err != nil {
					t.Fatal(err)
				}
				source.Close()
			}
			prepare(t, dir, data)
			if err := Fill(tree, dir, "/data", true); err != nil {
				t.Fatal(err)
			}
			if err := whole(data); err != nil {
				t.Error(err)
			}
			left(t, dir)
		})
	}
}

// A container that takes no copy may write meanwhile; what it wrote stays.
func TestFillBesideAWriter(t *testing.T) {
	tree := newImage(t)
	dir, data := newVolume(t)
	source, err := tree.Open("/data", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if err := copyBeside(source, dir, false, false); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(data, "up"), "mine")
	if err := Fill(tree, dir, "/data", true); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(data, "up")); string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(data, "sub", "7")); err != nil {
		t.Error(err)
	}
	left(t, dir)
}

func TestManyFillOne(t *testing.T) {
	tree := newImage(t)
	dir, data := newVolume(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := Fill(tree, dir, "/data", false); err != nil {
				t.Error(err)
			}
			if err := whole(data); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	left(t, dir)
}

func TestFillNamesTheVolume(t *testing.T) {
	err := Fill(newImage(t), filepath.Join(t.TempDir(), "gone"), "/data", false)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "fill volume gone: ") {
		t.Error(err)
	}
}
