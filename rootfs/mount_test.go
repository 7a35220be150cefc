package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

func TestSorted(t *testing.T) {
	in := []Mount{{Target: "/a/b/c"}, {Target: "/b"}, {Target: "/a/b"}, {Target: "/a"}}
	var got []string
	for _, m := range Sorted(in) {
		got = append(got, m.Target)
	}
	if want := []string{"/b", "/a", "/a/b", "/a/b/c"}; !slices.Equal(got, want) || in[0].Target != "/a/b/c" {
		t.Errorf("got %v, want %v, and the argument as it was", got, want)
	}
}

// source is a directory with a file, and another file system at its "below".
func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.WriteFile(dir+"/file", []byte("text"), 0o644), os.Mkdir(dir+"/below", 0o755),
		unix.Mount("tmpfs", dir+"/below", "tmpfs", 0, ""), os.WriteFile(dir+"/below/file", nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { unix.Unmount(dir+"/below", unix.MNT_DETACH) })
	return dir
}

func writable(path string) error { return os.WriteFile(path, []byte("x"), 0o644) }

func TestBind(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for name, tc := range map[string]struct {
		mount       Mount
		file, below error // writing to each
		flags       int64 // that both have
	}{
		"writable":                 {mount: Mount{}},
		"read-only, all of it":     {mount: Mount{ReadOnly: true}, file: unix.EROFS, below: unix.EROFS, flags: unix.ST_RDONLY},
		"flat":                     {mount: Mount{Flat: true}, below: unix.ENOENT},
		"flat and read-only":       {mount: Mount{Flat: true, ReadOnly: true}, file: unix.EROFS, below: unix.ENOENT, flags: unix.ST_RDONLY},
		"nosuid, nodev and noexec": {mount: Mount{Flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}, flags: unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC},
	} {
		t.Run(name, func(t *testing.T) {
			tree := hostile(t)
			tc.mount.Type, tc.mount.Source, tc.mount.Target = "bind", source(t), "/mnt/data"
			if err := tree.Mount(tc.mount); err != nil {
				t.Fatal(err)
			}
			at := tree.Path + "/mnt/data"
			defer unix.Unmount(at, unix.MNT_DETACH)
			if err := writable(at + "/file"); !errors.Is(err, tc.file) {
				t.Errorf("write: %v, want %v", err, tc.file)
			}
			below := at + "/below/file"
			if _, err := os.Stat(below); tc.below == unix.ENOENT != (err != nil) {
				t.Errorf("the mount below: %v", err)
			}
			if tc.below != unix.ENOENT {
				if err := writable(below); !errors.Is(err, tc.below) {
					t.Errorf("write below: %v, want %v", err, tc.below)
				}
			}
			for _, dir := range []string{at, at + "/below"} {
				var st unix.Statfs_t
				if err := unix.Statfs(dir, &st); err != nil || st.Flags&tc.flags != tc.flags {
					t.Errorf("%s: flags %#x, %v; want %#x", dir, st.Flags, err, tc.flags)
				}
			}
			if err := writable(tc.mount.Source + "/file"); err != nil {
				t.Errorf("the source itself became read-only: %v", err)
			}
		})
	}
}

func TestBindPlaces(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	dir := source(t)
	for name, tc := range map[string]struct {
		source, target string
		at             string // where it must be found
		err            string
	}{
		"a file on a new file":       {dir + "/file", "/new/file", "/new/file", ""},
		"a file on a file":           {dir + "/file", "/etc/passwd", "/etc/passwd", ""},
		"a file on a dangling link":  {dir + "/file", "/dangling", "/run/made/later", ""},
		"a file on an absolute link": {dir + "/file", "/absolute/hosts", "/etc/hosts", ""},
		"a file on a link outwards":  {dir + "/file", "/up/secret", "/outside/secret", ""},
		"a missing source":           {dir + "/missing", "/x", "", "mount " + dir + "/missing on /x: no such file or directory"},
		"a directory on a file":      {dir, "/file", "", "mount " + dir + " on /file: not a directory"},
		"a file on a directory":      {dir + "/file", "/etc", "", "mount " + dir + "/file on /etc: not a directory"},
		"on a loop":                  {dir, "/one", "", "mount " + dir + " on /one: make mount point /one: too many levels of symbolic links"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := hostile(t)
			got := ""
			if err := tree.Mount(Mount{Type: "bind", Source: tc.source, Target: tc.target}); err != nil {
				got = err.Error()
			}
			if got != tc.err {
				t.Fatalf("got %q, want %q", got, tc.err)
			}
			if tc.at != "" {
				defer unix.Unmount(tree.Path+tc.at, unix.MNT_DETACH)
				if b, err := os.ReadFile(tree.Path + tc.at); err != nil || string(b) != "text" {
					t.Errorf("at %s: %q, %v", tc.at, b, err)
				}
			}
			untouched(t, filepath.Dir(tree.Path))
		})
	}
	if err := hostile(t).Mount(Mount{Type: "nfs", Target: "/x"}); err == nil || err.Error() != `mount nfs on /x: unknown type "nfs"` {
		t.Errorf("an unknown type: %v", err)
	}
}

