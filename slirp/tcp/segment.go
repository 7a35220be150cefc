package tcp

import (
	"encoding/binary"
	"net/netip"
)

// Flags of a segment (RFC 9293, 3.1).
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// Sizes of headers without options.
const (
	sizeIPv4 = 20 // RFC 791
	sizeIPv6 = 40 // RFC 8200
	sizeTCP  = 20 // RFC 9293
)

const protocolTCP = 6

// Flow is the two ends of a connection, as the container sees them.
type Flow struct{ Inside, Outside netip.AddrPort }

// Segment is a segment of a container's; with segmentation offload it is as long as many.
type Segment struct {
	Flow
	MAC      [6]byte // of whoever sent it
	seq, ack uint32
	flags    byte
	window   int // as it was sent: not scaled
	options  []byte
	payload  []byte
}

// Parse reads an IP packet. False: it is none of TCP's, or a fragment or one with extension
// headers, which netstack takes apart before it comes again as ParseTCP's.
func Parse(packet []byte) (Segment, bool) {
	if len(packet) == 0 {
		return Segment{}, false
	}
	switch packet[0] >> 4 {
	case 4:
		return parse4(packet)
	case 6:
		return parse6(packet)
	}
	return Segment{}, false
}

func parse4(p []byte) (Segment, bool) {
	if len(p) < sizeIPv4 || p[9] != protocolTCP {
		return Segment{}, false
	}
	const fragment = 0x3fff // more to come, or an offset
	head, size := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if head < sizeIPv4 || size < head || size > len(p) || binary.BigEndian.Uint16(p[6:])&fragment != 0 {
		return Segment{}, false
	}
	return ParseTCP(netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[head:size])
}

func parse6(p []byte) (Segment, bool) {
	if len(p) < sizeIPv6 || p[6] != protocolTCP {
		return Segment{}, false
	}
	size := sizeIPv6 + int(binary.BigEndian.Uint16(p[4:]))
	if size > len(p) {
		return Segment{}, false
	}
	return ParseTCP(netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), p[sizeIPv6:size])
}

// ParseTCP reads what an IP packet from inside to outside carries. Checksums are not
// verified: between the container's kernel and us nothing breaks a packet, and most have
// none yet.
func ParseTCP(inside, outside netip.Addr, b []byte) (Segment, bool) {
	if len(b) < sizeTCP {
		return Segment{}, false
	}
	head := int(b[12]>>4) * 4
	if head < sizeTCP || head > len(b) {
		return Segment{}, false
	}
	s := Segment{
		Flow: Flow{
			Inside:  netip.AddrPortFrom(inside, binary.BigEndian.Uint16(b)),
			Outside: netip.AddrPortFrom(outside, binary.BigEndian.Uint16(b[2:])),
		},
		seq: binary.BigEndian.Uint32(b[4:]), ack: binary.BigEndian.Uint32(b[8:]),
		flags: b[13], window: int(binary.BigEndian.Uint16(b[14:])),
		options: b[sizeTCP:head], payload: b[head:],
	}
	return s, s.Inside.Port() != 0 && s.Outside.Port() != 0 && (inside.IsGlobalUnicast() || inside.IsLinkLocalUnicast())
}

// Options of a SYN (RFC 9293, 3.2; RFC 7323, 2.2).
const (
	optionEnd   = 0
	optionNop   = 1
	optionMSS   = 2
	optionScale = 3

	maxShift = 14
)

// synOptions returns what a SYN offers: the largest segment, 0 if it does not say, and the
// shift of its windows, -1 if it has none.
func (s *Segment) synOptions() (mss, shift int) {
	shift = -1
	for b := s.options; len(b) > 0 && b[0] != optionEnd; {
		if b[0] == optionNop {
			b = b[1:]
			continue
		}
		if len(b) < 2 || b[1] < 2 || int(b[1]) > len(b) {
			break
		}
		switch value := b[2:b[1]]; {
		case b[0] == optionMSS && len(value) == 2:
			mss = int(binary.BigEndian.Uint16(value))
		case b[0] == optionScale && len(value) == 1:
			shift = min(int(value[0]), maxShift)
		}
		b = b[b[1]:]
	}
	return mss, shift
}

// reply is a segment to a container, before it has its headers.
type reply struct {
	flow     Flow
	mac      [6]byte // whom it is for
	seq, ack uint32
	flags    byte
	window   uint16
	options  []byte
	payload  []byte
	mss      int // the kernel cuts a longer payload into segments of this size
}

