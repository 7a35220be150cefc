//go:build !front

package store

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"rbox/rootfs/image"
	"rbox/rootfs/layer"
)

// A Format is one that images are saved in.
type Format string

const (
	DockerArchive Format = "docker-archive" // that of docker save: a tar
	OCIArchive    Format = "oci-archive"    // an OCI layout in a tar
	OCIDir        Format = "oci-dir"        // an OCI layout in a directory
)

// Save writes images to w as DockerArchive or OCIArchive. Their names are
// those in Refs that have a tag.
func (s *Store) Save(ctx context.Context, w io.Writer, format Format, images []*Image) error {
	t := &tarSink{tar.NewWriter(w), map[string]bool{}}
	if err := s.save(ctx, t, format, images); err != nil {
		return err
	}
	return t.w.Close()
}

// SaveDir writes images as OCIDir into dir, which is made if it is not there
// and must be empty if it is.
func (s *Store) SaveDir(ctx context.Context, dir string, images []*Image) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	made := os.Mkdir(dir, 0o777)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	err := s.save(ctx, dirSink(dir), OCIDir, images)
	if err != nil && made == nil {
		os.RemoveAll(dir)
	}
	return err
}

func (s *Store) save(ctx context.Context, to sink, format Format, images []*Image) error {
	if format == DockerArchive {
		return s.saveDocker(ctx, to, images)
	}
	return s.saveOCI(ctx, to, images)
}

// A sink takes the files of an archive.
type sink interface {
	// add writes a file of size bytes unless there is one of that name.
	add(name string, size int64, open func() (io.ReadCloser, error)) error
}

type tarSink struct {
	w    *tar.Writer
	have map[string]bool
}

func (t *tarSink) add(name string, size int64, open func() (io.ReadCloser, error)) error {
	if t.have[name] {
		return nil
	}
	t.have[name] = true
	if err := t.parents(path.Dir(name)); err != nil {
		return err
	}
	if err := t.header(tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{t.w}, struct{ io.Reader }{r}, make([]byte, blobChunk))
	return err
}

// parents writes the directories up to dir: some readers, run by a user, fail
// on those that they must add themselves.
func (t *tarSink) parents(dir string) error {
	if dir == "." || t.have[dir] {
		return nil
	}
	t.have[dir] = true
	if err := t.parents(path.Dir(dir)); err != nil {
		return err
	}
	return t.header(tar.Header{Name: dir + "/", Mode: 0o755, Typeflag: tar.TypeDir})
}

// header writes h, always of the same time, so that the same images make the
// same archive.
func (t *tarSink) header(h tar.Header) error {
	h.ModTime = time.Unix(0, 0)
	return t.w.WriteHeader(&h)
}

type dirSink string

