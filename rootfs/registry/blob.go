package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"rbox/rootfs/image"
)

// Blob opens d of ref's repository at offset bytes from its start. from is
// where the content really starts: zero where the server cannot continue. A
// connection that breaks or stalls is made again, unseen by the reader, which
// ends after d.Size bytes or with an error. The digest is the caller's to
// check, as is closing rc.
func (c *Client) Blob(ctx context.Context, ref image.Reference, d image.Descriptor, offset int64) (rc io.ReadCloser, from int64, err error) {
	if offset < 0 || offset > d.Size {
		offset = 0
	}
	b := &blobReader{ctx: ctx, client: c, ref: ref, want: d, pos: offset}
	if offset == d.Size {
		return b, offset, nil
	}
	from, err = b.open()
	if err != nil {
		return nil, 0, err
	}
	b.pos = from
	return b, from, nil
}

// blobReader reads one blob over as many connections as it takes.
type blobReader struct {
	ctx    context.Context
	client *Client
	ref    image.Reference
	want   image.Descriptor

	pos      int64 // bytes of the blob behind us
	body     *watchedBody
	failures int   // since pos was at settled
	settled  int64 // pos when failures was last zero
}

// enoughProgress is what a connection must deliver for its failure to count as
// the first again: a server that sends byte by byte must not keep us for ever.
const enoughProgress = 256 << 10

// Read reads on, with new connections where the old ones fail.
func (b *blobReader) Read(p []byte) (int, error) {
	left := b.want.Size - b.pos
	if left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), left)]
	for len(p) > 0 {
		err := b.reconnect()
		if err != nil {
			return 0, err
		}
		n, err := b.body.Read(p)
		b.pos += int64(n)
		if err != nil {
			b.Close()
		}
		if n > 0 {
			return n, nil // an error will come back with the next connection, if it matters
		}
		if err != nil {
			if err := b.failed(err); err != nil {
				return 0, err
			}
		}
	}
	return 0, nil
}

// reconnect makes sure that there is a body that stands at b.pos.
func (b *blobReader) reconnect() error {
	for b.body == nil {
		from, err := b.open()
		if err == nil {
			_, err = io.CopyN(io.Discard, b.body, b.pos-from)
		}
		if err == nil {
			return nil
		}
		b.Close()
		if isOurs(err) && !isPassing(err) {
			return err
		}
		if err := b.failed(err); err != nil { // a registry that restarts is worth more patience in the middle of a blob
			return err
		}
	}
	return nil
}

// failed waits before the next connection, or returns the error to give up with.
func (b *blobReader) failed(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the server closed before d.Size bytes
	}
	if b.pos-b.settled >= enoughProgress {
		b.failures, b.settled = 0, b.pos
	}
	if b.failures >= b.client.pace.retries || !isPassing(err) {
		why, hint := explainConnection(endpoint{registry: b.ref.Registry, host: b.ref.Registry}, err)
		return &ConnectionError{
			Registry: b.ref.Registry,
			Why:      fmt.Sprintf("blob %s: after %d of %d bytes: %s", b.want.Digest.Short(), b.pos, b.want.Size, why),
			hint:     hint, err: err,
		}
	}
	b.failures++
	return b.client.pace.pause(b.ctx, b.failures-1, 0, b.ref.Registry, "the connection broke off")
}

// open asks for the blob from b.pos on, and returns where the answer starts:
// there, or at zero.
func (b *blobReader) open() (from int64, err error) {
	err = b.client.each(b.ctx, b.ref, func(e endpoint, s *session) (err error) {
		from, err = b.openAt(e, s, b.pos)
		return err
	})
	return from, err
}

func (b *blobReader) openAt(e endpoint, s *session, offset int64) (from int64, err error) {
	ctx, body := watch(b.ctx, b.client.o.stall)
	defer func() {
		if err != nil {
			body.Close()
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url("blobs", string(b.want.Digest)), nil)
	if err != nil {
		return 0, err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, err
	}
	body.inner = resp.Body
	if offset > 0 && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		body.Close()
		return b.openAt(e, s, 0)
	}
	if resp.StatusCode == http.StatusNotFound {
		return 0, &ManifestError{Image: b.ref.Familiar(), err: fmt.Errorf("the registry has the manifest but not its blob %s", b.want.Digest)}
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		return 0, err
	}
	if resp.StatusCode == http.StatusPartialContent {
		if from, err = rangeStart(resp.Header.Get("Content-Range")); err != nil || from != offset {
			return 0, &StatusError{Registry: e.registry, Status: resp.StatusCode,
				Why:  "for another range than asked for: " + oneLine(resp.Header.Get("Content-Range")),
				hint: "the registry or a proxy is broken: ask whoever runs it"}
		}
	}
	if n := resp.ContentLength; n >= 0 && n != b.want.Size-from {
		return 0, &ManifestError{Image: b.ref.Familiar(),
			err: fmt.Errorf("blob %s has %d bytes, not %d as announced", b.want.Digest, from+n, b.want.Size)}
	}
	b.body = body
	return from, nil
}

// rangeStart reads the first number of "bytes 100-199/200".
func rangeStart(header string) (int64, error) {
	rest, found := strings.CutPrefix(header, "bytes ")
	first, _, dash := strings.Cut(rest, "-")
	if !found || !dash {
		return 0, errors.New("no range of bytes")
	}
	return strconv.ParseInt(first, 10, 64)
}

// Close ends the connection. Reading on would make another.
func (b *blobReader) Close() error {
	if b.body == nil {
		return nil
	}
	body := b.body
	b.body = nil
	return body.Close()
}

// watchedBody is a response's body that fails with a *stallError when one Read
// takes longer than stall. Between reads no clock runs.
type watchedBody struct {
	inner  io.ReadCloser // nil until there is a response
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

// watch returns a context for a request, and the body that will end it. Set
// inner once the response is there.
func watch(ctx context.Context, stall time.Duration) (context.Context, *watchedBody) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stall, func() { cancel(&stallError{after: stall}) })
	timer.Stop()
	return ctx, &watchedBody{ctx: ctx, cancel: cancel, timer: timer, stall: stall}
}

func (w *watchedBody) Read(p []byte) (int, error) {
	w.timer.Reset(w.stall)
	n, err := w.inner.Read(p)
	w.timer.Stop()
	var stalled *stallError
	if err != nil && errors.As(context.Cause(w.ctx), &stalled) {
		err = stalled
	}
	return n, err
}

// Close frees the connection.
func (w *watchedBody) Close() error {
	w.timer.Stop()
	w.cancel(nil)
	if w.inner == nil {
		return nil
	}
	return w.inner.Close()
}
