package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Bounds of waiting between attempts.
const (
	maxBackoff    = 20 * time.Second
	maxRetryAfter = 2 * time.Minute // a registry that asks for more is not waited for
	quietWait     = 2 * time.Second // longer waits are told to the user
)

// pace decides whether and when a failed attempt is made again.
type pace struct {
	retries int           // attempts after the first
	base    time.Duration // the first wait; each next is twice as long
	warn    func(string)
}

// backoff returns the wait before attempt n+1, n counted from zero: the
// doubled base with up to half of it left to chance, so that the nodes of a
// cluster do not come back in step.
func (p pace) backoff(n int) time.Duration {
	d := p.base << min(n, 16)
	if d > maxBackoff || d <= 0 {
		d = maxBackoff
	}
	return d/2 + rand.N(d/2+1)
}

// pause waits before attempt n+1 to do what, which failed for why.
func (p pace) pause(ctx context.Context, n int, atLeast time.Duration, what, why string) error {
	d := max(p.backoff(n), atLeast)
	if d >= quietWait {
		p.warn(fmt.Sprintf("%s: %s: trying again in %v", what, why, d.Round(time.Second)))
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// retrier is an http.RoundTripper that repeats requests which failed for
// reasons that may pass. It sees each request of a redirect or of a login on
// its own.
type retrier struct {
	inner http.RoundTripper
	pace  pace
}

// RoundTrip sends req until it succeeds, fails for good or has been tried often enough.
func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	for n := 0; ; n++ {
		resp, err := r.inner.RoundTrip(req)
		wait, again := r.verdict(req, n, resp, err)
		if !again {
			return resp, err
		}
		why := "the connection failed"
		if err == nil {
			why = fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
			io.CopyN(io.Discard, resp.Body, 16<<10) // so that the connection can be used again
			resp.Body.Close()
		}
		if err := r.pace.pause(req.Context(), n, wait, req.URL.Host, why); err != nil {
			return nil, err
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// verdict says whether to try again, and how long the server wants us to wait.
func (r *retrier) verdict(req *http.Request, n int, resp *http.Response, err error) (time.Duration, bool) {
	if n >= r.pace.retries || req.Context().Err() != nil || req.Body != nil && req.GetBody == nil {
		return 0, false
	}
	if err != nil {
		return 0, isPassing(err) && (n < 2 || !isUnreachable(err) && !isTimeout(err))
	}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return 0, false
	}
	wait := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	return wait, wait <= maxRetryAfter
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(header); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, 1<<20)) * time.Second
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

// isPassing says that an attempt may succeed if it is made again.
func isPassing(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound && (dns.IsTemporary || dns.IsTimeout)
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	for _, passing := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	// net/http's copy of HTTP/2 has no exported errors.
	text := err.Error()
	return isTimeout(err) || isUnreachable(err) || strings.Contains(text, "http2: ") || strings.Contains(text, "stream error: ") ||
		strings.Contains(text, "server closed idle connection")
}

// isUnreachable says that nobody is there, which seldom changes within seconds.
func isUnreachable(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}
