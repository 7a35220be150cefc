package rootfs

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

// The way of kernels before 5.12 does what mount_setattr(2) does.
func TestRemount(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for name, restrict := range map[string]func(fd int, flags uintptr, deep bool) error{"old": remount, "new": restrict} {
		for _, deep := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir() + "/a b" // mountinfo writes a blank as \040
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount(source(t), dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
					t.Fatal(err)
				}
				defer unix.Unmount(dir, unix.MNT_DETACH)
				fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				if err := restrict(fd, unix.MS_RDONLY|unix.MS_NOSUID, deep); err != nil {
					t.Fatal(err)
				}
				var below error
				if deep {
					below = unix.EROFS
				}
				if err := writable(dir + "/file"); !errors.Is(err, unix.EROFS) {
					t.Errorf("write: %v", err)
				}
				if err := writable(dir + "/below/file"); !errors.Is(err, below) {
					t.Errorf("write below: %v, want %v", err, below)
				}
			})
		}
	}
}

func TestMountFlags(t *testing.T) {
	const all = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for options, want := range map[string]uintptr{
		"rw": 0, "ro,nosuid,nodev,noexec": all, "rw,relatime": unix.MS_RELATIME, "rw,noatime,nodiratime": unix.MS_NOATIME | unix.MS_NODIRATIME, "": 0, "nosuidx": 0,
	} {
		if got := mountFlags(options); got != want {
			t.Errorf("%s: %#x, want %#x", options, got, want)
		}
	}
}

func TestMakeReadOnly(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	dir := source(t)
	if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := MakeReadOnly(dir); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/file", "/below/file"} {
		if err := writable(dir + file); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := MakeReadOnly(dir + "/missing"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing: %v", err)
	}
}
