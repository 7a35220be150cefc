package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rbox/rootfs/image"
)

func contextFor() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Minute)
}

func TestResolve(t *testing.T) {
	f := newFake(t)
	manifest, layer := f.add("plain", []byte("layer"))
	entry := image.Descriptor{MediaType: image.OCIManifest, Digest: image.DigestOf(manifest), Size: int64(len(manifest)), Platform: &amd64}
	index := func(entries ...image.Descriptor) []byte {
		return toJSON(image.Index{SchemaVersion: 2, MediaType: image.OCIIndex, Manifests: entries})
	}
	f.mans["index"] = index(entry)
	f.mans[string(image.DigestOf(f.mans["index"]))] = f.mans["index"]
	nested := image.Descriptor{MediaType: image.OCIIndex, Digest: image.DigestOf(f.mans["index"]), Size: int64(len(f.mans["index"]))}
	f.mans["nested"] = index(nested)
	wrongSize, wrongDigest := entry, entry
	wrongSize.Size++
	wrongDigest.Digest = image.DigestOf([]byte("another"))
	f.mans[string(wrongDigest.Digest)] = manifest
	f.mans["wrong-size"], f.mans["wrong-digest"] = index(wrongSize), index(wrongDigest)
	for i, id := 0, f.mans["nested"]; i < 4; i++ {
		id = index(image.Descriptor{MediaType: image.OCIIndex, Digest: image.DigestOf(id), Size: int64(len(id))})
		f.mans[string(image.DigestOf(id))], f.mans["deep"] = id, id
		if i == 0 {
			f.mans[string(nested.Digest)] = f.mans["index"]
			f.mans[string(image.DigestOf(f.mans["nested"]))] = f.mans["nested"]
		}
	}
	f.mans["chart"] = bytes.Replace(manifest, []byte(image.OCIConfig), []byte("application/vnd.cncf.helm.config.v1+json"), 1)
	f.mans["page"] = []byte("<html>please log in</html>")
	f.mans["schema1"] = []byte(`{"schemaVersion":1,"fsLayers":[]}`)
	f.mans["huge-config"] = bytes.Replace(manifest, []byte(`"size":`), []byte(`"size":1073741824,"was":`), 1)

	for tag, tc := range map[string]struct {
		platform string
		wantErr  string
		hint     string
		index    bool
	}{
		"plain":        {},
		"index":        {index: true},
		"nested":       {index: true},
		"deep":         {wantErr: "indexes lead from one to the next"},
		"wrong-size":   {wantErr: "bytes, not"},
		"wrong-digest": {wantErr: "not " + string(wrongDigest.Digest) + " as announced", hint: "altered"},
		"chart":        {wantErr: "no container image", hint: "charts"},
		"page":         {wantErr: "not a JSON object", hint: "login page"},
		"schema1":      {wantErr: "schema 1", hint: "skopeo"},
		"huge-config":  {wantErr: "1073741824 bytes"},
		"missing":      {wantErr: "no such image or tag", hint: "rbox login " + f.host()},
		"index@" + string(image.DigestOf(f.mans["index"])): {index: true},
		"index@" + string(image.DigestOf([]byte("none"))):  {wantErr: "no such image"},
	} {
		t.Run(tag, func(t *testing.T) {
			ctx, cancel := contextFor()
			defer cancel()
			sep := ":"
			ref := f.ref("team/app" + sep + tag)
			got, err := quick(t, Options{}).Resolve(ctx, ref, amd64)
			if tc.wantErr != "" {
				checkError(t, err, tc.wantErr, tc.hint)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.ManifestDigest != entry.Digest || !bytes.Equal(got.RawManifest, manifest) || got.Manifest.Layers[0].Digest != layer.Digest {
				t.Errorf("got manifest %s", got.RawManifest)
			}
			if (got.Index != nil) != tc.index || got.Platform != amd64 || got.MediaType != image.OCIManifest {
				t.Errorf("got %+v", got)
			}
		})
	}
	t.Run("other platform", func(t *testing.T) {
		_, err := quick(t, Options{}).Resolve(context.Background(), f.ref("x:index"), image.Platform{OS: "linux", Arch: "s390x"})
		checkError(t, err, "no image for linux/s390x", "linux/amd64")
	})
}

// checkError wants one line with part, and a hint with hint.
func checkError(t *testing.T, err error, part, hint string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got error %v, want one line with %q", err, part)
	}
	var hinted interface{ Hint() string }
	if !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), hint) || hinted.Hint() == "" {
		t.Errorf("%v: no hint with %q", err, hint)
	}
}

