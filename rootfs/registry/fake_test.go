package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"rbox/rootfs/image"
)

// fake is a registry in this process, well behaved unless hook says otherwise.
type fake struct {
	t     *testing.T
	url   string
	mu    sync.Mutex
	blobs map[image.Digest][]byte
	mans  map[string][]byte // by tag and by digest
	asked []string          // "METHOD path [Range]"

	// hook may answer a request itself: then it returns true.
	hook func(w http.ResponseWriter, r *http.Request) bool
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, blobs: make(map[image.Digest][]byte), mans: make(map[string][]byte)}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	f.url = server.URL
	return f
}

func (f *fake) host() string { _, host, _ := strings.Cut(f.url, "://"); return host }

func (f *fake) ref(s string) image.Reference {
	f.t.Helper()
	return parseRef(f.t, f.host()+"/"+s)
}

func parseRef(t *testing.T, s string) image.Reference {
	t.Helper()
	ref, err := image.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// add keeps one image with one layer under tag, and returns its parts.
func (f *fake) add(tag string, layer []byte) (manifest []byte, d image.Descriptor) {
	config := []byte(fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q]}}`, image.DigestOf(layer)))
	d = image.Descriptor{MediaType: image.OCILayerGzip, Digest: image.DigestOf(layer), Size: int64(len(layer))}
	manifest = toJSON(image.Manifest{
		SchemaVersion: 2, MediaType: image.OCIManifest,
		Config: image.Descriptor{MediaType: image.OCIConfig, Digest: image.DigestOf(config), Size: int64(len(config))},
		Layers: []image.Descriptor{d},
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blobs[d.Digest], f.blobs[image.DigestOf(config)] = layer, config
	f.mans[tag], f.mans[string(image.DigestOf(manifest))] = manifest, manifest
	return manifest, d
}

func toJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	hook := f.hook
	f.mu.Unlock()
	if hook != nil && hook(w, r) {
		return
	}
	if r.URL.Path == "/v2/" {
		return
	}
	f.serve(w, r)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, id, isManifest := strings.Cut(r.URL.Path, "/manifests/")
	if isManifest {
		raw, found := f.mans[id]
		if !found {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
			return
		}
		var shape struct{ MediaType string }
		json.Unmarshal(raw, &shape)
		w.Header().Set("Content-Type", shape.MediaType)
		w.Header().Set(digestHeader, string(image.DigestOf(raw)))
		w.Write(raw)
		return
	}
	_, id, _ = strings.Cut(r.URL.Path, "/blobs/")
	blob, found := f.blobs[image.Digest(id)]
	if !found {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown")
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

// requests returns how many requests had a path that contains part.
func (f *fake) requests(part string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.asked {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

// quick is a client that does not make tests wait.
func quick(t *testing.T, o Options) *Client {
	t.Helper()
	o.backoff = time.Millisecond
	if o.stall == 0 {
		o.stall = 10 * time.Second
	}
	if o.Warn == nil {
		o.Warn = func(s string) { t.Log("warning:", s) }
	}
	return New(o)
}

var amd64 = image.Platform{OS: "linux", Arch: "amd64"}

func readBlob(c *Client, ref image.Reference, d image.Descriptor, offset int64) ([]byte, int64, error) {
	ctx, cancel := contextFor()
	defer cancel()
	rc, from, err := c.Blob(ctx, ref, d, offset)
	if err != nil {
		return nil, 0, err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	return b, from, err
}
