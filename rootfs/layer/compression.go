//go:build !front

package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"rbox/rootfs/layer/inflate"
)

// magics are the first bytes of each format.
var magics = [...]string{
	Gzip:  "\x1f\x8b\x08",
	Zstd:  "\x28\xb5\x2f\xfd",
	Xz:    "\xfd7zXZ\x00",
	Bzip2: "BZh",
}

// zstdSkippable is the upper 28 bits of a skippable frame's magic number
// (RFC 8878, section 3.1.2), with which a zstd stream may begin.
const zstdSkippable = "\x2a\x4d\x18"

const (
	readAhead  = 256 << 10 // bytes read of a compressed stream at a time
	zstdWindow = 128 << 20 // bytes of history a zstd stream may ask for: that of zstd --long
)

// Sniff says how the stream that begins with head is packed. Six bytes are enough.
func Sniff(head []byte) Compression {
	for c := Gzip; c <= Bzip2; c++ {
		if bytes.HasPrefix(head, []byte(magics[c])) {
			return c
		}
	}
	if len(head) >= 4 && head[0]>>4 == 5 && string(head[1:4]) == zstdSkippable {
		return Zstd
	}
	return Plain
}

// Decompress returns what r holds once unpacked and how it was packed, which
// its first bytes tell. Closing the result does not close r. xz is unpacked by
// the program of that name where there is one, which is several times faster.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br, ok := r.(*bufio.Reader)
	if !ok || br.Size() < readAhead {
		br = bufio.NewReaderSize(r, readAhead)
	}
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, Plain, err
	}
	c := Sniff(head)
	rc, err := c.open(br)
	if err != nil {
		return nil, c, fmt.Errorf("%s: %w", c, unexpected(err))
	}
	return rc, c, nil
}

func (c Compression) open(br *bufio.Reader) (io.ReadCloser, error) {
	switch c {
	case Gzip:
		z, err := inflate.NewReader(br)
		return io.NopCloser(z), err
	case Zstd:
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Xz:
		if program, err := exec.LookPath("xz"); err == nil {
			return startXz(program, br)
		}
		d, err := xz.NewReader(br)
		return io.NopCloser(d), err
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(br)), nil
	}
	return io.NopCloser(br), nil
}

// An xzProcess is xz(1) unpacking a stream.
type xzProcess struct {
	cmd    *exec.Cmd
	out    io.ReadCloser
	stderr strings.Builder
	ended  bool
}

func startXz(program string, in io.Reader) (*xzProcess, error) {
	p := &xzProcess{cmd: exec.Command(program, "-dc", "-T1", "--memlimit-decompress=512MiB")}
	p.cmd.Stdin, p.cmd.Stderr = in, &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = out
	return p, p.cmd.Start()
}

// Read ends with xz's own message if it failed.
func (p *xzProcess) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if err == io.EOF && !p.ended {
		p.ended = true
		if werr := p.cmd.Wait(); werr != nil {
			return n, errors.New(strings.TrimSpace(p.stderr.String() + " (" + werr.Error() + ")"))
		}
	}
	return n, err
}

func (p *xzProcess) Close() error {
	if !p.ended {
		p.ended = true
		p.out.Close()
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
	return nil
}

// unexpected makes an end of file in the middle of something just that.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
