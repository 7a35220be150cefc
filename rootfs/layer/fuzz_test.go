package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzApply unpacks anything. Nothing may come to be, go or change outside of
// the layer's directory, and Remove must clear away what was unpacked.
func FuzzApply(f *testing.F) {
	seeds := [][]tar.Header{
		{file("a/"), file("a/b"), symlink("a/c", "../../../etc/passwd"), hardlink("d", "a/b")},
		{symlink("l", "/"), file("l/etc/x"), symlink("l", ".."), file("l/y")},
		{symlink("a", "../out"), file("a/x"), file("a"), file("a/z"), hardlink("b", "../out/canary")},
		{file(".wh..wh..opq"), file("d/.wh.x"), file("d/x/"), file("d/.wh..wh..opq"), file(".wh.d")},
		{{Name: "p", Typeflag: tar.TypeFifo}, {Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1}, {Name: "s", Mode: 0o7777}},
		{{Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b", "SCHILY.xattr.security.capability": "c"}}},
		{file("../out/x"), file("/abs"), file("..")},
	}
	for _, entries := range seeds {
		f.Add(archive(f, entries...))
	}
	f.Add(sparse(1 << 20))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		dir, out := filepath.Join(top, "a/layer"), filepath.Join(top, "a/out")
		for _, d := range []string{dir, out} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(out, "canary"), []byte("sings"), 0o600); err != nil {
			t.Fatal(err)
		}
		o := Options{Single: true, MaxBytes: 8 << 20, MaxEntries: 1000}
		apply(t, dir, data, o)
		if err := Remove(dir); err != nil {
			t.Error(err)
		}
		const want = "a/\na/out/\na/out/canary=sings"
		if got := listTree(t, top); got != want {
			t.Errorf("outside the layer there is\n%s\nwant\n%s", got, want)
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(out, "canary"), &st); err != nil || st.Nlink != 1 || st.Mode&0o7777 != 0o600 {
			t.Errorf("the canary: %v, %d links, mode %o", err, st.Nlink, st.Mode)
		}
	})
}

// FuzzExtract unpacks anything over a directory with links in it.
func FuzzExtract(f *testing.F) {
	seeds := [][]tar.Header{
		{file("a/"), file("a/b"), symlink("a/c", "../../../etc/passwd"), hardlink("d", "a/b")},
		{symlink("l", "/"), file("l/etc/x"), symlink("l", ".."), file("l/y")},
		{file("out/x"), file("out"), {Name: "out/", Mode: 0o7777}, hardlink("b", "out/canary")},
		{{Name: "p", Typeflag: tar.TypeFifo}, {Name: "dev", Typeflag: tar.TypeChar, Devmajor: 1}, {Name: "s", Mode: 0o7777}},
		{{Name: "x", PAXRecords: map[string]string{ownSparse: "5", "SCHILY.xattr.user.a": "b"}}},
		{file("../out/x"), file("/abs"), file(".."), file("."), {Name: "canary/"}},
	}
	for _, entries := range seeds {
		f.Add(archive(f, entries...))
	}
	f.Add(sparse(1 << 20))
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		dir, out := filepath.Join(top, "a/target"), filepath.Join(top, "a/out")
		for _, d := range []string{dir, out} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(out, "canary"), []byte("sings"), 0o600); err != nil {
			t.Fatal(err)
		}
		for link, to := range map[string]string{"out": "../out", "canary": "../out/canary", "l": "/"} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		// archive/tar reads the zeros of a sparse file, of which there can be many.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		Extract(ctx, folder(t, dir), bytes.NewReader(data), ExtractOptions{})
		if err := Remove(dir); err != nil {
			t.Error(err)
		}
		const want = "a/\na/out/\na/out/canary=sings"
		if got := listTree(t, top); got != want {
			t.Errorf("outside the target there is\n%s\nwant\n%s", got, want)
		}
		if st := lstat(t, filepath.Join(out, "canary")); st.Nlink != 1 || st.Mode&0o7777 != 0o600 {
			t.Errorf("the canary: %d links, mode %o", st.Nlink, st.Mode)
		}
	})
}
