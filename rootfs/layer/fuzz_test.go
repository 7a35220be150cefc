package layer

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

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
