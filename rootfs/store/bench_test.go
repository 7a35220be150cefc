package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rbox/tests/nstest"
)

// BenchmarkLookup is what each `rbox run` does of this package: find an image
// and hold its layers.
func BenchmarkLookup(b *testing.B) {
	root := b.TempDir()
	s, err := Open(root, Options{})
	if err != nil {
		b.Fatal(err)
	}
	u := Unpacking{Mapping: Mapping{Key: "single", Single: true}, Unpacker: &direct{}}
	var layers [][]byte
	for i := range 5 {
		layers = append(layers, tarOf("name", fmt.Sprint(i)))
	}
	f := newRegistry(map[string]*fakeImage{"x:latest": newFakeImage(layers...)})
	ref := Ref{Name: "docker.io/library/x:latest"}.Reference()
	if _, err := s.Pull(ctx, f, ref, PullOptions{Unpacking: u}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m, err := s.Lookup("x")
		if err != nil {
			b.Fatal(err)
		}
		_, hold, err := s.Layers(ctx, m, u)
		if err != nil {
			b.Fatal(err)
		}
		hold.Release()
	}
}

// TestManyLayers pulls an image of as many layers as overlayfs stacks.
func TestManyLayers(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	var layers [][]byte
	for i := range 500 {
		layers = append(layers, tarOf("name", fmt.Sprint(i)))
	}
	s, u := newStore(t, t.TempDir())
	f := newRegistry(map[string]*fakeImage{"x:latest": newFakeImage(layers...)})
	start := time.Now()
	p := mustPull(t, s, u, f, "x")
	t.Logf("pulled in %v", time.Since(start))
	dirs, hold, err := s.Layers(ctx, p.Image, u)
	if err != nil || len(dirs) != 500 {
		t.Fatalf("%d layers, %v", len(dirs), err)
	}
	hold.Release()
	for i, dir := range dirs {
		if data, err := os.ReadFile(filepath.Join(dir, "name")); err != nil || string(data) != fmt.Sprint(i) {
			t.Fatalf("layer %d holds %q, %v", i, data, err)
		}
	}
}
