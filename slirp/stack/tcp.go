package stack

import (
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"rbox/slirp/tcp"
)

const (
	// Keep-alive towards the container: a named network's containers come and go
	// without a word. The host's side has the kernel's defaults (tcp(7)).
	keepIdle     = 2 * time.Minute
	keepInterval = 30 * time.Second
	keepCount    = 4

	// timeWait is short, since the link neither delays nor reorders: a packet from
	// before cannot come late (RFC 9293, 3.6.1).
	timeWait = time.Second
)

// joined is the connections that netstack ends.
type joined struct {
	mu     sync.Mutex
	relays map[*relay]struct{}
	idle   *time.Timer // runs since the last relay ended
	closed bool
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
		if err := s.net.SetTransportProtocolOption(header.TCPProtocolNumber, option); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stack) startTCP() {
	s.tcp.relays = map[*relay]struct{}{}
	s.net.SetTransportProtocolHandler(header.TCPProtocolNumber, s.handleTCP)
}

// newRelay returns what makes the containers' connections.
func (s *Stack) newRelay() *tcp.Relay {
	return tcp.New(tcp.Config{
		MAC: [6]byte(s.config.MAC), MTU: s.config.MTU, Epoll: s.link.epoll,
		Write: s.link.write, Outside: s.outside, Refuse: s.refuse, Idle: func() { go freeMemory() }, Logf: s.config.Logf,
	})
}

// handleTCP takes segments that netstack found in fragments, or behind extension headers, and
// those that neither it nor the relay knows of. False: netstack resets.
func (s *Stack) handleTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	view := stack.PayloadSince(pkt.TransportHeader())
	defer view.Release()
	segment, ok := tcp.ParseTCP(fromTCPIP(id.RemoteAddress), fromTCPIP(id.LocalAddress), view.AsSlice())
	return ok && s.relay.Segment(&segment)
}

// refuse answers a SYN whose destination cannot be reached. False: with a reset.
func (s *Stack) refuse(f tcp.Flow, sequence uint32, err error) bool {
	reason, ok := unreachableFor(err)
	if !ok {
		return false
	}
	var start [8]byte // of the segment: what RFC 792 has an error quote
	h := header.TCP(append(start[:], make([]byte, header.TCPMinimumSize-len(start))...))
	h.SetSourcePort(f.Inside.Port())
	h.SetDestinationPort(f.Outside.Port())
	h.SetSequenceNumber(sequence)
	s.unreachable(reason, original{
		src: f.Inside.Addr(), dst: f.Outside.Addr(),
		protocol: header.TCPProtocolNumber, payload: h[:len(start)], size: header.TCPMinimumSize,
	})
	return true
}

// abort resets a connection of the host's.
func abort(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

// join copies between an endpoint inside and a connection outside until both end.
func (s *Stack) join(inside tcpip.Endpoint, queue *waiter.Queue, host *net.TCPConn) {
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

func (j *joined) add(r *relay) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return false
	}
	j.relays[r] = struct{}{}
	if j.idle != nil {
		j.idle.Stop()
	}
	return true
}

func (j *joined) remove(r *relay) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.relays, r)
	if len(j.relays) == 0 && !j.closed {
		if j.idle != nil {
			j.idle.Stop()
		}
		j.idle = time.AfterFunc(idleAfter, freeMemory)
	}
}

// freeMemory gives memory back to the kernel. What is in a sync.Pool goes with the second
// collection that finds it there.
func freeMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}

// close resets all connections.
func (j *joined) close() { j.resetIf(func(*relay) bool { return true }, true) }

// resetIf resets the connections for which is says so.
func (j *joined) resetIf(is func(*relay) bool, closed bool) {
	var chosen []*relay
	j.mu.Lock()
	j.closed = j.closed || closed
	if j.closed && j.idle != nil {
		j.idle.Stop()
	}
	for r := range j.relays {
		if is(r) {
			chosen = append(chosen, r)
		}
	}
	j.mu.Unlock()
	for _, r := range chosen {
		r.reset()
	}
}

// Forget ends the connections and flows of a container that has left the network.
func (s *Stack) Forget(container netip.Addr) {
	s.relay.Forget(container)
	s.tcp.resetIf(func(r *relay) bool {
		remote, err := r.inside.GetRemoteAddress()
		return err == nil && fromTCPIP(remote.Addr) == container
	}, false)
	s.udp.forget(container)
	s.ping.forget(container)
}
