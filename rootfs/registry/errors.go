package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// NotFoundError reports an image that a registry does not have, or does not
// show to this user: many registries do not tell which.
type NotFoundError struct {
	Image    string // as people write it
	Registry string
	Private  bool   // the registry refused rather than say that there is none
	User     string // who was refused, "" without a login
}

func (e *NotFoundError) Error() string {
	if e.Private && e.User != "" {
		return fmt.Sprintf("%s: %s has no such image, or does not show it to %s", e.Image, e.Registry, e.User)
	}
	if e.Private {
		return fmt.Sprintf("%s: %s has no such image, or it is private", e.Image, e.Registry)
	}
	return fmt.Sprintf("%s: %s has no such image or tag", e.Image, e.Registry)
}

// Hint is what the user can do.
func (e *NotFoundError) Hint() string {
	if e.User != "" {
		return "check the spelling; if another account may use it: rbox login " + e.Registry
	}
	return "check the spelling; if the image is private: rbox login " + e.Registry
}

// AuthError reports that a registry wants credentials, or refuses those it got.
type AuthError struct {
	Registry string
	User     string // whose credentials were refused; empty if there were none
	Why      string // the registry's own words, may be empty
}

func (e *AuthError) Error() string {
	if e.User == "" {
		return e.Registry + ": the registry wants a login" + colon(e.Why)
	}
	return fmt.Sprintf("%s: the registry refuses the credentials of %s%s", e.Registry, e.User, colon(e.Why))
}

// Hint is what the user can do.
func (e *AuthError) Hint() string { return "rbox login " + e.Registry }

// ConnectionError reports that a registry, or a server that it sends us to,
// cannot be reached or breaks off.
type ConnectionError struct {
	Registry string
	Why      string
	hint     string
	err      error
}

func (e *ConnectionError) Error() string { return e.Registry + ": " + e.Why }

func (e *ConnectionError) Unwrap() error { return e.err }

// Hint is what the user can do.
func (e *ConnectionError) Hint() string { return e.hint }

// StatusError reports an answer of a registry that rbox has no better word for.
type StatusError struct {
	Registry string
	Status   int // of HTTP
	Why      string
	hint     string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: the registry answers %d %s%s", e.Registry, e.Status, http.StatusText(e.Status), colon(e.Why))
}

// Hint is what the user can do.
func (e *StatusError) Hint() string { return e.hint }

// RedirectError reports a redirect that rbox does not follow.
type RedirectError struct{ From, To, Why string }

func (e *RedirectError) Error() string {
	return fmt.Sprintf("%s sends us to %s: %s", e.From, e.To, e.Why)
}

// Hint is what the user can do.
func (e *RedirectError) Hint() string {
	return "if you trust the registry and the network: --tls-verify=false"
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

const offlineHint = "check the network (behind a proxy: HTTPS_PROXY); without one: rbox run host sh"

// explain turns whatever an attempt to use e failed with into one of the
// errors above. what names the image or the registry that was asked for.
func explain(e endpoint, what string, who login, err error) error {
	if err == nil || isOurs(err) || errors.Is(err, context.Canceled) {
		return err
	}
	var status *transport.Error
	if errors.As(err, &status) && !isHandshake(err) {
		return explainStatus(e, what, who, status)
	}
	why, hint := explainConnection(e, err)
	return &ConnectionError{Registry: e.registry, Why: why, hint: hint, err: err}
}

func isOurs(err error) bool {
	var hinted interface{ Hint() string }
	return errors.As(err, &hinted)
}

// isHandshake says that a server speaks TLS but that we cannot agree, whatever
// plain HTTP gave when it was tried next.
func isHandshake(err error) bool {
	var bad *tls.CertificateVerificationError
	var op *net.OpError
	return errors.As(err, &bad) || errors.As(err, &op) && op.Op == "remote error"
}

func explainStatus(e endpoint, what string, who login, err *transport.Error) error {
	why := registryWords(err)
	switch err.StatusCode {
	case http.StatusNotFound:
		return &NotFoundError{Image: what, Registry: e.registry}
	case http.StatusUnauthorized, http.StatusForbidden:
		// A token, or a refusal of one, is for one repository: it may not exist.
		if what != e.registry && !who.basic {
			return &NotFoundError{Image: what, Registry: e.registry, Private: true, User: who.user}
		}
		return &AuthError{Registry: e.registry, User: who.user, Why: why}
	case http.StatusTooManyRequests:
		return &StatusError{Registry: e.registry, Status: err.StatusCode, Why: why,
			hint: "wait, or log in for a higher limit: rbox login " + e.registry}
	}
	return &StatusError{Registry: e.registry, Status: err.StatusCode, Why: why, hint: "try again later, or ask whoever runs " + e.registry}
}

// registryWords returns what the registry says of an error, fit for one line.
func registryWords(err *transport.Error) string {
	for _, d := range err.Errors {
		if d.Message != "" {
			return oneLine(d.Message)
		}
		if d.Code != "" {
			return oneLine(strings.ToLower(string(d.Code)))
		}
	}
	_, text, found := strings.Cut(err.Error(), http.StatusText(err.StatusCode)+": ")
	if !found || strings.Contains(text, "<") { // a page for browsers
		return ""
	}
	return oneLine(text)
}

func explainConnection(e endpoint, err error) (why, hint string) {
	var (
		dns       *net.DNSError
		op        *net.OpError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		stalled   *stallError
		web       *url.Error
	)
	isOp := func(name string) bool { return errors.As(err, &op) && op.Op == name }
	switch {
	case errors.As(err, &dns):
		return "cannot find the address of " + oneLine(dns.Name), offlineHint
	case errors.As(err, &authority):
		return "its certificate is signed by an authority that this machine does not know", certHint(e)
	case errors.As(err, &host):
		return "its certificate belongs to another name: " + oneLine(host.Error()), certHint(e)
	case errors.As(err, &invalid):
		return "its certificate is not valid: " + oneLine(invalid.Error()), certHint(e)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it speaks plain HTTP, not TLS", "if you trust the network: --tls-verify=false, or insecure = true for it in registries.conf"
	case isOp("remote error"): // crypto/tls: the server's alert
		return "it ends the connection: " + oneLine(op.Err.Error()), "a client's certificate goes into ~/.config/containers/certs.d/" + e.host + "/ as NAME.cert and NAME.key"
	case errors.As(err, &stalled):
		return stalled.Error(), offlineHint
	case isOp("proxyconnect"):
		return "the proxy cannot be used: " + oneLine(op.Err.Error()), "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", "is the registry up, on this port? Without a network: rbox run host sh"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to the host", offlineHint
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return "no answer in time", offlineHint
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection broke off", "try again: what has arrived is kept"
	case errors.As(err, &web):
		return oneLine(web.Err.Error()), offlineHint
	}
	return oneLine(err.Error()), offlineHint
}

func certHint(e endpoint) string {
	return "put its authority's certificate into ~/.config/containers/certs.d/" + e.host +
		"/ca.crt; or, if you trust the network: --tls-verify=false"
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// stallError reports a connection that stays open but delivers nothing.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string { return fmt.Sprintf("no data for %v", e.after) }

func (e *stallError) Timeout() bool { return true }

// oneLine makes text of a server fit for one line of a terminal.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	const most = 300 // bytes
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
