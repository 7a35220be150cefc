// Package inflate reads gzip (RFC 1952, RFC 1951) in one thread about twice as
// fast as its like in Go, for long streams that are read from begin to end.
package inflate

import (
	"hash/crc32"
	"io"
)

const (
	window  = 32 << 10  // how far back a distance may reach
	outSize = 256 << 10 // a power of two, like inSize, for the masks in fast
	inSize  = 512 << 10
)

// A CorruptError says what is wrong with a stream.
type CorruptError string

func (e CorruptError) Error() string { return "the compressed data is damaged: " + string(e) }

const (
	errHeader   = CorruptError("no gzip header")
	errFlags    = CorruptError("unknown flags in the header")
	errSum      = CorruptError("wrong checksum")
	errHeadSum  = CorruptError("wrong checksum of the header")
	errSize     = CorruptError("wrong size")
	errBlock    = CorruptError("unknown kind of block")
	errStored   = CorruptError("wrong length of a stored block")
	errLengths  = CorruptError("impossible code lengths")
	errSymbol   = CorruptError("unknown code")
	errDistance = CorruptError("distance before the beginning")
)

// A Reader unpacks a gzip stream: members one after the other, and possibly
// zeros behind them. It holds some 800 KiB, whatever the stream.
type Reader struct {
	src    io.Reader
	srcErr error // why src gives no more

	in      [inSize + 8]byte // in[pos:end] is to be decoded, after the bits below; 8 more let a masked index load a word
	pos     uint
	end     uint
	bits    uint64 // nbits bits, first the lowest; zeros above
	nbits   uint   // at most 63
	headSum uint32 // crc32 of a header so far

	// out[given:op] is decoded and to be given out. Before is the history that
	// distances reach into, from first on, where the member begins.
	out   [outSize + 8]byte
	op    uint
	first uint
	given uint
	err   error // for when all is given out

	step   func(*Reader) error // decodes what comes next, and stops at the latest with op > outEnd
	final  bool                // the block is the member's last
	stored uint                // bytes left of a stored block
	sum    uint32              // crc32 of the member before out[summed:]
	summed uint
	size   uint32 // of the member before out[summed:]

	fixed   bool // tables are those of fixed codes
	lit     [litSize]uint32
	dist    [distSize]uint32
	symbols struct {
		lit  [288]uint32
		dist [32]uint32
	}
}

// NewReader reads a first header from r, of which it reads more than it needs.
func NewReader(r io.Reader) (*Reader, error) {
	z := &Reader{src: r}
	z.symbols.lit, z.symbols.dist = lengths(), distances()
	if err := z.header(); err != nil {
		return nil, err
	}
	return z, nil
}

