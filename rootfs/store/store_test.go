package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
	"rbox/tests/nstest"
)

var ctx = context.Background()

func newStore(t *testing.T, root string) (*Store, Unpacking) {
	t.Helper()
	s, err := Open(root, Options{Warn: func(text string) { t.Log("warning:", text) }})
	if err != nil {
		t.Fatal(err)
	}
	return s, Unpacking{Mapping: Mapping{Key: "single", Single: true}, Unpacker: &direct{}}
}

func reference(t *testing.T, name string) image.Reference {
	t.Helper()
	ref, err := image.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func mustPull(t *testing.T, s *Store, u Unpacking, f Fetcher, name string) *Pulled {
	t.Helper()
	p, err := s.Pull(ctx, f, reference(t, name), PullOptions{Unpacking: u})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkWhole fails unless each image of the store is whole and unpacked.
func checkWhole(t *testing.T, s *Store, u Unpacking) {
	t.Helper()
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range images {
		for _, d := range append([]image.Digest{m.ID, m.ManifestDigest}, digests(m)...) {
			if err := s.checkBlob(d); err != nil {
				t.Errorf("image %s: %v", m.ID.Short(), err)
			}
		}
		dirs, hold, err := s.Layers(ctx, m, u)
		if err != nil {
			t.Errorf("image %s: %v", m.ID.Short(), err)
			continue
		}
		for _, dir := range dirs {
			if _, err := os.ReadFile(filepath.Join(dir, "name")); err != nil {
				t.Errorf("image %s: %v", m.ID.Short(), err)
			}
		}
		hold.Release()
	}
}

func digests(m *Image) (list []image.Digest) {
	for _, l := range m.Layers {
		list = append(list, l.Digest)
	}
	return list
}

// checkClean fails if the store holds anything temporary.
func checkClean(t *testing.T, s *Store) {
	t.Helper()
	filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), tempPrefix) {
			t.Errorf("%s stays behind", path)
		}
		if err == nil && filepath.Base(filepath.Dir(path)) == "partial" {
			t.Errorf("%s stays behind", path)
		}
		return nil
	})
}

func threeLayers() *fakeImage {
	return newFakeImage(
		tarOf("name", "one", "a", noise(1, 300_000), "gone", "x"),
		tarOf("name", "two", "b", noise(2, 200_000), ".wh.gone", ""),
		tarOf("name", "three", "c", "->a"),
	)
}

func TestPull(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	f := newRegistry(map[string]*fakeImage{"alpine:latest": threeLayers(), "other:1": threeLayers()})
	s, u := newStore(t, filepath.Join(t.TempDir(), "store"))
	p := mustPull(t, s, u, f, "alpine")
	if !p.New || p.Size == 0 || p.ID != f.images["alpine:latest"].resolved.Manifest.Config.Digest {
		t.Errorf("got %+v", p)
	}
	checkWhole(t, s, u)
	checkClean(t, s)

	again := mustPull(t, s, u, f, "alpine")
	if again.New {
		t.Error("the second pull says that it got something new")
	}
	mustPull(t, s, u, f, "other:1")
	for d, n := range f.opens {
		if n != 1 {
			t.Errorf("%s was downloaded %d times", d.Short(), n)
		}
	}
	if n := u.Unpacker.(*direct).unpacks.Load(); n != 3 {
		t.Errorf("%d layers were unpacked, not 3", n)
	}
	m, err := s.Lookup("alpine")
	if err != nil {
		t.Fatal(err)
	}
	dirs, hold, err := s.Layers(ctx, m, u)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	var names []string
	for _, dir := range dirs {
		name, err := os.ReadFile(filepath.Join(dir, "name"))
		if err != nil {
			t.Error(err)
		}
		names = append(names, string(name))
	}
	if got := strings.Join(names, " "); got != "one two three" {
		t.Errorf("layers are in the order %s", got)
	}
}

