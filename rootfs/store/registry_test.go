package store

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"rbox/rootfs/image"
	"rbox/rootfs/layer"
)

// tarOf makes an archive of files, name and content by turns. A content that
// begins with "->" makes a symbolic link.
func tarOf(files ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := tar.Header{Name: files[i], Mode: 0o644, ModTime: time.Unix(1e9, 0), Typeflag: tar.TypeReg}
		target, isLink := strings.CutPrefix(files[i+1], "->")
		if isLink {
			h.Typeflag, h.Linkname = tar.TypeSymlink, target
		} else {
			h.Size = int64(len(files[i+1]))
		}
		w.WriteHeader(&h)
		if !isLink {
			io.WriteString(w, files[i+1])
		}
	}
	w.Close()
	return b.Bytes()
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// noise is size bytes that do not compress, the same for the same seed.
func noise(seed uint64, size int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// A fakeImage is one that a fakeRegistry offers.
type fakeImage struct {
	manifest []byte
	resolved *image.Resolved
	blobs    map[image.Digest][]byte
}

// newFakeImage makes an image of layers, plain archives that it packs.
func newFakeImage(layers ...[]byte) *fakeImage {
	created := time.Unix(1.7e9, 0).UTC()
	config := image.Config{
		Created: &created, OS: "linux", Architecture: "amd64", RootFS: image.RootFS{Type: "layers"},
		Config: image.ContainerConfig{Cmd: image.Words{"sh"}, Labels: map[string]string{"n": fmt.Sprint(len(layers))}},
	}
	f := &fakeImage{blobs: map[image.Digest][]byte{}}
	m := &image.Manifest{SchemaVersion: 2, MediaType: image.DockerManifest}
	for _, l := range layers {
		packed := gzipped(l)
		d := image.DigestOf(packed)
		f.blobs[d] = packed
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, image.DigestOf(l))
		m.Layers = append(m.Layers, image.Descriptor{MediaType: image.DockerLayerGzip, Digest: d, Size: int64(len(packed))})
	}
	raw, _ := json.Marshal(config)
	m.Config = image.Descriptor{MediaType: image.DockerConfig, Digest: image.DigestOf(raw), Size: int64(len(raw))}
	f.blobs[m.Config.Digest] = raw
	f.manifest, _ = json.Marshal(m)
	f.resolved = &image.Resolved{
		RawManifest: f.manifest, ManifestDigest: image.DigestOf(f.manifest), MediaType: m.MediaType, Manifest: m,
	}
	return f
}

// A fakeRegistry is a Fetcher with faults.
type fakeRegistry struct {
	images map[string]*fakeImage
	url    string // where the blobs are; empty to take them from images

	noRange bool // it always sends from the first byte on
	// after breaks the next connections for a blob off after so many bytes
	// each, with the error broken.
	after map[image.Digest][]int
	mu    sync.Mutex
	sent  map[image.Digest]int64
	opens map[image.Digest]int
}

var errBroken = errors.New("the connection broke")

func (f *fakeRegistry) Resolve(_ context.Context, ref image.Reference, _ image.Platform) (*image.Resolved, error) {
	m := f.images[ref.Familiar()]
	if m == nil {
		return nil, errors.New("no such image: " + ref.Familiar())
	}
	return m.resolved, nil
}

func (f *fakeRegistry) Blob(ctx context.Context, ref image.Reference, d image.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	if f.url != "" {
		return f.get(ctx, d, offset)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	data := f.images[ref.Familiar()].blobs[d.Digest]
	if data == nil {
		return nil, 0, errors.New("no such blob")
	}
	if f.noRange {
		offset = 0
	}
	f.opens[d.Digest]++
	r := &faulty{f: f, d: d.Digest, r: bytes.NewReader(data[offset:]), left: -1}
	if after := f.after[d.Digest]; len(after) > 0 {
		r.left, f.after[d.Digest] = after[0], after[1:]
	}
	return io.NopCloser(r), offset, nil
}

func (f *fakeRegistry) get(ctx context.Context, d image.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", f.url+"/"+string(d.Digest), nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, offset, nil
}

type faulty struct {
	f    *fakeRegistry
	d    image.Digest
	r    io.Reader
	left int // bytes before it breaks, or negative
}

func (r *faulty) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, errBroken
	}
	if r.left > 0 {
		p = p[:min(len(p), r.left)]
	}
	n, err := r.r.Read(p)
	if r.left > 0 {
		r.left -= n
	}
	r.f.mu.Lock()
	r.f.sent[r.d] += int64(n)
	r.f.mu.Unlock()
	return n, err
}

func newRegistry(images map[string]*fakeImage) *fakeRegistry {
	return &fakeRegistry{
		images: images, after: map[image.Digest][]int{}, sent: map[image.Digest]int64{}, opens: map[image.Digest]int{},
	}
}

// serve offers the blobs over HTTP, for other processes, and counts requests.
func (f *fakeRegistry) serve(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := image.Digest(strings.TrimPrefix(r.URL.Path, "/"))
		for _, m := range f.images {
			if data, ok := m.blobs[d]; ok {
				f.mu.Lock()
				f.opens[d]++
				f.mu.Unlock()
				http.ServeContent(&counted{w, f, d}, r, "", time.Time{}, bytes.NewReader(data))
				return
			}
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(server.Close)
	f.url = server.URL
}

type counted struct {
	http.ResponseWriter
	f *fakeRegistry
	d image.Digest
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.f.mu.Lock()
	c.f.sent[c.d] += int64(n)
	c.f.mu.Unlock()
	return n, err
}

// direct is an Unpacker that is root of the namespace itself.
type direct struct{ unpacks atomic.Int64 }

func (u *direct) Unpack(ctx context.Context, dst string, blob io.Reader, o layer.Options) (layer.Result, error) {
	u.unpacks.Add(1)
	r, w := io.Pipe()
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		_, err := io.Copy(w, blob)
		w.CloseWithError(err)
	}()
	res, err := layer.Apply(ctx, dst, r, o)
	r.Close()
	<-fed
	return res, err
}

func (u *direct) Remove(_ context.Context, dirs ...string) error {
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, layer.Remove(dir))
	}
	return errors.Join(errs...)
}
