package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/account"
	"rbox/tests/images"
	"rbox/tests/registry"
)

// newRegistry starts a registry that ends with the test.
func newRegistry(t testing.TB, o registry.Options) *registry.Registry {
	t.Helper()
	dir := filepath.Join(run.dir, fmt.Sprint("registry", boxes.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := registry.Start(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		os.RemoveAll(dir)
	})
	return r
}

// alpineImage is alpine's root file system with the configuration c.
func alpineImage(t testing.TB, c v1.Config, more ...v1.Layer) v1.Image {
	t.Helper()
	base, err := images.FromTarGz(run.alpine, c)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := base.Layers()
	if err != nil {
		t.Fatal(err)
	}
	img, err := images.Image(c, append(layers, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// layer is a gzip layer of entries.
func layer(t testing.TB, entries ...images.Entry) v1.Layer {
	t.Helper()
	return layerAs(t, images.Gzip, entries...)
}

func layerAs(t testing.TB, c images.Compression, entries ...images.Entry) v1.Layer {
	t.Helper()
	data, err := images.Tar(entries...)
	if err != nil {
		t.Fatal(err)
	}
	l, err := images.Layer(data, c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// load puts img into b under the name tag.
func (b *box) load(tag string, img v1.Image) {
	b.t.Helper()
	file := filepath.Join(b.home, "load.tar")
	if err := images.SaveDocker(file, tag, img); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Lchown(file, int(b.who.UID), int(b.who.GID)); err != nil {
		b.t.Fatal(err)
	}
	b.must("load", "-i", file)
	if err := os.Remove(file); err != nil {
		b.t.Fatal(err)
	}
}

// single returns the account without subordinate ids, or skips the test.
func single(t testing.TB) account.Account {
	t.Helper()
	a, err := account.Ensure(account.Single)
	if err != nil {
		t.Skip(err)
	}
	return a
}

// root returns root's account, or skips the test where the tests are run by another.
func root(t testing.TB) account.Account {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs to be run by root")
	}
	return account.Account{Name: "root"}
}

// want checks a result against what was expected of it. Zero fields are not
// looked at, but status always is.
type want struct {
	status int
	stdout string // exactly
	match  string // a regular expression that stdout matches
	stderr string // a regular expression that stderr matches
}

func (w want) check(t testing.TB, got result) {
	t.Helper()
	switch {
	case got.status != w.status:
		t.Errorf("want status %d, got %v", w.status, got)
	case w.stdout != "" && got.stdout != w.stdout:
		t.Errorf("want stdout %q, got %v", w.stdout, got)
	case w.match != "" && !regexp.MustCompile(w.match).MatchString(got.stdout):
		t.Errorf("want stdout like %q, got %v", w.match, got)
	case w.stderr != "" && !regexp.MustCompile(w.stderr).MatchString(got.stderr):
		t.Errorf("want stderr like %q, got %v", w.stderr, got)
	}
	// What rbox itself says, it says by its name, and never as a Go panic.
	if strings.Contains(got.stderr, "goroutine ") {
		t.Errorf("rbox panicked: %v", got)
	}
}

func goarch() string { return runtime.GOARCH }

// manyOwners is alpine with files of many owners.
func manyOwners(t testing.TB) v1.Image {
	t.Helper()
	entries := []images.Entry{{Name: "owned/"}}
	for _, id := range []int{0, 1, 33, 100, 999, 1000, 1001, 10000, 65533, 65534} {
		entries = append(entries, images.Entry{Name: fmt.Sprint("owned/file-", id), Data: "x\n", Mode: 0o600, UID: id, GID: id})
	}
	return alpineImage(t, v1.Config{Cmd: []string{"sh"}}, layer(t, entries...))
}

// owner is the uid that a file belongs to on the host.
func owner(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
