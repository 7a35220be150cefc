//go:build !front

package layer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"sync/atomic"

	"rbox/rootfs/image"
)

const (
	blockSize  = 256 << 10 // bytes of a stream handed over at a time
	blockCount = 16        // blocks of one stream at most; what bounds its memory
)

// A block is a piece of the unpacked archive on its way to the two that need
// it: the hash and the reader of the archive. The last one frees it.
type block struct {
	buf  []byte
	n    int
	err  error // io.EOF after the last
	refs atomic.Int32
}

// A stream unpacks an archive in one goroutine and hashes it in another, while
// a third, the caller, Reads it.
type stream struct {
	ctx    context.Context
	free   chan *block
	read   chan *block
	hash   chan *block
	digest chan image.Digest
	total  int64  // bytes Read and skipped
	now    *block // being Read
	rest   []byte // of now
	err    error
}

// newStream starts reading r, which stops after an error or once ctx is done,
// possibly only when a Read of r under way returns; then it closes r. More than limit bytes are
// a *LimitError.
func newStream(ctx context.Context, r io.ReadCloser, limit int64) *stream {
	s := &stream{
		ctx:    ctx,
		free:   make(chan *block, blockCount),
		read:   make(chan *block, blockCount),
		hash:   make(chan *block, blockCount),
		digest: make(chan image.Digest, 1),
	}
	go s.fill(r, limit)
	go s.sum()
	return s
}

func (s *stream) fill(r io.ReadCloser, limit int64) {
	defer r.Close()
	defer close(s.hash)
	defer close(s.read)
	for total, made := int64(0), 0; ; {
		if len(s.free) == 0 && made < blockCount {
			s.free <- &block{buf: make([]byte, blockSize)}
			made++
		}
		b := s.next(s.free)
		if b == nil {
			return
		}
		b.n, b.err = readBlock(r, b.buf)
		if total += int64(b.n); total > limit {
			b.err = &LimitError{What: "bytes", Limit: limit}
		}
		b.refs.Store(2)
		err := b.err
		s.read <- b
		s.hash <- b
		if err != nil {
			return
		}
	}
}

// readBlock fills buf, unlike io.ReadFull without mixing up the end of r and an
// r that says it was cut off.
func readBlock(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

func (s *stream) next(from chan *block) *block {
	select {
	case b := <-from:
		return b
	case <-s.ctx.Done():
		return nil
	}
}

func (s *stream) sum() {
	h := sha256.New()
	for b := s.next(s.hash); b != nil; b = s.next(s.hash) {
		h.Write(b.buf[:b.n])
		err := b.err
		s.done(b)
		if err == io.EOF {
			s.digest <- image.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
		}
		if err != nil {
			return
		}
	}
}

func (s *stream) done(b *block) {
	if b.refs.Add(-1) == 0 {
		s.free <- b
	}
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if s.now != nil {
			s.done(s.now)
		}
		if s.now = s.next(s.read); s.now == nil {
			if s.err = s.ctx.Err(); s.err == nil {
				s.err = io.ErrClosedPipe
			}
			return 0, s.err
		}
		s.rest, s.err = s.now.buf[:s.now.n], s.now.err
		s.total += int64(s.now.n)
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// finish reads what follows the archive's end and returns the digest and
// the bytes of it all.
func (s *stream) finish() (image.Digest, int64, error) {
	for s.err == nil {
		s.rest = nil
		if _, err := s.Read(nil); err != nil && err != io.EOF {
			return "", 0, err
		}
	}
	if s.err != io.EOF {
		return "", 0, s.err
	}
	select {
	case d := <-s.digest:
		return d, s.total, nil
	case <-s.ctx.Done():
		return "", 0, s.ctx.Err()
	}
}
