package registry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rbox/rootfs/image"
)

// server is Debian's docker-registry, run for one test.
type server struct {
	host           string // host:port
	user, password string // of its htpasswd file, if any
	client         *http.Client
	scheme         string
	ca             []byte // PEM, with TLS
}

// startRegistry runs docker-registry, with TLS and a password if asked for.
func startRegistry(t *testing.T, withTLS, withPassword bool) *server {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed (Debian package docker-registry)")
	}
	dir := t.TempDir()
	s := &server{client: &http.Client{}, scheme: "http", host: freeAddress(t)}
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp:\n  addr: %s\n", dir, s.host)
	if withTLS {
		cert, key := s.makeCerts(t, dir)
		conf += fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", cert, key)
		s.scheme = "https"
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(s.ca)
		s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	}
	if withPassword {
		s.user, s.password = "kim", "correct horse"
		line, err := exec.Command("htpasswd", "-Bbn", s.user, s.password).Output()
		if err != nil {
			t.Skip("htpasswd is not installed (Debian package apache2-utils)")
		}
		write(t, filepath.Join(dir, "htpasswd"), string(line))
		conf += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", filepath.Join(dir, "htpasswd"))
	}
	write(t, filepath.Join(dir, "config.yml"), conf)
	cmd := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for {
		conn, err := net.Dial("tcp", s.host)
		if err == nil {
			conn.Close()
			return s
		}
		select {
		case <-ended:
			t.Fatalf("docker-registry ended: %s", log.Bytes())
		case <-time.After(5 * time.Millisecond): // there is nothing else to wait for
		}
	}
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// makeCerts makes an authority and a certificate of it for 127.0.0.1.
func (s *server) makeCerts(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   authority.NotBefore, NotAfter: authority.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	caKey, leafKey := newKey(), newKey()
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, &leafKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	s.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	cert, key = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem")
	write(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER})))
	write(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	return cert, key
}

// do sends one request and returns the answer's Location.
func (s *server) do(t *testing.T, method, url, contentType string, body []byte) string {
	t.Helper()
	if strings.HasPrefix(url, "/") {
		url = s.scheme + "://" + s.host + url
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if s.user != "" {
		req.SetBasicAuth(s.user, s.password)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if said, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s", method, url, resp.Status, said)
	}
	return resp.Header.Get("Location")
}

// push uploads what f holds under tag, an image or an index of one.
func (s *server) push(t *testing.T, f *fake, repository, tag string) {
	t.Helper()
	for digest, blob := range f.blobs {
		at := s.do(t, http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil)
		sep := "?"
		if strings.Contains(at, "?") {
			sep = "&"
		}
		s.do(t, http.MethodPut, at+sep+"digest="+string(digest), "application/octet-stream", blob)
	}
	s.do(t, http.MethodPut, "/v2/"+repository+"/manifests/"+tag, image.OCIManifest, f.mans[tag])
}

func TestRealRegistry(t *testing.T) {
	layer := bytes.Repeat([]byte("a layer of bytes "), 50_000)
	for name, tc := range map[string]struct{ tls, password bool }{
		"plain":             {},
		"password":          {password: true},
		"TLS":               {tls: true},
		"TLS with password": {tls: true, password: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := startRegistry(t, tc.tls, tc.password)
			f := newFake(t)
			manifest, d := f.add("v1", layer)
			s.push(t, f, "team/app", "v1")
			ctx, cancel := contextFor()
			defer cancel()

			o := Options{CertDirs: []string{filepath.Join(t.TempDir(), "certs.d")}}
			ref := parseRef(t, s.host+"/team/app:v1")
			if tc.tls {
				_, err := quick(t, o).Resolve(ctx, ref, amd64)
				checkError(t, err, "authority that this machine does not know", "certs.d/"+s.host)
				no := false
				if _, err := quick(t, Options{TLSVerify: &no}).Resolve(ctx, ref, amd64); err != nil && !tc.password {
					t.Errorf("without verification: %v", err)
				}
				write(t, filepath.Join(o.CertDirs[0], s.host, "ca.crt"), string(s.ca))
			}
			if tc.password {
				_, err := quick(t, o).Resolve(ctx, ref, amd64)
				checkError(t, err, s.host+": the registry wants a login", "rbox login "+s.host)
				checkError(t, quick(t, o).Login(ctx, s.host, s.user, "wrong"), "refuses the credentials of kim", "")
				if err := quick(t, o).Login(ctx, s.host, s.user, s.password); err != nil {
					t.Errorf("login: %v", err)
				}
				o.Credentials = credentialsFor(t, s.host+"/team", s.user, s.password)
			}

			c := quick(t, o)
			r, err := c.Resolve(ctx, ref, amd64)
			if err != nil {
				t.Fatal(err)
			}
			if r.ManifestDigest != image.DigestOf(manifest) || r.Index != nil {
				t.Errorf("got %+v", r)
			}
			if head, err := c.Head(ctx, ref); err != nil || head != r.Digest() {
				t.Errorf("head %s, %v", head, err)
			}
			for _, offset := range []int64{0, 400_001, d.Size} {
				got, from, err := readBlob(c, ref, d, offset)
				if err != nil || from != offset || !bytes.Equal(got, layer[offset:]) {
					t.Errorf("from %d: got %d bytes from %d, %v", offset, len(got), from, err)
				}
			}
			_, err = c.Resolve(ctx, parseRef(t, s.host+"/team/app:v2"), amd64)
			checkError(t, err, "no such image or tag", "spelling")
			_, err = c.Resolve(ctx, ref.WithDigest(image.DigestOf([]byte("none"))), amd64)
			checkError(t, err, "no such image", "")
		})
	}
}

