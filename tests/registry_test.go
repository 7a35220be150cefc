package tests

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
	"rbox/tests/registry"
)

func hello(t testing.TB) v1.Image {
	return alpineImage(t, v1.Config{Cmd: []string{"cat", "/hello"}}, layer(t, images.Entry{Name: "hello", Data: "hello from a registry\n"}))
}

const helloSays = "hello from a registry\n"

func push(t testing.TB, r *registry.Registry, repo string, img v1.Image) {
	t.Helper()
	if err := r.Push(repo, img); err != nil {
		t.Fatal(err)
	}
}

func TestPull(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	img := hello(t)
	push(t, r, "hello:v1", img)
	push(t, r, "hello", img)
	push(t, r, "docker", images.Docker(img))
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for repo, c := range map[string]images.Compression{"zstd": images.Zstd, "plain": images.None} {
		push(t, r, repo, alpineImage(t, v1.Config{Cmd: []string{"cat", "/hello"}}, layerAs(t, c, images.Entry{Name: "hello", Data: helloSays})))
	}
	other := alpineImage(t, v1.Config{Cmd: []string{"echo", "the wrong platform"}})
	if err := r.PushIndex("multi", images.Index(img, other)); err != nil {
		t.Fatal(err)
	}

	b := newBox(t, noImage)
	for name, image := range map[string]string{
		"by tag":            "hello:v1",
		"latest":            "hello",
		"by digest":         "hello@" + digest.String(),
		"by tag and digest": "hello:v1@" + digest.String(),
		"Docker's types":    "docker",
		"zstd layers":       "zstd",
		"plain layers":      "plain",
		"an index":          "multi",
	} {
		t.Run(name, func(t *testing.T) {
			got := b.rbox("pull", "-q", r.Ref(image))
			if got.status != 0 || !strings.HasPrefix(got.stdout, "sha256:") || strings.Count(got.stdout, "\n") != 1 || got.stderr != "" {
				t.Fatalf("pull -q: %v", got)
			}
			want{stdout: helloSays}.check(t, b.rbox("run", "--rm", "--pull", "never", r.Ref(image)))
		})
	}
	t.Run("localhost", func(t *testing.T) {
		want{stdout: helloSays}.check(t, b.rbox("run", "--rm", "-q", strings.Replace(r.Ref("hello"), "127.0.0.1", "localhost", 1)))
	})
	t.Run("another platform", func(t *testing.T) {
		want{}.check(t, b.rbox("pull", "-q", "--platform", "linux/s390x", r.Ref("multi")))
		want{status: 125, stderr: `linux/riscv64`}.checkFailed(t, b.rbox("pull", "--platform", "linux/riscv64", r.Ref("multi")))
		want{status: 125, stderr: `nonsense`}.checkFailed(t, b.rbox("pull", "--platform", "nonsense/////", r.Ref("multi")))
	})
	t.Run("without a terminal, plain lines on stderr", func(t *testing.T) {
		b.rbox("rmi", "-f", r.Ref("hello:v1"))
		got := b.rbox("pull", r.Ref("hello:v1"))
		if got.status != 0 || strings.ContainsAny(got.stderr, "\x1b\r") || !strings.Contains(got.stderr, "hello:v1") {
			t.Errorf("got %v", got)
		}
	})
	t.Run("on a terminal, bars that leave the line clean", func(t *testing.T) {
		fresh := newBox(t, noImage)
		term := newTerminal(fresh)
		p := fresh.start(call{args: []string{"pull", r.Ref("hello")}, tty: term})
		if got := p.wait(); got.status != 0 {
			t.Errorf("got %v: %q", got, term.out)
		}
		term.see(digest.Hex[:12])
	})
	for name, tc := range map[string]struct {
		image string
		want  want
	}{
		"no such image":    {r.Ref("no-such-image"), want{status: 125, stderr: `no-such-image`}},
		"no such tag":      {r.Ref("hello:no-such-tag"), want{status: 125, stderr: `no-such-tag`}},
		"no such digest":   {r.Ref("hello@sha256:" + strings.Repeat("0", 64)), want{status: 125, stderr: `0000`}},
		"no such registry": {"127.0.0.1:1/hello", want{status: 125, stderr: `127\.0\.0\.1:1.*refused|refused.*127\.0\.0\.1:1`}},
		"no such host":     {"no-such-host.invalid/hello", want{status: 125, stderr: `no-such-host\.invalid`}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.checkFailed(t, b.rbox("pull", tc.image))
			tc.want.check(t, b.rbox("run", "--rm", tc.image, "true"))
		})
	}
}