func TestResolveEndlessManifest(t *testing.T) {
	f := newFake(t)
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		for block := bytes.Repeat([]byte(" "), 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write(block); err != nil {
				break
			}
		}
		return true
	}
	_, err := quick(t, Options{}).Resolve(context.Background(), f.ref("x"), amd64)
	checkError(t, err, "larger than", "")
}

func TestHead(t *testing.T) {
	f := newFake(t)
	manifest, _ := f.add("v1", []byte("layer"))
	for name, hook := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"plain": nil,
		"no HEAD": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
			}
			return r.Method == http.MethodHead
		},
		"no digest": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "manifests") {
				w.Write(manifest)
				return true
			}
			return r.Method == http.MethodHead
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.hook = hook
			got, err := quick(t, Options{}).Head(context.Background(), f.ref("x:v1"))
			if err != nil || got != image.DigestOf(manifest) {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
	f.hook = nil
	_, err := quick(t, Options{}).Head(context.Background(), f.ref("x:v2"))
	checkError(t, err, "no such image or tag", "")
}

func TestUserAgent(t *testing.T) {
	f := newFake(t)
	f.add("v1", []byte("layer"))
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if got := r.UserAgent(); !strings.HasPrefix(got, "rbox/1.2 ") {
			t.Errorf("%s %s comes from %q", r.Method, r.URL, got)
		}
		return false
	}
	if _, err := quick(t, Options{UserAgent: "rbox/1.2"}).Resolve(context.Background(), f.ref("x:v1"), amd64); err != nil {
		t.Error(err)
	}
}

