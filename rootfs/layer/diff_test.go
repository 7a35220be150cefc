package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

// A changing is an image of layers with a writable layer over it, or a copy.
type changing struct {
	lowers []string
	upper  string // of the overlay; the copy itself
	merged string // where it can be changed
	o      DiffOptions
}

func mkdir(t testing.TB, path string) string {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// newChanging makes lowers by a script each, the deletions of which it must
// mark itself, and a tree over them. It returns nil where overlay cannot be mounted.
func newChanging(t *testing.T, whole bool, scripts ...string) *changing {
	t.Helper()
	top, err := os.MkdirTemp("", "diff-") // t.TempDir may have commas in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	c := &changing{upper: mkdir(t, top+"/upper"), merged: top + "/upper", o: DiffOptions{Whole: whole, Own: map[string]bool{"/etc/hosts": true, "/proc": true}}}
	for i, script := range scripts {
		dir := mkdir(t, fmt.Sprint(top, "/lower", i))
		sh(t, dir, ": ; "+script)
		c.lowers = append(c.lowers, dir)
	}
	if whole {
		if err := Copy(context.Background(), c.upper, c.lowers); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c.merged = mkdir(t, top+"/merged")
	if err := mountOverlay(t, c.merged, c.lowers, c.upper, mkdir(t, top+"/work")); err != nil {
		return nil
	}
	return c
}

func mountOverlay(t *testing.T, at string, lowers []string, upper, work string) error {
	t.Helper()
	stack := ""
	for _, dir := range lowers {
		stack = ":" + dir + stack
	}
	data := "userxattr,lowerdir=" + stack[1:]
	if upper != "" {
		data += ",upperdir=" + upper + ",workdir=" + work
	}
	err := unix.Mount("overlay", at, "overlay", 0, data)
	if err == nil {
		t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	}
	return err
}

// list is the diff, a change a line.
func (c *changing) list(t *testing.T) string {
	t.Helper()
	d, err := Diff(context.Background(), c.upper, c.lowers, c.o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b strings.Builder
	for _, change := range d.List() {
		fmt.Fprintf(&b, "%c %s\n", change.Kind, change.Path)
	}
	return b.String()
}

// layered unpacks the diff as a layer and shows it over the others.
func (c *changing) layered(t *testing.T) map[string]string {
	t.Helper()
	d, err := Diff(context.Background(), c.upper, c.lowers, c.o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var b bytes.Buffer
	a := NewArchiver(context.Background(), &b, ArchiveOptions{})
	if err := errors.Join(d.Archive(a), a.Close()); err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	layer, whole := mkdir(t, top+"/layer"), mkdir(t, top+"/whole")
	if _, err := apply(t, layer, b.Bytes(), Options{Single: nstest.Mapped(t) == 1}); err != nil {
		t.Fatal(err)
	}
	if err := Copy(context.Background(), whole, append(c.lowers[:len(c.lowers):len(c.lowers)], layer)); err != nil {
		t.Fatal(err)
	}
	return contentOf(t, whole)
}

// contentOf is snapshotOf without what unpacking a layer does not keep.
func contentOf(t *testing.T, dir string) map[string]string {
	files := snapshotOf(t, dir)
	delete(files, ".")
	return files
}

func TestDiff(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	const base = "mkdir -p d/e opt etc; echo 1 >d/f; echo 2 >d/e/g; echo 3 >opt/h; ln -s x link; touch -d 2001-01-01 d/f d/e d opt"
	for name, tc := range map[string]struct{ script, want string }{
		"nothing":                         {"", ""},
		"added":                           {"echo >new", "A /new\n"},
		"added below":                     {"mkdir d/e/n; echo >d/e/n/x", "C /d\nC /d/e\nA /d/e/n\nA /d/e/n/x\n"},
		"changed":                         {"echo more >>d/f", "C /d\nC /d/f\n"},
		"changed below":                   {"echo more >>d/e/g", "C /d\nC /d/e\nC /d/e/g\n"},
		"deleted":                         {"rm d/f", "C /d\nD /d/f\n"},
		"a directory deleted":             {"rm -r d", "D /d\n"},
		"made again as it was":            {"rm -r opt; mkdir opt; echo 3 >opt/h", "C /opt\nC /opt/h\n"},
		"made again with less":            {"rm -r d; mkdir d; echo >d/new", "C /d\nD /d/e\nD /d/f\nA /d/new\n"},
		"mode":                            {"chmod 600 d/f", "C /d\nC /d/f\n"},
		"mode of a directory":             {"chmod 700 opt", "C /opt\n"},
		"time of a directory":             {"touch -d 1999-01-01 opt", "C /opt\n"},
		"renamed":                         {"mv d/f d/z", "C /d\nD /d/f\nA /d/z\n"},
		"a directory renamed":             {"mv opt opt2", "D /opt\nA /opt2\nA /opt2/h\n"},
		"a file where a directory was":    {"rm -r opt; echo >opt", "C /opt\n"},
		"a directory where a file was":    {"rm d/f; mkdir d/f; echo >d/f/x", "C /d\nC /d/f\nA /d/f/x\n"},
		"another link":                    {"ln -sfn y link", "C /link\n"},
		"made and deleted":                {"touch -r d/e t; echo >d/e/new; rm d/e/new; touch -r t d/e; rm t", ""},
		"order of paths":                  {"mkdir a; echo >a/x; echo >a-b; echo >a.b", "A /a\nA /a-b\nA /a.b\nA /a/x\n"},
		"mount points that rbox made":     {": >etc/hosts; mkdir proc", ""},
		"one that has something in it":    {"echo x >etc/hosts; mkdir -p proc/1", "C /etc\nA /etc/hosts\nA /proc\nA /proc/1\n"},
		"names that are not UTF-8":        {`printf x >"$(printf 'a\377\nb')"`, "A /a\xff\nb\n"},
		"hard links":                      {"ln d/f d/f2", "C /d\nC /d/f\nA /d/f2\n"},
		"hard links of new files":         {"echo >n; ln n m; mkdir q; ln n q/o", "A /m\nA /n\nA /q\nA /q/o\n"},
		"a FIFO":                          {"mkfifo p", "A /p\n"},
		"twice deleted and made":          {"rm -r d; mkdir d; echo >d/x; rm -r d; mkdir d; echo >d/y", "C /d\nD /d/e\nD /d/f\nA /d/y\n"},
		"a directory in a replaced one":   {"rm -r d; mkdir -p d/e; echo >d/e/new", "C /d\nC /d/e\nD /d/e/g\nA /d/e/new\nD /d/f\n"},
		"a deleted file, a new directory": {"rm link; mkdir link", "C /link\n"},
	} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", whole ", whole), func(t *testing.T) {
				c := newChanging(t, whole, base)
				if c == nil {
					t.Skip("no overlay here")
				}
				sh(t, c.merged, ": ; "+tc.script)
				want := tc.want
				if whole && name == "hard links" {
					want = "C /d\nA /d/f2\n" // the one that was there is as it was
				}
				if whole && name == "made again as it was" {
					want = "C /opt\nC /opt/h\n"
				}
				if got := c.list(t); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
				if strings.HasPrefix(name, "mount points") || whole && name == "hard links" {
					return
				}
				compare(t, c.layered(t), contentOf(t, c.merged))
			})
		}
	}
}

