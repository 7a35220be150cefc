package inflate

import "math/bits"

// A code is looked up by the next bits of the stream, first in a table of
// 1<<litBits or 1<<distBits entries, and what is longer in a second one, which
// lies behind it in the same array.
const (
	litBits  = 11
	distBits = 8
	preBits  = 7  // no code of code lengths is longer
	maxBits  = 15 // no code at all is longer

	// A second table of 1<<k entries, k ≤ maxBits-litBits = 4, has k+1 codes at
	// least, so those of 288 codes take 288/5*16 entries at most; likewise
	// those of 32 codes for distances take 32/8*128. Powers of two let an index
	// be masked instead of checked.
	litSize  = 4096
	distSize = 1024
)

// An entry of a table:
//
//	bits 0-7    bits of code and extra bits together
//	bits 8-12   bits of code alone
//	bits 14-15  what is special
//	bits 16-30  literal, base of length or distance, code length, or the start of a second table
//	bit 31      this is a literal
//
// That of a second table has in bits 8-12 how many bits that is indexed by.
const (
	isLiteral = 1 << 31
	isSpecial = 1 << 15 // second table, end of block or no code
	isSecond  = 1 << 14 // with isSpecial
	isEnd     = 1 << 16 // with isSpecial
	noCode    = isSpecial
)

// lengths is what literals and lengths stand for (RFC 1951, section 3.2.5).
// The bits of the codes, which build adds, are not in it.
func lengths() (e [288]uint32) {
	for i := range uint32(256) {
		e[i] = isLiteral | i<<16
	}
	e[256] = isSpecial | isEnd
	base := uint32(3)
	for i := range uint32(28) {
		extra := max(i/4, 1) - 1
		e[257+i] = base<<16 | extra
		base += 1 << extra
	}
	e[285] = 258 << 16
	e[286], e[287] = noCode, noCode
	return e
}

// distances is likewise what codes of distances stand for.
func distances() (e [32]uint32) {
	base := uint32(1)
	for i := range uint32(30) {
		extra := max(i/2, 1) - 1
		e[i] = base<<16 | extra
		base += 1 << extra
	}
	e[30], e[31] = noCode, noCode
	return e
}

// build makes the table of the canonical code whose lengths are those given, 0
// for symbols without one. entries are what the symbols stand for. It reports
// whether that is a code: no prefix of bits is used twice or left over, but
// for a code of one symbol, of one bit, or of none.
func build(table []uint32, root int, lengths []uint8, entries []uint32) bool {
	var count, next [maxBits + 1]int
	for _, n := range lengths {
		count[n]++
	}
	left := 1
	for n := 1; n <= maxBits; n++ {
		left = left<<1 - count[n]
		if left < 0 {
			return false
		}
	}
	used := len(lengths) - count[0]
	if left > 0 && !(used == 0 || used == 1 && count[1] == 1) {
		return false
	}
	count[0] = 0
	for n := 1; n < maxBits; n++ {
		next[n+1] = next[n] + count[n]
	}
	var sorted [288]uint16
	for sym, n := range lengths {
		if n > 0 {
			sorted[next[n]] = uint16(sym)
			next[n]++
		}
	}

	// Codes are sent from their first bit on, which is the lowest of an index:
	// code is kept reversed. A table for n bits is that for n-1 bits twice, and
	// the codes of n bits.
	symbols, code := sorted[:used], 0
	table[0] = noCode
	for n := 1; n <= root; n++ {
		half := 1 << (n - 1)
		copy(table[half:2*half], table[:half])
		for _, sym := range symbols[:count[n]] {
			table[code] = entries[sym] + uint32(n)*0x101
			code = following(code, n)
		}
		symbols = symbols[count[n]:]
	}

	start, size, at := 0, 0, -1 // of the second table, whose codes begin with at
	end := 1 << root
	for n := root + 1; n <= maxBits; n++ {
		for i, sym := range symbols[:count[n]] {
			if prefix := code & (1<<root - 1); prefix != at {
				at = prefix
				k := n - root
				for free := 1<<k - (count[n] - i); free > 0 && root+k < maxBits; {
					k++
					free = free<<1 - count[root+k]
				}
				start, size = end, 1<<k
				end += size
				table[at] = isSpecial | isSecond | uint32(start)<<16 | uint32(k)<<8 | uint32(root)
			}
			e := entries[sym] + uint32(n-root)*0x101
			for j := code >> root; j < size; j += 1 << (n - root) {
				table[start+j] = e
			}
			code = following(code, n)
		}
		symbols = symbols[count[n]:]
	}
	return true
}

// following is the code of n bits after code, both reversed.
func following(code, n int) int {
	zeros := code ^ (1<<n - 1)
	if zeros == 0 {
		return 0
	}
	top := 1 << (bits.Len(uint(zeros)) - 1)
	return code&(top-1) | top
}