func TestTags(t *testing.T) {
	for name, tc := range map[string]struct {
		pages   []string // what each request is answered with
		link    string   // to the next, %s is the fake's URL
		want    string
		wantErr string
	}{
		"one page":      {pages: []string{`{"tags":["a","b"]}`}, want: "[a b]"},
		"pages":         {pages: []string{`{"tags":["a"]}`, `{"tags":["b"]}`, `{"tags":[]}`}, link: `</v2/x/tags/list?last=a>; rel="next"`, want: "[a b]"},
		"absolute link": {pages: []string{`{"tags":["a"]}`, `{"tags":null}`}, link: `<%s/v2/x/tags/list?last=a>; rel="next"`, want: "[a]"},
		"none":          {pages: []string{`{}`}, want: "[]"},
		"elsewhere":     {pages: []string{`{"tags":["a"]}`}, link: `<http://192.0.2.1/v2/x/tags/list>; rel="next"`, wantErr: "not of this registry"},
		"not a tag":     {pages: []string{`{"tags":["../x"]}`}, wantErr: "a tag that is none"},
		"not JSON":      {pages: []string{`<html>`}, wantErr: "list of tags"},
		"no such":       {wantErr: "no such image"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			n := 0
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/tags/list") || len(tc.pages) == 0 {
					return false
				}
				if tc.link != "" {
					w.Header().Set("Link", strings.ReplaceAll(tc.link, "%s", f.url))
				}
				io.WriteString(w, tc.pages[min(n, len(tc.pages)-1)])
				n++
				return true
			}
			got, err := quick(t, Options{}).Tags(context.Background(), f.ref("x"))
			if tc.wantErr != "" {
				checkError(t, err, tc.wantErr, "")
			} else if err != nil || fmt.Sprint(got) != tc.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestBlob(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 100_000) // 1.6 MB
	size := int64(len(content))
	isBlob := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") }

	// breakAfter sends n bytes of each answer, then drops the connection.
	breakAfter := func(f *fake, n int) {
		f.hook = func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(r) {
				return false
			}
			f.serve(&cutter{ResponseWriter: w, left: n}, r)
			return true
		}
	}
	for name, tc := range map[string]struct {
		offset, from int64
		setup        func(*fake)
		size         int64 // announced, if not the true one
		wantErr      string
	}{
		"whole":            {},
		"resumed":          {offset: 1000, from: 1000},
		"complete already": {offset: size, from: size},
		"offset beyond":    {offset: size + 1},
		"range ignored":    {offset: 1000, setup: func(f *fake) { f.hook = ignoreRange(f) }},
		"broken often":     {setup: func(f *fake) { breakAfter(f, 300_000) }},
		"broken and no range": {setup: func(f *fake) {
			var n atomic.Int32
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if isBlob(r) && n.Add(1) == 1 {
					r.Header.Del("Range")
					f.serve(&cutter{ResponseWriter: w, left: 300_000}, r)
					return true
				}
				return ignoreRange(f)(w, r)
			}
		}},
		"never a byte": {setup: func(f *fake) { breakAfter(f, 0) }, wantErr: "broke off"},
		"byte by byte": {setup: func(f *fake) { breakAfter(f, 1) }, wantErr: "after "},
		"too long":     {size: size - 10, wantErr: "not 1599990 as announced"},
		"too short":    {size: size + 10, wantErr: "not 1600010 as announced"},
		"too short, unannounced length": {size: size + 10, wantErr: "after 1600000 of 1600010 bytes", setup: func(f *fake) {
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if !isBlob(r) {
					return false
				}
				if r.Header.Get("Range") != "" {
					w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
					return true
				}
				w.(http.Flusher).Flush() // chunked
				w.Write(content)
				return true
			}
		}},
		"another range": {offset: 1000, wantErr: "another range", setup: func(f *fake) {
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if isBlob(r) {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 2000-%d/%d", size-1, size))
					w.WriteHeader(http.StatusPartialContent)
				}
				return isBlob(r)
			}
		}},
		"blob gone": {setup: func(f *fake) { f.blobs = nil }, wantErr: "has the manifest but not its blob"},
		"busy for a while": {setup: func(f *fake) {
			var n atomic.Int32
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if isBlob(r) && n.Add(1) <= 3 {
					w.Header().Set("Retry-After", "0")
					w.WriteHeader([]int{429, 503, 500}[n.Load()-1])
					return true
				}
				return false
			}
		}},
		"busy for ever": {wantErr: "429 Too Many Requests: slow down", setup: func(f *fake) {
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if isBlob(r) {
					refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow\ndown")
				}
				return isBlob(r)
			}
		}},
		"busy until tomorrow": {wantErr: "503 Service Unavailable", setup: func(f *fake) {
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if isBlob(r) {
					w.Header().Set("Retry-After", "86400")
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return isBlob(r)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			_, d := f.add("v1", content)
			if tc.setup != nil {
				tc.setup(f)
			}
			if tc.size != 0 {
				d.Size = tc.size
			}
			got, from, err := readBlob(quick(t, Options{}), f.ref("x:v1"), d, tc.offset)
			if tc.wantErr != "" {
				checkError(t, err, tc.wantErr, "")
				return
			}
			if err != nil || from != tc.from || !bytes.Equal(got, content[from:]) {
				t.Errorf("got %d bytes from %d, %v", len(got), from, err)
			}
		})
	}
}

func ignoreRange(f *fake) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		return false
	}
}

// cutter passes on some bytes, then breaks the connection.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	n, _ := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	c.left -= n
	if c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

func TestBlobStalls(t *testing.T) {
	f := newFake(t)
	content := bytes.Repeat([]byte("x"), 100_000)
	_, d := f.add("v1", content)
	var n atomic.Int32
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || n.Add(1) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:5000])
		w.(http.Flusher).Flush()
		<-r.Context().Done() // until the client gives up
		return true
	}
	got, _, err := readBlob(quick(t, Options{stall: 50 * time.Millisecond}), f.ref("x:v1"), d, 0)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if f.requests("bytes=") != 1 {
		t.Errorf("asked %q: not resumed once", f.asked)
	}
}

