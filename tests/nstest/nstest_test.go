package nstest

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestEnterIsRootOfItsOwnMounts(t *testing.T) {
	if !Enter(t, Network) {
		return
	}
	if os.Geteuid() != 0 {
		t.Errorf("uid %d, want 0", os.Geteuid())
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if Mapped(t) > 1 {
		if err := os.Chown(file, 1000, 1000); err != nil {
			t.Error(err)
		}
	}
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Error(err)
	}
	for _, sub := range []string{"one", "two"} {
		t.Run(sub, func(t *testing.T) {
			if _, err := os.Stat("/proc/self/ns/net"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEnterIsNotRootOfTheHost(t *testing.T) {
	if !Enter(t) {
		return
	}
	if err := os.Mkdir("/rbox-nstest", 0o700); err == nil {
		os.Remove("/rbox-nstest")
		t.Error("could write to the host's root directory")
	}
}
