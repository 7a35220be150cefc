package inflate

// block reads the header of a block (RFC 1951, section 3.2.3).
func (z *Reader) block() error {
	head, err := z.take(3)
	if err != nil {
		return err
	}
	z.final = head&1 != 0
	switch head >> 1 {
	case 0:
		return z.storedHeader()
	case 1:
		z.fixedCodes()
	case 2:
		if err := z.dynamicCodes(); err != nil {
			return err
		}
	default:
		return errBlock
	}
	z.step = (*Reader).compressed
	return nil
}

// endBlock goes on after a block.
func (z *Reader) endBlock() {
	z.step = (*Reader).block
	if z.final {
		z.step = (*Reader).trailer
	}
}

func (z *Reader) storedHeader() error {
	z.align()
	v, err := z.take(32)
	if err != nil {
		return err
	}
	if v&0xffff != ^v>>16&0xffff {
		return errStored
	}
	z.align()
	z.stored = uint(v & 0xffff)
	z.step = (*Reader).copyStored
	return nil
}

func (z *Reader) copyStored() error {
	if z.stored == 0 {
		z.endBlock()
		return nil
	}
	if z.pos == z.end {
		if z.fill(1); z.pos == z.end {
			return z.tooShort()
		}
	}
	n := uint(copy(z.out[z.op:], z.in[z.pos:min(z.end, z.pos+z.stored)]))
	z.op += n
	z.pos += n
	z.stored -= n
	return nil
}

// fixedCodes is RFC 1951, section 3.2.6.
func (z *Reader) fixedCodes() {
	if z.fixed {
		return
	}
	z.fixed = true
	var n [288]uint8
	for i := range n {
		switch {
		case i < 144:
			n[i] = 8
		case i < 256:
			n[i] = 9
		case i < 280:
			n[i] = 7
		default:
			n[i] = 8
		}
	}
	build(z.lit[:], litBits, n[:], z.symbols.lit[:])
	for i := range n[:32] {
		n[i] = 5
	}
	build(z.dist[:], distBits, n[:32], z.symbols.dist[:])
}

// preOrder is in which order the lengths of the codes for code lengths come.
const preOrder = "\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"

// dynamicCodes is RFC 1951, section 3.2.7.
func (z *Reader) dynamicCodes() error {
	z.fixed = false
	v, err := z.take(14)
	if err != nil {
		return err
	}
	nlit, ndist, npre := int(v&31)+257, int(v>>5&31)+1, int(v>>10)+4
	if nlit > 286 || ndist > 30 {
		return errLengths
	}
	var pre [19]uint8
	for _, i := range []byte(preOrder[:npre]) {
		n, err := z.take(3)
		if err != nil {
			return err
		}
		pre[i] = uint8(n)
	}
	var entries [19]uint32
	for i := range entries {
		entries[i] = uint32(i) << 16
	}
	var table [1 << preBits]uint32
	if !build(table[:], preBits, pre[:], entries[:]) {
		return errLengths
	}

	var lens [286 + 30]uint8
	all := lens[:nlit+ndist]
	for i := 0; i < len(all); {
		if z.nbits < preBits {
			z.more()
		}
		e := table[z.bits&(1<<preBits-1)]
		if uint(e&0xff) > z.nbits || z.nbits == 0 {
			return z.tooShort()
		}
		if e&isSpecial != 0 {
			return errLengths
		}
		z.drop(uint(e & 0xff))
		length, repeat := uint8(e>>16), 1
		if length >= 16 {
			var err error
			if length, repeat, err = z.repetition(length, all[:i]); err != nil {
				return err
			}
		}
		if repeat > len(all)-i {
			return errLengths
		}
		for range repeat {
			all[i] = length
			i++
		}
	}
	if !build(z.lit[:], litBits, all[:nlit], z.symbols.lit[:]) ||
		!build(z.dist[:], distBits, all[nlit:], z.symbols.dist[:]) {
		return errLengths
	}
	return nil
}

// repetition is one of the codes 16, 17 and 18, after the lengths before.
func (z *Reader) repetition(code uint8, before []uint8) (length uint8, repeat int, err error) {
	bits, least := uint(7), 11
	switch code {
	case 16:
		if len(before) == 0 {
			return 0, 0, errLengths
		}
		length, bits, least = before[len(before)-1], 2, 3
	case 17:
		bits, least = 3, 3
	}
	n, err := z.take(bits)
	return length, least + int(n), err
}

// compressed decodes the literals and matches of a block.
func (z *Reader) compressed() error {
	for z.op <= outEnd {
		if z.end-z.pos < inSlack {
			z.fill(inSlack)
		}
		decode := z.fast
		if z.end-z.pos < inSlack {
			decode = z.careful
		}
		end, err := decode()
		if err != nil {
			return err
		}
		if end {
			z.endBlock()
			return nil
		}
	}
	return nil
}

// careful decodes one symbol, from the last bytes of a stream.
func (z *Reader) careful() (end bool, err error) {
	e, err := z.symbol(z.lit[:], litBits)
	switch {
	case err != nil:
		return false, err
	case e&isLiteral != 0:
		z.out[z.op] = byte(e >> 16)
		z.op++
		return false, nil
	case e&isEnd != 0 && e&isSpecial != 0:
		return true, nil
	}
	length, err := z.number(e)
	if err != nil {
		return false, err
	}
	if e, err = z.symbol(z.dist[:], distBits); err != nil {
		return false, err
	}
	distance, err := z.number(e)
	if err != nil {
		return false, err
	}
	if distance > z.op-z.first {
		return false, errDistance
	}
	for range length {
		z.out[z.op] = z.out[z.op-distance]
		z.op++
	}
	return false, nil
}

// symbol takes the bits of a code and returns its entry.
func (z *Reader) symbol(table []uint32, root uint) (uint32, error) {
	z.more()
	e, n := table[z.bits&(1<<root-1)], uint(0)
	if e&isSpecial != 0 && e&isSecond != 0 {
		n = root
		e = table[second(e, z.bits>>root)]
	}
	n += uint(e >> 8 & 31)
	switch {
	case n > z.nbits:
		return 0, z.tooShort()
	case e&isSpecial != 0 && e&isEnd == 0:
		return 0, errSymbol
	}
	z.drop(n)
	return e, nil
}

// number takes the extra bits of a length or distance.
func (z *Reader) number(e uint32) (uint, error) {
	v, err := z.take(uint(e&0xff - e>>8&31))
	return uint(e>>16) + uint(v), err
}