// Read gives out all that could be decoded before it says what is wrong with
// the rest: a CorruptError, an error of the reader below, or
// io.ErrUnexpectedEOF where that ends too early.
func (z *Reader) Read(p []byte) (int, error) {
	for z.given == z.op {
		if z.err != nil {
			return 0, z.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		z.decode()
	}
	n := copy(p, z.out[z.given:z.op])
	z.given += uint(n)
	return n, nil
}

// decode makes room, all being given out, and fills it.
func (z *Reader) decode() {
	if z.op > outEnd {
		z.slide()
	}
	for z.err == nil && z.op <= outEnd {
		z.err = z.step(z)
	}
	z.addSum()
}

// slide keeps as much as distances can reach.
func (z *Reader) slide() {
	by := z.op - window
	copy(z.out[:], z.out[by:z.op])
	z.first -= min(z.first, by)
	z.op, z.given, z.summed = window, window, window
}

func (z *Reader) addSum() {
	z.sum = crc32.Update(z.sum, crc32.IEEETable, z.out[z.summed:z.op])
	z.size += uint32(z.op - z.summed)
	z.summed = z.op
}

// Flags of a header.
const (
	flagSum     = 1 << 1
	flagExtra   = 1 << 2
	flagName    = 1 << 3
	flagComment = 1 << 4
	flagUnknown = 0xe0
)

// header reads what precedes a member's blocks.
func (z *Reader) header() error {
	z.headSum = 0
	var head [10]byte
	for i := range head {
		b, err := z.headByte()
		if err != nil {
			return err
		}
		if i < 3 && b != "\x1f\x8b\x08"[i] {
			return errHeader
		}
		head[i] = b
	}
	flags := head[3]
	if flags&flagUnknown != 0 {
		return errFlags
	}
	if flags&flagExtra != 0 {
		low, err := z.headByte()
		if err != nil {
			return err
		}
		high, err := z.headByte()
		if err != nil {
			return err
		}
		for range int(high)<<8 | int(low) {
			if _, err := z.headByte(); err != nil {
				return err
			}
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		for more := flags&flag != 0; more; {
			b, err := z.headByte()
			if err != nil {
				return err
			}
			more = b != 0
		}
	}
	if flags&flagSum != 0 {
		want := uint64(z.headSum & 0xffff)
		if sum, err := z.take(16); err != nil {
			return err
		} else if sum != want {
			return errHeadSum
		}
	}
	z.first, z.sum, z.size = z.op, 0, 0
	z.step = (*Reader).block
	return nil
}

func (z *Reader) headByte() (byte, error) {
	b, err := z.take(8)
	if err == nil {
		z.headSum = crc32.Update(z.headSum, crc32.IEEETable, []byte{byte(b)})
	}
	return byte(b), err
}

// trailer checks what follows a member's blocks.
func (z *Reader) trailer() error {
	z.addSum()
	z.align()
	sum, err := z.take(32)
	if err != nil {
		return err
	}
	size, err := z.take(32)
	switch {
	case err != nil:
		return err
	case uint32(sum) != z.sum:
		return errSum
	case uint32(size) != z.size:
		return errSize
	}
	z.step = (*Reader).next
	return nil
}

// next is at the end, at another header or at zeros, which some writers pad
// with: gzip(1) takes them for the end if nothing else follows.
func (z *Reader) next() error {
	z.align()
	zeros := false
	for {
		if z.pos == z.end {
			if z.fill(1); z.pos == z.end {
				return z.srcErr
			}
		}
		if z.in[z.pos] != 0 {
			break
		}
		zeros = true
		z.pos++
	}
	if zeros {
		return errHeader
	}
	return z.header()
}

// fill sees to n bytes at least in in[pos:end], as long as there are so many.
func (z *Reader) fill(n uint) {
	z.unread()
	if z.srcErr != nil {
		return
	}
	z.end = uint(copy(z.in[:], z.in[z.pos:z.end]))
	z.pos = 0
	for idle := 0; z.end < n && z.srcErr == nil; idle++ {
		var m int
		m, z.srcErr = z.src.Read(z.in[z.end:inSize])
		z.end += uint(m)
		if m > 0 {
			idle = 0
		} else if idle == 100 && z.srcErr == nil {
			z.srcErr = io.ErrNoProgress
		}
	}
}

// tooShort is the error where the stream ends too early.
func (z *Reader) tooShort() error {
	if z.srcErr == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return z.srcErr
}

// unread puts back all whole bytes of bits.
func (z *Reader) unread() {
	z.pos -= z.nbits / 8
	z.nbits %= 8
	z.bits &= 1<<z.nbits - 1
}

// align drops what is left of a byte.
func (z *Reader) align() {
	z.unread()
	z.bits, z.nbits = 0, 0
}

// more sees to 48 bits at least, as long as there are so many.
func (z *Reader) more() {
	if z.end-z.pos < 8 {
		z.fill(8)
	}
	for z.nbits <= 48 && z.pos < z.end {
		z.bits |= uint64(z.in[z.pos]) << z.nbits
		z.pos++
		z.nbits += 8
	}
}

// drop goes on by n bits of nbits.
func (z *Reader) drop(n uint) {
	z.bits >>= n
	z.nbits -= n
}

// take returns the next n bits, at most 48.
func (z *Reader) take(n uint) (uint64, error) {
	if z.nbits < n {
		if z.more(); z.nbits < n {
			return 0, z.tooShort()
		}
	}
	v := z.bits & (1<<n - 1)
	z.drop(n)
	return v, nil
}
