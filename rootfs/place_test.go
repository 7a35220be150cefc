package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"rbox/tests/nstest"
)

func TestSafeParent(t *testing.T) {
	top := t.TempDir()
	real, err := filepath.EvalSymlinks(top)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"mine": 0o700, "read": 0o755, "sticky": 0o777 | os.ModeSticky, "open": 0o777, "group": 0o770} {
		if err := errors.Join(os.MkdirAll(filepath.Join(top, name, "below"), 0o700), os.Chmod(filepath.Join(top, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sticky", filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := SafeParent(top); err != nil {
		t.Skip("the temporary directory is none: ", err)
	}
	for dir, want := range map[string]string{
		"mine": "mine", "read": "read", "sticky": "sticky", "mine/below": "mine/below", "link": "sticky", "link/below": "sticky/below",
		"open": "", "open/below": "", "group": "", "group/below": "", "none": "",
	} {
		got, err := SafeParent(filepath.Join(top, dir))
		if want != "" {
			want = filepath.Join(real, want)
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", dir, got, err, want)
		}
	}
}

func TestTakesLayers(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	var unfit *UnfitError
	if err := TakesLayers("/proc/self"); !errors.As(err, &unfit) || !unfit.Useless {
		t.Errorf("/proc takes layers: %v", err)
	}
	dir := t.TempDir()
	if err := TakesLayers(dir); err != nil && !errors.As(err, &unfit) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
