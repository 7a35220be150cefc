package stack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/rawfile"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"rbox/slirp/tcp"
)

const (
	virtioSize = 10                                      // struct virtio_net_hdr
	frameFront = virtioSize + header.EthernetMinimumSize // what comes before an IP packet

	// maxSegment is the most payload of one TCP segment: with the largest headers that
	// netstack makes (IPv6 without extensions; TCP with its options) still a frame below
	// gso_max_size, 64 KiB. A larger one the kernel would cut before it gives it to a veth,
	// and for a packet socket that skips the queue it drops it (net/core/dev.c,
	// __dev_direct_xmit).
	maxSegment = 65535 - header.EthernetMinimumSize - header.IPv6MinimumSize - header.TCPHeaderMaximumSize

	// smallFrame is up to which size a packet is copied out of the buffer it was read
	// into: cheaper than a fresh buffer of 64 KiB, which netstack clears, and small
	// packets that wait in a queue do not hold large buffers.
	smallFrame = 8 << 10
)

// link is the stack's end of the cable: netstack's link endpoint, and the goroutine that
// serves it and the host's sockets of the relay.
type link struct {
	mac      tcpip.LinkAddress
	mtu      uint32
	owned    func(tcpip.Address) bool                       // whether an address is the stack's own
	turnBack func(tcpip.NetworkProtocolNumber, []byte) bool // answers a packet that may go no further
	relay    *tcp.Relay
	epoll    int                    // descriptor of the set that is polled (epoll(7))
	wake     int                    // one of it, written to end the goroutine (eventfd(2))
	device   atomic.Pointer[device] // nil: no cable
	up       stack.NetworkDispatcher
	down     chan struct{} // closed when the goroutine has ended, as it does when the device is gone
}

// device is a tap or a packet socket.
type device struct {
	using sync.RWMutex // held to write to fd, and to close it
	fd    int          // -1: closed
}

func (d *device) close() {
	d.using.Lock()
	defer d.using.Unlock()
	unix.Close(d.fd)
	d.fd = -1
}

// open makes what is polled.
func (l *link) open() (err error) {
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = l.watch(l.wake)
	}
	if err != nil {
		unix.Close(l.epoll)
		return os.NewSyscallError("eventfd", err)
	}
	return nil
}

// watch has fd polled. Events of what is not the relay's have no token.
func (l *link) watch(fd int) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// openDevice takes fd over and sets it up.
func openDevice(fd int, kind Kind) (*device, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("descriptor %d of the link: %w", fd, err)
	}
	var err error
	switch kind {
	case Tap:
		err = offloadTap(fd)
	case Packet:
		err = offloadPacket(fd)
	default:
		err = fmt.Errorf("unknown kind of link %d", kind)
	}
	if err != nil {
		return nil, err
	}
	return &device{fd: fd}, nil
}

// offloadTap lets the kernel hand over and take segments larger than the MTU, and leave
// checksums open (linux/if_tun.h).
func offloadTap(fd int) error {
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	const usoV4, usoV6 = 0x20, 0x40 // TUN_F_USO4, TUN_F_USO6: Linux 6.2
	err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|usoV4|usoV6)
	if errors.Is(err, unix.EINVAL) {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp)
	}
	if err != nil {
		return fmt.Errorf("offloads of the tap: %w", err)
	}
	return nil
}

// offloadPacket does the same for a packet socket (packet(7)), whose device, a veth, has
// all offloads by itself.
func offloadPacket(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		return fmt.Errorf("virtio-net headers of the packet socket: %w", err)
	}
	// The rest is speed alone. The buffers count the skbs' truesize, so that 64 KiB segments
	// fill the default ones at once; the forced sizes need CAP_NET_ADMIN over the namespace.
	const size = 16 << 20
	for option, forced := range map[int]int{unix.SO_RCVBUF: unix.SO_RCVBUFFORCE, unix.SO_SNDBUF: unix.SO_SNDBUFFORCE} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, forced, size) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, size)
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	return nil
}

// plug connects d and serves it until it is gone, or unplug is called.
func (l *link) plug(d *device) error {
	if !l.device.CompareAndSwap(nil, d) {
		return errors.New("the stack has a link already")
	}
	if err := l.watch(d.fd); err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	go func() {
		defer close(l.down)
		l.serve(newReader(l, d.fd))
	}()
	return nil
}

// serve is the loop of the stack's one goroutine that waits for descriptors by itself: by
// Go's poller each frame would have two threads woken in place of one, and processors of
// their own for nothing.
func (l *link) serve(r *reader) {
	var events [64]unix.EpollEvent
	for !r.gone {
		n, _ := unix.EpollWait(l.epoll, events[:], l.relay.Wait()) // only EINTR
		l.relay.Woken()
		for _, e := range events[:max(n, 0)] {
			switch {
			case e.Pad != 0:
				l.relay.Ready(e)
			case int(e.Fd) == l.wake:
				return
			default:
				r.drain()
			}
		}
		l.relay.Flush()
	}
}