// A registry that is restarted in the middle of a blob is waited for.
func TestBlobSurvivesRestart(t *testing.T) {
	f := newFake(t)
	content := bytes.Repeat([]byte("x"), 1_000_000)
	_, d := f.add("v1", content)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	first := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			w = &cutter{ResponseWriter: w, left: 500_000}
		}
		f.ServeHTTP(w, r)
	}), ErrorLog: log.New(io.Discard, "", 0)}
	go first.Serve(l)
	c := New(Options{backoff: 20 * time.Millisecond})
	rc, _, err := c.Blob(context.Background(), parseRef(t, address+"/x:v1"), d, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	half := make([]byte, 500_000)
	if _, err := io.ReadFull(rc, half); err != nil {
		t.Fatal(err)
	}
	first.Close() // nobody listens now
	second := &http.Server{Handler: f}
	t.Cleanup(func() { second.Close() })
	again := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() {
		l, err := net.Listen("tcp", address)
		again <- err
		if err == nil {
			second.Serve(l)
		}
	})
	rest, err := io.ReadAll(rc)
	if err != nil || len(rest) != len(content)-len(half) {
		t.Errorf("got %d more bytes, %v (listening again: %v)", len(rest), err, <-again)
	}
}

func TestBlobCancelled(t *testing.T) {
	f := newFake(t)
	_, d := f.add("v1", []byte("content"))
	ctx, cancel := context.WithCancel(context.Background())
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			cancel()
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	_, _, err := New(Options{}).Blob(ctx, f.ref("x:v1"), d, 0) // with real waits
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestRedirects(t *testing.T) {
	content := []byte("content")
	var leaked atomic.Bool
	cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		w.Write(content)
	}))
	defer cdn.Close()
	for name, tc := range map[string]struct{ to, wantErr string }{
		"to another host": {cdn.URL + "/file", ""},
		"to a file":       {"file:///etc/passwd", "not a web address"},
		"in a circle":     {"", "after 10 others"},
		"plain elsewhere": {"http://192.0.2.1/file", "plain HTTP is not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			_, d := f.add("v1", content)
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if user, password, _ := r.BasicAuth(); user != "kim" || password != "secret" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return true
				}
				if strings.Contains(r.URL.Path, "/blobs/") {
					to := tc.to
					if to == "" {
						to = r.URL.Path
					}
					w.Header().Set("Location", to)
					w.WriteHeader(http.StatusTemporaryRedirect)
					return true
				}
				return false
			}
			c := quick(t, Options{Credentials: credentialsFor(t, f.host(), "kim", "secret")})
			got, _, err := readBlob(c, f.ref("x:v1"), d, 0)
			if tc.wantErr != "" {
				checkError(t, err, tc.wantErr, "")
				return
			}
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("got %q, %v", got, err)
			}
			if leaked.Load() {
				t.Error("the credentials went to the other host")
			}
		})
	}
}

