package inflate

import (
	"bytes"
	stdflate "compress/flate"
	stdgzip "compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

// samples are what streams are made of: short and long, of runs, of near and
// far repetitions, without any.
func samples() map[string][]byte {
	r := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 400<<10)
	r.Read(noise)
	words := make([]byte, 0, 400<<10)
	for rnd := rand.New(r); len(words) < cap(words)-100; {
		words = fmt.Appendf(words, "%d %x\n", rnd.IntN(5000), rnd.IntN(1<<rnd.IntN(40)))
	}
	short := []byte{}
	for period := 1; period < 40; period++ {
		short = append(short, bytes.Repeat(noise[period*100:][:period], 300/period+1)...)
	}
	far := bytes.Repeat(noise[:window], 10)
	return map[string][]byte{
		"nothing": {}, "a byte": {7}, "text": []byte("to be or not to be"),
		"zeros": make([]byte, 1<<20), "noise": noise, "words": words, "periods": short,
		"farthest": far, "too far": bytes.Repeat(noise[:window+1], 10),
		"mixed": append(append(noise[:70000:70000], words[:200000]...), far...),
	}
}

type writer = func(w io.Writer, level int) (io.WriteCloser, error)

var writers = map[string]writer{
	"std":       func(w io.Writer, level int) (io.WriteCloser, error) { return stdgzip.NewWriterLevel(w, level) },
	"klauspost": func(w io.Writer, level int) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, level) },
}

func pack(t testing.TB, write writer, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := write(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func TestLevels(t *testing.T) {
	for name, data := range samples() {
		for by, write := range writers {
			for level := stdflate.HuffmanOnly; level <= 9; level++ {
				packed := pack(t, write, level, data)
				got, err := unpack(bytes.NewReader(packed))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s by %s, level %d: %d of %d bytes, %v", name, by, level, len(got), len(data), err)
				}
			}
		}
	}
}

func TestChunks(t *testing.T) {
	data := samples()["mixed"]
	packed := pack(t, writers["std"], 6, data)
	for name, r := range map[string]io.Reader{
		"one byte":       iotest.OneByteReader(bytes.NewReader(packed)),
		"half":           iotest.HalfReader(bytes.NewReader(packed)),
		"data and error": iotest.DataErrReader(bytes.NewReader(packed)),
	} {
		if got, err := unpack(r); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(data), err)
		}
	}
	for _, size := range []int{1, 7, 4096, outSize, outSize * 2} {
		z, err := NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for buf := make([]byte, size); err == nil; {
			var n int
			n, err = z.Read(buf)
			got = append(got, buf[:n]...)
		}
		if err != io.EOF || !bytes.Equal(got, data) {
			t.Errorf("reads of %d: %d of %d bytes, %v", size, len(got), len(data), err)
		}
	}
}

func TestMembers(t *testing.T) {
	a, b := pack(t, writers["std"], 9, []byte("one, ")), pack(t, writers["klauspost"], 1, []byte("two"))
	empty := pack(t, writers["std"], 6, nil)
	zeros := make([]byte, 3000)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, tc := range map[string]struct {
		in   []byte
		want string
		err  error
	}{
		"two":                 {in: join(a, b), want: "one, two"},
		"empty ones":          {in: join(empty, a, empty, empty, b, empty), want: "one, two"},
		"padded":              {in: join(a, b, zeros), want: "one, two"},
		"padded by one":       {in: join(a, b, zeros[:1]), want: "one, two"},
		"padded in between":   {in: join(a, zeros, b), want: "one, ", err: errHeader},
		"garbage":             {in: join(a, []byte("no gzip at all")), want: "one, ", err: errHeader},
		"half a header":       {in: join(a, b[:5]), want: "one, ", err: io.ErrUnexpectedEOF},
		"history of another":  {in: join(a, raw(matchFirst, "")), want: "one, ", err: errDistance},
		"nothing":             {err: io.ErrUnexpectedEOF},
		"zeros only":          {in: zeros, err: errHeader},
		"compress(1)":         {in: []byte("\x1f\x9d\x90 and so on"), err: errHeader},
		"reader goes on idle": {in: nil, err: io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(tc.in), iotest.OneByteReader(bytes.NewReader(tc.in))} {
				if got, err := unpack(r); string(got) != tc.want || err != tc.err {
					t.Errorf("got %q, %v, want %q, %v", got, err, tc.want, tc.err)
				}
			}
		})
	}
}