// unplug ends the goroutine and closes all descriptors.
func (l *link) unplug() {
	if d := l.device.Load(); d != nil {
		one := [8]byte{1}
		_, _ = unix.Write(l.wake, one[:])
		<-l.down
		d.close()
	}
	unix.Close(l.wake)
	unix.Close(l.epoll)
}

// reader reads frames of a device.
type reader struct {
	link   *link
	fd     int
	front  [frameFront]byte
	packet *buffer.View // the next packet is read into
	iov    [2]unix.Iovec
	gone   bool
}

func newReader(l *link, fd int) *reader {
	r := &reader{link: l, fd: fd}
	r.iov[0].Base = &r.front[0]
	r.iov[0].SetLen(frameFront)
	r.renew()
	return r
}

func (r *reader) renew() {
	r.packet = buffer.NewViewSize(buffer.MaxChunkSize)
	r.iov[1].Base = r.packet.BasePtr()
	r.iov[1].SetLen(buffer.MaxChunkSize)
}

// drain reads the frames there are, but not too many: what they bring is to be acknowledged,
// so that more comes meanwhile.
func (r *reader) drain() {
	const batch = 16
	for range batch {
		n, _, errno := unix.RawSyscall(unix.SYS_READV, uintptr(r.fd), uintptr(unsafe.Pointer(&r.iov[0])), uintptr(len(r.iov)))
		switch {
		case errno == 0:
			r.frame(int(n))
		case errno == unix.EAGAIN:
			return
		case errno == unix.EINTR, errno == unix.EINVAL:
			// EINVAL: a frame that a virtio-net header cannot describe, dropped.
		default: // EBADFD of a tap without interface, ENETDOWN of a packet socket
			r.gone = true
			return
		}
	}
}

// frame hands the frame of n bytes that was read to the relay, or else to netstack.
func (r *reader) frame(n int) {
	size := n - frameFront
	if size <= 0 {
		return
	}
	eth := header.Ethernet(r.front[virtioSize:])
	packet := r.packet.AsSlice()[:size]
	if !r.link.accepts(eth, packet) {
		return
	}
	if hopsLeft(eth, packet) <= 1 && r.link.turnBack(eth.Type(), packet) {
		return
	}
	if segment, ok := tcp.Parse(packet); ok {
		segment.MAC = [6]byte(eth[header.EthernetAddressSize:])
		if r.link.relay.Segment(&segment) {
			return
		}
	}
	var view *buffer.View
	if size <= smallFrame {
		view = buffer.NewViewWithData(packet)
	} else {
		view = r.packet
		view.CapLength(size)
		r.renew()
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(view)})
	pkt.NetworkProtocolNumber = eth.Type()
	if v := virtio(r.front[:virtioSize]); v.segmentation() == gsoUDP {
		pkt.GSOOptions.MSS = v.segment() // for handleUDP
	}
	r.link.up.DeliverNetworkPacket(eth.Type(), pkt)
	pkt.DecRef()
}

// accepts reports whether a frame is for the stack. Netstack is promiscuous and answers
// for any address; so what asks who has an address is let through only for its own.
func (l *link) accepts(eth header.Ethernet, packet []byte) bool {
	dst := eth.DestinationAddress()
	if dst != l.mac && dst[0]&1 == 0 { // the lowest bit of the first byte: broadcast or multicast
		return false
	}
	switch eth.Type() {
	case header.ARPProtocolNumber:
		arp := header.ARP(packet)
		return arp.IsValid() && (arp.Op() == header.ARPReply || l.owned(tcpip.AddrFrom4Slice(arp.ProtocolAddressTarget())))
	case header.IPv4ProtocolNumber:
		return len(packet) >= header.IPv4MinimumSize && dst == l.mac
	case header.IPv6ProtocolNumber:
		return len(packet) >= header.IPv6MinimumSize && (isNeighbor(packet) && l.acceptsNeighbor(packet) || dst == l.mac && !isNeighbor(packet))
	}
	return false
}

// isNeighbor reports whether an IPv6 packet is a message of neighbor discovery (RFC 4861).
func isNeighbor(packet []byte) bool {
	ip := header.IPv6(packet)
	if tcpip.TransportProtocolNumber(ip.NextHeader()) != header.ICMPv6ProtocolNumber || len(packet) <= header.IPv6MinimumSize {
		return false
	}
	kind := header.ICMPv6(packet[header.IPv6MinimumSize:])[0]
	return kind >= byte(header.ICMPv6RouterSolicit) && kind <= byte(header.ICMPv6RedirectMsg)
}

func (l *link) acceptsNeighbor(packet []byte) bool {
	icmp := header.ICMPv6(packet[header.IPv6MinimumSize:])
	if len(icmp) < header.ICMPv6NeighborSolicitMinimumSize {
		return false
	}
	switch icmp.Type() {
	case header.ICMPv6NeighborSolicit:
		return l.owned(header.NDPNeighborSolicit(icmp.MessageBody()).TargetAddress())
	case header.ICMPv6NeighborAdvert:
		return true
	}
	return false
}