// A registry that answers with other addresses learns nothing for others: who is
// named there is not asked, or not told who we are.
func TestHostileAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request, registry, other string)
		asked  bool // the other host is, without credentials
	}{
		"a realm of another host":     {answer: realm(func(_, other string) string { return other + "/token" })},
		"a realm of a file":           {answer: realm(func(_, _ string) string { return "file:///etc/passwd" })},
		"a realm by gopher":           {answer: realm(func(_, other string) string { return "gopher" + strings.TrimPrefix(other, "http") + "/_x" })},
		"a realm of the machine's":    {answer: realm(func(_, _ string) string { return "http://169.254.169.254/latest/meta-data" })},
		"a realm with a user":         {answer: realm(func(_, other string) string { return "http://kim:secret@" + strings.TrimPrefix(other, "http://") })},
		"a realm that redirects":      {answer: realm(func(registry, _ string) string { return registry + "/token" })},
		"the first answer redirects":  {answer: redirect("/v2/", "/v2/"), asked: true},
		"a manifest elsewhere":        {answer: redirect("/manifests/", "/x"), asked: true},
		"a manifest in a file":        {answer: redirect("/manifests/", "file:///etc/passwd")},
		"a manifest by gopher":        {answer: redirect("/manifests/", "gopher://127.0.0.1:70/_x")},
		"a manifest that asks for it": {answer: redirect("/manifests/", "/password"), asked: true},
		"a token is asked for there":  {answer: redirect("/manifests/", "/bearer"), asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			var asked, told atomic.Bool
			var otherURL string
			other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Store(true)
				body, _ := io.ReadAll(r.Body)
				if r.Header.Get("Authorization") != "" || strings.Contains(r.URL.String()+string(body), "secret") {
					told.Store(true)
				}
				switch r.URL.Path {
				case "/token":
					io.WriteString(w, `{"token":""}`)
				case "/bearer":
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, otherURL))
					w.WriteHeader(http.StatusUnauthorized)
				default:
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			defer other.Close()
			otherURL = other.URL
			f := newFake(t)
			f.add("v1", []byte("layer"))
			f.hook = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					http.Redirect(w, r, other.URL+"/token", http.StatusTemporaryRedirect)
					return true
				}
				tc.answer(w, r, f.url, other.URL)
				return true
			}
			c := quick(t, Options{Credentials: credentialsFor(t, f.host(), "kim", "secret")})
			_, err := c.Resolve(context.Background(), f.ref("x:v1"), amd64)
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v", err)
			}
			if told.Load() {
				t.Error("the credentials went to the other host")
			}
			if asked.Load() != tc.asked {
				t.Errorf("the other host was asked: %v", asked.Load())
			}
		})
	}
}

