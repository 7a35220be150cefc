package tests

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"rbox/tests/registry"
)

// newServer serves h on 127.0.0.1 until the test ends, and returns its host:port.
func newServer(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// frontOf puts between in front of a registry. between answers itself, or has
// next do it.
func frontOf(r *registry.Registry, between func(w http.ResponseWriter, req *http.Request, next http.Handler)) http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(req *httputil.ProxyRequest) {
		req.SetURL(&url.URL{Scheme: "http", Host: r.Addr})
	}}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { between(w, req, proxy) })
}

// stall is a registry whose blobs never come to an end.
type stall struct {
	addr  string
	asked chan struct{} // gets a value for each blob asked for
}

func newStall(t testing.TB, r *registry.Registry) *stall {
	t.Helper()
	s := &stall{asked: make(chan struct{}, 100)}
	over := make(chan struct{})
	s.addr = newServer(t, frontOf(r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if !strings.Contains(req.URL.Path, "/blobs/") {
			next.ServeHTTP(w, req)
			return
		}
		s.asked <- struct{}{}
		select {
		case <-req.Context().Done():
		case <-over:
		}
	}))
	t.Cleanup(func() { close(over) }) // before the server waits for its connections
	return s
}

// wait waits until a blob is asked for.
func (s *stall) wait(t testing.TB) {
	t.Helper()
	select {
	case <-s.asked:
	case <-time.After(20 * time.Second * run.patience):
		t.Fatal("no blob is asked for")
	}
}
