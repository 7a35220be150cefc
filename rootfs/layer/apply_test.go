package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
	"rbox/tests/nstest"
)

var epoch = time.Unix(1_000_000_000, 0)

// archive makes a tar of entries: headers, of which a name and little else
// need be set. A regular file holds its own name.
func archive(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(h.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Typeflag == tar.TypeReg {
			content = h.Name
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if h.ModTime.IsZero() {
			h.ModTime = epoch
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(name string) tar.Header { return tar.Header{Name: name} }

func symlink(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}
}

func hardlink(name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}
}

// listTree describes what is in dir: a line for each file, in order.
func listTree(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line, err := describe(path, rel)
		if rel != "." || strings.Contains(line, "opaque") {
			lines = append(lines, line)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func describe(path, rel string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	mark := ""
	value := make([]byte, 8)
	if n, err := unix.Lgetxattr(path, opaqueXattr, value); err == nil {
		mark = " opaque=" + string(value[:n])
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return rel + "/" + mark, nil
	case unix.S_IFLNK:
		to, err := os.Readlink(path)
		return rel + " -> " + to, err
	case unix.S_IFCHR:
		return fmt.Sprintf("%s c%d,%d", rel, unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
	case unix.S_IFIFO:
		return rel + " fifo", nil
	}
	content, err := os.ReadFile(path)
	return fmt.Sprintf("%s=%s", rel, content), err
}

func apply(t testing.TB, dir string, data []byte, o Options) (Result, error) {
	t.Helper()
	return Apply(context.Background(), dir, bytes.NewReader(data), o)
}

func TestApply(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for name, tc := range map[string]struct {
		entries []tar.Header
		want    string
		wantErr string
	}{
		"files": {
			entries: []tar.Header{file("a/"), file("a/b"), symlink("a/c", "b"), {Name: "p", Typeflag: tar.TypeFifo}},
			want:    "a/\na/b=a/b\na/c -> b\np fifo",
		},
		"absolute and dotted names": {
			entries: []tar.Header{file("./"), file("/etc/passwd"), file("./x"), file("a/../y")},
			want:    "etc/\netc/passwd=/etc/passwd\nx=./x\ny=a/../y",
		},
		"directories left out": {
			entries: []tar.Header{file("a/b/c/d")},
			want:    "a/\na/b/\na/b/c/\na/b/c/d=a/b/c/d",
		},
		"hard link": {
			entries: []tar.Header{file("d/a"), hardlink("e/b", "d/a"), hardlink("c", "/d/a"), hardlink("c", "c")},
			want:    "c=d/a\nd/\nd/a=d/a\ne/\ne/b=d/a",
		},
		"hard link to a symlink": {
			entries: []tar.Header{symlink("a", "/etc/shadow"), hardlink("b", "a")},
			want:    "a -> /etc/shadow\nb -> /etc/shadow",
		},
		"duplicates: the last counts": {
			entries: []tar.Header{
				symlink("f", "/etc/passwd"), file("f"), // a link is replaced, not followed
				file("g/x/y"), file("g"), // a directory by a file
				file("h"), file("h/"), file("h/z"), // a file by a directory
				file("d/"), file("d/kept"), file("d/"),
			},
			want: "d/\nd/kept=d/kept\nf=f\ng=g\nh/\nh/z=h/z",
		},
		"a symlink to a directory is followed within the layer": {
			entries: []tar.Header{file("usr/lib/"), symlink("lib", "usr/lib"), file("lib/a"), symlink("abs", "/usr"), file("abs/lib/b")},
			want:    "abs -> /usr\nlib -> usr/lib\nusr/\nusr/lib/\nusr/lib/a=lib/a\nusr/lib/b=abs/lib/b",
		},
		"a symlink to a directory is replaced": {
			entries: []tar.Header{file("real/"), symlink("l", "real"), file("l/a"), file("l/"), file("l/b")},
			want:    "l/\nl/b=l/b\nreal/\nreal/a=l/a",
		},
		"a directory becomes a symlink": {
			entries: []tar.Header{file("d/e/f"), file("t/"), symlink("d", "t"), file("d/g")},
			want:    "d -> t\nt/\nt/g=d/g",
		},
		"symlinks above the root": {
			entries: []tar.Header{symlink("up", "../../../.."), file("up/etc/x"), symlink("a", "/up/../up"), file("a/y")},
			want:    "a -> /up/../up\netc/\netc/x=up/etc/x\nup -> ../../../..\ny=a/y",
		},
		"a symlink that leads nowhere": {
			entries: []tar.Header{symlink("var", "/nowhere/deep"), file("var/x")},
			want:    "nowhere/\nnowhere/deep/\nnowhere/deep/x=var/x\nvar -> /nowhere/deep",
		},
		"whiteouts": {
			entries: []tar.Header{file(".wh.gone"), file("d/.wh.x"), file("d/y")},
			want:    "d/\nd/x c0,0\nd/y=d/y\ngone c0,0",
		},
		"a whiteout hides lower layers only": {
			entries: []tar.Header{file("a"), file(".wh.a"), file(".wh.b"), file("b"), file("c/x"), file(".wh.c"), file(".wh.d"), file("d/x"), file(".wh.e"), file("e/")},
			want:    "a=a\nb=b\nc/ opaque=y\nc/x=c/x\nd/ opaque=y\nd/x=d/x\ne/ opaque=y",
		},
		"opaque": {
			entries: []tar.Header{file("d/a"), file("d/.wh..wh..opq"), file("d/b")},
			want:    "d/ opaque=y\nd/a=d/a\nd/b=d/b",
		},
		"AUFS's own files": {
			entries: []tar.Header{file(".wh..wh.aufs"), file(".wh..wh.plnk/"), file(".wh..wh.plnk/1"), file("d/.wh..wh.orph/x"), file("a")},
			want:    "a=a",
		},
		"a device becomes a file": {
			entries: []tar.Header{{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8, Mode: 0o660}},
			want:    "sda=",
		},
		"a device 0/0 is no whiteout": {
			entries: []tar.Header{{Name: "null", Typeflag: tar.TypeChar}},
			want:    "null=",
		},
		"names of 255 bytes": {
			entries: []tar.Header{file(strings.Repeat("n", 255))},
			want:    strings.Repeat("n", 255) + "=" + strings.Repeat("n", 255),
		},
		"a name too long":       {entries: []tar.Header{file("ok"), file(strings.Repeat("n", 256))}, wantErr: "file name too long"},
		"a path too long":       {entries: []tar.Header{file(strings.Repeat("a/", 3000) + "b")}, wantErr: "file name too long"},
		"dots":                  {entries: []tar.Header{file("../x")}, wantErr: `"../x": the name leads out`},
		"dots within":           {entries: []tar.Header{file("a/../../x")}, wantErr: "leads out"},
		"only dots":             {entries: []tar.Header{{Name: "..", Typeflag: tar.TypeDir}}, wantErr: "leads out"},
		"link out by dots":      {entries: []tar.Header{hardlink("x", "../../etc/passwd")}, wantErr: "leads out"},
		"link to a missing one": {entries: []tar.Header{hardlink("x", "/etc/passwd")}, wantErr: `"x": link to "etc/passwd": no such file`},
		"the root as a symlink": {entries: []tar.Header{symlink(".", "/etc")}, wantErr: "not a directory"},
		"the root as a file":    {entries: []tar.Header{file("/")}, want: ""},
		"a loop of symlinks":    {entries: []tar.Header{symlink("a", "b"), symlink("b", "a"), file("a/x")}, wantErr: "too many levels"},
		"a file as a directory": {entries: []tar.Header{file("a"), file("a/b")}, wantErr: `"a/b": "a" is no directory`},
		"whiteout of nothing":   {entries: []tar.Header{file(".wh.")}, wantErr: "deletes nothing"},
		"whiteout of .":         {entries: []tar.Header{file("d/.wh..")}, wantErr: "deletes nothing"},
		"whiteout of ..":        {entries: []tar.Header{file("d/.wh...")}, wantErr: "deletes nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "up", "down", "layer")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			before := listTree(t, filepath.Join(dir, "../.."))
			_, err := apply(t, dir, archive(t, tc.entries...), Options{})
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("error %v, want one with %q", err, tc.wantErr)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if got := listTree(t, dir); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			if err := Remove(dir); err != nil {
				t.Error(err)
			}
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if after := listTree(t, filepath.Join(dir, "../..")); after != before {
				t.Errorf("outside the layer there is\n%s\nwhere there was\n%s", after, before)
			}
		})
	}
}

func TestApplyOpaqueRoot(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	dir := t.TempDir()
	res, err := apply(t, dir, archive(t, file("a"), file(".wh..wh..opq")), Options{})
	if err != nil || !res.OpaqueRoot {
		t.Errorf("got %+v, %v", res, err)
	}
}

// stat returns mode, uid and gid.
func stat(t *testing.T, path string) (mode, uid, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Mode & 0o7777, st.Uid, st.Gid
}

func xattr(path, name string) string {
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(path, name, value)
	if err != nil {
		return ""
	}
	return string(value[:n])
}

func TestApplyAttributes(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	// VFS_CAP_REVISION_2, cap_net_raw permitted and effective: what the image of a ping has.
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	pax := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m["SCHILY.xattr."+kv[i]] = kv[i+1]
		}
		return m
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o2777); err != nil { // must not be inherited
		t.Fatal(err)
	}
	res, err := apply(t, dir, archive(t,
		tar.Header{Name: "suid", Mode: 0o4755, Uid: 0, Gid: 0},
		tar.Header{Name: "sgid", Mode: 0o2711},
		tar.Header{Name: "none", Mode: 0o200},
		tar.Header{Name: "sticky/", Mode: 0o1777},
		tar.Header{Name: "locked/", Mode: 0o500},
		tar.Header{Name: "locked/in", Mode: 0o400},
		tar.Header{Name: "group/", Mode: 0o2775},
		tar.Header{Name: "group/sub/", Mode: 0o755},
		tar.Header{Name: "group/file"},
		tar.Header{Name: "cap", PAXRecords: pax("security.capability", capability, "user.x", "y")},
		tar.Header{Name: "evil", PAXRecords: pax("user.overlay.redirect", "/../..", "user.overlay.metacopy", "", "user.rbox.owner", "5:5", "trusted.x", "y", "security.selinux", "z")},
	), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{
		".": 0o755, "suid": 0o4755, "sgid": 0o2711, "none": 0o200, "sticky": 0o1777, "locked": 0o500, "locked/in": 0o400,
		"group": 0o2775, "group/sub": 0o755, "group/file": 0o644,
	} {
		if mode, _, _ := stat(t, filepath.Join(dir, name)); mode != want {
			t.Errorf("%s: mode %o, want %o", name, mode, want)
		}
	}
	if got := xattr(dir+"/cap", "security.capability"); len(got) != 20 || got[4:8] != capability[4:8] {
		t.Errorf("security.capability is %q", got)
	}
	if got := xattr(dir+"/cap", "user.x"); got != "y" {
		t.Errorf("user.x is %q", got)
	}
	for _, name := range []string{"user.overlay.redirect", "user.overlay.metacopy", OwnerXattr, "trusted.x"} {
		if got := xattr(dir+"/evil", name); got != "" {
			t.Errorf("the layer may set %s to %q", name, got)
		}
	}
	for _, name := range []string{"suid", "sticky", "locked", "locked/in", "group/file"} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || !info.ModTime().Equal(epoch) {
			t.Errorf("%s: time %v, %v", name, info.ModTime(), err)
		}
	}
	if res.Entries != 11 || res.Bytes == 0 || res.Plain%512 != 0 {
		t.Errorf("result %+v", res)
	}
}

func TestApplyOwners(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	const lots = 4_000_000_000 // mapped nowhere
	entries := func() []byte {
		return archive(t,
			file("implied/x"), tar.Header{Name: "user", Uid: 7, Gid: 8}, tar.Header{Name: "root"},
			tar.Header{Name: "dir/", Uid: 7, Gid: 8}, tar.Header{Name: "dir/sgid/", Mode: 0o2755, Gid: 8}, tar.Header{Name: "dir/sgid/f"},
			tar.Header{Name: "nobody", Uid: lots, Gid: lots + 1}, tar.Header{Name: "half", Uid: 7, Gid: lots},
			tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "x", Uid: 7, Gid: 8},
			tar.Header{Name: "minus", Uid: -1, Gid: -2, Format: tar.FormatGNU},
			tar.Header{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8, Devminor: 1, Mode: 0o660, Gid: 6})
	}
	keepID := []IDRange{{From: 0, To: 1, Count: 7}, {From: 7, To: 0, Count: 1}, {From: 8, To: 8, Count: 100}}
	for name, tc := range map[string]struct {
		o        Options
		want     map[string][2]uint32
		kept     map[string]string
		unmapped int64
	}{
		"as they are": {
			want: map[string][2]uint32{".": {0, 0}, "implied": {0, 0}, "user": {7, 8}, "root": {0, 0}, "dir": {7, 8}, "dir/sgid/f": {0, 0},
				"nobody": {0, 0}, "half": {7, 0}, "link": {7, 8}, "minus": {0, 0}, "sda": {0, 6}},
			kept:     map[string]string{"user": "", "nobody": "4000000000:4000000001", "half": "7:4000000000", "sda": "0:6:60660:8:1"},
			unmapped: 3,
		},
		"shifted": {
			o: Options{UIDs: keepID, GIDs: keepID},
			want: map[string][2]uint32{".": {1, 1}, "implied": {1, 1}, "implied/x": {1, 1}, "user": {0, 8}, "root": {1, 1},
				"dir": {0, 8}, "dir/sgid/f": {1, 1}, "nobody": {1, 1}, "half": {0, 1}, "link": {0, 8}, "minus": {1, 1}, "sda": {1, 7}},
			kept:     map[string]string{"nobody": "4000000000:4000000001"},
			unmapped: 3,
		},
		"one id": {
			o:    Options{Single: true},
			want: map[string][2]uint32{".": {0, 0}, "user": {0, 0}, "dir": {0, 0}, "link": {0, 0}, "nobody": {0, 0}},
			kept: map[string]string{"root": "", "user": "7:8", "dir": "7:8", "nobody": "4000000000:4000000001", "sda": "0:6:60660:8:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if !tc.o.Single && nstest.Mapped(t) < 200 {
				t.Skip("this account has no subordinate ids")
			}
			dir := t.TempDir()
			res, err := apply(t, dir, entries(), tc.o)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range tc.want {
				if _, uid, gid := stat(t, filepath.Join(dir, name)); uid != want[0] || gid != want[1] {
					t.Errorf("%s belongs to %d:%d, want %v", name, uid, gid, want)
				}
			}
			for name, want := range tc.kept {
				if got := xattr(filepath.Join(dir, name), OwnerXattr); got != want {
					t.Errorf("%s: %s is %q, want %q", name, OwnerXattr, got, want)
				}
			}
			if res.Unmapped != tc.unmapped || res.Devices != 1 {
				t.Errorf("result %+v, want %d unmapped", res, tc.unmapped)
			}
		})
	}
}

