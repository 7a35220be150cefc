//go:build !front

package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"rbox/rootfs/image"
	"rbox/rootfs/layer"
)

// ImportOptions says what image Import makes.
type ImportOptions struct {
	Unpacking
	Reference *image.Reference // its name, or nil for none
	Changes   []string         // lines of a Dockerfile, as ParseChange reads them
	Message   string           // for its history
	Platform  image.Platform
}

// Import makes an image of one layer from the archive of a root file system: a
// tar, packed with gzip, zstd, xz or bzip2, or not at all.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	config := &image.Config{Architecture: o.Platform.Arch, Variant: o.Platform.Variant, OS: o.Platform.OS}
	for _, line := range o.Changes {
		if err := applyChange(&config.Config, line); err != nil {
			return nil, err
		}
	}
	release, err := s.adding(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	s.cleanBuilds(ctx, o.Unpacking)
	in, err := s.ingestLayer(ctx, r, "", o.Unpacking)
	if err != nil {
		return nil, err
	}
	created := time.Now().UTC()
	config.Created = &created
	config.RootFS = image.RootFS{Type: "layers", DiffIDs: []image.Digest{in.record.DiffID}}
	config.History = []image.History{{Created: &created, CreatedBy: "rbox import", Comment: o.Message}}
	config.Comment = o.Message
	return s.assemble(ctx, config, []ingested{*in}, o.Reference)
}

// assemble records the image of config with layers, under name unless that is nil.
func (s *Store) assemble(ctx context.Context, config *image.Config, layers []ingested, name *image.Reference) (*Image, error) {
	raw, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	return s.assembleRaw(ctx, raw, config, layers, name)
}

// assembleRaw is assemble with the configuration as it was sent, raw.
func (s *Store) assembleRaw(ctx context.Context, raw []byte, config *image.Config, layers []ingested, name *image.Reference) (*Image, error) {
	manifest := image.Manifest{
		SchemaVersion: 2, MediaType: image.OCIManifest,
		Config: image.Descriptor{MediaType: image.OCIConfig, Digest: image.DigestOf(raw), Size: int64(len(raw))},
		Layers: []image.Descriptor{},
	}
	var made []*layerRecord
	for _, l := range layers {
		manifest.Layers = append(manifest.Layers, l.blob)
		made = append(made, l.record)
	}
	rawManifest, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	digest := image.DigestOf(rawManifest)
	if err := errors.Join(s.putBlob(manifest.Config.Digest, raw), s.putBlob(digest, rawManifest)); err != nil {
		return nil, err
	}
	var unmapped int64
	for _, r := range made {
		unmapped += r.Unmapped
	}
	s.noticeUnmapped("image "+manifest.Config.Digest.Short(), unmapped)
	m := newImage(manifest.Config.Digest, digest, manifest.MediaType, config, manifest.Layers, made)
	to := ""
	if name != nil {
		to = name.String()
	}
	return m, s.commit(ctx, m, to, "")
}

// An ingested is a layer that came from an archive.
type ingested struct {
	blob   image.Descriptor
	record *layerRecord
}

// ingestLayer keeps the layer r, an archive in any packing, as a blob, and
// unpacks it on the way. gzip, zstd and plain archives are kept as they are;
// what only import knows is packed anew. The layer must be want unless that is
// empty.
func (s *Store) ingestLayer(ctx context.Context, r io.Reader, want image.Digest, u Unpacking) (*ingested, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(6)
	if err == io.EOF && len(head) == 0 {
		return nil, errors.New("the archive is empty")
	}
	if err != nil && err != io.EOF {
		return nil, err
	}
	src := io.Reader(br)
	mediaType := mediaTypes[layer.Sniff(head)]
	if mediaType == "" {
		mediaType = mediaTypes[layer.Zstd]
		repacked := repack(br)
		defer repacked.Close()
		src = repacked
	}
	g, err := s.ingestUnknown(ctx)
	if err != nil {
		return nil, err
	}
	l, err := s.ingestAs(ctx, g, src, mediaType, want, u)
	if err != nil {
		g.discard()
		return nil, err
	}
	return l, nil
}

var mediaTypes = map[layer.Compression]string{
	layer.Plain: image.OCILayer, layer.Gzip: image.OCILayerGzip, layer.Zstd: image.OCILayerZstd,
}

// repack turns an archive packed with anything into one packed with zstd.
func repack(r io.Reader) *io.PipeReader {
	out, in := io.Pipe()
	go func() { in.CloseWithError(repackTo(in, r)) }()
	return out
}

func repackTo(w io.Writer, r io.Reader) error {
	plain, _, err := layer.Decompress(r)
	if err != nil {
		return err
	}
	defer plain.Close()
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, plain); err != nil {
		return err
	}
	return z.Close()
}

func (s *Store) ingestAs(ctx context.Context, g *ingest, src io.Reader, mediaType string, want image.Digest, u Unpacking) (*ingested, error) {
	t := &teeReader{ctx: ctx, r: src, g: g}
	b, err := s.build(ctx, t, u, u.options())
	if t.err != nil && t.err != io.EOF {
		err = t.err
	}
	if err == nil {
		_, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{t}, make([]byte, blobChunk))
	}
	if err == nil && want != "" && b.res.DiffID != want {
		err = &image.DigestError{What: "layer", Want: want, Got: b.res.DiffID}
	}
	d := image.Descriptor{MediaType: mediaType, Size: g.size, Digest: image.DigestOf(nil).DigestFrom(g.hash)}
	if err == nil {
		err = s.keep(g, d.Digest)
	}
	if err != nil {
		if b != nil {
			s.drop(b, u)
		}
		return nil, err
	}
	record, err := s.settle(ctx, b, u)
	return &ingested{blob: d, record: record}, err
}