// realm asks for a token of the address that is made of the registry's and another.
func realm(of func(registry, other string) string) func(http.ResponseWriter, *http.Request, string, string) {
	return func(w http.ResponseWriter, _ *http.Request, registry, other string) {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="x"`, of(registry, other)))
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// redirect asks for a password, and leads requests with part in their path to
// another host, unless to is a whole address.
func redirect(part, to string) func(http.ResponseWriter, *http.Request, string, string) {
	return func(w http.ResponseWriter, r *http.Request, _, other string) {
		if !strings.Contains(to, "://") {
			to = other + to
		}
		if strings.Contains(r.URL.Path, part) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// A login that is a form goes to nobody else, whoever answers it with a redirect.
func TestRedirectedForm(t *testing.T) {
	from := httptest.NewRequest("POST", "http://127.0.0.1:1/token", nil)
	for host, refused := range map[string]bool{"127.0.0.1:1": false, "127.0.0.1:2": true} {
		req, err := http.NewRequest("POST", "http://"+host+"/", strings.NewReader("refresh_token=secret"))
		if err != nil {
			t.Fatal(err)
		}
		req.Response = &http.Response{Request: from}
		_, err = newHosts(false, nil).RoundTrip(req)
		var redirect *RedirectError
		if errors.As(err, &redirect) != refused {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestRedirectPolicy(t *testing.T) {
	for name, tc := range map[string]struct {
		from, to string
		insecure bool
		refused  bool
		keepAuth bool
	}{
		"same host":           {from: "https://a/1", to: "https://a/2", keepAuth: true},
		"other host":          {from: "https://a/1", to: "https://b/2"},
		"other port":          {from: "https://a/1", to: "https://a:444/2"},
		"subdomain":           {from: "https://a.b/1", to: "https://c.a.b/2"},
		"to plain":            {from: "https://a/1", to: "http://a/2", refused: true},
		"to plain, insecure":  {from: "https://a/1", to: "http://a/2", insecure: true, keepAuth: true},
		"plain to plain":      {from: "http://a/1", to: "http://b/2"},
		"plain to TLS":        {from: "http://a/1", to: "https://b/2"},
		"another scheme":      {from: "https://a/1", to: "ftp://a/2", refused: true},
		"file, even insecure": {from: "https://a/1", to: "file:///etc/passwd", insecure: true, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			from := httptest.NewRequest("GET", tc.from, nil)
			to := httptest.NewRequest("GET", "http://x/", nil)
			to.URL = httptest.NewRequest("GET", "http://x/", nil).URL
			u, err := from.URL.Parse(tc.to)
			if err != nil {
				t.Fatal(err)
			}
			to.URL = u
			to.Header.Set("Authorization", "Basic x")
			err = checkRedirect(tc.insecure)(to, []*http.Request{from})
			if (err != nil) != tc.refused {
				t.Fatalf("got %v", err)
			}
			if kept := to.Header.Get("Authorization") != ""; !tc.refused && kept != tc.keepAuth {
				t.Errorf("Authorization kept: %v", kept)
			}
		})
	}
}

func TestTokenAuth(t *testing.T) {
	f := newFake(t)
	manifest, d := f.add("v1", []byte("layer"))
	var tokens atomic.Int32
	f.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			user, password, given := r.BasicAuth()
			if given && (user != "kim" || password != "secret") {
				refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "incorrect username or password")
				return true
			}
			token := "anonymous"
			if given {
				token = fmt.Sprintf("kim-%d", tokens.Add(1))
			}
			fmt.Fprintf(w, `{"token":%q}`, token)
			return true
		}
		current := fmt.Sprintf("Bearer kim-%d", tokens.Load())
		if got := r.Header.Get("Authorization"); got != current {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="fake",scope="repository:team/app:pull"`, f.url))
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
			return true
		}
		return false
	}
	ref := f.ref("team/app:v1")

	t.Run("anonymous", func(t *testing.T) {
		_, err := quick(t, Options{}).Resolve(context.Background(), ref, amd64)
		var notFound *NotFoundError
		if !errors.As(err, &notFound) || !notFound.Private {
			t.Fatalf("got %v", err)
		}
		checkError(t, err, "or it is private", "rbox login "+f.host())
	})
	t.Run("wrong password", func(t *testing.T) {
		c := quick(t, Options{Credentials: credentialsFor(t, f.host(), "kim", "wrong")})
		if _, err := c.Resolve(context.Background(), ref, amd64); err == nil {
			t.Error("resolved with a wrong password")
		}
		checkError(t, c.Login(context.Background(), f.host(), "kim", "wrong"), "refuses the credentials of kim: incorrect", "rbox login "+f.host())
	})
	t.Run("right password", func(t *testing.T) {
		c := quick(t, Options{Credentials: credentialsFor(t, f.host(), "kim", "secret")})
		got, err := c.Resolve(context.Background(), ref, amd64)
		if err != nil || got.ManifestDigest != image.DigestOf(manifest) {
			t.Fatalf("got %+v, %v", got, err)
		}
		tokens.Add(1) // the token expires
		if _, _, err := readBlob(c, ref, d, 0); err != nil {
			t.Errorf("with an expired token: %v", err)
		}
		if err := c.Login(context.Background(), f.host(), "kim", "secret"); err != nil {
			t.Error(err)
		}
	})
}

func TestConnectionErrors(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := closed.Addr().String()
	closed.Close()
	hangUp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hangUp.Close()
	go func() {
		for {
			conn, err := hangUp.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	withTLS := httptest.NewUnstartedServer(http.NotFoundHandler())
	withTLS.Config.ErrorLog = log.New(io.Discard, "", 0)
	withTLS.StartTLS()
	defer withTLS.Close()

	noRegistry := httptest.NewServer(http.NotFoundHandler())
	defer noRegistry.Close()
	_, err = quick(t, Options{}).Resolve(context.Background(), parseRef(t, strings.TrimPrefix(noRegistry.URL, "http://")+"/x"), amd64)
	checkError(t, err, "there is no registry", "check the name")

	for name, tc := range map[string]struct{ registry, wantErr, hint string }{
		"refused":         {refused, "connection refused", "rbox run host"},
		"no such host":    {"no-such-host.invalid", "cannot find the address of no-such-host.invalid", "rbox run host"},
		"hangs up":        {hangUp.Addr().String(), "broke off", "try again"},
		"bad certificate": {strings.TrimPrefix(withTLS.URL, "https://"), "authority that this machine does not know", "certs.d/" + strings.TrimPrefix(withTLS.URL, "https://")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := quick(t, Options{}).Resolve(context.Background(), parseRef(t, tc.registry+"/x"), amd64)
			checkError(t, err, tc.wantErr, tc.hint)
			var connection *ConnectionError
			if !errors.As(err, &connection) {
				t.Errorf("%T is no *ConnectionError", err)
			}
		})
	}
}

// A registry at a private address is nothing special: a plain one there must
// be allowed by name, whatever go-containerregistry would try.
func TestPlainHTTPOnlyOnLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1:5000": true, "127.8.9.1": true, "[::1]:5000": true, "a.localhost:1": true,
		"10.0.0.1:5000": false, "192.168.1.1": false, "example.com": false, "localhost.example.com": false, "[fd00::1]:5000": false,
	} {
		if got := isLoopback(host); got != want {
			t.Errorf("%s: loopback is %v", host, got)
		}
		req := httptest.NewRequest("GET", "http://"+host+"/", nil)
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nothing is sent
		_, err := newHosts(false, nil).RoundTrip(req.WithContext(ctx))
		var plain *plainError
		if errors.As(err, &plain) == want {
			t.Errorf("%s: got %v", host, err)
		}
	}
}

