//go:build !front

package store

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
	"rbox/rootfs/layer"
)

// LoadOptions says how Load works.
type LoadOptions struct {
	Unpacking
	Platform image.Platform           // picked from an index of several
	Loaded   func(m *Image, ref *Ref) // told of each image and name, nil for an image without; may be nil
}

// Names in archives, of Docker's format and of OCI's (image-layout.md).
const (
	dockerManifest = "manifest.json"
	ociIndex       = "index.json"
	ociLayout      = "oci-layout"

	ociRefName        = "org.opencontainers.image.ref.name"
	containerdRefName = "io.containerd.image.name"

	maxLoadEntries = 1 << 20 // files of an archive of images
)

// An UnknownArchiveError reports an archive that holds no images.
type UnknownArchiveError struct{ Name string }

func (e *UnknownArchiveError) Error() string {
	return e.Name + ": neither an archive of images nor an OCI layout: it has neither " + dockerManifest + " nor " + ociIndex
}

// Hint is what the user can do.
func (e *UnknownArchiveError) Hint() string {
	return "if it is the archive of a root file system: rbox import"
}

// LoadDir is Load of an OCI layout that is a directory.
func (s *Store) LoadDir(ctx context.Context, dir string, o LoadOptions) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return s.load(ctx, dirBundle{root}, dir, o)
}

// Load keeps the images of an archive: docker save's or an OCI layout, packed
// or not. name is the archive's, for errors. What cannot be read at random,
// such as a pipe, is first written to a temporary file of the store.
func (s *Store) Load(ctx context.Context, r io.Reader, name string, o LoadOptions) error {
	f, done, err := s.seekable(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer done()
	b, err := indexTar(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return s.load(ctx, b, name, o)
}

func (s *Store) load(ctx context.Context, b bundle, name string, o LoadOptions) error {
	if o.Loaded == nil {
		o.Loaded = func(*Image, *Ref) {}
	}
	release, err := s.adding(ctx)
	if err != nil {
		return err
	}
	defer release()
	s.cleanBuilds(ctx, o.Unpacking)
	l := &loader{s: s, b: b, o: o}
	err = l.docker(ctx)
	if errors.Is(err, fs.ErrNotExist) && !l.found {
		err = l.oci(ctx)
	}
	if errors.Is(err, fs.ErrNotExist) && !l.found {
		err = &UnknownArchiveError{name}
	} else if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// seekable returns r, or a temporary copy of it, unpacked, for reading at random.
func (s *Store) seekable(ctx context.Context, r io.Reader) (f *os.File, done func(), err error) {
	if f, ok := r.(*os.File); ok {
		head := make([]byte, 6)
		if n, err := f.ReadAt(head, 0); err == nil || err == io.EOF {
			if layer.Sniff(head[:n]) == layer.Plain {
				return f, func() {}, nil
			}
		}
	}
	if err := s.prepare(); err != nil {
		return nil, nil, err
	}
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return nil, nil, err
	}
	defer plain.Close()
	g, err := s.ingestUnknown(ctx)
	if err != nil {
		return nil, nil, err
	}
	buf := make([]byte, blobChunk)
	if _, err := io.CopyBuffer(struct{ io.Writer }{g.file}, plain, buf); err != nil {
		g.discard()
		return nil, nil, diskError(g.file.Name(), err)
	}
	return g.file, g.discard, nil
}

// A bundle is an archive of images or a directory with the same files.
type bundle interface {
	// open returns a file and its size in bytes, or fs.ErrNotExist.
	open(name string) (io.ReadSeekCloser, int64, error)
}

type dirBundle struct{ root *os.Root }

func (b dirBundle) open(name string) (io.ReadSeekCloser, int64, error) {
	f, err := b.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// A tarBundle knows where the files of an archive begin.
type tarBundle struct {
	f     io.ReaderAt
	files map[string]span
	links map[string]string // of old archives, for layers that images share
}

type span struct{ at, size int64 }

// indexTar reads the headers of f.
func indexTar(f *os.File) (*tarBundle, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	b := &tarBundle{f: f, files: map[string]span{}, links: map[string]string{}}
	tr := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := tr.Next()
		switch {
		case err == io.EOF:
			return b, nil
		case errors.Is(err, tar.ErrHeader) && n == 0:
			return nil, errors.New("not a tar archive")
		case err != nil:
			return nil, fmt.Errorf("the archive is damaged or cut off: %w", err)
		case n >= maxLoadEntries:
			return nil, fmt.Errorf("the archive has more than %d files", maxLoadEntries)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			b.files[name] = span{at, h.Size}
		case tar.TypeSymlink:
			b.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			b.links[name] = path.Clean(h.Linkname)
		}
	}
}

func (b *tarBundle) open(name string) (io.ReadSeekCloser, int64, error) {
	name = path.Clean(name)
	for hops := 0; hops < 8; hops++ {
		if at, ok := b.files[name]; ok {
			return nopSeekCloser{io.NewSectionReader(b.f, at.at, at.size)}, at.size, nil
		}
		to, ok := b.links[name]
		if !ok {
			break
		}
		name = to
	}
	return nil, 0, &lacksError{name}
}

// A lacksError reports a file that an archive refers to and does not have.
type lacksError struct{ name string }

func (e *lacksError) Error() string    { return fmt.Sprintf("it lacks the file %q", e.name) }
func (e *lacksError) Is(to error) bool { return to == fs.ErrNotExist }

type nopSeekCloser struct{ io.ReadSeeker }

func (nopSeekCloser) Close() error { return nil }

// A loader is one Load.
type loader struct {
	s     *Store
	b     bundle
	o     LoadOptions
	found bool // the format is known: what is missing now is missing from it
}

// read returns a file of at most limit bytes.
func (l *loader) read(name string, limit int64) ([]byte, error) {
	f, size, err := l.b.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, size, limit)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, unexpectedEOF(err))
	}
	return data, nil
}

