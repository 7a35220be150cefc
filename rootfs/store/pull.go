//go:build !front

package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"rbox/rootfs/image"
	"rbox/rootfs/layer"
)

// A Fetcher is where images come from: rootfs/registry's Client is one.
type Fetcher interface {
	// Resolve returns what ref is for a platform, digests verified.
	Resolve(ctx context.Context, ref image.Reference, p image.Platform) (*image.Resolved, error)
	// Blob opens a blob offset bytes from its start, or, with from less than
	// that, nearer to it. The content is not verified.
	Blob(ctx context.Context, ref image.Reference, d image.Descriptor, offset int64) (rc io.ReadCloser, from int64, err error)
}

// PullOptions says how Pull works.
type PullOptions struct {
	Unpacking
	Platform image.Platform
	Progress Progress // may be nil
}

// A Progress is told how a pull gets on. Its methods are called from several
// goroutines.
type Progress interface {
	// Start is told of all layers before the first begins, the lowest first.
	Start(layers []image.Descriptor)
	// Layer tells the state of the layer with the index i in Start's list, and
	// how many of its bytes are here.
	Layer(i int, state LayerState, have int64)
}

// A LayerState is what is being done with a layer.
type LayerState int

const (
	LayerWaiting   LayerState = iota
	LayerExists               // it was here before
	LayerLoading              // it is being downloaded, and unpacked at the same time
	LayerUnpacking            // it is being unpacked, its archive being here
	LayerDone
)

type noProgress struct{}

func (noProgress) Start([]image.Descriptor)     {}
func (noProgress) Layer(int, LayerState, int64) {}

// A Pulled is what Pull got.
type Pulled struct {
	*Image
	Digest   image.Digest // what the reference names: the index if there is one
	New      bool         // the name stands for something else than before, or is new
	Unmapped int64        // files of layers unpacked now whose owner has no id here: root has them
}

// Pull gets the image ref from f, downloading what is not here and unpacking
// it at the same time. All digests are verified. A download that breaks off,
// even by the death of the process, is continued by the next Pull.
func (s *Store) Pull(ctx context.Context, f Fetcher, ref image.Reference, o PullOptions) (*Pulled, error) {
	r, err := f.Resolve(ctx, ref, o.Platform)
	if err != nil {
		return nil, err
	}
	release, err := s.adding(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	s.cleanBuilds(ctx, o.Unpacking)
	if o.Progress == nil {
		o.Progress = noProgress{}
	}
	p := &pull{s: s, f: f, ref: ref, o: o, r: r}
	m, err := p.image(ctx)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", ref.Familiar(), err)
	}
	name := ref.String()
	if ref.Digest != "" { // the tag is but a label
		name = ref.WithDigest(ref.Digest).String()
	}
	old, err := s.readRef(name)
	fresh := err != nil || old.ID != m.ID
	if err := s.commit(ctx, m, name, r.Digest()); err != nil {
		return nil, err
	}
	return &Pulled{Image: m, Digest: r.Digest(), New: fresh, Unmapped: p.unmapped()}, nil
}

// A pull is one Pull.
type pull struct {
	s    *Store
	f    Fetcher
	ref  image.Reference
	o    PullOptions
	r    *image.Resolved
	made []*layerRecord // of each layer; of those that were there before too
	new  []bool
}

// image gets all parts and returns them as an image not yet recorded.
func (p *pull) image(ctx context.Context) (*Image, error) {
	raw, err := p.config(ctx)
	if err != nil {
		return nil, err
	}
	config, err := image.ParseConfig(raw)
	if err != nil {
		return nil, err
	}
	if err := image.CheckLayers(p.r.Manifest, config); err != nil {
		return nil, err
	}
	if err := p.s.putBlob(p.r.ManifestDigest, p.r.RawManifest); err != nil {
		return nil, err
	}
	layers := p.r.Manifest.Layers
	p.made, p.new = make([]*layerRecord, len(layers)), make([]bool, len(layers))
	p.o.Progress.Start(layers)
	err = each(ctx, len(layers), func(ctx context.Context, i int) error {
		return p.layer(ctx, i, config.RootFS.DiffIDs[i])
	})
	if err != nil {
		return nil, err
	}
	return newImage(p.r.Manifest.Config.Digest, p.r.ManifestDigest, p.r.MediaType, config, layers, p.made), nil
}

// unmapped counts the files whose owners got lost in the layers unpacked now.
func (p *pull) unmapped() (n int64) {
	for i, r := range p.made {
		if p.new[i] {
			n += r.Unmapped
		}
	}
	return n
}

// config returns the configuration, downloaded if it is not here.
func (p *pull) config(ctx context.Context) ([]byte, error) {
	d := p.r.Manifest.Config
	if raw, err := p.s.ReadBlob(d.Digest); err == nil {
		return raw, nil
	}
	if d.Size > image.MaxConfigSize {
		return nil, fmt.Errorf("the image's configuration has %d bytes, more than %d", d.Size, image.MaxConfigSize)
	}
	rc, from, err := p.f.Blob(ctx, p.ref, d, 0)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if from != 0 {
		return nil, errors.New("the registry sends the end of the configuration instead of all of it")
	}
	raw, err := io.ReadAll(io.LimitReader(rc, d.Size))
	if err != nil {
		return nil, err
	}
	if err := d.Digest.Check("configuration of "+p.ref.Familiar(), raw); err != nil {
		return nil, err
	}
	return raw, p.s.putBlob(d.Digest, raw)
}