func TestPullPolicy(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	says := func(text string) v1.Image {
		return alpineImage(t, v1.Config{Cmd: []string{"echo", text}})
	}
	b := newBox(t, noImage)
	ref := r.Ref("says")
	push(t, r, "says", says("one"))
	want{status: 125, stderr: `says`}.check(t, b.rbox("run", "--rm", "--pull", "never", ref))
	want{stdout: "one\n"}.check(t, b.rbox("run", "--rm", ref))
	push(t, r, "says", says("two"))
	want{stdout: "one\n"}.check(t, b.rbox("run", "--rm", ref))
	want{stdout: "one\n"}.check(t, b.rbox("run", "--rm", "--pull", "missing", ref))
	want{stdout: "two\n"}.check(t, b.rbox("run", "--rm", "--pull", "newer", ref))
	push(t, r, "says", says("three"))
	want{stdout: "three\n"}.check(t, b.rbox("run", "--rm", "--pull", "always", ref))
	r.Close()
	want{stdout: "three\n"}.check(t, b.rbox("run", "--rm", ref))
	want{stdout: "three\n"}.check(t, b.rbox("run", "--rm", "--pull", "newer", ref))
	want{status: 125}.check(t, b.rbox("run", "--rm", "--pull", "always", ref))
}

func TestRegistryTLS(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{TLS: true})
	push(t, r, "hello", hello(t))
	b := newBox(t, noImage)
	want{status: 125, stderr: `(?i)certificate.*(\n.*)*rbox: hint: `}.checkFailed(t, b.rbox("pull", "-q", r.Ref("hello")))
	want{match: "^sha256:"}.check(t, b.rbox("pull", "-q", "--tls-verify=false", r.Ref("hello")))
	want{status: 125}.checkFailed(t, b.rbox("pull", "-q", r.Ref("hello")))
	ca, err := os.ReadFile(r.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	b.file(".config/containers/certs.d/"+r.Addr+"/ca.crt", string(ca), 0o644)
	want{match: "^sha256:"}.check(t, b.rbox("pull", "-q", r.Ref("hello")))
	want{stdout: helloSays}.check(t, b.rbox("run", "--rm", r.Ref("hello")))
}

func TestRegistryLogin(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{User: "kim", Password: "s3cret:with:colons"})
	push(t, r, "hello", hello(t))
	b := newBox(t, noImage)
	want{status: 125, stderr: `rbox: hint: .*rbox login`}.checkFailed(t, b.rbox("pull", "-q", r.Ref("hello")))
	want{status: 125, stderr: `^rbox: `}.checkFailed(t, b.do(call{args: []string{"login", "-u", "kim", "--password-stdin", r.Addr}, stdin: strings.NewReader("wrong")}))
	want{status: 125}.checkFailed(t, b.rbox("pull", "-q", r.Ref("hello")))
	want{match: `Login Succeeded`}.check(t, b.do(call{args: []string{"login", "-u", "kim", "--password-stdin", r.Addr}, stdin: strings.NewReader("s3cret:with:colons\n")}))
	want{match: "^sha256:"}.check(t, b.rbox("pull", "-q", r.Ref("hello")))
	// What was kept is the owner's alone.
	var kept []string
	filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && (d.Name() == "auth.json" || d.Name() == "config.json") && strings.Contains(path, "auth") {
			kept = append(kept, path)
			if info, err := d.Info(); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %o", path, info.Mode().Perm())
			}
		}
		return nil
	})
	if len(kept) == 0 {
		t.Error("no auth.json anywhere")
	}
	want{}.check(t, b.rbox("logout", r.Addr))
	want{status: 125}.checkFailed(t, b.rbox("pull", "-q", r.Ref("hello")))
	want{status: 125, stderr: `^rbox: `}.checkFailed(t, b.rbox("logout", "never-logged-in.example"))

	auth := base64.StdEncoding.EncodeToString([]byte("kim:s3cret:with:colons"))
	config := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, r.Addr, auth)
	for name, tc := range map[string]struct {
		file string
		env  string
	}{
		"docker's configuration": {".docker/config.json", ""},
		"podman's configuration": {".config/containers/auth.json", ""},
		"the file that is named": {"elsewhere/auth.json", "REGISTRY_AUTH_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			var env []string
			path := b.file(tc.file, config, 0o600)
			if tc.env != "" {
				env = []string{tc.env + "=" + path}
			}
			want{match: "^sha256:"}.check(t, b.do(call{args: []string{"pull", "-q", r.Ref("hello")}, env: env}))
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			want{status: 125}.checkFailed(t, b.do(call{args: []string{"pull", "-q", r.Ref("hello")}}))
		})
	}
}

