package stack

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"rbox/slirp/publish"
)

// maxDatagram is more than any datagram or ICMP message has.
const maxDatagram = 64 << 10

// buffers are what datagrams of the host are read into. A socket has one only while
// there is something to read, so that thousands of idle ones cost little.
type buffers struct{ pool sync.Pool }

func (b *buffers) get() *[maxDatagram]byte {
	if p, ok := b.pool.Get().(*[maxDatagram]byte); ok {
		return p
	}
	return new([maxDatagram]byte)
}

func (b *buffers) put(p *[maxDatagram]byte) { b.pool.Put(p) }

// datagramSocket is a socket of the host, for UDP or ICMP echo, that is told which
// packets did not arrive (IP_RECVERR in ip(7)).
type datagramSocket struct {
	file *os.File
	raw  syscall.RawConn
	is4  bool

	mu   sync.Mutex // held to send and to close
	fd   int        // -1: closed
	free bool       // packets may be fragmented on the way: no DF
}

// openDatagram makes a socket of the protocol given, IPPROTO_UDP or an ICMP one.
func openDatagram(is4 bool, protocol int) (*datagramSocket, error) {
	family := unix.AF_INET6
	if is4 {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if is4 {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVERR, 1)
	} else {
		_ = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVERR, 1)
	}
	if err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return newDatagram(fd, is4)
}

func newDatagram(fd int, is4 bool) (*datagramSocket, error) {
	d := &datagramSocket{file: os.NewFile(uintptr(fd), "datagram socket"), fd: fd, is4: is4}
	d.setFragmenting(false)
	var err error
	d.raw, err = d.file.SyscallConn()
	return d, err
}

func (d *datagramSocket) close() {
	d.mu.Lock()
	d.fd = -1
	d.mu.Unlock()
	d.file.Close() // waits for the receiver, which may be asking for losses
}

// setFragmenting says whether packets that are too large for the path may be fragmented,
// or are an error. Held: mu, or nobody else has d.
func (d *datagramSocket) setFragmenting(free bool) {
	level, option, mode := unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if !d.is4 {
		level, option = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER // with the same values
	}
	if free {
		mode = unix.IP_PMTUDISC_DONT
	}
	_ = unix.SetsockoptInt(d.fd, level, option, mode)
	d.free = free
}

// datagram is one of a container's, on its way to the host's network.
type datagram struct {
	payload []byte
	segment uint16 // if not 0: payload is many datagrams of this size, the last may be shorter
	free    bool   // may be fragmented
	to      netip.AddrPort
	from    netip.Addr // the host's own address to send from; zero: the kernel chooses
	hops    uint8      // how many routers may pass it on, and one; 0: as many as the kernel says
}

// send sends without waiting. A datagram that finds no room is lost, as on any network.
func (d *datagramSocket) send(m datagram) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return os.ErrClosed
	}
	if m.free != d.free {
		d.setFragmenting(m.free)
	}
	err := d.sendmsg(m)
	if err != nil && m.segment > 0 {
		err = d.sendEach(m) // the kernel or the device may not segment, or not these
	}
	if err == unix.EAGAIN || err == unix.ENOBUFS {
		return nil
	}
	return err
}

// sendEach sends m's segments one by one. Held: mu.
func (d *datagramSocket) sendEach(m datagram) error {
	for part := range slices.Chunk(m.payload, int(m.segment)) {
		one := m
		one.payload, one.segment = part, 0
		if err := d.sendmsg(one); err != nil {
			return err
		}
	}
	return nil
}

// sendmsg is sendmsg(2) without allocations.
func (d *datagramSocket) sendmsg(m datagram) error {
	var name sockaddr
	var control [128]byte // more than control appends
	msg := unix.Msghdr{Name: &name[0], Namelen: name.set(m.to)}
	iov := unix.Iovec{Base: unsafe.SliceData(m.payload)}
	iov.SetLen(len(m.payload))
	msg.Iov = &iov
	msg.SetIovlen(1)
	if used := m.control(control[:0], d.is4); len(used) > 0 {
		msg.Control = &control[0]
		msg.SetControllen(len(used))
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(d.fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if errno != 0 {
		return errno
	}
	return nil
}

// control appends m's control messages: its segments' size (UDP_SEGMENT in udp(7)), how far
// it may go (IP_TTL in ip(7)) and its source (IP_PKTINFO there).
func (m *datagram) control(b []byte, is4 bool) []byte {
	if hops := binary.NativeEndian.AppendUint32(nil, uint32(m.hops)); m.hops > 0 && is4 {
		b = appendControl(b, unix.SOL_IP, unix.IP_TTL, hops)
	} else if m.hops > 0 {
		b = appendControl(b, unix.SOL_IPV6, unix.IPV6_HOPLIMIT, hops)
	}
	if m.segment > 0 && int(m.segment) < len(m.payload) {
		b = appendControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, m.segment))
	}
	switch {
	case !m.from.IsValid():
	case is4:
		var info [unix.SizeofInet4Pktinfo]byte
		from := m.from.As4()
		copy(info[4:], from[:]) // ipi_spec_dst
		b = appendControl(b, unix.SOL_IP, unix.IP_PKTINFO, info[:])
	default:
		var info [unix.SizeofInet6Pktinfo]byte
		from := m.from.As16()
		copy(info[:], from[:])
		b = appendControl(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, info[:])
	}
	return b
}