func TestOwnerString(t *testing.T) {
	for _, o := range []Owner{{}, {UID: 1, GID: 2}, {UID: 1<<32 - 2, GID: 3, Mode: unix.S_IFCHR | 0o666, Major: 1, Minor: 3}} {
		if got, err := ParseOwner(o.String()); err != nil || got != o {
			t.Errorf("%v becomes %q becomes %v, %v", o, o.String(), got, err)
		}
	}
	for _, bad := range []string{"", "1", "1:2:3", "a:b", "1:2:9:1:1", "1:4294967296"} {
		if _, err := ParseOwner(bad); err == nil {
			t.Errorf("%q passes for an owner", bad)
		}
	}
}

func compress(t *testing.T, c Compression, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch c {
	case Plain:
		return data
	case Gzip:
		w = gzip.NewWriter(&b)
	case Zstd:
		w, _ = zstd.NewWriter(&b)
	default:
		program, err := exec.LookPath(c.String())
		if err != nil {
			t.Skip(err)
		}
		cmd := exec.Command(program, "-c")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(data), &b
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestApplyCompressed(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	plain := archive(t, file("a/"), file("a/b"))
	want := image.DigestOf(plain)
	for _, c := range []Compression{Plain, Gzip, Zstd, Xz, Bzip2} {
		t.Run(c.String(), func(t *testing.T) {
			packed := compress(t, c, plain)
			res, err := apply(t, t.TempDir(), packed, Options{})
			if err != nil || res.DiffID != want || res.Packed != c || res.Plain != int64(len(plain)) {
				t.Errorf("got %+v, %v; want %s", res, err, want)
			}
			if c == Plain || c == Bzip2 {
				return // a bzip2 of this size is one block: TestApplyTruncated cuts it
			}
			for cut := 1; cut < len(packed); cut += 1 + len(packed)/50 {
				res, err := apply(t, t.TempDir(), packed[:cut], Options{})
				if err == nil {
					t.Fatalf("cut after %d of %d bytes: %+v", cut, len(packed), res)
				}
			}
		})
	}
	t.Run("two gzip members", func(t *testing.T) {
		packed := append(compress(t, Gzip, plain[:700]), compress(t, Gzip, plain[700:])...)
		if res, err := apply(t, t.TempDir(), packed, Options{}); err != nil || res.DiffID != want {
			t.Errorf("got %+v, %v", res, err)
		}
	})
	t.Run("zstd after a skippable frame", func(t *testing.T) {
		packed := append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00rbox"), compress(t, Zstd, plain)...)
		if res, err := apply(t, t.TempDir(), packed, Options{}); err != nil || res.DiffID != want {
			t.Errorf("got %+v, %v", res, err)
		}
	})
}

func TestApplyTruncated(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	big := tar.Header{Name: "big/file"}
	plain := archive(t, file("first"), big)
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"in a file":     {plain[:512+512+512+4], `"big/file": the archive is cut off`},
		"in a header":   {plain[:512+512+100], `after "first": the archive is cut off`},
		"in the gzip":   {compress(t, Gzip, plain)[:40], "cut off"},
		"not a tar":     {bytes.Repeat([]byte("no tar\n"), 1000), "not a tar archive"},
		"garbage later": {append(plain[:1024:1024], bytes.Repeat([]byte("x"), 2048)...), `after "first": archive/tar: invalid tar header`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := apply(t, t.TempDir(), tc.data, Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestApplyLimits(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	var bomb bytes.Buffer
	w := tar.NewWriter(&bomb)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Size: 8 << 20, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 8<<20)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for name, tc := range map[string]struct {
		data []byte
		o    Options
		want LimitError
	}{
		"bytes":  {compress(t, Gzip, bomb.Bytes()), Options{MaxBytes: 1 << 20}, LimitError{"bytes", 1 << 20}},
		"zstd":   {compress(t, Zstd, bomb.Bytes()), Options{MaxBytes: 1 << 20}, LimitError{"bytes", 1 << 20}},
		"files":  {archive(t, file("a"), file("b"), file("c")), Options{MaxEntries: 2}, LimitError{"files", 2}},
		"sparse": {sparse(1 << 40), Options{MaxBytes: 1 << 30}, LimitError{"bytes", 1 << 30}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := apply(t, dir, tc.data, tc.o)
			limit := (*LimitError)(nil)
			if !errors.As(err, &limit) || *limit != tc.want {
				t.Errorf("error %v, want %v", err, &tc.want)
			}
			if got, err := apply(t, t.TempDir(), tc.data[:0], Options{}); err != nil {
				t.Errorf("nothing at all: %+v, %v", got, err)
			}
		})
	}
}

// sparse is a GNU tar, in its old format, of one file that is a hole of size
// bytes but for its first four.
func sparse(size int64) []byte {
	h := make([]byte, 512)
	copy(h, "hole")
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00", 4))
	copy(h[136:], "00000000000\x00")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], fmt.Sprintf("%011o\x00%011o\x00", 0, 4))
	copy(h[410+12:], fmt.Sprintf("%011o\x00", 0))
	binary := func(field []byte, v int64) {
		field[0] = 0x80
		for i := len(field) - 1; v > 0; i-- {
			field[i] = byte(v)
			v >>= 8
		}
	}
	binary(h[410:422], size)
	binary(h[483:495], size)
	copy(h[148:], "        ")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(append(h, append([]byte("data"), make([]byte, 508)...)...), make([]byte, 1024)...)
}

func TestApplySparse(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	dir := t.TempDir()
	if _, err := apply(t, dir, sparse(64<<20), Options{}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir+"/hole", &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 64<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes, of which %d take room", st.Size, st.Blocks*512)
	}
	head := make([]byte, 8)
	f, err := os.Open(dir + "/hole")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, head); err != nil || string(head) != "data\x00\x00\x00\x00" {
		t.Errorf("it begins with %q, %v", head, err)
	}
}