func TestPullFaults(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	good := threeLayers()
	first := good.resolved.Manifest.Layers[0]
	broken := func(change func(*fakeImage)) *fakeImage {
		f := threeLayers()
		change(f)
		return f
	}
	flip := func(f *fakeImage, at int) {
		data := bytes.Clone(f.blobs[first.Digest])
		data[at] ^= 1
		f.blobs[first.Digest] = data
	}
	for name, tc := range map[string]struct {
		image   *fakeImage
		after   []int
		noRange bool
		wantErr string
		// sent is how much of the first layer may be sent for this pull and a
		// second one, which must succeed.
		sent int64
	}{
		"broken off, then resumed": {image: good, after: []int{100_000}, wantErr: "connection broke", sent: first.Size},
		"broken off at once":       {image: good, after: []int{0}, wantErr: "connection broke", sent: first.Size},
		"broken off, and no range": {image: good, after: []int{100_000}, noRange: true, wantErr: "connection broke", sent: 100_000 + first.Size},
		"wrong byte at the end":    {image: broken(func(f *fakeImage) { flip(f, int(first.Size)-3) }), wantErr: "not " + string(first.Digest) + " as announced", sent: 2 * first.Size},
		"wrong byte in the middle": {image: broken(func(f *fakeImage) { flip(f, 150_000) }), wantErr: "as announced", sent: 2 * first.Size},
		"too short": {
			image: broken(func(f *fakeImage) { f.blobs[first.Digest] = f.blobs[first.Digest][:1000] }), wantErr: "1000 of", sent: 1000 + first.Size,
		},
		"too long": {
			image:   broken(func(f *fakeImage) { f.blobs[first.Digest] = append(bytes.Clone(f.blobs[first.Digest]), "more"...) }),
			wantErr: "as announced", sent: 2*first.Size + 4,
		},
		"another diff id": {
			image: withConfig(good, func(c string) string {
				return strings.Replace(c, good.config().RootFS.DiffIDs[0].Hex(), strings.Repeat("1", 64), 1)
			}),
			wantErr: "unpacked: the content is", sent: 2 * first.Size,
		},
		"a diff id too many": {
			image: withConfig(good, func(c string) string {
				return strings.Replace(c, `"diff_ids":[`, `"diff_ids":["sha256:`+strings.Repeat("1", 64)+`",`, 1)
			}),
			wantErr: "3 layers but the configuration 4", sent: first.Size,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, u := newStore(t, t.TempDir())
			f := newRegistry(map[string]*fakeImage{"x:latest": tc.image})
			f.after[first.Digest], f.noRange = tc.after, tc.noRange
			_, err := s.Pull(ctx, f, reference(t, "x"), PullOptions{Unpacking: u})
			if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
				t.Fatalf("error %v, want one with %q", err, tc.wantErr)
			}
			if images, err := s.List(); err != nil || len(images) > 0 {
				t.Errorf("there are %d images, %v", len(images), err)
			}
			f.images["x:latest"] = good
			mustPull(t, s, u, f, "x")
			checkWhole(t, s, u)
			checkClean(t, s)
			if f.sent[first.Digest] > tc.sent {
				t.Errorf("%d bytes were sent in all, more than %d", f.sent[first.Digest], tc.sent)
			}
		})
	}
}

func (f *fakeImage) config() *image.Config {
	c, err := image.ParseConfig(f.blobs[f.resolved.Manifest.Config.Digest])
	if err != nil {
		panic(err)
	}
	return c
}

// withConfig is f with another configuration.
func withConfig(f *fakeImage, change func(string) string) *fakeImage {
	m := *f.resolved.Manifest
	raw := []byte(change(string(f.blobs[m.Config.Digest])))
	m.Config.Digest, m.Config.Size = image.DigestOf(raw), int64(len(raw))
	blobs := map[image.Digest][]byte{m.Config.Digest: raw}
	for _, l := range m.Layers {
		blobs[l.Digest] = f.blobs[l.Digest]
	}
	r := *f.resolved
	r.Manifest = &m
	return &fakeImage{resolved: &r, blobs: blobs}
}

