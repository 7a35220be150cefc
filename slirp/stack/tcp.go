package stack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// maxDialing is how many connections may be on their way at a time: each has a
	// socket of the host and two goroutines, before the container has any cost of it.
	maxDialing = 4096

	// Keep-alive towards the container: a named network's containers come and go
	// without a word. The host's side has the kernel's defaults (tcp(7)).
	keepIdle     = 2 * time.Minute
	keepInterval = 30 * time.Second
	keepCount    = 4

	// timeWait is short, since the link neither delays nor reorders: a packet from
	// before cannot come late (RFC 9293, 3.6.1).
	timeWait = time.Second
)

// outgoing is the container's connections to the outside.
type outgoing struct {
	forwarder *tcp.Forwarder

	mu      sync.Mutex
	dialing map[stack.TransportEndpointID]uint32 // with the SYN's sequence number
	relays  map[*relay]struct{}                  // all of them, published ports' too
	idle    *time.Timer                          // runs since the last relay ended
	closed  bool
}

// idleAfter is how long after its last connection the stack gives its buffers' memory
// back, which Go's garbage collector by itself does only minutes later.
const idleAfter = 3 * time.Second

// tuneTCP sets netstack's TCP up for a link without delay and loss.
func (s *Stack) tuneTCP() tcpip.Error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &wait, &receive, &send} {
		if err := s.net.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stack) startTCP() {
	s.tcp.dialing = map[stack.TransportEndpointID]uint32{}
	s.tcp.relays = map[*relay]struct{}{}
	s.tcp.forwarder = tcp.NewForwarder(s.net, 0, maxDialing, s.connect)
	s.net.SetTransportProtocolHandler(tcp.ProtocolNumber, s.handleTCP)
}

// handleTCP takes segments of no connection of the stack's. False: netstack resets.
func (s *Stack) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	segment := header.TCP(pkt.TransportHeader().Slice())
	if segment.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	if _, err := s.outside(fromTCPIP(id.LocalAddress)); err != nil {
		return s.refuse(id, segment.SequenceNumber(), err)
	}
	s.tcp.mu.Lock()
	if _, again := s.tcp.dialing[id]; again || s.tcp.closed {
		s.tcp.mu.Unlock()
		return true
	}
	s.tcp.dialing[id] = segment.SequenceNumber()
	s.tcp.mu.Unlock()
	if s.tcp.forwarder.HandlePacket(id, pkt) {
		return true
	}
	s.tcp.dialed(id)
	return false
}

func (o *outgoing) dialed(id stack.TransportEndpointID) (sequence uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	sequence = o.dialing[id]
	delete(o.dialing, id)
	return sequence
}

// refuse answers a SYN whose destination cannot be reached. False: with a reset.
func (s *Stack) refuse(id stack.TransportEndpointID, sequence uint32, err error) bool {
	reason, ok := unreachableFor(err)
	if !ok {
		return false
	}
	var start [8]byte // of the segment: what RFC 792 has an error quote
	h := header.TCP(append(start[:], make([]byte, header.TCPMinimumSize-len(start))...))
	h.SetSourcePort(id.RemotePort)
	h.SetDestinationPort(id.LocalPort)
	h.SetSequenceNumber(sequence)
	s.unreachable(reason, original{
		src: fromTCPIP(id.RemoteAddress), dst: fromTCPIP(id.LocalAddress),
		protocol: header.TCPProtocolNumber, payload: h[:len(start)], size: header.TCPMinimumSize,
	})
	return true
}

// connect makes the connection that a SYN asks for: on the host first, so that what
// happens there is what the container sees.
func (s *Stack) connect(request *tcp.ForwarderRequest) {
	id := request.ID()
	host, err := s.dial(netip.AddrPortFrom(fromTCPIP(id.LocalAddress), id.LocalPort))
	sequence := s.tcp.dialed(id)
	if err != nil {
		s.notConnected(request, sequence, err)
		return
	}
	queue := new(waiter.Queue)
	inside, terr := request.CreateEndpoint(queue)
	request.Complete(false)
	if terr != nil { // the container gave up meanwhile
		abort(host)
		return
	}
	s.relay(inside, queue, host)
}

// notConnected answers a SYN whose connection failed on the host as that did. One that
// timed out there times out here.
func (s *Stack) notConnected(request *tcp.ForwarderRequest, sequence uint32, err error) {
	id := request.ID()
	s.config.Logf("connect to %s port %d: %v", id.LocalAddress, id.LocalPort, err)
	silent := errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, context.Canceled)
	request.Complete(!silent && !s.refuse(id, sequence, err))
}

// dial connects to what the container calls dst.
func (s *Stack) dial(dst netip.AddrPort) (*net.TCPConn, error) {
	addr, err := s.outside(dst.Addr())
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}}
	conn, err := dialer.DialContext(s.life, "tcp", netip.AddrPortFrom(addr, dst.Port()).String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// abort resets a connection of the host's.
func abort(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

// relay copies between an endpoint inside and a connection outside until both end.
func (s *Stack) relay(inside tcpip.Endpoint, queue *waiter.Queue, host *net.TCPConn) {
	keepAlive(inside)
	r := &relay{inside: inside, queue: queue, host: host}
	if !s.tcp.add(r) {
		r.reset()
		return
	}
	defer s.tcp.remove(r)
	r.run()
}

// keepAlive has netstack notice that the other side of e is gone without a word.
func keepAlive(e tcpip.Endpoint) {
	idle, interval := tcpip.KeepaliveIdleOption(keepIdle), tcpip.KeepaliveIntervalOption(keepInterval)
	_ = e.SetSockOpt(&idle)
	_ = e.SetSockOpt(&interval)
	_ = e.SetSockOptInt(tcpip.KeepaliveCountOption, keepCount)
	e.SocketOptions().SetKeepAlive(true)
}

func (o *outgoing) add(r *relay) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.relays[r] = struct{}{}
	if o.idle != nil {
		o.idle.Stop()
	}
	return true
}

func (o *outgoing) remove(r *relay) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.relays, r)
	if len(o.relays) == 0 && !o.closed {
		if o.idle != nil {
			o.idle.Stop()
		}
		o.idle = time.AfterFunc(idleAfter, freeMemory)
	}
}

// freeMemory gives memory back to the kernel. What is in a sync.Pool goes with the second
// collection that finds it there.
func freeMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}

// close resets all connections.
func (o *outgoing) close() { o.resetIf(func(*relay) bool { return true }, true) }

// resetIf resets the connections for which is says so.
func (o *outgoing) resetIf(is func(*relay) bool, closed bool) {
	var chosen []*relay
	o.mu.Lock()
	o.closed = o.closed || closed
	if o.closed && o.idle != nil {
		o.idle.Stop()
	}
	for r := range o.relays {
		if is(r) {
			chosen = append(chosen, r)
		}
	}
	o.mu.Unlock()
	for _, r := range chosen {
		r.reset()
	}
}

// Forget ends the connections and flows of a container that has left the network.
func (s *Stack) Forget(container netip.Addr) {
	s.tcp.resetIf(func(r *relay) bool {
		remote, err := r.inside.GetRemoteAddress()
		return err == nil && fromTCPIP(remote.Addr) == container
	}, false)
	s.udp.forget(container)
	s.ping.forget(container)
}