// TestApplyManyDirs has more directories at a time than are kept open.
func TestApplyManyDirs(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	deep := strings.Repeat("d/", 1500)
	entries := []tar.Header{file(deep + "bottom")}
	for i := range 3 * maxOpenDirs {
		entries = append(entries, file(fmt.Sprintf("many/%03d/f", i)))
	}
	for i := range 3 * maxOpenDirs {
		entries = append(entries, hardlink(fmt.Sprintf("many/%03d/g", i), fmt.Sprintf("many/%03d/f", 3*maxOpenDirs-1-i)))
	}
	entries = append(entries, hardlink("many/top", deep+"bottom"), hardlink(deep+"f", "many/001/f"))
	dir := t.TempDir()
	var before, after unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	after = before
	after.Cur = maxOpenDirs + 56
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &after); err != nil {
		t.Fatal(err)
	}
	_, err := apply(t, dir, archive(t, entries...), Options{})
	rerr := Remove(filepath.Join(dir, "d"))
	unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	if err != nil || rerr != nil {
		t.Fatal(err, rerr)
	}
	for _, name := range []string{"many/000/g", "many/599/g", "many/top"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestApplyCanceled(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	data := archive(t, file("a"), file("b"))
	go func() {
		w.Write(data[:1024])
		cancel()
		w.Close()
	}()
	if _, err := Apply(ctx, t.TempDir(), r, Options{}); err == nil {
		t.Error("no error")
	}
}

// TestApplyAlpine unpacks a real root file system as GNU tar does.
func TestApplyAlpine(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	const name = "../../../shared/images/alpine-minirootfs-3.20.3-x86_64.tar.gz"
	packed, err := os.ReadFile(name)
	if err != nil {
		t.Skip(err)
	}
	got, want := t.TempDir(), t.TempDir()
	if _, err := apply(t, got, packed, Options{}); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "xpf", name, "-C", want).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if a, b := snapshot(t, got), snapshot(t, want); !maps.Equal(a, b) {
		for _, k := range slices.Sorted(maps.Keys(b)) {
			if a[k] != b[k] {
				t.Errorf("%s: %s, tar has %s", k, a[k], b[k])
			}
		}
		t.Errorf("%d files, tar has %d", len(a), len(b))
	}
}

// snapshot describes all files in dir, with times.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line, err := describe(path, rel)
		files[rel] = fmt.Sprintf("%o %d:%d %d links %d s %s", st.Mode, st.Uid, st.Gid, st.Nlink, st.Mtim.Sec, image.DigestOf([]byte(line)).Short())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