// appendControl appends a control message (cmsg(3)).
func appendControl(b []byte, level, kind int32, data []byte) []byte {
	h := unix.Cmsghdr{Level: level, Type: kind}
	h.SetLen(unix.CmsgLen(len(data)))
	b = append(b, (*[unix.SizeofCmsghdr]byte)(unsafe.Pointer(&h))[:]...)
	b = append(b, data...)
	for len(b)%unix.SizeofPtr != 0 {
		b = append(b, 0)
	}
	return b
}

// received is a datagram of the host's.
type received struct {
	payload []byte
	from    netip.AddrPort
	to      netip.Addr // if the socket asks for it (IP_PKTINFO)
}

// receive hands all datagrams to take until the socket is closed, and calls broken where
// some did not arrive. Both are called by one goroutine.
func (d *datagramSocket) receive(pool *buffers, take func(received), broken func()) {
	step := func(fd uintptr) bool {
		buffer := pool.get()
		defer pool.put(buffer)
		var control [128]byte
		for range 64 { // then see whether the socket was closed
			m, errno := recvmsg(int(fd), buffer[:], control[:], 0)
			switch errno {
			case 0:
				take(m)
			case unix.EAGAIN:
				return false
			case unix.EINTR:
			default:
				broken()
			}
		}
		return true
	}
	for d.raw.Read(step) == nil {
	}
}

// recvmsg is recvmsg(2) without waiting.
func recvmsg(fd int, b, control []byte, flags int) (received, unix.Errno) {
	var name sockaddr
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	msg := unix.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &iov, Control: &control[0]}
	msg.SetIovlen(1)
	msg.SetControllen(len(control))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), uintptr(unix.MSG_DONTWAIT|flags))
	if errno != 0 {
		return received{}, errno
	}
	m := received{payload: b[:n], from: name.addrPort()}
	if flags&unix.MSG_ERRQUEUE == 0 && msg.Controllen > 0 {
		m.to = destination(control[:msg.Controllen])
	}
	return m, 0
}

// destination finds the address that a datagram was sent to.
func destination(control []byte) netip.Addr {
	for len(control) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		switch {
		case h.Level == unix.SOL_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(data[4:8])) // ipi_spec_dst: the local address to answer from
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(data[:16]))
		}
		control = rest
	}
	return netip.Addr{}
}

// lost is a datagram that did not arrive.
type lost struct {
	why     reason
	to      netip.AddrPort // where it should have gone
	payload []byte         // its beginning
	here    bool           // it was too large to leave: why.mtu alone is known
}

// losses empties the socket's error queue.
func (d *datagramSocket) losses(tell func(lost)) {
	d.mu.Lock()
	var all []lost
	for d.fd >= 0 {
		var b [quoted]byte
		control := make([]byte, 256)
		m, errno := recvmsg(d.fd, b[:], control, unix.MSG_ERRQUEUE)
		if errno != 0 {
			break
		}
		if l, ok := parseError(control); ok {
			l.to, l.payload = m.from, m.payload
			all = append(all, l)
		}
	}
	d.mu.Unlock() // tell may send by another socket of the same flow
	for _, l := range all {
		tell(l)
	}
}

// parseError reads the struct sock_extended_err of a control message (ip(7)).
func parseError(control []byte) (lost, bool) {
	if len(control) < unix.SizeofCmsghdr {
		return lost{}, false
	}
	h, data, _, err := unix.ParseOneSocketControlMessage(control)
	const size = 16 // of the struct, which the address of whoever said it follows
	if err != nil || len(data) < size || h.Type != unix.IP_RECVERR && h.Type != unix.IPV6_RECVERR {
		return lost{}, false
	}
	errno := unix.Errno(binary.NativeEndian.Uint32(data))
	origin, kind, code, info := data[4], data[5], data[6], binary.NativeEndian.Uint32(data[8:])
	var l lost
	switch origin {
	case unix.SO_EE_ORIGIN_ICMP:
		l.why.type4, l.why.code4 = header.ICMPv4Type(kind), header.ICMPv4Code(code)
	case unix.SO_EE_ORIGIN_ICMP6:
		l.why.type6, l.why.code6 = header.ICMPv6Type(kind), header.ICMPv6Code(code)
	case unix.SO_EE_ORIGIN_LOCAL:
		l.here = true
	}
	if errno == unix.EMSGSIZE {
		l.why.mtu = info
	}
	if name := (sockaddr{}); copy(name[:], data[size:]) > 0 {
		if from := name.addrPort().Addr(); from.IsValid() && !publish.StaysInside(from) {
			l.why.from = from
		}
	}
	return l, l.here || origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6
}

// sockaddr is a struct sockaddr_in or sockaddr_in6.
type sockaddr [unix.SizeofSockaddrInet6]byte

func (s *sockaddr) set(a netip.AddrPort) (size uint32) {
	binary.BigEndian.PutUint16(s[2:], a.Port())
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(s[:], unix.AF_INET)
		ip := a.Addr().As4()
		copy(s[4:], ip[:])
		return unix.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(s[:], unix.AF_INET6)
	ip := a.Addr().As16()
	copy(s[8:], ip[:])
	return unix.SizeofSockaddrInet6
}

func (s *sockaddr) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(s[2:])
	switch binary.NativeEndian.Uint16(s[:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(s[4:8])), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(s[8:24])), port)
	}
	return netip.AddrPort{}
}
