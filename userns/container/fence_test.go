package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/slirp/landlock"
)

// Who deletes a container's folder can delete that, with what lies in a place, and nothing else.
func TestKeepToRemoving(t *testing.T) {
	top := t.TempDir()
	dir, place, other := filepath.Join(top, "passing", "id"), filepath.Join(top, "place", inPlace, "id"), filepath.Join(top, "other")
	for _, d := range []string{dir + "/deep/deeper", place + "/deep", other} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{dir + "/config.json", dir + "/deep/file", place + "/deep/file", other + "/file"} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(place, filepath.Join(dir, elsewhere)), os.Chmod(filepath.Join(top, "place"), 0o700)); err != nil {
		t.Fatal(err)
	}
	onFencedThread(t, func() {
		keepToRemoving(dir)
		for name, err := range map[string]error{
			"write": os.WriteFile(dir+"/deep/file", []byte("x"), 0o600), "make": os.WriteFile(dir+"/new", nil, 0o600),
			"remove another's": os.Remove(other + "/file"), "make a directory": os.Mkdir(other+"/new", 0o700), "rename": os.Rename(dir+"/deep", other+"/deep"),
		} {
			if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EXDEV) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := removeFolder(dir, nil); err != nil {
			t.Error(err)
		}
	})
	for path, want := range map[string]bool{dir: false, place: false, other + "/file": true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// onFencedThread calls f on a thread that ends with it, or skips the test where the kernel has
// no Landlock.
func onFencedThread(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		defer close(done)
		// The monitor has capabilities in place of this.
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- err
			return
		}
		if _, err := (landlock.Fence{Rules: []landlock.Rule{{Path: os.TempDir(), Rights: ^uint64(0)}}}).AroundThread(); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; landlock.Missing(err) {
		t.Skip("the kernel has no Landlock: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
}
