// Package registry runs Debian's docker-registry on 127.0.0.1 and fills it.
package registry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Options choose what a registry asks of its clients.
type Options struct {
	TLS            bool   // HTTPS with a certificate signed by CAFile
	User, Password string // HTTP basic authentication, if User is not ""
}

// Registry is a docker-registry that runs until Close.
type Registry struct {
	Addr   string // host:port
	CAFile string // with TLS, the certificate to trust
	Dir    string // holds the registry's files and its log

	opts      Options
	transport http.RoundTripper
	cmd       *exec.Cmd
}

// Start starts a registry with its state in dir, which exists, and waits until it answers.
func Start(dir string, o Options) (*Registry, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &Registry{Addr: fmt.Sprintf("127.0.0.1:%d", port), Dir: dir, opts: o, transport: http.DefaultTransport}
	config, err := r.config()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd = exec.Command("docker-registry", "serve", file)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.Env = []string{"PATH=/usr/bin:/bin", "OTEL_TRACES_EXPORTER=none"}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	if err := r.waitReady(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close ends the registry.
func (r *Registry) Close() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// config writes what the configuration refers to and returns it.
func (r *Registry) config() ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "version: 0.1\nlog: {level: warn}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\n", filepath.Join(r.Dir, "data"))
	fmt.Fprintf(&b, "http:\n  addr: %s\n  secret: of-no-use\n", r.Addr)
	if r.opts.TLS {
		cert, key, err := r.writeCertificate()
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "  tls: {certificate: %s, key: %s}\n", cert, key)
	}
	if r.opts.User != "" {
		out, err := exec.Command("htpasswd", "-Bbn", r.opts.User, r.opts.Password).Output()
		if err != nil {
			return nil, fmt.Errorf("htpasswd: %w", err)
		}
		file := filepath.Join(r.Dir, "htpasswd")
		if err := os.WriteFile(file, out, 0o600); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "auth:\n  htpasswd: {realm: tests, path: %s}\n", file)
	}
	return b.Bytes(), nil
}

// writeCertificate makes a certificate for 127.0.0.1 that signs itself, and the
// transport that trusts it.
func (r *Registry) writeCertificate() (certFile, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rbox tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", "", err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", "", err
	}
	r.CAFile, keyFile = filepath.Join(r.Dir, "ca.crt"), filepath.Join(r.Dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(r.CAFile, certPEM, 0o644); err != nil {
		return "", "", err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	r.transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	return r.CAFile, keyFile, os.WriteFile(keyFile, keyPEM, 0o600)
}

func (r *Registry) waitReady() error {
	scheme := "http"
	if r.opts.TLS {
		scheme = "https"
	}
	client := &http.Client{Transport: r.transport, Timeout: time.Second}
	var last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(scheme + "://" + r.Addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			return nil
		}
		last = err
	}
	log, _ := os.ReadFile(filepath.Join(r.Dir, "log"))
	return fmt.Errorf("docker-registry does not answer: %w\n%s", last, log)
}

// Push uploads img as repo ("name" or "name:tag"); Ref is its full name.
func (r *Registry) Push(repo string, img v1.Image) error {
	ref, err := name.ParseReference(r.Ref(repo), name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, r.remoteOptions()...)
}

// PushIndex uploads index, with its images, as repo.
func (r *Registry) PushIndex(repo string, index v1.ImageIndex) error {
	ref, err := name.ParseReference(r.Ref(repo), name.Insecure)
	if err != nil {
		return err
	}
	return remote.WriteIndex(ref, index, r.remoteOptions()...)
}

// Ref returns repo with the registry's address in front.
func (r *Registry) Ref(repo string) string { return r.Addr + "/" + repo }

func (r *Registry) remoteOptions() []remote.Option {
	auth := authn.Anonymous
	if r.opts.User != "" {
		auth = &authn.Basic{Username: r.opts.User, Password: r.opts.Password}
	}
	return []remote.Option{remote.WithAuth(auth), remote.WithTransport(r.transport)}
}

// freePort returns a port of 127.0.0.1 that nothing listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
