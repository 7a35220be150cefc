package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"rbox/rootfs/image"
)

// Resolve returns what ref is for platform p: its manifest, and the index that
// led to it. Digests are verified; nothing is downloaded beyond these two.
func (c *Client) Resolve(ctx context.Context, ref image.Reference, p image.Platform) (*image.Resolved, error) {
	var resolved *image.Resolved
	err := c.each(ctx, ref, func(e endpoint, s *session) (err error) {
		resolved, err = c.resolve(ctx, e, s, ref, p)
		return err
	})
	return resolved, err
}

// maxIndexDepth is how many indexes may lead from one to the next.
const maxIndexDepth = 3

func (c *Client) resolve(ctx context.Context, e endpoint, s *session, ref image.Reference, p image.Platform) (*image.Resolved, error) {
	r := &image.Resolved{Reference: ref, Platform: p.Normalize()}
	want := image.Descriptor{Digest: ref.Digest, Size: -1}
	for range maxIndexDepth + 1 {
		got, err := c.manifest(ctx, e, s, ref, want)
		if err != nil {
			return nil, err
		}
		index, manifest, err := image.Decode(got.raw, got.mediaType)
		if err != nil {
			return nil, &ManifestError{Image: ref.Familiar(), page: bytes.HasPrefix(bytes.TrimSpace(got.raw), []byte("<")), err: err}
		}
		if manifest != nil {
			r.RawManifest, r.ManifestDigest, r.MediaType = got.raw, got.digest, cmp.Or(manifest.MediaType, got.mediaType)
			r.Manifest = manifest
			return r, nil
		}
		if r.Index == nil {
			r.Index, r.IndexDigest = got.raw, got.digest
		}
		want, err = index.Select(p)
		if err != nil {
			var none *image.NoPlatformError
			if errors.As(err, &none) {
				none.Image = ref.Familiar()
			}
			return nil, err
		}
		if want.Platform != nil {
			r.Platform = want.Platform.Normalize()
		}
	}
	return nil, &ManifestError{Image: ref.Familiar(), err: fmt.Errorf("more than %d indexes lead from one to the next", maxIndexDepth)}
}

// ManifestError reports a manifest or index that cannot be used.
type ManifestError struct {
	Image string
	page  bool // it is a page for browsers
	err   error
}

func (e *ManifestError) Error() string { return e.Image + ": " + oneLine(e.err.Error()) }

func (e *ManifestError) Unwrap() error { return e.err }

// Hint is what the user can do.
func (e *ManifestError) Hint() string {
	var hinted interface{ Hint() string }
	if errors.As(e.err, &hinted) {
		return hinted.Hint()
	}
	if e.page {
		return "something answers in the registry's place: a proxy, or the login page of a network"
	}
	return "the image is damaged in the registry: ask whoever pushed it"
}

type rawManifest struct {
	raw       []byte
	digest    image.Digest
	mediaType string
}

// manifest fetches and verifies want, or what ref's tag names where want has
// no digest. want.Size is -1 if unknown.
func (c *Client) manifest(ctx context.Context, e endpoint, s *session, ref image.Reference, want image.Descriptor) (*rawManifest, error) {
	id := cmp.Or(string(want.Digest), ref.Tag)
	for n := 0; ; n++ {
		got, err := c.manifestOnce(ctx, e, s, id)
		if err == nil {
			err = got.verify(ref, want)
			return got, err
		}
		if n >= c.pace.retries || ctx.Err() != nil || !isBodyError(err) {
			return nil, err
		}
		if err := c.pace.pause(ctx, n, 0, e.host, "the connection broke off"); err != nil {
			return nil, err
		}
	}
}

// bodyError marks a failure while the body arrived: the retrier saw only the
// header, so asking again is ours to do.
type bodyError struct{ error }

func (e bodyError) Unwrap() error { return e.error }

func isBodyError(err error) bool {
	var body bodyError
	return errors.As(err, &body) && isPassing(err)
}

func (c *Client) manifestOnce(ctx context.Context, e endpoint, s *session, id string) (*rawManifest, error) {
	ctx, body := watch(ctx, c.o.stall)
	defer body.Close()
	req, err := manifestRequest(ctx, http.MethodGet, e, id)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	body.inner = resp.Body
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(body, image.MaxManifestSize+1))
	if err != nil {
		return nil, bodyError{err}
	}
	m := &rawManifest{raw: raw, mediaType: resp.Header.Get("Content-Type")}
	if len(raw) <= image.MaxManifestSize { // else Decode refuses it, and its hash is nobody's concern
		m.digest = image.DigestOf(raw)
		if announced, err := image.ParseDigest(resp.Header.Get(digestHeader)); err == nil {
			return m, announced.Check("the manifest from "+e.registry, raw)
		}
	}
	return m, nil
}

// digestHeader is where registries say what they send.
const digestHeader = "Docker-Content-Digest"

// verify checks m against the descriptor that led to it.
func (m *rawManifest) verify(ref image.Reference, want image.Descriptor) error {
	if len(m.raw) > image.MaxManifestSize {
		return nil // Decode has the better words
	}
	if want.Size >= 0 && want.Size != int64(len(m.raw)) {
		return &ManifestError{Image: ref.Familiar(), err: fmt.Errorf("the manifest has %d bytes, not %d as announced", len(m.raw), want.Size)}
	}
	if want.Digest == "" {
		return nil
	}
	m.digest = want.Digest
	return want.Digest.Check("the manifest of "+ref.Familiar(), m.raw)
}

func manifestRequest(ctx context.Context, method string, e endpoint, id string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.url("manifests", id), nil)
	if err != nil {
		return nil, err
	}
	for _, t := range []string{image.OCIIndex, image.OCIManifest, image.DockerIndex, image.DockerManifest} {
		req.Header.Add("Accept", t)
	}
	return req, nil
}

// Head returns the digest of what ref names now: of the index where there is
// one, so that it compares with Resolved.Digest. It costs one small request.
func (c *Client) Head(ctx context.Context, ref image.Reference) (image.Digest, error) {
	if ref.Digest != "" {
		return ref.Digest, nil
	}
	var digest image.Digest
	err := c.each(ctx, ref, func(e endpoint, s *session) error {
		req, err := manifestRequest(ctx, http.MethodHead, e, ref.Tag)
		if err != nil {
			return err
		}
		resp, err := s.http.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		digest, err = image.ParseDigest(resp.Header.Get(digestHeader))
		if resp.StatusCode == http.StatusOK && err == nil {
			return nil
		}
		// Some registries have no HEAD, or no digest in it; and only GET tells why it fails.
		m, err := c.manifest(ctx, e, s, ref, image.Descriptor{Size: -1})
		if err == nil {
			digest = m.digest
		}
		return err
	})
	return digest, err
}