// WritePackets implements stack.LinkWriter.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	d := l.device.Load()
	if d == nil {
		return 0, &tcpip.ErrAborted{}
	}
	for i, pkt := range pkts.AsSlice() {
		if err := d.write(pkt); err != nil {
			return i, err
		}
	}
	return pkts.Len(), nil
}

// write sends one packet.
func (d *device) write(pkt *stack.PacketBuffer) tcpip.Error {
	fillVirtio(pkt)
	var array [8]unix.Iovec
	iov := array[:0]
	views, offset := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if offset >= len(b) {
			offset -= len(b)
			continue
		}
		iov = append(iov, rawfile.IovecFromBytes(b[offset:]))
		offset = 0
	}
	return d.writev(iov)
}

// write sends a frame of the relay's. What finds no room is lost, as on any cable.
func (l *link) write(headers, payload []byte) {
	var iov [2]unix.Iovec
	iov[0] = rawfile.IovecFromBytes(headers)
	n := 1
	if len(payload) > 0 {
		iov[1] = rawfile.IovecFromBytes(payload)
		n = 2
	}
	if d := l.device.Load(); d != nil {
		d.writev(iov[:n])
	}
}

func (d *device) writev(iov []unix.Iovec) tcpip.Error {
	d.using.RLock()
	defer d.using.RUnlock()
	if d.fd < 0 {
		return &tcpip.ErrAborted{}
	}
	for range 4 {
		switch errno := rawfile.NonBlockingWriteIovec(d.fd, iov); errno {
		case 0:
			return nil
		case unix.EAGAIN, unix.ENOBUFS:
			waitWritable(d.fd)
		case unix.EINTR:
		default:
			return tcpip.TranslateErrno(errno)
		}
	}
	return &tcpip.ErrNoBufferSpace{}
}

// waitWritable gives the kernel a moment to empty the device's queue; a packet that finds
// no room afterwards is lost, as on any cable.
func waitWritable(fd int) {
	const ms = 5
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, ms)
}

// AddHeader implements stack.LinkWriter: room for the virtio-net header, and the Ethernet one.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	front := pkt.LinkHeader().Push(frameFront)
	header.Ethernet(front[virtioSize:]).Encode(&header.EthernetFields{
		SrcAddr: l.mac,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// fillVirtio writes the virtio-net header of an outgoing packet.
func fillVirtio(pkt *stack.PacketBuffer) {
	v := virtio(pkt.LinkHeader().Slice())
	clear(v[:virtioSize])
	gso := &pkt.GSOOptions
	if gso.NeedsCsum {
		v.needChecksum(header.EthernetMinimumSize+gso.L3HdrLen, gso.CsumOffset)
	}
	if gso.MSS == 0 || pkt.Data().Size() <= int(gso.MSS) {
		return
	}
	kind := byte(gsoTCPv4)
	if gso.Type == stack.GSOTCPv6 {
		kind = gsoTCPv6
	}
	v.segments(kind, uint16(pkt.HeaderSize()-virtioSize), gso.MSS)
}

// virtio is a struct virtio_net_hdr (linux/virtio_net.h), in the machine's byte order, as
// tap and packet sockets have it.
type virtio []byte

// Values of its field gso_type.
const (
	gsoTCPv4 = 1
	gsoUDP   = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoTCPv6 = 4
	gsoECN   = 0x80 // a flag beside them
)

func (v virtio) segmentation() int { return int(v[1] &^ gsoECN) }
func (v virtio) segment() uint16   { return binary.NativeEndian.Uint16(v[4:]) }

func (v virtio) needChecksum(start, offset uint16) {
	v[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(v[6:], start)
	binary.NativeEndian.PutUint16(v[8:], offset)
}

func (v virtio) segments(kind byte, headers, segment uint16) {
	v[1] = kind
	binary.NativeEndian.PutUint16(v[2:], headers)
	binary.NativeEndian.PutUint16(v[4:], segment)
}

// The rest of stack.LinkEndpoint and stack.GSOEndpoint.

func (l *link) Attach(up stack.NetworkDispatcher)       { l.up = up }
func (l *link) IsAttached() bool                        { return l.up != nil }
func (l *link) MTU() uint32                             { return l.mtu }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return frameFront }
func (l *link) LinkAddress() tcpip.LinkAddress          { return l.mac }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) Wait()                                   {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
func (l *link) SupportedGSO() stack.SupportedGSO        { return stack.HostGSOSupported }
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

// GSOMaxSize is what makes netstack send maxSegment bytes at most (tcp.sender.sendData).
func (l *link) GSOMaxSize() uint32 { return maxSegment + header.TCPTotalHeaderMaximumSize + 1 }