// Layout of the headers before a payload.
const (
	sizeVirtio   = 10 // struct virtio_net_hdr (linux/virtio_net.h)
	sizeEthernet = 14
	sizeFront    = sizeVirtio + sizeEthernet
	sizeOptions  = 8 // of the SYN, the only one with any
	maxHeaders   = sizeFront + sizeIPv6 + sizeTCP + sizeOptions
)

// headers writes all headers of r, from the virtio-net header on, into b and returns them.
// The kernel is asked for TCP's checksum and told to cut the payload.
func (r *reply) headers(b *[maxHeaders]byte, from [6]byte) []byte {
	ip := sizeIPv4
	if r.flow.Inside.Addr().Is6() {
		ip = sizeIPv6
	}
	tcp := sizeTCP + len(r.options)
	h := b[:sizeFront+ip+tcp]
	clear(h)
	r.putVirtio(h, ip, tcp)
	copy(h[sizeVirtio:], r.mac[:])
	copy(h[sizeVirtio+6:], from[:])
	var sum uint32
	if ip == sizeIPv4 {
		sum = r.putIPv4(h[sizeVirtio+12:], tcp+len(r.payload))
	} else {
		sum = r.putIPv6(h[sizeVirtio+12:], tcp+len(r.payload))
	}
	r.putTCP(h[sizeFront+ip:], sum)
	return h
}

// Values of struct virtio_net_hdr, in the machine's byte order.
const (
	needsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	gsoTCPv4      = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	gsoTCPv6      = 4 // VIRTIO_NET_HDR_GSO_TCPV6
)

func (r *reply) putVirtio(b []byte, ip, tcp int) {
	b[0] = needsChecksum
	if len(r.payload) > r.mss {
		b[1] = gsoTCPv4
		if ip == sizeIPv6 {
			b[1] = gsoTCPv6
		}
		binary.NativeEndian.PutUint16(b[2:], uint16(sizeEthernet+ip+tcp))
		binary.NativeEndian.PutUint16(b[4:], uint16(r.mss))
	}
	const checksumOffset = 16 // in TCP's header
	binary.NativeEndian.PutUint16(b[6:], uint16(sizeEthernet+ip))
	binary.NativeEndian.PutUint16(b[8:], checksumOffset)
}

const ttl = 64

// putIPv4 writes the Ethernet type and the IP header before size bytes of TCP, and returns
// the sum of the pseudo header.
func (r *reply) putIPv4(b []byte, size int) uint32 {
	binary.BigEndian.PutUint16(b, 0x0800)
	b = b[2:]
	src, dst := r.flow.Outside.Addr().As4(), r.flow.Inside.Addr().As4()
	const dontFragment = 0x4000
	b[0] = 4<<4 | sizeIPv4/4
	binary.BigEndian.PutUint16(b[2:], uint16(sizeIPv4+size))
	binary.BigEndian.PutUint16(b[6:], dontFragment)
	b[8], b[9] = ttl, protocolTCP
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(b[:sizeIPv4])))
	return sum(b[12:20]) + protocolTCP + uint32(size)
}

// putIPv6 is putIPv4 for IPv6.
func (r *reply) putIPv6(b []byte, size int) uint32 {
	binary.BigEndian.PutUint16(b, 0x86dd)
	b = b[2:]
	src, dst := r.flow.Outside.Addr().As16(), r.flow.Inside.Addr().As16()
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(size))
	b[6], b[7] = protocolTCP, ttl
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return sum(b[8:40]) + protocolTCP + uint32(size)
}

func (r *reply) putTCP(b []byte, pseudo uint32) {
	binary.BigEndian.PutUint16(b, r.flow.Outside.Port())
	binary.BigEndian.PutUint16(b[2:], r.flow.Inside.Port())
	binary.BigEndian.PutUint32(b[4:], r.seq)
	binary.BigEndian.PutUint32(b[8:], r.ack)
	b[12] = byte(len(b) / 4 << 4)
	b[13] = r.flags
	binary.BigEndian.PutUint16(b[14:], r.window)
	binary.BigEndian.PutUint16(b[16:], fold(pseudo))
	copy(b[sizeTCP:], r.options)
}

// sum adds up b, of an even length, as RFC 1071 has it.
func sum(b []byte) (n uint32) {
	for ; len(b) >= 2; b = b[2:] {
		n += uint32(binary.BigEndian.Uint16(b))
	}
	return n
}

func fold(n uint32) uint16 {
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}