func TestRegistriesConf(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	push(t, r, "library/hello", hello(t))
	b := newBox(t, noImage)
	b.file(".config/containers/registries.conf", fmt.Sprintf(`
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = %q
insecure = true
[[registry]]
prefix = "blocked.example"
blocked = true
[aliases]
"short" = %q
`, r.Addr, r.Ref("library/hello")), 0o644)
	want{stdout: helloSays}.check(t, b.rbox("run", "--rm", "-q", "hello"))
	want{stdout: helloSays}.check(t, b.rbox("run", "--rm", "-q", "short"))
	want{status: 125, stderr: `block`}.checkFailed(t, b.rbox("pull", "blocked.example/x"))
}

func TestPullThroughAProxy(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	push(t, r, "hello", hello(t))
	var asked atomic.Int32
	target := &url.URL{Scheme: "http", Host: r.Addr}
	proxy := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, req)
	}))
	b := newBox(t, noImage)
	b.file(".config/containers/registries.conf", "[[registry]]\nlocation = \"behind.example\"\ninsecure = true\n", 0o644)
	got := b.do(call{args: []string{"pull", "-q", "behind.example/hello"}, env: []string{"HTTP_PROXY=http://" + proxy, "HTTPS_PROXY=http://127.0.0.1:1"}})
	if got.status != 0 || asked.Load() == 0 {
		t.Errorf("the proxy was asked %d times: %v", asked.Load(), got)
	}
}

// Two pulls of one image do the work once.
func TestConcurrentPullsShareTheWork(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	big := make([]byte, 8<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	img := alpineImage(t, v1.Config{Cmd: []string{"cat", "/hello"}},
		layerAs(t, images.None, images.Entry{Name: "big", Data: string(big)}, images.Entry{Name: "hello", Data: helloSays}))
	push(t, r, "big", img)
	var mu sync.Mutex
	fetched := map[string]int{}
	front := newServer(t, frontOf(r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.Contains(req.URL.Path, "/blobs/") && req.Method == http.MethodGet {
			mu.Lock()
			fetched[req.URL.Path]++
			mu.Unlock()
		}
		next.ServeHTTP(w, req)
	}))
	b := newBox(t, noImage)
	var all []*process
	for range 6 {
		all = append(all, b.start(call{args: []string{"run", "--rm", "-q", front + "/big"}}))
	}
	for _, p := range all {
		want{stdout: helloSays}.check(t, p.wait())
	}
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for path, n := range fetched {
		// Only who has read the configuration knows what else there is to share.
		if n > 1 && !strings.HasSuffix(path, config.String()) {
			t.Errorf("%s was fetched %d times", path, n)
		}
	}
}

func TestLayersAreShared(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	push(t, r, "one", alpineImage(t, v1.Config{Cmd: []string{"true"}}, layer(t, images.Entry{Name: "one", Data: "1"})))
	push(t, r, "two", alpineImage(t, v1.Config{Cmd: []string{"true"}}, layer(t, images.Entry{Name: "two", Data: "2"})))
	b := newBox(t, noImage)
	b.must("pull", "-q", r.Ref("one"))
	b.must("pull", "-q", r.Ref("two"))
	b.must("run", "--rm", r.Ref("one"))
	b.must("run", "--rm", r.Ref("two"))
	found, err := filepath.Glob(filepath.Join(b.root, "layers/*/*/diff"))
	if err != nil || len(found) != 3 {
		t.Errorf("two images of three layers in all have %d layers on disk (%v)", len(found), err)
	}
}
