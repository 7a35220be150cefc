package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// busybox, which unpacks such archives itself, finds what went in.
func TestCpio(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip(err)
	}
	var archive bytes.Buffer
	c := &cpio{w: &archive}
	c.add("dir", modeDir, nil)
	c.add("dir/odd", modeProg, []byte("12345"))
	c.add("init", modeProg, []byte("#!/bin/sh\n"))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(busybox, "cpio", "-i")
	cmd.Dir, cmd.Stdin = t.TempDir(), &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, want := range map[string]string{"dir/odd": "12345", "init": "#!/bin/sh\n"} {
		got, err := os.ReadFile(filepath.Join(cmd.Dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	c = &cpio{w: fullDisk{}}
	c.add("file", modeProg, nil)
	if err := c.close(); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a failure is told as %v", err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