func TestMirrors(t *testing.T) {
	primary, mirror := newFake(t), newFake(t)
	manifest, d := primary.add("v1", []byte("layer"))
	mirror.add("v1", []byte("layer"))
	primary.add("v2", []byte("other"))
	config := new(Config)
	err := config.parse("registries.conf", []byte(fmt.Sprintf(`
		[[registry]]
		prefix = "example.com/team"
		location = "%s/original"
		[[registry.mirror]]
		location = "%s/copy"`, primary.host(), mirror.host())))
	if err != nil {
		t.Fatal(err)
	}
	var warnings atomic.Int32
	c := quick(t, Options{Config: config, Warn: func(string) { warnings.Add(1) }})

	got, err := c.Resolve(context.Background(), parseRef(t, "example.com/team/app:v1"), amd64)
	if err != nil || got.ManifestDigest != image.DigestOf(manifest) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if mirror.requests("/v2/copy/app/manifests/v1") != 1 || primary.requests("/v2/") != 0 {
		t.Errorf("asked mirror %q, primary %q", mirror.asked, primary.asked)
	}
	if _, err := c.Resolve(context.Background(), parseRef(t, "example.com/team/app:v2"), amd64); err != nil {
		t.Error(err)
	}
	if primary.requests("/v2/original/app/manifests/v2") != 1 || warnings.Load() != 1 {
		t.Errorf("asked primary %q, %d warnings", primary.asked, warnings.Load())
	}
	mirror.blobs = nil
	if _, _, err := readBlob(c, parseRef(t, "example.com/team/app:v1"), d, 0); err != nil {
		t.Errorf("the mirror lost a blob: %v", err)
	}
	_, err = c.Resolve(context.Background(), parseRef(t, "example.com/team/app:v3"), amd64)
	checkError(t, err, "example.com/team/app:v3: "+primary.host()+" has no such image", "")
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"":                              0,
		"7":                             7 * time.Second,
		"-7":                            0,
		"soon":                          0,
		"Tue, 02 Jan 2024 03:04:35 GMT": 30 * time.Second,
		"Tue, 02 Jan 2024 03:04:00 GMT": 0,
		"99999999999999999999":          0,
		"9999999":                       time.Duration(1<<20) * time.Second,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestBackoffGrowsToItsLimit(t *testing.T) {
	p := pace{base: time.Second}
	for n, most := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 3: 8 * time.Second, 9: maxBackoff, 1000: maxBackoff} {
		for range 100 {
			if d := p.backoff(n); d < most/2 || d > most {
				t.Errorf("attempt %d waits %v, not between %v and %v", n, d, most/2, most)
			}
		}
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine(" a\nb\x1b[31mc\x9bd "); strings.ContainsAny(got, "\n\x1b\u009b") || !strings.HasPrefix(got, "a b") {
		t.Errorf("got %q", got)
	}
	if got := oneLine(strings.Repeat("ä", 1000)); len(got) > 310 {
		t.Errorf("got %d bytes", len(got))
	}
}

var _ io.ReadCloser = (*blobReader)(nil)
