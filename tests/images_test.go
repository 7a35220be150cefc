package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"rbox/tests/images"
)

func TestImport(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	plain := b.unpacked(run.alpine)
	for name, tc := range map[string]struct {
		file string
		make []string // a filter from plain tar
	}{
		"tar":      {"a.tar", []string{"cat"}},
		"tar.gz":   {"a.tar.gz", []string{"gzip", "-1"}},
		"tar.zst":  {"a.tar.zst", []string{"zstd", "-q"}},
		"tar.xz":   {"a.tar.xz", []string{"xz", "-0"}},
		"misnamed": {"b.tar", []string{"gzip", "-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			filter := exec.Command(tc.make[0], tc.make[1:]...)
			filter.Stdin = bytes.NewReader(plain)
			data, err := filter.Output()
			if err != nil {
				t.Fatal(err)
			}
			path := b.file(tc.file, string(data), 0o644)
			tag := strings.ReplaceAll(name, ".", "-")
			got := b.rbox("import", path, "imported/"+tag+":1")
			if got.status != 0 || !regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}\n$`).MatchString(got.stdout) {
				t.Fatal(got)
			}
			want{stdout: "3.20.3\n"}.check(t, b.rbox("run", "--rm", "imported/"+tag+":1", "cat", "/etc/alpine-release"))
			from := b.do(call{args: []string{"import", "-", "stdin/" + tag}, stdin: bytes.NewReader(data)})
			want{match: `[0-9a-f]{64}`}.check(t, from)
			want{stdout: "3.20.3\n"}.check(t, b.rbox("run", "--rm", "stdin/"+tag, "cat", "/etc/alpine-release"))
		})
	}
	t.Run("with changes", func(t *testing.T) {
		want{}.check(t, b.rbox("import", "-c", `CMD ["echo", "changed"]`, "-c", "ENV A=b", run.alpine, "changed"))
		want{stdout: "changed\n"}.check(t, b.rbox("run", "--rm", "changed"))
	})
	for name, tc := range map[string]struct{ file, text, want string }{
		"no archive":     {"text", "this is no archive, however long one looks at it\n", `text`},
		"empty":          {"empty", "", `empty`},
		"cut short":      {"short.tar.gz", string(head(t, run.alpine, 100_000)), `short\.tar\.gz`},
		"does not exist": {"", "", `no-such-file`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(b.home, "no-such-file")
			if tc.file != "" {
				path = b.file(tc.file, tc.text, 0o644)
			}
			want{status: 1, stderr: `^rbox: .*` + tc.want}.checkFailed(t, b.rbox("import", path, "bad"))
			want{status: 125}.check(t, b.rbox("run", "--rm", "--pull", "never", "bad", "true"))
		})
	}
}

// checkFailed is check for commands whose status is 1 or, as rbox itself failed, 125.
func (w want) checkFailed(t testing.TB, got result) {
	t.Helper()
	if got.status == 125 {
		w.status = 125
	}
	w.check(t, got)
}

func head(t testing.TB, path string, n int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (b *box) unpacked(gz string) []byte {
	b.t.Helper()
	data, err := exec.Command("gzip", "-dc", gz).Output()
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

func TestImages(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("tag", "alpine", "second:v2")
	b.must("tag", "alpine:latest", "registry.example:5000/deep/er/name:v3")
	full := b.must("images", "-q", "--no-trunc", "alpine")
	short := b.must("images", "-q", "alpine")
	if !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(full) || !strings.HasPrefix(full, "sha256:"+short) || len(short) != 12 {
		t.Errorf("ids %q and %q", full, short)
	}
	for name, tc := range map[string]struct {
		args []string
		want want
	}{
		"columns":         {[]string{"images"}, want{match: `(?m)^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE *$`}},
		"a row":           {[]string{"images"}, want{match: `(?m)^\S*alpine +latest +` + short + ` +.* ago +[0-9.]+ ?[kMG]?B *$`}},
		"every name":      {[]string{"images"}, want{match: `(?m)^registry\.example:5000/deep/er/name +v3 +` + short}},
		"digests":         {[]string{"images", "--digests"}, want{match: `(?m)^REPOSITORY +TAG +DIGEST +IMAGE ID +CREATED +SIZE`}},
		"one repository":  {[]string{"images", "second"}, want{match: `^REPOSITORY.*\n\S*second +v2 [^\n]*\n$`}},
		"format":          {[]string{"images", "--format", "{{.Repository}}|{{.Tag}}|{{.ID}}", "second"}, want{match: `second\|v2\|` + short + "\n$"}},
		"format json":     {[]string{"images", "--format", "json", "second"}, want{match: `"Tag": ?"v2"`}},
		"format table":    {[]string{"images", "--format", "table {{.Tag}}\t{{.ID}}", "second"}, want{match: `^TAG +IMAGE ID\nv2 +` + short}},
		"bad format":      {[]string{"images", "--format", "{{.Nothing}}"}, want{status: 125, stderr: `Nothing`}},
		"broken format":   {[]string{"images", "--format", "{{"}, want{status: 125, stderr: `^rbox: `}},
		"inspect":         {[]string{"image", "inspect", "alpine"}, want{match: `(?s)^\[.*"Id": "` + full + `"`}},
		"inspect, format": {[]string{"image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", "alpine"}, want{stdout: "linux/" + goarch() + "\n"}},
		"inspect by id":   {[]string{"image", "inspect", "--format", "{{.Id}}", short}, want{stdout: full + "\n"}},
		"history":         {[]string{"history", "alpine"}, want{match: `^IMAGE +CREATED +CREATED BY +SIZE +COMMENT`}},
		"run by id":       {[]string{"run", "--rm", short, "echo", "x"}, want{stdout: "x\n"}},
		"run by full id":  {[]string{"run", "--rm", full, "echo", "x"}, want{stdout: "x\n"}},
		"run by a name":   {[]string{"run", "--rm", "docker.io/library/alpine:latest", "echo", "x"}, want{stdout: "x\n"}},
		"inspect of none": {[]string{"image", "inspect", "no-such-image"}, want{status: 1, stderr: `no-such-image`}},
		"tag of none":     {[]string{"tag", "no-such-image", "x"}, want{status: 1, stderr: `no-such-image`}},
		"bad tag":         {[]string{"tag", "alpine", "Bad Name"}, want{status: 1, stderr: `Bad Name`}},
		"rmi of none":     {[]string{"rmi", "no-such-image"}, want{status: 1, stderr: `no-such-image`}},
	} {
		t.Run(name, func(t *testing.T) {
			got := b.rbox(tc.args...)
			if tc.want.status == 0 {
				tc.want.check(t, got)
			} else {
				tc.want.checkFailed(t, got)
			}
		})
	}
	var list []struct {
		ID     string `json:"Id"`
		Config v1.Config
		RootFS struct{ Layers []string }
	}
	if err := json.Unmarshal([]byte(b.must("image", "inspect", "alpine")), &list); err != nil || len(list) != 1 || list[0].ID != full || len(list[0].RootFS.Layers) != 1 {
		t.Errorf("image inspect: %v: %+v", err, list)
	}
}

func TestRmi(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("tag", "alpine", "second")
	want{match: `Untagged: \S*second:latest`}.check(t, b.rbox("rmi", "second"))
	want{stdout: "x\n"}.check(t, b.rbox("run", "--rm", "alpine", "echo", "x"))

	// An image in use stays, and what runs on it goes on.
	p := b.start(call{args: []string{"run", "--rm", "-i", "alpine", "sh", "-c", "echo up; read x; ls /bin/busybox"}, stdin: lateLine(t)})
	p.see("up\n")
	b.rbox("rmi", "-f", "alpine")
	if got := p.wait(); got.status != 0 {
		t.Errorf("a container whose image was removed: %v", got)
	}
	// It has lost its names alone: now its id removes it.
	id := strings.TrimSpace(b.must("images", "-q"))
	want{match: `Deleted: sha256:` + id}.check(t, b.finally("rmi", id)) // its last monitor may be at work still
	if left := b.must("images", "-q"); left != "" {
		t.Errorf("images: still %q", left)
	}
	for _, pattern := range []string{"blobs/sha256/*", "layers/*/*/diff"} {
		if found, _ := filepath.Glob(filepath.Join(b.root, pattern)); len(found) > 0 {
			t.Errorf("with no image left there is still %v", found)
		}
	}
	want{status: 125}.check(t, b.rbox("run", "--rm", "--pull", "never", "alpine", "true"))
	b.must("import", run.alpine, "alpine")
	want{stdout: "x\n"}.check(t, b.rbox("run", "--rm", "alpine", "echo", "x"))
}

// lateLine is a stdin on which one line arrives in a while.
func lateLine(t testing.TB) io.Reader {
	r, w := io.Pipe()
	t.Cleanup(func() { w.Close() })
	time.AfterFunc(time.Second, func() {
		io.WriteString(w, "\n")
		w.Close()
	})
	return r
}

func TestLoadAndSave(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	img := alpineImage(t, v1.Config{Cmd: []string{"cat", "/second"}, Env: []string{"A=b"}}, layer(t, images.Entry{Name: "second", Data: "second layer\n", UID: 12}))
	id, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(b.dir, "docker.tar")
	if err := images.SaveDocker(archive, "saved:v1", img); err != nil {
		t.Fatal(err)
	}
	ociDir := filepath.Join(b.dir, "oci")
	path, err := layout.Write(ociDir, images.Index(img, img))
	if err != nil {
		t.Fatal(err)
	}
	_ = path
	ociTar := filepath.Join(b.dir, "oci.tar")
	if out, err := exec.Command("tar", "-C", ociDir, "-cf", ociTar, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check := func(t *testing.T, image string) {
		t.Helper()
		want{stdout: "second layer\n"}.check(t, b.rbox("run", "--rm", image))
		want{stdout: id.String() + "\n"}.check(t, b.rbox("image", "inspect", "--format", "{{.Id}}", image))
	}
	t.Run("docker-archive", func(t *testing.T) {
		want{match: `Loaded image.*saved:v1`}.check(t, b.rbox("load", "-i", archive))
		check(t, "saved:v1")
	})
	t.Run("docker-archive from stdin, compressed", func(t *testing.T) {
		b.rbox("rmi", "-f", "saved:v1")
		out, err := exec.Command("gzip", "-1c", archive).Output()
		if err != nil {
			t.Fatal(err)
		}
		want{match: `Loaded image`}.check(t, b.do(call{args: []string{"load"}, stdin: bytes.NewReader(out)}))
		check(t, "saved:v1")
	})
	t.Run("OCI archive", func(t *testing.T) {
		b.rbox("rmi", "-f", "saved:v1")
		got := b.rbox("load", "-i", ociTar)
		want{match: `Loaded image`}.check(t, got)
		check(t, id.Hex[:12])
	})
	t.Run("save as docker-archive", func(t *testing.T) {
		b.must("load", "-i", archive)
		b.must("save", "-o", "out.tar", "saved:v1")
		saved, err := tarball.ImageFromPath(filepath.Join(b.home, "out.tar"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := saved.ConfigName(); err != nil || got != id {
			t.Errorf("saved %v (%v), want %v", got, err, id)
		}
		b.must("rmi", "-f", "saved:v1")
		b.must("load", "-i", "out.tar")
		check(t, "saved:v1")
	})
	t.Run("save to stdout", func(t *testing.T) {
		got := b.rbox("save", "saved:v1")
		if got.status != 0 || len(got.stdout) < 100_000 {
			t.Errorf("status %d, %d bytes, %s", got.status, len(got.stdout), got.stderr)
		}
	})
	t.Run("save as OCI archive", func(t *testing.T) {
		b.must("save", "--format", "oci-archive", "-o", "oci-out.tar", "saved:v1")
		b.must("rmi", "-f", "saved:v1")
		b.must("load", "-i", "oci-out.tar")
		check(t, "saved:v1")
		want{}.check(t, b.do(call{prog: "tar", args: []string{"-tf", "oci-out.tar", "index.json", "oci-layout"}}))
	})
	t.Run("save of none", func(t *testing.T) {
		want{status: 1, stderr: `no-such-image`}.checkFailed(t, b.rbox("save", "-o", "none.tar", "no-such-image"))
		if _, err := os.Stat(filepath.Join(b.home, "none.tar")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a save that failed left its file: %v", err)
		}
	})
	t.Run("load of no archive", func(t *testing.T) {
		want{status: 1, stderr: `^rbox: `}.checkFailed(t, b.rbox("load", "-i", b.file("text", "no archive\n", 0o644)))
	})
	t.Run("load of half an archive", func(t *testing.T) {
		half := b.file("half.tar", string(head(t, archive, 1_000_000)), 0o644)
		want{status: 1, stderr: `^rbox: .*half\.tar`}.checkFailed(t, b.rbox("load", "-i", half))
	})
}

// What podman saves, rbox loads, and the other way round: neither wrote the tests.
func TestLoadWhatSkopeoWrites(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip(err)
	}
	b := newBox(t)
	b.must("save", "-o", "a.tar", "alpine")
	for name, to := range map[string]string{"docker-archive": "docker-archive:b.tar:copied:v1", "oci-archive": "oci-archive:c.tar:copied:v2"} {
		t.Run(name, func(t *testing.T) {
			want{}.check(t, b.do(call{prog: "skopeo", args: []string{"--insecure-policy", "copy", "-q", "docker-archive:a.tar", to}, env: []string{"TMPDIR=" + b.home}}))
			file := strings.Split(to, ":")[1]
			want{match: `Loaded image`}.check(t, b.rbox("load", "-i", file))
		})
	}
}
