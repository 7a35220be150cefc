// Package registry fetches images from registries that speak the OCI
// distribution protocol, and logs in to them.
package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"rbox/rootfs/image"
)

// Options say how a Client treats registries. The zero value will do for
// anonymous pulls from a machine without configuration.
type Options struct {
	Config      *Config      // registries.conf; nil is none
	Credentials *Credentials // nil is none
	TLSVerify   *bool        // false: any certificate and plain HTTP will do; true: never; nil: as Config says
	CertDirs    []string     // certs.d directories, as of CertDirs
	UserAgent   string       // sent with each request, as in "rbox/1.0"
	Warn        func(string) // told of long waits and passed-over mirrors; from any goroutine; nil: nobody
	Retries     int          // after a failed attempt that may pass; 0 is the default of 5, negative is none

	backoff time.Duration // first wait between attempts; 0 is half a second
	stall   time.Duration // a body that is silent for so long is asked for again; 0 is 30 s
}

// CertDirs returns the directories in which containers-certs.d(5) and Docker
// look for a registry's certificates, the user's first.
func CertDirs(getenv func(string) string) []string {
	return []string{
		filepath.Join(configHome(getenv), "containers", "certs.d"),
		"/etc/containers/certs.d",
		"/etc/docker/certs.d",
	}
}

// Client talks to registries. Its methods may be called side by side.
type Client struct {
	o                Options
	pace             pace
	secure, insecure *hosts

	mu       sync.Mutex
	sessions map[endpoint]*session
	served   map[string]int // by repository, which endpoint answered last
}

// New returns a Client. It does nothing yet.
func New(o Options) *Client {
	o.Config = cmp.Or(o.Config, new(Config))
	o.Credentials = cmp.Or(o.Credentials, &Credentials{})
	o.UserAgent = cmp.Or(o.UserAgent, "rbox")
	o.Retries = cmp.Or(o.Retries, 5)
	o.backoff = cmp.Or(o.backoff, 500*time.Millisecond)
	o.stall = cmp.Or(o.stall, 30*time.Second)
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.Credentials.warn == nil {
		o.Credentials.warn = o.Warn
	}
	return &Client{
		o:        o,
		pace:     pace{retries: o.Retries, base: o.backoff, warn: o.Warn},
		secure:   newHosts(false, o.CertDirs),
		insecure: newHosts(true, o.CertDirs),
		sessions: make(map[endpoint]*session),
		served:   make(map[string]int),
	}
}

// session is an authenticated way to one repository.
type session struct {
	mu    sync.Mutex // held while logging in
	http  *http.Client
	login login
}

// login is what explain must know of who asked.
type login struct {
	user  string // whose credentials were sent, "" if none
	basic bool   // the registry takes passwords itself, for all it has, not tokens per repository
}

// session logs in to e for pulling, once. The error is explained for what.
func (c *Client) session(ctx context.Context, e endpoint, what string) (*session, error) {
	if c.o.TLSVerify != nil {
		e.insecure = !*c.o.TLSVerify
	}
	c.mu.Lock()
	s := c.sessions[e]
	if s == nil {
		s = new(session)
		c.sessions[e] = s
	}
	c.mu.Unlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return s, nil
	}
	auth := c.o.Credentials.Lookup(ctx, e.registry, e.repository)
	client, who, err := c.connect(ctx, e, auth, "repository:"+e.repository+":pull")
	var status *transport.Error
	if errors.As(err, &status) && status.StatusCode == http.StatusNotFound {
		return nil, &StatusError{Registry: e.registry, Status: status.StatusCode, Why: "there is no registry", hint: "check the name of the registry: " + e.host}
	}
	if err != nil {
		return nil, explain(e, what, who, err)
	}
	s.http, s.login = client, who
	return s, nil
}

// connect finds out how e is spoken to (TLS or not, which login) and returns a
// client that does so, with the scopes given where tokens are used.
func (c *Client) connect(ctx context.Context, e endpoint, auth authn.AuthConfig, scopes ...string) (*http.Client, login, error) {
	who := login{user: userOf(auth)}
	var options []name.Option
	if e.insecure || isLoopback(e.host) {
		options = append(options, name.Insecure) // TLS first, plain where there is none
	}
	reg, err := name.NewRegistry(e.host, options...)
	if err != nil {
		return nil, who, err
	}
	authenticator := authn.Anonymous
	if auth != (authn.AuthConfig{}) {
		authenticator = authn.FromConfig(auth)
	}
	base := c.secure
	if e.insecure {
		base = c.insecure
	}
	challenge := &challengeWatch{inner: &retrier{inner: base, pace: c.pace}}
	inner := transport.NewUserAgent(challenge, c.o.UserAgent)
	rt, err := transport.NewWithContext(ctx, reg, authenticator, inner, scopes)
	who.basic = challenge.basic.Load()
	if err != nil {
		return nil, who, err
	}
	return &http.Client{Transport: rt, CheckRedirect: checkRedirect(e.insecure)}, who, nil
}

