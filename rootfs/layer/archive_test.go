package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

// sh runs a shell script in dir.
func sh(t testing.TB, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// folder opens dir as a Target.
func folder(t testing.TB, dir string) Folder {
	t.Helper()
	fd, err := openat(unix.AT_FDCWD, dir, dirFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return Folder(fd)
}

// pack archives dir as name.
func pack(t testing.TB, dir, name string, o ArchiveOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	a := NewArchiver(context.Background(), &b, o)
	if err := errors.Join(a.Add(int(folder(t, dir)), ".", name), a.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// What is packed and unpacked again is the same, in both forms of sparse files.
func TestArchiveAndExtract(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	from := t.TempDir()
	script := `umask 022; mkdir d d/e; echo x >d/f; ln d/f d/g; ln -s f d/l; ln -s /nowhere dangling; mkfifo p
		printf x >'new
line'; chmod 4711 d/f; mkdir -m 0500 closed; echo y >t && touch -d '1969-01-01 01:02:03' t
		echo x | dd of=sparse bs=1 seek=5000000 2>/dev/null; truncate -s 100G all-hole; : >empty`
	if nstest.Mapped(t) > 1 {
		script += "\nchown 5:6 d/f; chown -h 7 d/l"
	}
	sh(t, from, script)
	if err := unix.Setxattr(from+"/t", "user.x", []byte("y\nz"), 0); err != nil {
		t.Fatal(err)
	}
	sock := "/" + strings.Repeat("s", 8)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: from + sock})
	}
	if err != nil {
		t.Fatal(err)
	}
	want := snapshotOf(t, from)
	delete(want, sock[1:])
	for _, pipe := range []bool{true, false} {
		t.Run(fmt.Sprint("pipe ", pipe), func(t *testing.T) {
			var notices []string
			if !pipe {
				sh(t, from, "truncate -s 1G all-hole") // archive/tar reads each zero
				want = snapshotOf(t, from)
				delete(want, sock[1:])
			}
			data := pack(t, from, "x", ArchiveOptions{Pipe: pipe, Notice: func(s string) { notices = append(notices, s) }})
			if len(notices) != 1 || !strings.Contains(notices[0], "socket") {
				t.Errorf("notices: %q", notices)
			}
			if len(data) > 1<<20 {
				t.Errorf("%d bytes: the holes are in it", len(data))
			}
			to := t.TempDir()
			_, err := Extract(context.Background(), folder(t, to), bytes.NewReader(data), ExtractOptions{Owners: true, Chown: true, Single: nstest.Mapped(t) == 1})
			if err != nil {
				t.Fatal(err)
			}
			got := snapshotOf(t, to+"/x")
			if !maps.Equal(got, want) {
				t.Errorf("got\n%v\nwant\n%v", got, want)
			}
			if xattr(to+"/x/t", "user.x") != "y\nz" {
				t.Error("the attribute is lost")
			}
			if st := lstat(t, to+"/x/all-hole"); st.Blocks > 100 {
				t.Errorf("the hole takes %d blocks", st.Blocks)
			}
		})
	}
}

func lstat(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// snapshotOf describes each file below dir, but for what a sparse one holds.
func snapshotOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := lstat(t, path)
		rel, _ := filepath.Rel(dir, path)
		text := fmt.Sprintf("%o %d:%d links %d size %d time %d.%d", st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
		switch {
		case d.IsDir():
			text = fmt.Sprintf("%o %d:%d time %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		case d.Type().IsRegular() && st.Size < 10<<20:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", bytes.Trim(b, "\x00"))
		case d.Type()&os.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			text += " -> " + target
		}
		files[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// GNU tar, which is not ours, reads what is sparse as it was.
func TestSparseForGNUTar(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	sh(t, from, `for i in 0 1 2 3 4; do printf "data $i" | dd of=sparse bs=1 seek=$((i * 1500001)) conv=notrunc 2>/dev/null; done; truncate -s 9000001 sparse; chmod 640 sparse; touch -d 2001-02-03T04:05:06.5Z sparse`)
	data := pack(t, from, ".", ArchiveOptions{})
	cmd := exec.Command("tar", "-xpf", "-")
	cmd.Dir, cmd.Stdin = to, bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sh(t, to, "cmp sparse "+from+"/sparse")
	a, b := lstat(t, from+"/sparse"), lstat(t, to+"/sparse")
	if a.Mode != b.Mode || a.Mtim != b.Mtim {
		t.Errorf("%o %v became %o %v", a.Mode, a.Mtim, b.Mode, b.Mtim)
	}
}

// Whatever the archive and the target hold, nothing outside is touched.
func TestExtractStays(t *testing.T) {
	for name, tc := range map[string]struct {
		target  string // script
		entries []tar.Header
		fails   string // "" if it does not
		check   string // script
	}{
		"..":                      {"", []tar.Header{file("../outside/x")}, "leads out", ""},
		".. in between":           {"", []tar.Header{file("a/../../outside/x")}, "leads out", ""},
		"from the root":           {"", []tar.Header{file("/x")}, "", "test -f x"},
		"a link of the archive":   {"", []tar.Header{symlink("l", "../outside"), file("l/x")}, "not a directory|too many levels", ""},
		"an absolute link":        {"", []tar.Header{symlink("l", "/tmp"), file("l/x")}, "not a directory|too many levels", ""},
		"a link that was there":   {"ln -s ../outside l", []tar.Header{file("l/x")}, "not a directory|too many levels", ""},
		"a directory over a link": {"ln -s ../outside l", []tar.Header{{Name: "l/"}, file("l/x")}, "cannot overwrite non-directory", ""},
		"a file over a link":      {"ln -s ../outside/kept l", []tar.Header{file("l")}, "", "test -f l && ! test -L l"},
		"a link over a link":      {"ln -s ../outside/kept l", []tar.Header{symlink("l", "x")}, "", `test "$(readlink l)" = x`},
		"a link to outside":       {"", []tar.Header{hardlink("h", "../outside/kept")}, "leads out|did not come", ""},
		"a link to what was there": {"echo mine >mine", []tar.Header{hardlink("h", "mine"), file("h")},
			"did not come before", "test $(cat mine) = mine"},
		"a link through a link":      {"ln -s ../outside o", []tar.Header{hardlink("h", "o/kept")}, "did not come before", ""},
		"a link to a link":           {"", []tar.Header{symlink("l", "../outside/kept"), hardlink("h", "l"), file("h")}, "", "test -f h && ! test -L h"},
		"a file over a directory":    {"mkdir d", []tar.Header{file("d")}, "cannot overwrite directory", "test -d d"},
		"a link over a directory":    {"mkdir d", []tar.Header{symlink("d", "x")}, "cannot overwrite directory", "test -d d"},
		"a directory over a file":    {"echo >f", []tar.Header{{Name: "f/"}}, "cannot overwrite non-directory", "test -f f"},
		"directories are merged":     {"mkdir d; echo >d/old", []tar.Header{{Name: "d/", Mode: 0o700}, file("d/new")}, "", "test -f d/old && test -f d/new && test $(stat -c %a d) = 700"},
		"the target itself":          {"chmod 711 .", []tar.Header{{Name: "./", Mode: 0o777}, file("x")}, "", "test $(stat -c %a .) = 711"},
		"a device":                   {"", []tar.Header{{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, file("x")}, "", "! test -e null && test -f x"},
		"directories not in it":      {"", []tar.Header{file("a/b/c")}, "", "test -f a/b/c"},
		"a closed directory":         {"", []tar.Header{{Name: "d/", Mode: 0o500}, file("d/x")}, "", "test $(stat -c %a d) = 500"},
		"the same file twice":        {"", []tar.Header{file("x"), {Name: "x", Mode: 0o600}}, "", "test $(stat -c %a x) = 600"},
		"set-user-id":                {"", []tar.Header{{Name: "x", Mode: 0o6755}}, "", "test $(stat -c %a x) = 755"},
		"an unknown kind":            {"", []tar.Header{{Name: "x", Typeflag: 'Z'}}, "not supported", ""},
		"a FIFO where a file was":    {"echo >p", []tar.Header{{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o600}}, "", "test -p p"},
		"a file where a FIFO was":    {"mkfifo p", []tar.Header{file("p")}, "", "test -f p"},
		"a hard link under its name": {"", []tar.Header{file("x"), hardlink("x", "x")}, "", "test -f x"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			sh(t, top, "mkdir outside && echo kept >outside/kept")
			target := filepath.Join(top, "target")
			sh(t, top, "mkdir target; cd target; "+tc.target)
			_, err := Extract(context.Background(), folder(t, target), bytes.NewReader(archive(t, tc.entries...)), ExtractOptions{NoSetID: true})
			switch {
			case tc.fails == "" && err != nil:
				t.Error(err)
			case tc.fails != "" && (err == nil || !matches(tc.fails, err.Error())):
				t.Errorf("want an error like %q, got %v", tc.fails, err)
			}
			sh(t, target, ": ; "+tc.check)
			if got := sh(t, top, "ls outside; cat outside/kept"); got != "kept\nkept\n" {
				t.Errorf("outside is now %q", got)
			}
		})
	}
}

func matches(words, text string) bool {
	for word := range strings.SplitSeq(words, "|") {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

func TestExtractOfNoArchive(t *testing.T) {
	whole := archive(t, file("a"), file("b"))
	for name, tc := range map[string]struct{ data, want string }{
		"text":     {strings.Repeat("no archive ", 100), errNotTar.Error()},
		"cut off":  {string(whole[:512]), errTruncated.Error()},
		"nothing":  {"", ""},
		"own form": {string(archive(t, tar.Header{Name: "x", PAXRecords: map[string]string{ownSparse: "-1"}})), errNotTar.Error()},
		"own list": {string(archive(t, tar.Header{Name: "x", PAXRecords: map[string]string{ownSparse: "10"}})), errNotTar.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Extract(context.Background(), folder(t, t.TempDir()), strings.NewReader(tc.data), ExtractOptions{})
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("want %q, got %v", tc.want, err)
			}
		})
	}
}

// A reader that ends early ends the packing.
func TestArchiveToNobody(t *testing.T) {
	dir := t.TempDir()
	sh(t, dir, "head -c 3000000 /dev/zero | tr '\\0' x >big")
	r, w := io.Pipe()
	r.Close()
	a := NewArchiver(context.Background(), w, ArchiveOptions{})
	if err := a.Add(int(folder(t, dir)), ".", "."); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	a = NewArchiver(ctx, io.Discard, ArchiveOptions{})
	if err := a.Add(int(folder(t, dir)), ".", "."); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