func TestRealRegistryByLocalhostName(t *testing.T) {
	s := startRegistry(t, false, false)
	f := newFake(t)
	f.add("v1", []byte("layer"))
	s.push(t, f, "x", "v1")
	_, port, _ := net.SplitHostPort(s.host)
	if _, err := quick(t, Options{}).Resolve(context.Background(), parseRef(t, "localhost:"+port+"/x:v1"), amd64); err != nil {
		t.Error(err)
	}
	yes := true
	if _, err := quick(t, Options{TLSVerify: &yes}).Resolve(context.Background(), parseRef(t, "localhost:"+port+"/x:v1"), amd64); err != nil {
		t.Errorf("plain HTTP on this machine needs no TLS: %v", err)
	}
}

func TestClientCertificate(t *testing.T) {
	s, dir := &server{}, t.TempDir()
	cert, key := s.makeCerts(t, dir)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.ca)
	f := newFake(t)
	f.add("v1", []byte("layer"))
	front := httptest.NewUnstartedServer(f)
	front.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.StartTLS()
	defer front.Close()
	host := strings.TrimPrefix(front.URL, "https://")

	certs := filepath.Join(dir, "certs.d")
	write(t, filepath.Join(certs, host, "ca.crt"), string(s.ca))
	resolve := func() error {
		_, err := quick(t, Options{CertDirs: []string{certs}}).Resolve(context.Background(), parseRef(t, host+"/x:v1"), amd64)
		return err
	}
	checkError(t, resolve(), "certificate required", "NAME.cert")
	copyFile := func(from, to string) {
		raw, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(certs, host, to), string(raw))
	}
	copyFile(cert, "me.cert")
	checkError(t, resolve(), "me.key", "NAME.key")
	copyFile(key, "me.key")
	if err := resolve(); err != nil {
		t.Error(err)
	}
	write(t, filepath.Join(certs, host, "other.crt"), "no certificate")
	checkError(t, resolve(), "other.crt holds no certificate", "PEM")
}

// The proxy's address is read once per process, so a process of its own asks.
func TestProxy(t *testing.T) {
	f := newFake(t)
	f.add("v1", []byte("layer"))
	if proxied := os.Getenv("TEST_PROXIED"); proxied != "" {
		no := false
		_, err := quick(t, Options{TLSVerify: &no, Retries: -1}).Resolve(context.Background(), parseRef(t, "registry.invalid/x:v1"), amd64)
		if (err == nil) != (proxied == "yes") {
			t.Errorf("got %v", err)
		}
		return
	}
	for proxied, noProxy := range map[string]string{"yes": "", "no": "registry.invalid"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestProxy$", "-test.v")
		// A fake registry is good enough a proxy for plain HTTP: it looks at the path alone.
		cmd.Env = append(os.Environ(), "TEST_PROXIED="+proxied, "HTTP_PROXY="+f.url, "NO_PROXY="+noProxy, "no_proxy=", "HTTPS_PROXY=", "https_proxy=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("proxied %s: %v: %s", proxied, err, out)
		}
	}
	if f.requests("/v2/x/manifests/v1") != 1 {
		t.Errorf("the proxy was asked %q", f.asked)
	}
}
