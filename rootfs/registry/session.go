package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

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