func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name := range maps.Keys(got) {
		if want[name] == "" {
			t.Errorf("%s should not be there", name)
		}
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s is %q, want %q", name, got[name], text)
		}
	}
}

// Whatever is done to a tree, the layer of it shows the same tree again.
func TestDiffOfAnything(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for seed := range uint64(8) {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprint(seed, whole), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				c := newChanging(t, whole, randomScript(r, 30), randomScript(r, 10))
				if c == nil {
					t.Skip("no overlay here")
				}
				script := randomScript(r, 40)
				sh(t, c.merged, script)
				compare(t, c.layered(t), contentOf(t, c.merged))
				if t.Failed() {
					t.Logf("diff:\n%s\nscript:\n%s", c.list(t), script)
				}
			})
		}
	}
}

func randomScript(r *rand.Rand, n int) string {
	name := func() string {
		path := ""
		for range 1 + r.IntN(3) {
			path = filepath.Join(path, string(rune('a'+r.IntN(4))))
		}
		return path
	}
	var b strings.Builder
	for i := range n {
		switch a, c := name(), name(); r.IntN(9) {
		case 0, 1:
			fmt.Fprintf(&b, "mkdir -p %s 2>/dev/null || :\n", a)
		case 2, 3:
			fmt.Fprintf(&b, "echo %d >%s || :\n", i, a)
		case 4:
			fmt.Fprintf(&b, "rm -rf %s\n", a)
		case 5:
			fmt.Fprintf(&b, "rm -rf %s 2>/dev/null; mkdir -p %s 2>/dev/null || :\n", a, a)
		case 6:
			fmt.Fprintf(&b, "mv -T %s %s 2>/dev/null || :\n", a, c)
		case 7:
			fmt.Fprintf(&b, "ln -sfn target%d %s 2>/dev/null || :\n", i, a)
		case 8:
			fmt.Fprintf(&b, "test -L %s || chmod 70%d %s 2>/dev/null || :\n", a, r.IntN(8), a)
		}
	}
	return "{ " + b.String() + " } 2>/dev/null"
}

// The marks of a deletion that other kernels and fuse-overlayfs make.
func TestDiffKnowsAllMarks(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	top := t.TempDir()
	lower, upper := mkdir(t, top+"/lower"), mkdir(t, top+"/upper")
	sh(t, lower, "mkdir d; echo >d/x; echo >a; echo >b; echo >c")
	sh(t, upper, "mkdir d; : >b; echo >.wh.c; : >.wh.never")
	if err := unix.Setxattr(upper+"/b", whiteoutXattr, []byte("y"), 0); err != nil {
		t.Skip(err)
	}
	if err := unix.Mknod(upper+"/a", unix.S_IFCHR, 0); err != nil {
		t.Skip(err)
	}
	for name, tc := range map[string]struct {
		fuse  bool
		xattr string
		want  string
	}{
		"the kernel's":     {false, opaqueXattr, "A /.wh.c\nA /.wh.never\nD /a\nD /b\nC /d\nD /d/x\n"},
		"fuse-overlayfs's": {true, "user.fuseoverlayfs.opaque", "D /a\nD /b\nD /c\nC /d\nD /d/x\n"},
	} {
		if err := unix.Setxattr(upper+"/d", tc.xattr, []byte("y"), 0); err != nil {
			t.Fatal(err)
		}
		c := &changing{lowers: []string{lower}, upper: upper, o: DiffOptions{Fuse: tc.fuse}}
		if got := c.list(t); got != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, tc.want)
		}
		unix.Removexattr(upper+"/d", tc.xattr)
	}
}
