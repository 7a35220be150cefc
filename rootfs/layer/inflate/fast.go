package inflate

import "encoding/binary"

// What one turn of fast's loop may touch. Its indices are masked, which costs
// less than to check them, and keeps them in the arrays whatever the stream
// says; with these margins no mask ever changes one.
const (
	// inSlack bytes must be there: a refill takes up to 7 and loads 8,
	// and there is one before the first turn and up to two in each.
	inSlack = 32
	// outSlack bytes are free: for two literals, the longest match, and the 13
	// bytes that copying words writes beyond a match at most.
	outSlack = 2 + 258 + 13
	outEnd   = outSize - outSlack // decoding stops where op is beyond it
)

// fast decodes until a block ends or one of the two margins is reached, and at
// least one symbol if in holds inSlack bytes. A turn of its loop is up to three
// literals, or up to two and a match. e is always the next entry already, so
// that the lookup does not wait for the copying before it.
//
// The bits above nbits are those of in at pos already, or zero. Of nbits only the
// low six bits count: subtracting a whole entry subtracts its lowest byte.
func (z *Reader) fast() (end bool, err error) {
	const (
		litMask  = 1<<litBits - 1
		distMask = 1<<distBits - 1
		outMask  = outSize - 1
	)
	op, posEnd := z.op, z.end-(inSlack-8)
	bits, nbits, pos := z.refill(z.bits, uint32(z.nbits), z.pos)
	e := z.lit[bits&litMask]
	for pos <= posEnd && op <= outEnd {
		if e&isLiteral != 0 { // of litBits bits at most, like the next two: 33 of 56
			bits >>= e & 63
			nbits -= e
			z.out[op&outMask] = byte(e >> 16)
			op++
			if e = z.lit[bits&litMask]; e&isLiteral != 0 {
				bits >>= e & 63
				nbits -= e
				z.out[op&outMask] = byte(e >> 16)
				op++
				if e = z.lit[bits&litMask]; e&isLiteral != 0 {
					bits >>= e & 63
					nbits -= e
					z.out[op&outMask] = byte(e >> 16)
					op++
					bits, nbits, pos = z.refill(bits, nbits, pos)
					e = z.lit[bits&litMask]
					continue
				}
			}
			bits, nbits, pos = z.refill(bits, nbits, pos)
		}

		// A match takes 15+5 bits for its length and 15+13 for its distance: 48 of 56.
		if e&isSpecial != 0 {
			if e&isSecond != 0 {
				bits >>= litBits
				nbits -= litBits
				e = z.lit[second(e, bits)&(litSize-1)]
			}
			if e&(isLiteral|isSpecial) != 0 {
				bits >>= e & 63
				nbits -= e
				if e&isLiteral == 0 {
					if end = e&isEnd != 0; !end {
						err = errSymbol
					}
					break
				}
				z.out[op&outMask] = byte(e >> 16)
				op++
				bits, nbits, pos = z.refill(bits, nbits, pos)
				e = z.lit[bits&litMask]
				continue
			}
		}
		length := value(e, bits)
		bits >>= e & 63
		nbits -= e

		e = z.dist[bits&distMask]
		if e&isSpecial != 0 {
			if e&isSecond != 0 {
				bits >>= distBits
				nbits -= distBits
				e = z.dist[second(e, bits)&(distSize-1)]
			}
			if e&isSpecial != 0 {
				err = errSymbol
				break
			}
		}
		distance := value(e, bits)
		bits >>= e & 63
		nbits -= e
		if distance > op-z.first {
			err = errDistance
			break
		}
		bits, nbits, pos = z.refill(bits, nbits, pos)
		e = z.lit[bits&litMask]

		from, to := op-distance, op
		op += length
		switch {
		case distance >= 8:
			z.store(to, z.load(from))
			z.store(to+8, z.load(from+8))
			for to += 16; to < op; to += 8 {
				from += 8
				z.store(to, z.load(from+8))
			}
		case distance == 1:
			for run := z.load(from) & 0xff * 0x0101010101010101; to < op; to += 8 {
				z.store(to, run)
			}
		default: // what is loaded is right for distance bytes, and the next word makes good the rest
			for ; to < op; to += distance {
				z.store(to, z.load(from))
				from += distance
			}
		}
	}
	z.pos, z.op = pos, op
	z.nbits = uint(nbits & 63)
	z.bits = bits & (1<<z.nbits - 1)
	z.unread()
	return end, err
}

// refill sees to 56 bits at least, in whole bytes, without a branch.
func (z *Reader) refill(bits uint64, nbits uint32, pos uint) (uint64, uint32, uint) {
	i := pos & (inSize - 1)
	bits |= binary.LittleEndian.Uint64(z.in[i:i+8]) << (nbits & 63)
	return bits, nbits | 56, pos + uint(^nbits>>3&7)
}

// second is where in a second table the next bits are.
func second(e uint32, bits uint64) uint32 {
	return e>>16&0xfff + uint32(bits)&(1<<(e>>8&31)-1)
}

// value is the length or distance of e with its extra bits, which follow its code.
func value(e uint32, bits uint64) uint {
	return uint(e>>16) + uint(bits&(1<<(e&63)-1)>>(e>>8&31))
}

func (z *Reader) load(i uint) uint64 {
	i &= outSize - 1
	return binary.LittleEndian.Uint64(z.out[i : i+8])
}

func (z *Reader) store(i uint, v uint64) {
	i &= outSize - 1
	binary.LittleEndian.PutUint64(z.out[i:i+8], v)
}
