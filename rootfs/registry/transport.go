package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Limits on waiting for a server, each for one attempt.
const (
	dialTimeout   = 15 * time.Second
	tlsTimeout    = 15 * time.Second
	headerTimeout = 60 * time.Second // mirrors that fetch from elsewhere first are slow
	maxRedirects  = 10
)

// hosts is an http.RoundTripper that uses for each host the certificates that
// certs.d directories hold for it. Plain HTTP goes to this machine only, unless
// insecure: then anywhere, and no certificate is verified.
type hosts struct {
	insecure bool
	certDirs []string // directories with a subdirectory per host[:port]

	mu      sync.Mutex
	plain   *http.Transport            // for hosts without a directory
	special map[string]*http.Transport // by host[:port]; nil: use plain
}

func newHosts(insecure bool, certDirs []string) *hosts {
	return &hosts{insecure: insecure, certDirs: certDirs, special: make(map[string]*http.Transport)}
}

// RoundTrip sends req over the connections of its host. What has a body is a
// login (OAuth 2), which a redirect must not take elsewhere.
func (h *hosts) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" && !h.insecure && !isLoopback(req.URL.Host) {
		return nil, &plainError{host: req.URL.Host}
	}
	if from := req.Response; from != nil && req.Body != nil && from.Request.URL.Host != req.URL.Host {
		return nil, &RedirectError{From: from.Request.URL.Host, To: oneLine(req.URL.Host), Why: "the credentials in it are not for that host"}
	}
	t, err := h.transport(req.URL.Host)
	if err != nil {
		return nil, err
	}
	return t.RoundTrip(req)
}

// plainError reports that plain HTTP was about to be used where it must not.
type plainError struct{ host string }

func (e *plainError) Error() string { return e.host + ": plain HTTP is not allowed" }

func (h *hosts) transport(host string) (*http.Transport, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, known := h.special[host]
	if !known {
		conf, err := h.loadCerts(host)
		if err != nil {
			return nil, err
		}
		if conf != nil {
			t = newTransport(conf)
		}
		h.special[host] = t
	}
	if t != nil {
		return t, nil
	}
	if h.plain == nil {
		h.plain = newTransport(&tls.Config{InsecureSkipVerify: h.insecure})
	}
	return h.plain, nil
}

func newTransport(conf *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   tlsTimeout,
		ResponseHeaderTimeout: headerTimeout,
		MaxIdleConnsPerHost:   8, // layers come side by side
		IdleConnTimeout:       90 * time.Second,
		DisableCompression:    true, // blobs are compressed already, and Range counts plain bytes
		ForceAttemptHTTP2:     true,
		ReadBufferSize:        64 << 10,
	}
}

// loadCerts reads host's directories as containers-certs.d(5) describes:
// *.crt are authorities to trust beside the system's, and each NAME.cert with
// its NAME.key is a certificate of ours. It returns nil if there is none.
func (h *hosts) loadCerts(host string) (*tls.Config, error) {
	var conf *tls.Config
	for _, base := range h.certDirs {
		dir := filepath.Join(base, host)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // absent, or not for us to read
		}
		for _, entry := range entries {
			if conf == nil {
				conf = &tls.Config{InsecureSkipVerify: h.insecure}
			}
			if err := addCert(conf, filepath.Join(dir, entry.Name())); err != nil {
				return nil, &CertError{err: err}
			}
		}
	}
	return conf, nil
}

func addCert(conf *tls.Config, file string) error {
	switch filepath.Ext(file) {
	case ".crt":
		pem, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if conf.RootCAs == nil {
			if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
				conf.RootCAs = x509.NewCertPool()
			}
		}
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate", file)
		}
	case ".cert":
		key := strings.TrimSuffix(file, ".cert") + ".key"
		pair, err := tls.LoadX509KeyPair(file, key)
		if err != nil {
			return fmt.Errorf("%s and %s: %w", file, filepath.Base(key), err)
		}
		conf.Certificates = append(conf.Certificates, pair)
	}
	return nil
}

// CertError reports a file of a certs.d directory that cannot be used.
type CertError struct{ err error }

func (e *CertError) Error() string { return e.err.Error() }

func (e *CertError) Unwrap() error { return e.err }

// Hint is what the user can do.
func (e *CertError) Hint() string {
	return "certs.d/HOST/ holds PEM files: NAME.crt of an authority, NAME.cert and NAME.key of yours"
}

// isLoopback says that hostport is this machine by name or address.
func isLoopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// checkRedirect is an http.Client's policy: a redirect must not lose TLS,
// leave the web, or take the registry's credentials to another host.
func checkRedirect(insecure bool) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		first, last := via[0].URL, via[len(via)-1].URL
		fail := func(why string) error {
			to := *req.URL
			to.User, to.RawQuery = nil, "" // where secrets of storage services are
			return &RedirectError{From: first.Host, To: oneLine(to.String()), Why: why}
		}
		switch {
		case len(via) >= maxRedirects:
			return fail(fmt.Sprintf("the redirect after %d others", maxRedirects))
		case req.URL.Scheme == "https":
		case req.URL.Scheme != "http":
			return fail("not a web address")
		case last.Scheme == "https" && !insecure:
			return fail("that would leave TLS for plain HTTP")
		}
		if req.URL.Host != first.Host {
			req.Header.Del("Authorization")
			req.Header.Del("Cookie")
		}
		return nil
	}
}