// challengeWatch is an http.RoundTripper that remembers whether a server asked
// for a password (RFC 7617).
type challengeWatch struct {
	inner http.RoundTripper
	basic atomic.Bool
}

// RoundTrip passes req on.
func (w *challengeWatch) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.inner.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		scheme, _, _ := strings.Cut(resp.Header.Get("WWW-Authenticate"), " ")
		if strings.EqualFold(scheme, "basic") {
			w.basic.Store(true)
		}
	}
	return resp, err
}

func userOf(auth authn.AuthConfig) string {
	switch {
	case auth.Username != "":
		return auth.Username
	case auth != (authn.AuthConfig{}):
		return "a stored token"
	}
	return ""
}

// url returns the address of a manifest or blob of e. The scheme is set right
// on the way, by the session.
func (e endpoint) url(kind, id string) string {
	return fmt.Sprintf("https://%s/v2/%s/%s/%s", e.host, e.repository, kind, id)
}

// each calls try for the places that may hold ref, until one succeeds, the one
// that served this repository before first. What mirrors fail with is only told.
func (c *Client) each(ctx context.Context, ref image.Reference, try func(endpoint, *session) error) error {
	list, err := c.o.Config.endpoints(ref)
	if err != nil {
		return err
	}
	c.mu.Lock()
	start := c.served[ref.Name()] % len(list)
	c.mu.Unlock()
	var failure error
	for n := range list {
		i := (start + n) % len(list)
		e := list[i]
		s, err := c.session(ctx, e, ref.Familiar())
		if err == nil {
			err = explain(e, ref.Familiar(), s.login, try(e, s))
		}
		if err == nil {
			c.mu.Lock()
			c.served[ref.Name()] = i
			c.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.mirror {
			c.o.Warn(fmt.Sprintf("mirror passed over: %v", err))
		}
		if failure == nil || !e.mirror {
			failure = err
		}
	}
	return failure
}

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

// Limits on lists of tags.
const (
	maxTagsPage = 4 << 20 // bytes
	maxTagPages = 1000
)

// Tags returns all tags of ref's repository, in the registry's order.
func (c *Client) Tags(ctx context.Context, ref image.Reference) ([]string, error) {
	var tags []string
	err := c.each(ctx, ref, func(e endpoint, s *session) error {
		tags = nil
		next := fmt.Sprintf("https://%s/v2/%s/tags/list?n=1000", e.host, e.repository)
		for range maxTagPages {
			page, link, err := tagsPage(ctx, s.http, next)
			if err != nil {
				return err
			}
			tags = append(tags, page...)
			if link == "" || len(page) == 0 {
				return nil
			}
			if next, err = nextPage(e, next, link); err != nil {
				return err
			}
		}
		return fmt.Errorf("the list of tags has more than %d pages", maxTagPages)
	})
	for _, tag := range tags {
		if _, err := image.ParseReference("x:" + tag); err != nil {
			return nil, &ManifestError{Image: ref.Familiar(), err: fmt.Errorf("the registry lists a tag that is none: %w", err)}
		}
	}
	return tags, err
}

func tagsPage(ctx context.Context, client *http.Client, url string) (tags []string, link string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	var page struct{ Tags []string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTagsPage)).Decode(&page); err != nil {
		return nil, "", fmt.Errorf("list of tags: %w", err)
	}
	return page.Tags, resp.Header.Get("Link"), nil
}

// nextPage reads a header like `</v2/x/tags/list?last=b>; rel="next"`. The
// next page must be of the same registry.
func nextPage(e endpoint, current, link string) (string, error) {
	target, _, found := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	base, err := url.Parse(current)
	if err != nil {
		return "", err
	}
	u, err := base.Parse(target)
	if err != nil || !found || u.Host != e.host {
		return "", fmt.Errorf("the list of tags goes on at %q, which is not of this registry", oneLine(link))
	}
	u.Scheme = base.Scheme
	return u.String(), nil
}
