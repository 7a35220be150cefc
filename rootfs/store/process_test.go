package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rbox/rootfs/image"
	"rbox/tests/nstest"
)

// childEnv holds what a rerun of the test binary does, and where: it is
// another rbox process.
const childEnv = "RBOX_STORE_CHILD"

// TestChild is that process.
func TestChild(t *testing.T) {
	words := strings.Fields(os.Getenv(childEnv))
	if len(words) == 0 {
		return
	}
	s, u := newStore(t, words[1])
	switch words[0] {
	case "pull":
		f := newRegistry(map[string]*fakeImage{"x:latest": bigImage()})
		f.url = words[2]
		mustPull(t, s, u, f, "x")
	case "remove":
		_, err := s.Remove(ctx, "x", RemoveOptions{Unpacker: u.Unpacker})
		if missing := (*NotFoundError)(nil); err != nil && !errors.As(err, &missing) {
			t.Error(err)
		}
	case "import":
		ref := reference(t, words[2])
		data := tarOf("name", words[2], "a", noise(9, 500_000))
		if _, err := s.Import(ctx, bytes.NewReader(data), ImportOptions{Unpacking: u, Reference: &ref, Platform: image.Host()}); err != nil {
			t.Error(err)
		}
	}
}

func bigImage() *fakeImage {
	return newFakeImage(
		tarOf("name", "one", "a", noise(1, 1_000_000)),
		tarOf("name", "two", "b", noise(2, 500_000)),
		tarOf("name", "three"),
		tarOf("name", "four", "c", noise(3, 700_000)),
	)
}

func child(t *testing.T, words ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(words, " "))
	return cmd
}

// Several processes that pull the same do the work once.
func TestConcurrentPulls(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	f := newRegistry(map[string]*fakeImage{"x:latest": bigImage()})
	f.serve(t)
	root := t.TempDir()
	var children []*exec.Cmd
	var outs []*bytes.Buffer
	for range 6 {
		cmd, out := child(t, "pull", root, f.url), &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		children, outs = append(children, cmd), append(outs, out)
	}
	for i, cmd := range children {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, outs[i])
		}
	}
	for _, l := range f.images["x:latest"].resolved.Manifest.Layers {
		f.mu.Lock()
		n := f.opens[l.Digest]
		f.mu.Unlock()
		if n != 1 {
			t.Errorf("layer %s was downloaded %d times", l.Digest.Short(), n)
		}
	}
	s, u := newStore(t, root)
	checkWhole(t, s, u)
	checkClean(t, s)
}

// Pulling, importing and removing at once, in many processes, never shows a
// broken image.
func TestConcurrentEverything(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	f := newRegistry(map[string]*fakeImage{"x:latest": bigImage()})
	f.serve(t)
	root := t.TempDir()
	s, u := newStore(t, root)
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		var children []*exec.Cmd
		outs := make([]bytes.Buffer, 6)
		for i, words := range [][]string{
			{"pull", root, f.url}, {"remove", root}, {"import", root, fmt.Sprintf("i%d", round)}, {"pull", root, f.url}, {"remove", root}, {"import", root, "same"},
		} {
			cmd := child(t, words...)
			cmd.Stdout, cmd.Stderr = &outs[i], &outs[i]
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			children = append(children, cmd)
		}
		for i, cmd := range children {
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, &outs[i])
			}
		}
		checkWhole(t, s, u)
	}
	checkClean(t, s)
}

// A process killed at any instant leaves each image whole or absent, and the
// next pull goes on where it stopped.
func TestKilled(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	f := newRegistry(map[string]*fakeImage{"x:latest": bigImage()})
	f.serve(t)
	root := t.TempDir()
	s, u := newStore(t, root)

	start := time.Now() // of a pull that nobody kills, to kill within that time
	if out, err := child(t, "pull", root, f.url).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	whole := time.Since(start)
	if _, err := s.Remove(ctx, "x", RemoveOptions{Unpacker: u.Unpacker}); err != nil {
		t.Fatal(err)
	}
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	kills := 0
	for round := range rounds {
		words := []string{"pull", root, f.url}
		if _, err := s.Lookup("x"); err == nil && round%2 == 0 {
			words = []string{"remove", root}
		} else if round%5 == 4 {
			words = []string{"import", root, "i"}
		}
		cmd := child(t, words...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(rand.N(whole), func() { cmd.Process.Kill() })
		if cmd.Wait() != nil {
			kills++
		}
		timer.Stop()
		checkWhole(t, s, u)
	}
	if kills == 0 {
		t.Error("nothing was killed in time")
	}
	for _, words := range [][]string{{"pull", root, f.url}, {"import", root, "i"}} {
		if out, err := child(t, words...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := s.GC(ctx, u.Unpacker); err != nil {
		t.Error(err)
	}
	checkWhole(t, s, u)
	checkClean(t, s)
	if left, _ := filepath.Glob(root + "/layers/single/*.lock"); len(left) != 5 {
		t.Errorf("%d layers have locks, not 5", len(left))
	}
}

// A download that was killed is resumed, not repeated.
func TestKilledResumes(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	m := bigImage()
	first := m.resolved.Manifest.Layers[0]
	f := newRegistry(map[string]*fakeImage{"x:latest": m})
	f.serve(t)
	root := t.TempDir()
	s, u := newStore(t, root)
	cmd := child(t, "pull", root, f.url)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if st, err := os.Stat(s.partialPath(first.Digest)); err == nil && st.Size() > 0 || s.hasBlob(first.Digest, -1) {
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	have := int64(0)
	if st, err := os.Stat(s.partialPath(first.Digest)); err == nil {
		have = st.Size()
	} else if s.hasBlob(first.Digest, first.Size) {
		have = first.Size
	}
	f.mu.Lock()
	clear(f.sent)
	f.mu.Unlock()
	mustPull(t, s, u, f, "x")
	f.mu.Lock()
	sent := f.sent[first.Digest]
	f.mu.Unlock()
	if sent > first.Size-have {
		t.Errorf("%d bytes were sent again though %d of %d were here", sent, have, first.Size)
	}
	checkWhole(t, s, u)
	checkClean(t, s)
}