// A bitString is bits as they are sent, with spaces anywhere.
type bitString string

const (
	fixedBlock = "1 10 "     // the last, with fixed codes
	fixedEnd   = "0000000 "  // end of block
	fixedX     = "10101000 " // an x
	matchFirst = bitString(fixedBlock + "0000001 00000 " + fixedEnd)
)

func (s bitString) bytes() []byte {
	var b []byte
	n := 0
	for _, c := range s {
		if c == ' ' {
			continue
		}
		if n%8 == 0 {
			b = append(b, 0)
		}
		b[n/8] |= byte(c-'0') << (n % 8)
		n++
	}
	return b
}

// number is the n bits of v as a number is sent, from the lowest on.
func number(v, n int) (s bitString) {
	for i := range n {
		s += bitString('0' + rune(v>>i&1))
	}
	return s
}

// raw is a member with blocks that are said to hold plain.
func raw(blocks bitString, plain string) []byte {
	return frame(blocks.bytes(), []byte(plain))
}

func frame(blocks, plain []byte) []byte {
	b := append([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"), blocks...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(plain))
	return binary.LittleEndian.AppendUint32(b, uint32(len(plain)))
}

// dynamic is a block with the given code lengths, each sent as four bits.
func dynamic(lit, dist []int, rest bitString) bitString {
	s := "1 01 " + number(len(lit)-257, 5) + number(len(dist)-1, 5) + number(15, 4)
	for _, i := range preOrder {
		if i < 16 {
			s += number(4, 3)
		} else {
			s += number(0, 3)
		}
	}
	for _, n := range append(append([]int{}, lit...), dist...) {
		for i := 3; i >= 0; i-- { // codes are sent from their first bit on
			s += number(n>>i&1, 1)
		}
	}
	return s + rest
}

// lens is n code lengths, 0 but for those given by symbol.
func lens(n int, given map[int]int) []int {
	l := make([]int, n)
	for i, v := range given {
		l[i] = v
	}
	return l
}

func TestBlocks(t *testing.T) {
	many := map[int]int{}
	for i := range 30 {
		many[i] = 1
	}
	for name, tc := range map[string]struct {
		blocks bitString
		want   string
		err    error
	}{
		"fixed":                {fixedBlock + fixedX + fixedEnd, "x", nil},
		"run":                  {fixedBlock + fixedX + "0000001 00000 " + fixedEnd, "xxxx", nil},
		"stored":               {"1 00 00000" + number(2, 16) + number(0xfffd, 16) + number('h', 8) + number('i', 8), "hi", nil},
		"stored, nothing":      {"1 00 00000" + number(0, 16) + number(0xffff, 16), "", nil},
		"stored, bad length":   {"1 00 00000" + number(2, 16) + number(0xfffc, 16), "", errStored},
		"unknown kind":         {"1 11", "", errBlock},
		"too far":              {matchFirst, "", errDistance},
		"too far later":        {fixedBlock + fixedX + "0000001 00001 " + fixedEnd, "x", errDistance},
		"literal 286":          {fixedBlock + fixedX + "11000110", "x", errSymbol},
		"distance 30":          {fixedBlock + fixedX + "0000001 11110", "x", errSymbol},
		"one literal":          {dynamic(lens(257, map[int]int{'a': 1, 256: 1}), []int{0}, "0 0 1"), "aa", nil},
		"only an end":          {dynamic(lens(257, map[int]int{256: 1}), []int{0}, "0"), "", nil},
		"only an end, not it":  {dynamic(lens(257, map[int]int{256: 1}), []int{0}, "1"), "", errSymbol},
		"no codes":             {dynamic(lens(257, nil), []int{0}, "0"), "", errSymbol},
		"no distances":         {dynamic(lens(258, map[int]int{'a': 1, 256: 2, 257: 2}), []int{0}, "0 11 0"), "a", errSymbol},
		"one distance":         {dynamic(lens(258, map[int]int{'a': 1, 256: 2, 257: 2}), []int{1}, "0 11 0 10"), "aaaa", nil},
		"one distance, not it": {dynamic(lens(258, map[int]int{'a': 1, 256: 2, 257: 2}), []int{1}, "0 11 1"), "a", errSymbol},
		"one long code":        {dynamic(lens(257, map[int]int{256: 2}), []int{0}, "00"), "", errLengths},
		"incomplete":           {dynamic(lens(257, map[int]int{'a': 2, 'b': 2, 256: 2}), []int{0}, "00"), "", errLengths},
		"over-subscribed":      {dynamic(lens(257, map[int]int{'a': 1, 'b': 1, 256: 1}), []int{0}, "00"), "", errLengths},
		"distances too":        {dynamic(lens(257, map[int]int{256: 1}), lens(30, many), "0"), "", errLengths},
		"287 literals":         {"1 01" + number(30, 5) + number(0, 5) + number(0, 4), "", errLengths},
		"31 distances":         {"1 01" + number(0, 5) + number(30, 5) + number(0, 4), "", errLengths},
		"no code lengths":      {"1 01" + number(0, 5) + number(0, 5) + number(0, 4) + number(0, 12), "", errLengths},
		"repeats nothing":      {"1 01" + number(0, 5) + number(0, 5) + number(0, 4) + number(1, 3) + number(1, 3) + number(0, 6) + "0", "", errLengths},
		"repeats too much":     {"1 01" + number(0, 5) + number(0, 5) + number(0, 4) + number(0, 6) + number(1, 3) + number(0, 3) + "0 1111111 0 1111111", "", errLengths},
	} {
		t.Run(name, func(t *testing.T) {
			packed := raw(tc.blocks, tc.want)
			// Much input behind leaves the decision to fast, little to careful.
			for _, more := range []int{0, 100} {
				in := append(packed[:len(packed):len(packed)], make([]byte, more)...)
				if got, err := unpack(bytes.NewReader(in)); string(got) != tc.want || err != tc.err {
					t.Errorf("%d zeros behind: got %q, %v, want %q, %v", more, got, err, tc.want, tc.err)
				}
			}
			checkLikeStd(t, packed)
		})
	}
}

func TestLongCodes(t *testing.T) {
	// A code of each length, and two of 15 bits: the end is 15 ones.
	given, plain, sent := map[int]int{256: 15}, "", bitString("")
	for n := 1; n <= 15; n++ {
		given['a'+n-1] = n
		for i := 0; i < n-1; i++ {
			sent += "1"
		}
		sent += "0 "
		plain += string(rune('a' + n - 1))
	}
	packed := raw(dynamic(lens(257, given), []int{0}, sent+sent+"111111111111111"), plain+plain)
	for _, more := range []int{0, 100} {
		in := append(packed[:len(packed):len(packed)], make([]byte, more)...)
		if got, err := unpack(bytes.NewReader(in)); string(got) != plain+plain || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	checkLikeStd(t, packed)
}

func TestHeaders(t *testing.T) {
	body := pack(t, writers["std"], 6, []byte("body"))[10:]
	head := func(flags byte, fields string) []byte {
		return append([]byte{0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3}, fields...)
	}
	summed := func(h []byte, off uint16) []byte {
		return binary.LittleEndian.AppendUint16(h, uint16(crc32.ChecksumIEEE(h))+off)
	}
	for name, tc := range map[string]struct {
		head []byte
		err  error
	}{
		"plain":     {head(0, ""), nil},
		"text":      {head(1, ""), nil},
		"name":      {head(8, "a name\x00"), nil},
		"long name": {head(8, string(bytes.Repeat([]byte("n"), 70000))+"\x00"), nil},
		"comment":   {head(16, "words\x00"), nil},
		"extra":     {head(4, "\x03\x00abc"), nil},
		"all":       {summed(head(31, "\x03\x00abca name\x00words\x00"), 0), nil},
		"sum":       {summed(head(2, ""), 0), nil},
		"wrong sum": {summed(head(2, ""), 1), errHeadSum},
		"unknown":   {head(32, ""), errFlags},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := unpack(bytes.NewReader(append(tc.head, body...)))
			if err != tc.err || err == nil && string(got) != "body" {
				t.Errorf("got %q, %v, want %v", got, err, tc.err)
			}
			for n := range min(len(tc.head), 100) {
				if _, err := NewReader(bytes.NewReader(tc.head[:n])); err != io.ErrUnexpectedEOF {
					t.Fatalf("%d bytes of it: %v", n, err)
				}
			}
		})
	}
}

func TestTrailer(t *testing.T) {
	packed := pack(t, writers["std"], 6, []byte("body"))
	for back, want := range map[int]error{1: errSize, 4: errSize, 5: errSum, 8: errSum} {
		b := bytes.Clone(packed)
		b[len(b)-back] ^= 0x40
		if got, err := unpack(bytes.NewReader(b)); string(got) != "body" || err != want {
			t.Errorf("byte %d from the end: got %q, %v, want %v", back, got, err, want)
		}
	}
}

func TestTruncated(t *testing.T) {
	words := samples()["words"][:500]
	for _, level := range []int{stdflate.HuffmanOnly, 0, 1, 9} {
		packed := pack(t, writers["std"], level, words)
		for n := range packed {
			got, err := unpack(bytes.NewReader(packed[:n]))
			if err != io.ErrUnexpectedEOF || !bytes.HasPrefix(words, got) {
				t.Fatalf("level %d, %d of %d bytes: got %d bytes, %v", level, n, len(packed), len(got), err)
			}
			checkLikeStd(t, packed[:n])
		}
	}
}

func TestReaderFails(t *testing.T) {
	words := samples()["words"]
	packed := pack(t, writers["std"], 6, words)
	broken := errors.New("broken")
	r := io.MultiReader(bytes.NewReader(packed[:len(packed)-len(packed)/3]), iotest.ErrReader(broken))
	got, err := unpack(r)
	if err != broken || len(got) < len(words)/2 || !bytes.HasPrefix(words, got) {
		t.Errorf("got %d of %d bytes, %v", len(got), len(words), err)
	}
	if _, err := unpack(idle{}); err != io.ErrNoProgress {
		t.Errorf("a reader that reads nothing: %v", err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// checkLikeStd compares with compress/gzip: the verdict, and what is given out
// before it. Of a bad stream one may understand a little more than the other.
func checkLikeStd(t testing.TB, packed []byte) {
	t.Helper()
	want, wantErr := []byte(nil), error(nil)
	if z, err := stdgzip.NewReader(bytes.NewReader(packed)); err != nil {
		wantErr = err
	} else {
		want, wantErr = io.ReadAll(io.LimitReader(z, maxPlain))
	}
	if len(want) == maxPlain {
		return
	}
	for _, r := range []io.Reader{bytes.NewReader(packed), iotest.HalfReader(bytes.NewReader(packed)), iotest.OneByteReader(bytes.NewReader(packed))} {
		got, err := unpack(r)
		if err == errFlags && bytes.HasPrefix(want, got) {
			continue // the standard library lets them pass
		}
		if wantErr == nil && err == nil && bytes.Equal(got, want) {
			continue
		}
		if wantErr != nil && (err != nil || lenient(packed, wantErr)) && bytes.HasPrefix(got, want) {
			continue
		}
		t.Fatalf("%x\ngot %d bytes, %v, want %d, %v", packed, len(got), err, len(want), wantErr)
	}
}

const maxPlain = 4 << 20

// lenient says that a stream may be accepted where compress/gzip fails like
// that: for zeros at the end or a name of 512 bytes.
func lenient(packed []byte, err error) bool {
	return err == stdgzip.ErrHeader || err == io.ErrUnexpectedEOF && packed[len(packed)-1] == 0
}

// FuzzStream reads anything.
func FuzzStream(f *testing.F) {
	for _, data := range samples() {
		data = data[:min(len(data), 2000)]
		for _, level := range []int{stdflate.HuffmanOnly, 0, 1, 9} {
			packed := pack(f, writers["std"], level, data)
			f.Add(packed)
			if len(packed) > 30 {
				packed[20] ^= 0x10
				f.Add(packed)
			}
		}
	}
	f.Fuzz(func(t *testing.T, packed []byte) { checkLikeStd(t, packed) })
}

// FuzzBlocks decodes anything as blocks, the checksum being what the standard
// library makes of them, so that it hides nothing.
func FuzzBlocks(f *testing.F) {
	for _, s := range []bitString{
		fixedBlock + fixedX + "0000001 00000 " + fixedEnd, matchFirst,
		dynamic(lens(258, map[int]int{'a': 1, 256: 2, 257: 2}), []int{1}, "0 11 0 10"),
	} {
		f.Add(s.bytes())
	}
	for _, data := range samples() {
		packed := pack(f, writers["klauspost"], 9, data[:min(len(data), 2000)])
		f.Add(packed[10 : len(packed)-8])
	}
	f.Fuzz(func(t *testing.T, blocks []byte) { checkBlocks(t, blocks) })
}

// FuzzDamage packs data and flips bits of the result.
func FuzzDamage(f *testing.F) {
	for _, data := range samples() {
		f.Add(data[:min(len(data), 3000)], uint8(6), uint64(3), uint8(2))
		f.Add(data[:min(len(data), 3000)], uint8(9), uint64(300), uint8(1))
	}
	f.Fuzz(func(t *testing.T, data []byte, level uint8, seed uint64, flips uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		for n := r.IntN(4); n > 0 && len(data) < 1<<20; n-- { // long enough for fast, and for the window to slide
			data = bytes.Repeat(data, 1+r.IntN(9))
		}
		for by := range writers {
			packed := pack(t, writers[by], int(level)%12-2, data)
			blocks := packed[10 : len(packed)-8]
			for range flips % 8 {
				n := len(blocks)
				if r.IntN(2) == 0 {
					n = min(n, 100) // the header of a block, more likely
				}
				blocks[r.IntN(n)] ^= 1 << r.IntN(8)
			}
			checkBlocks(t, blocks)
		}
	})
}

func checkBlocks(t *testing.T, blocks []byte) {
	rest := bytes.NewReader(blocks)
	plain, err := io.ReadAll(io.LimitReader(stdflate.NewReader(rest), maxPlain))
	if len(plain) == maxPlain {
		return
	}
	if err == nil {
		blocks = blocks[:len(blocks)-rest.Len()]
	}
	checkLikeStd(t, frame(blocks, plain))
}

func BenchmarkRead(b *testing.B) {
	data := samples()
	for _, name := range []string{"mixed", "words", "noise", "zeros"} {
		packed := pack(b, writers["std"], 6, data[name])
		for by, open := range map[string]func(io.Reader) (io.Reader, error){
			"inflate":   func(r io.Reader) (io.Reader, error) { return NewReader(r) },
			"klauspost": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		} {
			b.Run(name+"/"+by, func(b *testing.B) {
				buf := make([]byte, outSize)
				b.SetBytes(int64(len(data[name])))
				for b.Loop() {
					r, err := open(bytes.NewReader(packed))
					for err == nil {
						_, err = r.Read(buf)
					}
					if err != io.EOF {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