// layer gets the blob of layer i and the unpacked layer, each unless it is here.
func (p *pull) layer(ctx context.Context, i int, id image.Digest) error {
	d := p.r.Manifest.Layers[i]
	if p.s.hasBlob(d.Digest, d.Size) {
		err := p.local(ctx, i, id)
		if err == nil || ctx.Err() != nil || p.s.checkBlob(d.Digest) == nil {
			return err
		}
		p.s.warn(fmt.Sprintf("layer %s was damaged on the disk: it is downloaded again", d.Digest.Short()))
		if err := os.Remove(p.s.blobPath(d.Digest)); err != nil {
			return diskError(p.s.blobPath(d.Digest), err)
		}
	}
	g, err := p.s.ingestBlob(ctx, d)
	if err != nil {
		return err
	}
	if g == nil {
		return p.local(ctx, i, id)
	}
	return p.download(ctx, i, id, g)
}

// local unpacks layer i, whose blob is here.
func (p *pull) local(ctx context.Context, i int, id image.Digest) error {
	d := p.r.Manifest.Layers[i]
	lock, err := p.s.lockLayer(ctx, p.o.Mapping, id)
	if err != nil {
		return err
	}
	defer lock.Close()
	if r := p.s.readyLayer(p.o.Mapping, id, &machine{}); r != nil {
		p.made[i] = r
		p.o.Progress.Layer(i, LayerExists, d.Size)
		return nil
	}
	p.o.Progress.Layer(i, LayerUnpacking, d.Size)
	r, err := p.s.unpackBlob(ctx, d.Digest, id, p.o.Unpacking, false)
	if err != nil {
		return err
	}
	p.made[i], p.new[i] = r, true
	p.o.Progress.Layer(i, LayerDone, d.Size)
	return nil
}

// download gets the blob of layer i into g, which it closes, and unpacks it on
// the way. What an earlier attempt left may be bad: then all is done once more.
func (p *pull) download(ctx context.Context, i int, id image.Digest, g *ingest) error {
	d := p.r.Manifest.Layers[i]
	resumed, err := p.stream(ctx, i, id, g)
	if resumed && isDamage(err) {
		if err := g.restart(); err != nil {
			g.close()
			return err
		}
		_, err = p.stream(ctx, i, id, g)
	}
	switch {
	case err == nil:
		return nil
	case g.size < d.Size && !isDamage(err) && !isFull(err) && !isFull(context.Cause(ctx)):
		g.close() // to be resumed
	default:
		g.discard()
	}
	return err
}

// isDamage says that err is of the content, not of its transport.
func isDamage(err error) bool {
	bad := (*image.DigestError)(nil)
	return errors.As(err, &bad)
}

// isContent says that err, an unpacker's, may be the fault of a download that
// went wrong: reading on tells.
func isContent(err error) bool {
	limit, disk := (*layer.LimitError)(nil), (*DiskError)(nil)
	return !errors.As(err, &limit) && !errors.As(err, &disk) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, ErrUnpackerDied)
}

// stream does one attempt. resumed says that a part was here.
func (p *pull) stream(ctx context.Context, i int, id image.Digest, g *ingest) (resumed bool, err error) {
	d := p.r.Manifest.Layers[i]
	r := &blobReader{ctx: ctx, g: g, desc: d,
		open:     func(offset int64) (io.ReadCloser, int64, error) { return p.f.Blob(ctx, p.ref, d, offset) },
		progress: func(have int64) { p.o.Progress.Layer(i, LayerLoading, have) },
	}
	defer r.close()
	lock, err := p.s.lockLayer(ctx, p.o.Mapping, id)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	ready := p.s.readyLayer(p.o.Mapping, id, &machine{})
	var b *built
	if ready == nil {
		b, err = p.s.build(ctx, r, p.o.Unpacking, p.o.Unpacking.options())
	}
	if err == nil || isContent(err) {
		io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, make([]byte, blobChunk))
	}
	// What the unpacker makes of a download that failed does not matter.
	if r.err != nil && r.err != io.EOF {
		err = r.err
	} else if err != nil {
		err = fmt.Errorf("layer %s: %w", d.Digest.Short(), err)
	}
	if err == nil {
		err = p.s.keep(g, d.Digest)
	}
	if err != nil {
		if b != nil {
			p.s.drop(b, p.o.Unpacking)
		}
		return r.resumed, err
	}
	if b != nil {
		if ready, err = p.s.finish(ctx, b, id, p.o.Unpacking); err != nil {
			return false, err
		}
		p.new[i] = true
	}
	p.made[i] = ready
	p.o.Progress.Layer(i, LayerDone, d.Size)
	return r.resumed, nil
}

// newImage returns the record of an image of these parts.
func newImage(id, manifest image.Digest, mediaType string, config *image.Config, layers []image.Descriptor, made []*layerRecord) *Image {
	m := &Image{ID: id, ManifestDigest: manifest, MediaType: mediaType, Config: *config, Stored: time.Now().UTC()}
	for i, d := range layers {
		m.Layers = append(m.Layers, Layer{
			DiffID: config.RootFS.DiffIDs[i], Digest: d.Digest, Size: d.Size, MediaType: d.MediaType, Unpacked: made[i].Bytes, Plain: made[i].Plain,
		})
		m.Size += made[i].Bytes
	}
	return m
}
