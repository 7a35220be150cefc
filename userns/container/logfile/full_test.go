package logfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

// TestFullDisk fills a small file system, frees it and goes on.
func TestFullDisk(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path, other := filepath.Join(dir, "log"), filepath.Join(dir, "other")
	w := Open(path, 0, 0)
	w.pause = 0
	if err := os.WriteFile(other, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	wrote, failures := 0, 0
	write := func(line string) {
		wrote += len(line)
		if err := w.Write(Stdout, []byte(line)); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			failures++
		}
	}
	for i := range 100 {
		write(fmt.Sprintf("%s %d\nand %d more", strings.Repeat("x", 2000), i, i))
	}
	if failures != 1 {
		t.Errorf("the failure was reported %d times", failures)
	}
	b, err := os.ReadFile(path)
	if err != nil || !bytes.HasSuffix(b, []byte("\n")) {
		t.Errorf("the log ends with %q, %v", b[max(0, len(b)-50):], err)
	}
	os.Remove(other)
	write("again\n")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	out := readAll(t, path, Options{})
	if !strings.HasSuffix(out[Stdout].String(), "again\n") {
		t.Errorf("the log did not go on")
	}
	lost := 0
	for _, m := range regexp.MustCompile(`rbox: (\d+) bytes of output were not logged: no space left on device\n`).
		FindAllStringSubmatch(out[Stderr].String(), -1) {
		n, _ := strconv.Atoi(m[1])
		lost += n
	}
	if lost == 0 || out[Stdout].Len()+lost != wrote {
		t.Errorf("of %d bytes %d are in the log and %d are said to be lost", wrote, out[Stdout].Len(), lost)
	}
}

func TestNoFolder(t *testing.T) {
	w := Open(filepath.Join(t.TempDir(), "gone", "log"), 0, 0)
	if err := w.Write(Stdout, []byte("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := w.Write(Stdout, []byte("x")); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := w.Close(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("close: %v", err)
	}
}