func unexpectedEOF(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the archive is cut off here")
	}
	return err
}

// A dockerEntry is one image of manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// docker loads an archive of docker save.
func (l *loader) docker(ctx context.Context) error {
	raw, err := l.read(dockerManifest, image.MaxManifestSize)
	if err != nil {
		return err
	}
	l.found = true
	var entries []dockerEntry
	if err := json.Unmarshal(raw, &entries); err != nil {
		return fmt.Errorf("%s: %w", dockerManifest, err)
	}
	for _, e := range entries {
		if err := l.dockerImage(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) dockerImage(ctx context.Context, e dockerEntry) error {
	raw, err := l.read(e.Config, image.MaxConfigSize)
	if err != nil {
		return err
	}
	config, err := image.ParseConfig(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Config, err)
	}
	ids := config.RootFS.DiffIDs
	if len(ids) != len(e.Layers) {
		return fmt.Errorf("%s lists %d layers, the configuration %s %d", dockerManifest, len(e.Layers), e.Config, len(ids))
	}
	names, err := parseNames(e.RepoTags)
	if err != nil {
		return err
	}
	layers := make([]ingested, len(ids))
	err = each(ctx, len(ids), func(ctx context.Context, i int) error {
		in, err := l.dockerLayer(ctx, e.Layers[i], ids[i])
		if err != nil {
			return fmt.Errorf("%s: %w", e.Layers[i], err)
		}
		layers[i] = *in
		return nil
	})
	if err != nil {
		return err
	}
	m, err := l.s.assembleRaw(ctx, raw, config, layers, nil)
	if err != nil {
		return err
	}
	return l.name(ctx, m, names, "")
}

func parseNames(list []string) (names []image.Reference, err error) {
	for _, s := range list {
		ref, err := image.ParseReference(s)
		if err != nil {
			return nil, err
		}
		names = append(names, ref)
	}
	return names, nil
}

// dockerLayer keeps the layer id, which the archive has as name, unless an
// image here has it already.
func (l *loader) dockerLayer(ctx context.Context, name string, id image.Digest) (*ingested, error) {
	if in, err := l.s.knownLayer(ctx, id, l.o.Unpacking); in != nil || err != nil {
		return in, err
	}
	f, _, err := l.b.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return l.s.ingestLayer(ctx, f, id, l.o.Unpacking)
}

// knownLayer returns the layer id, unpacked, if an image here has it, else nil.
func (s *Store) knownLayer(ctx context.Context, id image.Digest, u Unpacking) (*ingested, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	for _, imageID := range ids {
		m, err := s.readRecord(imageID)
		if err != nil {
			continue
		}
		for _, have := range m.Layers {
			if have.DiffID != id || !s.hasBlob(have.Digest, have.Size) {
				continue
			}
			record, err := s.ensureLayer(ctx, have, u)
			d := image.Descriptor{MediaType: ociLayerType(have.MediaType), Digest: have.Digest, Size: have.Size}
			return &ingested{blob: d, record: record}, err
		}
	}
	return nil, nil
}

// name gives m its names and tells of them.
func (l *loader) name(ctx context.Context, m *Image, names []image.Reference, digest image.Digest) error {
	if len(names) == 0 {
		l.o.Loaded(m, nil)
		return nil
	}
	lock, err := l.s.indexLock(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, name := range names {
		r := Ref{Name: name.String(), ID: m.ID, Digest: digest}
		if err := l.s.writeRef(r); err != nil {
			return err
		}
		l.o.Loaded(m, &r)
	}
	return nil
}

// oci loads an OCI layout.
func (l *loader) oci(ctx context.Context) error {
	raw, err := l.read(ociIndex, image.MaxManifestSize)
	if err != nil {
		return err
	}
	l.found = true
	var index image.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return fmt.Errorf("%s: %w", ociIndex, err)
	}
	if len(index.Manifests) == 0 {
		return fmt.Errorf("%s lists no image", ociIndex)
	}
	for _, d := range index.Manifests {
		if err := l.ociImage(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) ociImage(ctx context.Context, d image.Descriptor) error {
	names, err := ociNames(d.Annotations)
	if err != nil {
		return err
	}
	r, err := l.resolve(d)
	if err != nil {
		return err
	}
	p := &pull{s: l.s, f: l, r: r, o: PullOptions{Unpacking: l.o.Unpacking, Progress: noProgress{}}}
	m, err := p.image(ctx)
	if err != nil {
		return err
	}
	l.s.noticeUnmapped("image "+m.ID.Short(), p.unmapped())
	if err := l.s.commit(ctx, m, "", ""); err != nil {
		return err
	}
	return l.name(ctx, m, names, r.Digest())
}

// ociNames returns the name that the annotations give. Some tools annotate a
// tag alone, which is the name of nothing.
func ociNames(annotations map[string]string) ([]image.Reference, error) {
	for _, key := range []string{containerdRefName, ociRefName} {
		if s := annotations[key]; strings.ContainsAny(s, ":/") {
			return parseNames([]string{s})
		}
	}
	return nil, nil
}

// resolve reads the manifest that d points at, through an index if d is one's.
func (l *loader) resolve(d image.Descriptor) (*image.Resolved, error) {
	r := &image.Resolved{Platform: l.o.Platform}
	raw, err := l.ociBlob(d)
	if err != nil {
		return nil, err
	}
	index, manifest, err := image.Decode(raw, d.MediaType)
	if err != nil {
		return nil, err
	}
	if index != nil {
		r.Index, r.IndexDigest = raw, d.Digest
		if d, err = index.Select(l.o.Platform); err != nil {
			return nil, err
		}
		if raw, err = l.ociBlob(d); err != nil {
			return nil, err
		}
		if index, manifest, err = image.Decode(raw, d.MediaType); err != nil {
			return nil, err
		}
		if index != nil {
			return nil, errors.New("an index within an index is not supported")
		}
	}
	r.RawManifest, r.ManifestDigest, r.MediaType, r.Manifest = raw, d.Digest, manifest.MediaType, manifest
	if r.MediaType == "" {
		r.MediaType = image.OCIManifest
	}
	return r, nil
}

func (l *loader) ociBlob(d image.Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	raw, err := l.read(ociBlobName(d.Digest), image.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	return raw, d.Digest.Check("manifest", raw)
}

func ociBlobName(d image.Digest) string { return "blobs/" + d.Algorithm() + "/" + d.Hex() }

// Resolve implements Fetcher, which a pull does not call any more.
func (l *loader) Resolve(context.Context, image.Reference, image.Platform) (*image.Resolved, error) {
	return nil, errors.ErrUnsupported
}

// Blob implements Fetcher.
func (l *loader) Blob(_ context.Context, _ image.Reference, d image.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	f, size, err := l.b.open(ociBlobName(d.Digest))
	if err != nil {
		return nil, 0, err
	}
	if size != d.Size {
		f.Close()
		return nil, 0, fmt.Errorf("%s has %d bytes, not %d", ociBlobName(d.Digest), size, d.Size)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, offset, nil
}