func TestTmpfs(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for name, tc := range map[string]struct {
		mount Mount
		mode  uint32
		size  uint64 // bytes, 0 for whatever
		flags int64
		err   string
	}{
		"plain":     {Mount{}, 0o1777, 0, unix.ST_NOSUID | unix.ST_NODEV, ""},
		"size":      {Mount{Size: 1 << 20}, 0o1777, 1 << 20, 0, ""},
		"mode":      {Mount{Mode: 0o750}, 0o750, 0, 0, ""},
		"read-only": {Mount{ReadOnly: true}, 0o1777, 0, unix.ST_RDONLY, ""},
		"noexec":    {Mount{Flags: unix.MS_NOEXEC}, 0o1777, 0, unix.ST_NOEXEC, ""},
		"data":      {Mount{Data: "nr_inodes=5"}, 0o1777, 0, 0, ""},
		"bad data":  {Mount{Data: "nr_inodes=many"}, 0, 0, 0, `mount tmpfs on /t: options "nr_inodes=many": invalid argument`},
	} {
		t.Run(name, func(t *testing.T) {
			tree := hostile(t)
			tc.mount.Type, tc.mount.Target = "tmpfs", "/t"
			got := ""
			if err := tree.Mount(tc.mount); err != nil {
				got = err.Error()
			}
			if got != tc.err {
				t.Fatalf("got %q, want %q", got, tc.err)
			}
			if tc.err != "" {
				return
			}
			at := tree.Path + "/t"
			defer unix.Unmount(at, unix.MNT_DETACH)
			var st unix.Stat_t
			var sfs unix.Statfs_t
			if err := errors.Join(unix.Stat(at, &st), unix.Statfs(at, &sfs)); err != nil {
				t.Fatal(err)
			}
			size := sfs.Blocks * uint64(sfs.Bsize)
			if sfs.Type != unix.TMPFS_MAGIC || st.Mode&0o7777 != tc.mode || sfs.Flags&tc.flags != tc.flags || tc.size != 0 && size != tc.size {
				t.Errorf("type %#x, mode %o, size %d, flags %#x; want %+v", sfs.Type, st.Mode, size, sfs.Flags, tc)
			}
		})
	}
}

// layers makes n directories of these names with a file each, lowest first.
func layers(t *testing.T, names ...string) (dirs []string) {
	t.Helper()
	top := t.TempDir()
	for i, name := range names {
		dir := filepath.Join(top, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"top", fmt.Sprint("of", i)} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(fmt.Sprint(i)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

func TestMountOverlay(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	if err := TryDriver(Overlay, t.TempDir()); err != nil {
		t.Skip(err)
	}
	many := func(n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprintf("%04d%s", i, strings.Repeat("x", 100)))
		}
		return names
	}
	for name, tc := range map[string]struct {
		lowers []string
		upper  string // "-": none, read-only
	}{
		"one":                    {[]string{"a"}, "upper"},
		"order":                  {[]string{"a", "b", "c"}, "upper"},
		"colon":                  {[]string{"a:b", ":", "c:"}, "up:per"},
		"comma":                  {[]string{"a,b", ",", "c,lowerdir=x"}, "up,per"},
		"backslash":              {[]string{`a\b`, `c\`, `\\:,`}, `up\per`},
		"blank, quote, new line": {[]string{"a b", `"c"`, "d\ne"}, "up per"},
		"read-only":              {[]string{"a", "b"}, "-"},
		"beyond a page":          {many(200), "upper"},
		"as many as there can":   {many(500), "upper"},
		"one more, to read":      {many(501), "-"},
		"beyond a page, colons":  {append(many(200), "z:,\\"), "up:,\\per"},
	} {
		t.Run(name, func(t *testing.T) {
			lowers := layers(t, tc.lowers...)
			target, upper, work := t.TempDir(), "", ""
			if tc.upper != "-" {
				dir := t.TempDir()
				upper, work = filepath.Join(dir, tc.upper), filepath.Join(dir, "work")
				if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { os.Chmod(work+"/work", 0o700) })
			}
			before, _ := os.Getwd()
			err := error(nil)
			if upper == "" {
				err = MountOverlayToRead(target, lowers)
			} else {
				err = MountOverlay(target, lowers, upper, work)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				for unix.Unmount(target, unix.MNT_DETACH) == nil { // it may lie on a tmpfs
				}
			}()
			if after, err := os.Getwd(); err != nil || after != before {
				t.Errorf("the working directory is %s, %v", after, err)
			}
			for file, want := range map[string]int{"top": len(lowers) - 1, "of0": 0, fmt.Sprint("of", len(lowers)-1): len(lowers) - 1} {
				if b, err := os.ReadFile(filepath.Join(target, file)); err != nil || string(b) != fmt.Sprint(want) {
					t.Errorf("%s: %q, %v; want %d", file, b, err, want)
				}
			}
			if entries, err := os.ReadDir(target); err != nil || len(entries) != len(lowers)+1 {
				t.Errorf("%d entries, %v; want %d", len(entries), err, len(lowers)+1)
			}
			err = writable(target + "/new")
			if upper == "" {
				if !errors.Is(err, unix.EROFS) {
					t.Errorf("write without an upper directory: %v", err)
				}
			} else if _, statErr := os.Stat(upper + "/new"); err != nil || statErr != nil {
				t.Errorf("write: %v, %v", err, statErr)
			}
		})
	}
	var much *TooManyLayersError
	if err := MountOverlay(t.TempDir(), make([]string, 501), "", ""); !errors.As(err, &much) || much.N != 501 || much.Hint() == "" {
		t.Errorf("501 layers: %v", err)
	}
	if err := MountOverlay(t.TempDir(), []string{"/nonexistent"}, "", ""); err == nil {
		t.Error("a missing layer was mounted")
	}
}