func (dir dirSink) add(name string, _ int64, open func() (io.ReadCloser, error)) error {
	to := filepath.Join(string(dir), name)
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	w, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := open()
	if err == nil {
		_, err = io.Copy(w, r)
		r.Close()
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return err
}

func addBytes(to sink, name string, data []byte) error {
	return to.add(name, int64(len(data)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
}

func addJSON(to sink, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return addBytes(to, name, data)
}

// saveDocker writes what docker save does, without the files of its earliest
// version.
func (s *Store) saveDocker(ctx context.Context, to sink, images []*Image) error {
	entries := []dockerEntry{}
	for _, m := range images {
		config, err := s.ReadBlob(m.ID)
		if err != nil {
			return err
		}
		e := dockerEntry{Config: m.ID.Hex() + ".json", RepoTags: tags(m), Layers: []string{}}
		if err := addBytes(to, e.Config, config); err != nil {
			return err
		}
		for _, l := range m.Layers {
			name := l.DiffID.Hex() + ".tar"
			e.Layers = append(e.Layers, name)
			size, err := s.plainSize(ctx, l)
			if err != nil {
				return err
			}
			if err := to.add(name, size, func() (io.ReadCloser, error) { return s.openPlain(ctx, l) }); err != nil {
				return fmt.Errorf("layer %s: %w", l.DiffID.Short(), err)
			}
		}
		entries = append(entries, e)
	}
	return addJSON(to, dockerManifest, entries)
}

// tags returns the names of m that have a tag, as people write them.
func tags(m *Image) []string {
	list := []string{}
	for _, r := range m.Refs {
		if ref := r.Reference(); ref.Tag != "" {
			list = append(list, ref.Familiar())
		}
	}
	return list
}

// plainSize returns the bytes of a layer's archive when unpacked.
func (s *Store) plainSize(ctx context.Context, l Layer) (int64, error) {
	if l.Plain > 0 {
		return l.Plain, nil
	}
	r, err := s.openPlain(ctx, l)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(io.Discard, r)
}

// openPlain reads a layer's archive, unpacked, which it verifies.
func (s *Store) openPlain(ctx context.Context, l Layer) (io.ReadCloser, error) {
	f, err := os.Open(s.blobPath(l.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingBlobError{Layer: l.DiffID}
	}
	if err != nil {
		return nil, err
	}
	plain, _, err := layer.Decompress(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &verified{ctx: ctx, r: plain, file: f, want: l.DiffID, what: "layer " + l.DiffID.Short(), sum: l.DiffID.Hash()}, nil
}

// A verified reader ends with an error unless it read what it should.
type verified struct {
	ctx  context.Context
	r    io.ReadCloser
	file io.Closer
	want image.Digest
	what string
	sum  hash.Hash
}

func (v *verified) Read(p []byte) (int, error) {
	if err := v.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := v.r.Read(p)
	v.sum.Write(p[:n])
	if err == io.EOF {
		if got := v.want.DigestFrom(v.sum); got != v.want {
			err = &image.DigestError{What: v.what, Want: v.want, Got: got}
		}
	}
	return n, err
}

func (v *verified) Close() error {
	v.r.Close()
	return v.file.Close()
}

// saveOCI writes an OCI layout. Blobs are saved as they are; a manifest in
// Docker's form is rewritten in OCI's, so that its digest changes.
func (s *Store) saveOCI(ctx context.Context, to sink, images []*Image) error {
	index := image.Index{SchemaVersion: 2, MediaType: image.OCIIndex, Manifests: []image.Descriptor{}}
	if err := addJSON(to, ociLayout, map[string]string{"imageLayoutVersion": "1.0.0"}); err != nil {
		return err
	}
	for _, m := range images {
		d, err := s.saveOCIImage(ctx, to, m)
		if err != nil {
			return err
		}
		names := tags(m)
		if len(names) == 0 {
			index.Manifests = append(index.Manifests, d)
		}
		for _, r := range m.Refs {
			if ref := r.Reference(); ref.Tag != "" {
				named := d
				named.Annotations = map[string]string{ociRefName: ref.String(), containerdRefName: ref.String()}
				index.Manifests = append(index.Manifests, named)
			}
		}
	}
	return addJSON(to, ociIndex, index)
}

func (s *Store) saveOCIImage(ctx context.Context, to sink, m *Image) (image.Descriptor, error) {
	raw, err := s.ociManifest(m)
	if err != nil {
		return image.Descriptor{}, err
	}
	config, err := s.ReadBlob(m.ID)
	if err != nil {
		return image.Descriptor{}, err
	}
	d := image.Descriptor{MediaType: image.OCIManifest, Digest: image.DigestOf(raw), Size: int64(len(raw))}
	if err := addBytes(to, ociBlobName(m.ID), config); err != nil {
		return d, err
	}
	for _, l := range m.Layers {
		if err := to.add(ociBlobName(l.Digest), l.Size, func() (io.ReadCloser, error) { return s.openBlob(ctx, l) }); err != nil {
			return d, fmt.Errorf("layer %s: %w", l.DiffID.Short(), err)
		}
	}
	return d, addBytes(to, ociBlobName(d.Digest), raw)
}

// openBlob reads a layer's blob, which it verifies.
func (s *Store) openBlob(ctx context.Context, l Layer) (io.ReadCloser, error) {
	f, err := os.Open(s.blobPath(l.Digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingBlobError{Layer: l.DiffID}
	}
	if err != nil {
		return nil, err
	}
	return &verified{ctx: ctx, r: io.NopCloser(f), file: f, want: l.Digest, what: path.Base(f.Name()), sum: l.Digest.Hash()}, nil
}

// ociManifest returns m's manifest, in OCI's form.
func (s *Store) ociManifest(m *Image) ([]byte, error) {
	raw, err := s.ReadBlob(m.ManifestDigest)
	if err != nil {
		return nil, err
	}
	_, manifest, err := image.Decode(raw, m.MediaType)
	if err != nil {
		return nil, err
	}
	if manifest == nil {
		return nil, fmt.Errorf("image %s: its manifest is an index", m.ID.Short())
	}
	if m.MediaType == image.OCIManifest {
		return raw, nil
	}
	manifest.MediaType = image.OCIManifest
	manifest.Config.MediaType = image.OCIConfig
	for i := range manifest.Layers {
		l := &manifest.Layers[i]
		l.MediaType = ociLayerType(l.MediaType)
	}
	return json.Marshal(manifest)
}

// ociLayerType is the media type that an OCI manifest has for a layer of Docker's.
func ociLayerType(mediaType string) string {
	switch mediaType {
	case image.DockerLayer:
		return image.OCILayer
	case image.DockerLayerGzip:
		return image.OCILayerGzip
	case image.DockerLayerZstd:
		return image.OCILayerZstd
	}
	return mediaType
}