// settle puts b in its place unless the same layer is there already.
func (s *Store) settle(ctx context.Context, b *built, u Unpacking) (*layerRecord, error) {
	lock, err := s.lockLayer(ctx, u.Mapping, b.res.DiffID)
	if err != nil {
		s.drop(b, u)
		return nil, err
	}
	defer lock.Close()
	if r := s.readyLayer(u.Mapping, b.res.DiffID, &machine{}); r != nil {
		s.drop(b, u)
		return r, nil
	}
	return s.finish(ctx, b, b.res.DiffID, u)
}

// A teeReader hands on what it reads of r to g.
type teeReader struct {
	ctx context.Context
	r   io.Reader
	g   *ingest
	err error // that ended the reading
}

func (t *teeReader) Read(p []byte) (int, error) {
	if t.err == nil {
		t.err = t.ctx.Err()
	}
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.r.Read(p)
	if n > 0 {
		if _, werr := t.g.Write(p[:n]); werr != nil {
			err = werr
		}
	}
	t.err = err
	return n, err
}

// A ChangeError reports a change to an image's configuration that makes no sense.
type ChangeError struct{ Line, Why string }

func (e *ChangeError) Error() string { return fmt.Sprintf("change %q: %s", e.Line, e.Why) }

// Hint is what the user can do.
func (e *ChangeError) Hint() string {
	return "changes are lines of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR"
}

// applyChange changes c by one line in the form of a Dockerfile's, "CMD
// ["sh"]", or with an equals sign for the first space, as Podman has it.
func applyChange(c *image.ContainerConfig, line string) error {
	word, rest := cutChange(line)
	fail := func(why string) error { return &ChangeError{Line: line, Why: why} }
	if rest == "" {
		return fail("it has no value")
	}
	switch strings.ToUpper(word) {
	case "CMD":
		c.Cmd = commandWords(rest)
	case "ENTRYPOINT":
		c.Entrypoint = commandWords(rest)
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = rest
	case "STOPSIGNAL":
		c.StopSignal = rest
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "HEALTHCHECK":
		h, err := healthcheck(rest)
		if err != nil {
			return fail(err.Error())
		}
		c.Healthcheck = h
	case "ENV":
		return eachPair(line, rest, func(key, value string) {
			c.Env = setEnv(c.Env, key, value)
		})
	case "LABEL":
		return eachPair(line, rest, func(key, value string) {
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[key] = value
		})
	case "EXPOSE":
		for _, port := range strings.Fields(rest) {
			if !strings.Contains(port, "/") {
				port += "/tcp"
			}
			c.ExposedPorts = with(c.ExposedPorts, port)
		}
	case "VOLUME":
		for _, dir := range volumeWords(rest) {
			c.Volumes = with(c.Volumes, dir)
		}
	default:
		return fail("there is no such instruction")
	}
	return nil
}

// cutChange splits line after its first word, at white space or an equals sign.
func cutChange(line string) (word, rest string) {
	line = strings.TrimSpace(line)
	i := strings.IndexAny(line, " \t=")
	if i < 0 {
		return line, ""
	}
	return line[:i], strings.TrimSpace(line[i+1:])
}

// commandWords reads a command as a Dockerfile has it: a JSON list, or a line for the shell.
func commandWords(s string) image.Words {
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	return image.Words{"/bin/sh", "-c", s}
}

func volumeWords(s string) []string {
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	return strings.Fields(s)
}

func with(set map[string]struct{}, key string) map[string]struct{} {
	if set == nil {
		set = map[string]struct{}{}
	}
	set[key] = struct{}{}
	return set
}

func setEnv(env []string, key, value string) []string {
	for i, e := range env {
		if name, _, _ := strings.Cut(e, "="); name == key {
			env[i] = key + "=" + value
			return env
		}
	}
	return append(env, key+"="+value)
}

// eachPair calls f for each NAME=value of s, in which values may be quoted, or
// for the one pair of the old form "NAME value".
func eachPair(line, s string, f func(key, value string)) error {
	words, err := splitWords(s)
	if err != nil {
		return &ChangeError{Line: line, Why: err.Error()}
	}
	if !strings.Contains(words[0], "=") {
		key, value, ok := strings.Cut(s, " ")
		if !ok {
			return &ChangeError{Line: line, Why: "a value is missing: NAME=value"}
		}
		f(key, strings.TrimSpace(value))
		return nil
	}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok || key == "" {
			return &ChangeError{Line: line, Why: fmt.Sprintf("%q is not NAME=value", word)}
		}
		f(key, value)
	}
	return nil
}

// splitWords splits s at white space that is neither quoted nor escaped, and
// takes quotes and escapes off.
func splitWords(s string) ([]string, error) {
	var (
		words  []string
		word   strings.Builder
		inWord bool
		quote  byte
	)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			word.WriteByte(s[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("it has no value")
	}
	return words, nil
}
