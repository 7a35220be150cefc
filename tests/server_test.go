package tests

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

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
