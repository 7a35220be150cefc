package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

// hostile makes an image that does its best to lead out of itself, below an
// "outside" with a secret, and opens it.
func hostile(t *testing.T) *Tree {
	t.Helper()
	top := t.TempDir()
	root := filepath.Join(top, "root")
	for _, dir := range []string{"outside", "root/etc", "root/dir"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"outside/secret", "root/file", "root/etc/passwd"} {
		if err := os.WriteFile(filepath.Join(top, file), []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"absolute": "/etc", "host": filepath.Join(top, "outside"), "up": "../outside", "far": strings.Repeat("../", 40) + top[1:] + "/outside",
		"dangling": "run/made/later", "absdangling": "/run/made/later", "one": "two", "two": "one", "self": "self/x",
		"magic": "/proc/self/root", "magiccwd": "proc/self/cwd", "tofile": "file", "chain": "absolute", "dot": ".", "dotdot": "dir/..",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := OpenTree(root, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func TestMountpoint(t *testing.T) {
	for name, tc := range map[string]struct {
		name      string
		directory bool
		want      string // below the tree's root
		err       error
	}{
		"a new directory":              {"/a/b/c", true, "/a/b/c", nil},
		"a new file":                   {"a/b/c", false, "/a/b/c", nil},
		"one that is there":            {"/etc/passwd", false, "/etc/passwd", nil},
		"the root":                     {"/", true, "", nil},
		"dots":                         {"/../../x/./../y", true, "/y", nil},
		"through an absolute link":     {"/absolute/x", true, "/etc/x", nil},
		"through two links":            {"/chain/x", false, "/etc/x", nil},
		"through a link to the host":   {"/up/x", true, "/outside/x", nil},
		"through a link far up":        {"/up/../../../../../x", true, "/x", nil},
		"the end is a link":            {"/chain", true, "/etc", nil},
		"a dangling link":              {"/dangling", false, "/run/made/later", nil},
		"an absolute dangling link":    {"/absdangling", true, "/run/made/later", nil},
		"beyond a dangling link":       {"/dangling/x", true, "/run/made/later/x", nil},
		"a loop":                       {"/one", true, "", unix.ELOOP},
		"beyond a loop":                {"/one/x", false, "", unix.ELOOP},
		"a link to itself":             {"/self", true, "", unix.ELOOP},
		"a file on the way":            {"/file/x", true, "", unix.ENOTDIR},
		"a link to a file on the way":  {"/tofile/x", false, "", unix.ENOTDIR},
		"a magic link that is none":    {"/magic/x", true, "/proc/self/root/x", nil},
		"a magic directory":            {"/magiccwd", true, "/proc/self/cwd", nil},
		"through dot":                  {"/dot/dot/x", true, "/x", nil},
		"through dotdot":               {"/dotdot/x", true, "/x", nil},
		"a name too long":              {"/" + strings.Repeat("x", 256), true, "", unix.ENAMETOOLONG},
		"what looks like our own path": {"/proc/self/fd/0", false, "/proc/self/fd/0", nil},
	} {
		t.Run(name, func(t *testing.T) {
			tree := hostile(t)
			f, err := tree.Mountpoint(tc.name, tc.directory)
			if !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if err == nil {
				defer f.Close()
				at, err := os.Readlink(fdPath(int(f.Fd())))
				if err != nil || at != tree.Path+tc.want {
					t.Errorf("got %s, %v; want %s", at, err, tree.Path+tc.want)
				}
				if st, err := f.Stat(); err != nil || st.IsDir() != tc.directory {
					t.Errorf("directory %t, %v", st.IsDir(), err)
				}
			}
			untouched(t, filepath.Dir(tree.Path))
		})
	}
}

// untouched checks that nothing was made beside the tree.
func untouched(t *testing.T, top string) {
	t.Helper()
	for dir, want := range map[string]int{top: 2, filepath.Join(top, "outside"): 1} {
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != want {
			t.Errorf("%s holds %v, %v", dir, entries, err)
		}
	}
}

func TestOpen(t *testing.T) {
	tree := hostile(t)
	for name, want := range map[string]error{
		"/etc/passwd": nil, "/absolute/passwd": nil, "../../etc/passwd": nil,
		"/up/secret": unix.ENOENT, "/host/secret": unix.ENOENT, "/far/secret": unix.ENOENT, "/one": unix.ELOOP, "/file/x": unix.ENOTDIR, "/magic/etc/passwd": unix.ENOENT,
	} {
		f, err := tree.Open(name, unix.O_RDONLY, 0)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
		if err == nil {
			f.Close()
		}
		// Without openat2(2) nothing leads further.
		fd, err := tree.openSlowly(name, unix.O_RDONLY, 0)
		if (err == nil) != (want == nil) {
			t.Errorf("%s, slowly: %v, want %v", name, err, want)
		}
		if err == nil {
			unix.Close(fd)
		}
	}
}

// A proc in the tree has links that lead everywhere.
func TestOpenMagicLinks(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	tree := hostile(t)
	if err := tree.Mount(Mount{Type: "bind", Source: "/proc", Target: "/proc"}); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(tree.Path+"/proc", unix.MNT_DETACH)
	for _, name := range []string{"/proc/self/root/etc/passwd", "/magic/etc/passwd", "/proc/self/cwd", "/proc/1/root"} {
		if f, err := tree.Open(name, unix.O_PATH, 0); err == nil {
			at, _ := os.Readlink(fdPath(int(f.Fd())))
			t.Errorf("%s led to %s", name, at)
		}
		if f, err := tree.Mountpoint(name+"/rbox-test", true); err == nil {
			at, _ := os.Readlink(fdPath(int(f.Fd())))
			t.Errorf("mount point %s led to %s", name, at)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	tree := hostile(t)
	for name, want := range map[string]error{"/work/dir": nil, "/etc": nil, "/chain/new": nil, "/file": unix.ENOTDIR, "/tofile": unix.ENOTDIR, "/file/x": unix.ENOTDIR} {
		if err := tree.MkdirAll(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestReadFile(t *testing.T) {
	tree := hostile(t)
	if err := unix.Mkfifo(tree.Path+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ name, want, err string }{
		"a file":           {"/file", "root/file", ""},
		"through a link":   {"/tofile", "root/file", ""},
		"too large":        {"/etc/passwd", "", "larger than 9 bytes"},
		"a directory":      {"/etc", "", "not a regular file"},
		"a FIFO, no block": {"/fifo", "", "not a regular file"},
		"the host's":       {"/host/secret", "", "no such file or directory"},
	} {
		b, err := tree.ReadFile(tc.name, 9)
		if string(b) != tc.want || (tc.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.name+": "+tc.err) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if _, err := tree.ReadFile("/missing", 9); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// What is made belongs to the container's root; what is there stays as it is.
func TestMountpointOwner(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	if nstest.Mapped(t) < 10 {
		t.Skip("one id alone")
	}
	tree := hostile(t)
	tree.UID, tree.GID = 7, 8
	f, err := tree.Mountpoint("/etc/new/file", false)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for name, want := range map[string]uint32{"/etc": 0, "/etc/new": 7, "/etc/new/file": 7} {
		var st unix.Stat_t
		if err := unix.Stat(tree.Path+name, &st); err != nil || st.Uid != want {
			t.Errorf("%s belongs to %d, %v; want %d", name, st.Uid, err, want)
		}
	}
}