// TestPullResumesDamage has a partial file that is wrong: the download starts over.
func TestPullResumesDamage(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for name, junk := range map[string][]byte{
		"junk": []byte("junk"), "too long": make([]byte, 1<<20), "zeros": make([]byte, 1000),
		"half, damaged": append(bytes.Clone(firstBlob(threeLayers())[:100_000]), "junk"...),
	} {
		t.Run(name, func(t *testing.T) {
			m := threeLayers()
			f := newRegistry(map[string]*fakeImage{"x:latest": m})
			s, u := newStore(t, t.TempDir())
			if err := s.prepare(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.partialPath(m.resolved.Manifest.Layers[0].Digest), junk, 0o600); err != nil {
				t.Fatal(err)
			}
			mustPull(t, s, u, f, "x")
			checkWhole(t, s, u)
			checkClean(t, s)
		})
	}
}

func firstBlob(f *fakeImage) []byte { return f.blobs[f.resolved.Manifest.Layers[0].Digest] }

// TestPullMendsBlob has a blob that a power cut damaged.
func TestPullMendsBlob(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	m := threeLayers()
	f := newRegistry(map[string]*fakeImage{"x:latest": m})
	s, u := newStore(t, t.TempDir())
	mustPull(t, s, u, f, "x")
	l := m.resolved.Manifest.Layers[0]
	if err := os.WriteFile(s.blobPath(l.Digest), make([]byte, l.Size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(s.keyPath(u.Mapping)); err != nil {
		t.Fatal(err)
	}
	mustPull(t, s, u, f, "x")
	checkWhole(t, s, u)
}

func TestLayersAfterBoot(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	f := newRegistry(map[string]*fakeImage{"x:latest": threeLayers()})
	s, u := newStore(t, t.TempDir())
	mustPull(t, s, u, f, "x")
	m, err := s.Lookup("x")
	if err != nil {
		t.Fatal(err)
	}
	unpacks := func() int64 {
		before := u.Unpacker.(*direct).unpacks.Load()
		_, hold, err := s.Layers(ctx, m, u)
		if err != nil {
			t.Fatal(err)
		}
		hold.Release()
		return u.Unpacker.(*direct).unpacks.Load() - before
	}
	record := s.keyPath(u.Mapping, m.Layers[1].DiffID.Hex(), "layer.json")
	change := func(from, to string) {
		data, err := os.ReadFile(record)
		if err != nil || !strings.Contains(string(data), from) {
			t.Fatalf("%s: %s, %v", record, data, err)
		}
		if err := os.WriteFile(record, []byte(strings.Replace(string(data), from, to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	here := &machine{}
	if n := unpacks(); n != 0 {
		t.Errorf("%d layers are unpacked anew in the same boot", n)
	}
	change(here.boot(), "another-boot")
	if n := unpacks(); n != 1 {
		t.Errorf("%d layers are unpacked anew after a boot, not the one that was not flushed", n)
	}
	change(here.boot(), "another-boot") // but now it was flushed
	if n := unpacks(); n != 0 {
		t.Errorf("%d layers are unpacked anew though flushed", n)
	}
	change(`"Synced":true`, `"Synced":false`)
	change(`"Host":"`, `"Host":"another`)
	if n := unpacks(); n != 0 {
		t.Errorf("%d layers of another host are unpacked anew", n)
	}
	if err := os.Truncate(record, 0); err != nil {
		t.Fatal(err)
	}
	if n := unpacks(); n != 1 {
		t.Errorf("%d layers are unpacked anew, not the one with a damaged record", n)
	}
	os.RemoveAll(filepath.Dir(record))
	os.Remove(s.blobPath(m.Layers[1].Digest))
	_, _, err = s.Layers(ctx, m, u)
	if missing := (*MissingBlobError)(nil); !errors.As(err, &missing) {
		t.Errorf("error %v, want a *MissingBlobError", err)
	}
}

func TestOpaqueRootHidesLayers(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	f := newRegistry(map[string]*fakeImage{"x:latest": newFakeImage(
		tarOf("name", "one"), tarOf("name", "two", ".wh..wh..opq", ""), tarOf("name", "three"))})
	s, u := newStore(t, t.TempDir())
	p := mustPull(t, s, u, f, "x")
	dirs, hold, err := s.Layers(ctx, p.Image, u)
	if err != nil {
		t.Fatal(err)
	}
	hold.Release()
	if len(dirs) != 2 || !strings.Contains(dirs[0], p.Layers[1].DiffID.Hex()) {
		t.Errorf("got %q", dirs)
	}
}

func TestLookup(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	f := newRegistry(map[string]*fakeImage{})
	s, u := newStore(t, t.TempDir())
	byPrefix := map[string]int{}
	var last *Pulled
	for i := range 40 { // so that some begin alike
		name := fmt.Sprintf("x:%d", i)
		f.images[name] = newFakeImage(tarOf("name", name))
		last = mustPull(t, s, u, f, name)
		byPrefix[last.ID.Hex()[:1]]++
	}
	pinned := "x@" + string(last.ManifestDigest)
	f.images[pinned] = f.images["x:39"]
	for name, want := range map[string]string{
		"x:39": "", "docker.io/library/x:39": "", pinned: "", "x:39@" + string(last.ManifestDigest): "",
		string(last.ID): "", last.ID.Hex(): "", last.ID.Hex()[:30]: "", "sha256:" + last.ID.Hex()[:30]: "",
		"y@" + string(last.ManifestDigest): "no such image", "x:40": "no such image", "x": "no such image",
		strings.Repeat("0", 64): "no such image", strings.Repeat("0", 65): "no such image", "UPPER": "lower case", "": "empty",
	} {
		m, err := s.Lookup(name)
		if want == "" && (err != nil || m.ID != last.ID) {
			t.Errorf("%s: got %v, %v", name, m, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		}
	}
	for prefix, n := range byPrefix {
		_, err := s.Lookup(prefix)
		if ambiguous := (*AmbiguousError)(nil); errors.As(err, &ambiguous) != (n > 1) {
			t.Errorf("%s: %v, but %d images begin so", prefix, err, n)
		}
	}
	p := mustPull(t, s, u, f, pinned)
	if len(p.Refs) != 1 || p.Refs[0].Name != "docker.io/library/"+pinned {
		t.Errorf("pulled by digest it has the names %v", p.Refs)
	}
}

func TestRemove(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s, u := newStore(t, t.TempDir())
	shared := tarOf("name", "shared")
	f := newRegistry(map[string]*fakeImage{
		"a:1": newFakeImage(shared, tarOf("name", "a")), "b:1": newFakeImage(shared, tarOf("name", "b")),
	})
	a, b := mustPull(t, s, u, f, "a:1"), mustPull(t, s, u, f, "b:1")
	if err := s.Tag(ctx, a.Image, reference(t, "other/a:2")); err != nil {
		t.Fatal(err)
	}
	o := RemoveOptions{Unpacker: u.Unpacker}
	_, hold, err := s.Layers(ctx, b.Image, u)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name      string
		force     bool
		usedBy    string
		before    func()
		want      int // images deleted
		wantNames int // untagged
		wantErr   string
	}{
		{name: "nonesuch", wantErr: "no such image"},
		{name: string(a.ID), wantErr: "multiple repositories"},
		{name: "a:1", wantNames: 1},
		{name: "a:1", wantErr: "no such image"},
		{name: "other/a:2", usedBy: "keen_gull", wantErr: "container keen_gull"},
		{name: string(a.ID), want: 1, wantNames: 1},
		{name: "b:1", wantErr: "running container"},
		{name: "b:1", force: true, wantNames: 1}, // it stays without a name
		{name: string(b.ID), force: true, wantErr: "running container"},
		{name: b.ID.Hex()[:20], before: hold.Release, want: 1},
	} {
		if step.before != nil {
			checkWhole(t, s, u)
			step.before()
		}
		o.Force, o.UsedBy = step.force, func(image.Digest) (string, bool) { return step.usedBy, false }
		r, err := s.Remove(ctx, step.name, o)
		if step.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), step.wantErr) {
				t.Errorf("%s: error %v, want one with %q", step.name, err, step.wantErr)
			}
			continue
		}
		if err != nil || len(r.Deleted) != step.want || len(r.Untagged) != step.wantNames {
			t.Errorf("%s: got %+v, %v", step.name, r, err)
		}
		checkWhole(t, s, u)
	}
	checkClean(t, s)
	for _, dir := range []string{"images", "refs", "blobs/sha256", "layers/single"} {
		if left, _ := os.ReadDir(s.path(dir)); len(left) > 0 {
			t.Errorf("%s still holds %v", dir, left)
		}
	}
}

func TestTagMoves(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s, u := newStore(t, t.TempDir())
	f := newRegistry(map[string]*fakeImage{"a:1": newFakeImage(tarOf("name", "a"))})
	old := mustPull(t, s, u, f, "a:1")
	f.images["a:1"] = newFakeImage(tarOf("name", "b"))
	if p := mustPull(t, s, u, f, "a:1"); !p.New || p.ID == old.ID {
		t.Errorf("got %+v", p)
	}
	images, err := s.List()
	if err != nil || len(images) != 2 {
		t.Fatalf("%d images, %v", len(images), err)
	}
	for _, m := range images {
		if want := 0; m.ID == old.ID && len(m.Refs) != want {
			t.Errorf("the old image still has the names %v", m.Refs)
		}
	}
	long := reference(t, strings.Repeat("long/", 40)+"name:"+strings.Repeat("t", 128))
	if err := s.Tag(ctx, old.Image, long); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Lookup(long.Familiar()); err != nil || m.ID != old.ID {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestImport(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	plain := tarOf("name", "imported", "bin/sh", "#!")
	for name, tc := range map[string]struct {
		data    []byte
		changes []string
		wantErr string
		check   func(c image.ContainerConfig) bool
	}{
		"plain": {data: plain},
		"gzip":  {data: gzipped(plain)},
		"changes": {
			data: plain,
			changes: []string{
				`CMD ["a", "b c"]`, "ENTRYPOINT run it", "ENV A=1 B=\"two words\"", "ENV A=3", "ENV OLD style value", "USER me:us", "WORKDIR=/w",
				`LABEL a=b "c d"='e f'`, "EXPOSE 80 53/udp", `VOLUME ["/v1","/v 2"]`, "VOLUME /v3", "stopsignal SIGINT",
			},
			check: func(c image.ContainerConfig) bool {
				return fmt.Sprintln(c.Cmd, c.Entrypoint, c.Env, c.User, c.WorkingDir, c.Labels, c.ExposedPorts, c.Volumes, c.StopSignal) ==
					"[a b c] [/bin/sh -c run it] [A=3 B=two words OLD=style value] me:us /w map[a:b c d:e f] map[53/udp:{} 80/tcp:{}] map[/v 2:{} /v1:{} /v3:{}] SIGINT\n"
			},
		},
		"unknown change":      {data: plain, changes: []string{"RUN x"}, wantErr: `change "RUN x": there is no such instruction`},
		"change of nothing":   {data: plain, changes: []string{"CMD"}, wantErr: "it has no value"},
		"open quote":          {data: plain, changes: []string{`ENV A="b`}, wantErr: "a quote is not closed"},
		"label without value": {data: plain, changes: []string{"LABEL a"}, wantErr: "a value is missing"},
		"empty":               {data: nil, wantErr: "empty"},
		"no archive":          {data: []byte(strings.Repeat("text\n", 200)), wantErr: "not a tar archive"},
		"cut off":             {data: gzipped(plain)[:60], wantErr: "cut off"},
		"out of the tree":     {data: tarOf("../x", "y"), wantErr: "leads out"},
	} {
		t.Run(name, func(t *testing.T) {
			s, u := newStore(t, t.TempDir())
			ref := reference(t, "imported")
			o := ImportOptions{Unpacking: u, Reference: &ref, Changes: tc.changes, Platform: image.Host()}
			m, err := s.Import(ctx, bytes.NewReader(tc.data), o)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want one with %q", err, tc.wantErr)
				}
				checkClean(t, s)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tc.check != nil && !tc.check(m.Config.Config) {
				t.Errorf("got %+v", m.Config.Config)
			}
			checkWhole(t, s, u)
			checkClean(t, s)
			if again, err := s.Import(ctx, bytes.NewReader(tc.data), o); err != nil || again.Layers[0].DiffID != m.Layers[0].DiffID {
				t.Errorf("once more: %v", err)
			}
			checkClean(t, s)
		})
	}
}

// xz and bzip2 are packed anew.
func TestImportRepacks(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s, u := newStore(t, t.TempDir())
	plain := tarOf("name", "imported")
	m, err := s.Import(ctx, bytes.NewReader(packWith(t, "xz", plain)), ImportOptions{Unpacking: u, Platform: image.Host()})
	if err != nil {
		t.Fatal(err)
	}
	if l := m.Layers[0]; l.MediaType != image.OCILayerZstd || l.DiffID != image.DigestOf(plain) {
		t.Errorf("got %+v", l)
	}
	checkWhole(t, s, u)
}

func TestSaveAndLoad(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s, u := newStore(t, t.TempDir())
	two := newFakeImage(tarOf("name", "one", "a", noise(1, 300_000), "gone", "x"), tarOf("name", "other"))
	f := newRegistry(map[string]*fakeImage{"a:1": threeLayers(), "b:1": two})
	a, b := mustPull(t, s, u, f, "a:1"), mustPull(t, s, u, f, "b:1")
	if err := s.Tag(ctx, a.Image, reference(t, "quay.io/a/a:2")); err != nil {
		t.Fatal(err)
	}
	full, err := s.Inspect("a:1")
	if err != nil {
		t.Fatal(err)
	}
	images := []*Image{full, b.Image}
	check := func(t *testing.T, load func(s *Store, o LoadOptions) error) {
		t.Helper()
		to, u := newStore(t, t.TempDir())
		var names []string
		o := LoadOptions{Unpacking: u, Platform: image.Host(), Loaded: func(_ *Image, r *Ref) { names = append(names, r.Reference().Familiar()) }}
		if err := load(to, o); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names, " "); got != "a:1 quay.io/a/a:2 b:1" {
			t.Errorf("loaded %s", got)
		}
		for name, id := range map[string]image.Digest{"a:1": a.ID, "quay.io/a/a:2": a.ID, "b:1": b.ID} {
			if m, err := to.Lookup(name); err != nil || m.ID != id || m.Size == 0 {
				t.Errorf("%s: got %v, %v", name, m, err)
			}
		}
		checkWhole(t, to, u)
		checkClean(t, to)
	}
	for _, format := range []Format{DockerArchive, OCIArchive} {
		var archive bytes.Buffer
		if err := s.Save(ctx, &archive, format, images); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(string(format)+" from a file", func(t *testing.T) {
			check(t, func(s *Store, o LoadOptions) error {
				in, err := os.Open(file)
				if err != nil {
					return err
				}
				defer in.Close()
				return s.Load(ctx, in, file, o)
			})
		})
		t.Run(string(format)+" packed, from a pipe", func(t *testing.T) {
			check(t, func(s *Store, o LoadOptions) error {
				return s.Load(ctx, io.MultiReader(bytes.NewReader(gzipped(archive.Bytes()))), "stdin", o)
			})
		})
		t.Run(string(format)+" cut off", func(t *testing.T) {
			to, u := newStore(t, t.TempDir())
			for cut := 0; cut < archive.Len()-2048; cut += archive.Len() / 20 {
				err := to.Load(ctx, bytes.NewReader(archive.Bytes()[:cut]), "x", LoadOptions{Unpacking: u, Platform: image.Host()})
				if err == nil {
					t.Errorf("cut after %d of %d bytes it loads", cut, archive.Len())
				}
			}
			checkWhole(t, to, u)
			checkClean(t, to)
		})
		var again bytes.Buffer
		if err := s.Save(ctx, &again, format, images); err != nil || !bytes.Equal(again.Bytes(), archive.Bytes()) {
			t.Errorf("%s: saved once more it differs: %v", format, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "dir")
	if err := s.SaveDir(ctx, dir, images); err != nil {
		t.Fatal(err)
	}
	t.Run("directory", func(t *testing.T) {
		check(t, func(s *Store, o LoadOptions) error { return s.LoadDir(ctx, dir, o) })
	})
	if err := s.SaveDir(ctx, dir, images); err == nil {
		t.Error("a directory that is not empty is written to")
	}
}

func TestLoadHostile(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		data    []byte
		wantErr string
	}{
		"nothing in it":       {tarOf("x", "y"), "rbox import"},
		"no tar":              {[]byte(strings.Repeat("text\n", 200)), "not a tar archive"},
		"no JSON":             {tarOf("manifest.json", "{"), "manifest.json: "},
		"config outside":      {tarOf("manifest.json", `[{"Config":"`+secret+`"}]`), "it lacks the file"},
		"config by a link":    {tarOf("c", "->"+secret, "manifest.json", `[{"Config":"c"}]`), "it lacks the file"},
		"config missing":      {tarOf("manifest.json", `[{"Config":"c.json"}]`), `it lacks the file "c.json"`},
		"a loop of links":     {tarOf("a", "->b", "b", "->a", "manifest.json", `[{"Config":"a"}]`), "it lacks the file"},
		"layers do not match": {tarOf("manifest.json", `[{"Config":"c","Layers":["l"]}]`, "c", `{"rootfs":{"type":"layers"}}`), "lists 1 layers"},
		"no blob":             {tarOf("index.json", `{"manifests":[{"digest":"sha256:`+strings.Repeat("1", 64)+`"}]}`), "it lacks the file"},
		"digest of dots":      {tarOf("index.json", `{"manifests":[{"digest":"sha256:../../../x"}]}`), "digest"},
		"empty index":         {tarOf("index.json", `{"manifests":[]}`), "lists no image"},
	} {
		t.Run(name, func(t *testing.T) {
			s, u := newStore(t, t.TempDir())
			err := s.Load(ctx, bytes.NewReader(tc.data), "x", LoadOptions{Unpacking: u, Platform: image.Host()})
			hint := ""
			if h := (interface{ Hint() string })(nil); errors.As(err, &h) {
				hint = h.Hint()
			}
			if err == nil || !strings.Contains(err.Error()+hint, tc.wantErr) {
				t.Errorf("error %v (%s), want one with %q", err, hint, tc.wantErr)
			}
			checkClean(t, s)
		})
	}
}

// FuzzLoad loads anything. Afterwards the store holds nothing half done, what it
// holds is whole, and it has read nothing but the archive.
func FuzzLoad(f *testing.F) {
	const config = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]}}`
	layer := tarOf("name", "x")
	digest := image.DigestOf(layer)
	whole := fmt.Sprintf(config, digest)
	list := func(text string) string { return "[" + text + "]" }
	for _, seed := range [][]byte{
		tarOf("l.tar", string(layer), "c.json", whole, "manifest.json", list(`{"Config":"c.json","RepoTags":["a:1","b"],"Layers":["l.tar"]}`)),
		tarOf("l.tar", string(gzipped(layer)), "c.json", whole, "link", "->l.tar", "manifest.json", list(`{"Config":"c.json","Layers":["link"]}`)),
		tarOf("manifest.json", list(`{"Config":"/etc/passwd"}`)),
		tarOf("c", "->/etc/passwd", "manifest.json", list(`{"Config":"c"}`)),
		tarOf("a", "->b", "b", "->a", "manifest.json", list(`{"Config":"a"}`)),
		tarOf("manifest.json", list(`{"Config":"c","Layers":["l","l"]}`), "c", `{"rootfs":{"type":"layers"}}`),
		tarOf("index.json", `{"manifests":[{"digest":"`+string(digest)+`","size":10}]}`, "blobs/sha256/"+digest.Hex(), "x", "oci-layout", `{"imageLayoutVersion":"1.0.0"}`),
		tarOf("index.json", `{"manifests":[{"digest":"sha256:../../../x"}]}`),
		gzipped(tarOf("manifest.json", "[]")),
		[]byte("text"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, u := newStore(t, t.TempDir())
		u.MaxBytes = 8 << 20
		err := s.Load(ctx, bytes.NewReader(data), "x", LoadOptions{Unpacking: u, Platform: image.Host()})
		checkClean(t, s)
		images, listErr := s.List()
		if listErr != nil {
			t.Fatal(listErr)
		}
		if err != nil && len(images) > 0 {
			t.Errorf("it fails with %v and leaves %d images", err, len(images))
		}
		for _, m := range images {
			for _, d := range append([]image.Digest{m.ID, m.ManifestDigest}, digests(m)...) {
				if err := s.checkBlob(d); err != nil {
					t.Errorf("image %s: %v", m.ID.Short(), err)
				}
			}
		}
	})
}

func TestFullDisk(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=300k"); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	s, u := newStore(t, root)
	f := newRegistry(map[string]*fakeImage{"x:latest": threeLayers()})
	_, err := s.Pull(ctx, f, reference(t, "x"), PullOptions{Unpacking: u})
	full := (*DiskError)(nil)
	if !errors.As(err, &full) || !strings.Contains(err.Error(), "the disk is full") {
		t.Fatalf("error %v", err)
	}
	if !strings.Contains(full.Hint(), "RBOX_ROOT") {
		t.Errorf("hint %q", full.Hint())
	}
	checkClean(t, s)
	if err := unix.Mount("", root, "", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	mustPull(t, s, u, f, "x")
	checkWhole(t, s, u)
}

func TestReadOnlyHome(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_RDONLY, ""); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(root, unix.MNT_DETACH)
	s, u := newStore(t, filepath.Join(root, "rbox"))
	if _, err := s.Lookup("x"); err == nil {
		t.Error("there is an image")
	}
	if list, err := s.List(); err != nil || len(list) > 0 {
		t.Errorf("got %v, %v", list, err)
	}
	f := newRegistry(map[string]*fakeImage{"x:latest": threeLayers()})
	_, err := s.Pull(ctx, f, reference(t, "x"), PullOptions{Unpacking: u})
	if disk := (*DiskError)(nil); !errors.As(err, &disk) || !strings.Contains(disk.Hint(), "RBOX_ROOT") {
		t.Errorf("error %v", err)
	}
}

func TestCanceled(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s, u := newStore(t, t.TempDir())
	f := newRegistry(map[string]*fakeImage{"x:latest": threeLayers()})
	canceled, cancel := context.WithCancel(ctx)
	p := stopAfter{cancel: cancel}
	if _, err := s.Pull(canceled, f, reference(t, "x"), PullOptions{Unpacking: u, Progress: &p}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	mustPull(t, s, u, f, "x")
	checkWhole(t, s, u)
	checkClean(t, s)
}

// stopAfter cancels once something was downloaded.
type stopAfter struct{ cancel context.CancelFunc }

func (p *stopAfter) Start([]image.Descriptor) {}
func (p *stopAfter) Layer(_ int, state LayerState, have int64) {
	if state == LayerLoading && have > 0 {
		p.cancel()
	}
}

func packWith(t *testing.T, program string, data []byte) []byte {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(path, "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}
