package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

func TestMountDev(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for name, link := range map[string]string{"missing": "", "a link outwards": "../outside", "a dangling link": "/run/dev"} {
		t.Run(name, func(t *testing.T) {
			tree := hostile(t)
			if link != "" {
				if err := os.Symlink(link, tree.Path+"/dev"); err != nil {
					t.Fatal(err)
				}
			}
			tty := -1
			if nstest.Mapped(t) > 10 {
				tty = 5
				tree.UID, tree.GID = 3, 4
			}
			prepared := t.TempDir()
			if err := PrepareDev(prepared); err != nil {
				t.Fatal(err)
			}
			if err := tree.MountDev(prepared, 1<<20, tty); err != nil {
				t.Fatal(err)
			}
			dev := tree.Path + "/dev"
			if link != "" {
				dev = tree.Path + map[string]string{"../outside": "/outside", "/run/dev": "/run/dev"}[link]
			}
			defer unix.Unmount(dev, unix.MNT_DETACH)
			checkDev(t, tree, dev)
			untouched(t, filepath.Dir(tree.Path))
		})
	}
}

func checkDev(t *testing.T, tree *Tree, dev string) {
	t.Helper()
	for name, number := range map[string]uint64{"null": 1<<8 | 3, "zero": 1<<8 | 5, "full": 1<<8 | 7, "random": 1<<8 | 8, "urandom": 1<<8 | 9, "tty": 5 << 8} {
		var st unix.Stat_t
		if err := unix.Lstat(dev+"/"+name, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != number {
			t.Errorf("%s: mode %o, number %#x, %v", name, st.Mode, st.Rdev, err)
		}
	}
	for name, want := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		if got, err := os.Readlink(dev + "/" + name); err != nil || got != want {
			t.Errorf("%s leads to %s, %v; want %s", name, got, err, want)
		}
	}
	var names []string
	entries, err := os.ReadDir(dev)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := []string{"core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("/dev holds %q, %v", names, err)
	}
	var shm unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Statfs(dev+"/shm", &shm), unix.Stat(dev+"/shm", &st)); err != nil || shm.Type != unix.TMPFS_MAGIC ||
		shm.Blocks*uint64(shm.Bsize) != 1<<20 || st.Mode&0o7777 != 0o1777 || st.Uid != uint32(tree.UID) {
		t.Errorf("shm: type %#x, %d bytes, mode %o of %d, %v", shm.Type, shm.Blocks*uint64(shm.Bsize), st.Mode, st.Uid, err)
	}
	if err := unix.Stat(dev, &st); err != nil || st.Mode&0o7777 != 0o755 || st.Uid != uint32(tree.UID) || st.Gid != uint32(tree.GID) {
		t.Errorf("/dev has mode %o of %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
	}
	if err := writable(dev + "/null"); err != nil {
		t.Errorf("write to null: %v", err)
	}
	checkTerminal(t, tree, dev)
}

// checkTerminal makes a terminal and talks through it.
func checkTerminal(t *testing.T, tree *Tree, dev string) {
	t.Helper()
	master, name, err := tree.OpenTerminal(tree.UID)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := tree.BindConsole(name); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dev+"/console", unix.MNT_DETACH)
	if name != "/dev/pts/0" {
		t.Errorf("the first terminal is %s", name)
	}
	var st unix.Stat_t
	if err := unix.Stat(dev+"/pts/0", &st); err != nil || st.Uid != uint32(tree.UID) || st.Mode&0o777 != 0o620 {
		t.Errorf("it belongs to %d, mode %o, %v", st.Uid, st.Mode, err)
	}
	console, err := os.OpenFile(dev+"/console", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	if _, err := console.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if n, err := master.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("through /dev/console came %q, %v", b[:n], err)
	}
}
