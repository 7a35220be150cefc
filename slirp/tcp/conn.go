package tcp

import (
	"golang.org/x/sys/unix"
)

// phase is how far a connection is.
type phase int

const (
	dialing phase = iota // the host's socket connects
	opening              // the container has not answered our SYN
	open
	lingers // both have ended; the last acknowledgement may have to be repeated
	over
)

// Limits of what is on its way for one connection: more than the link holds, with time for
// a program that has to wait for a processor.
const (
	maxFlight   = 512 << 10 // to the container, unless its kernel wants less
	maxTaken    = 1 << 20   // from the container: what the host's socket has not taken
	windowShift = 7         // of our windows (RFC 7323)
)

// conn is one connection. Names in capitals are those of RFC 9293, 3.3.1.
type conn struct {
	relay *Relay
	flow  Flow
	mac   [6]byte // of the container
	phase phase
	fd    int // the host's socket; -1: closed
	token int32

	// From the host's socket to the container.
	una, next, top uint32 // SND.UNA, SND.NXT, and the highest SND.NXT ever
	window         int    // SND.WND
	widest         int    // the widest it was
	shift          int    // of the container's windows; -1: neither side's have one
	mss            int    // of what the container takes
	sending        queue  // from SND.UNA on: sent, then not yet sent
	readable       bool   // the socket may have something
	hung           bool   // it may have ended behind that, or have urgent data, before which it stops
	ended          bool   // it has: FIN follows what is in sending
	finTaken       bool   // acknowledged
	repeats        int    // acknowledgements of the same byte
	recover        uint32 // where the last fast retransmit began, and what was sent then
	resend         int64  // when to send again what has no answer; 0: all has
	tries          int    // how often that was done, or a window asked for
	probe          int64  // when to ask the next time whether it is there, or for a window

	// From the container to the host's socket.
	rcv      uint32  // RCV.NXT
	taken    queue   // what the socket has not taken
	early    []early // what came before its turn, in order
	offered  int     // the window last offered
	finished bool    // the container's FIN has come
	shut     bool    // and was passed on
	owes     bool    // an acknowledgement
	isDue    bool    // is in the relay's list of those that may

	heard int64 // when the container was last heard of
	calls int   // that it did not answer since
}

// newConn returns the connection that a SYN asks for.
func newConn(r *Relay, s *Segment) *conn {
	c := &conn{relay: r, flow: s.Flow, mac: s.MAC, fd: -1, rcv: s.seq + 1, heard: r.now}
	mss, shift := s.synOptions()
	if mss == 0 {
		mss = 536 // RFC 9293, 3.7.1
	}
	const least = 48 // Linux's TCP_MIN_SND_MSS: below it headers are most of the traffic
	c.mss, c.shift = max(min(mss, c.largest()), least), shift
	c.setWindow(s.window)
	return c
}

// largest is the largest segment that fits the link.
func (c *conn) largest() int {
	if c.flow.Inside.Addr().Is4() {
		return c.relay.config.MTU - sizeIPv4 - sizeTCP
	}
	return c.relay.config.MTU - sizeIPv6 - sizeTCP
}

func (c *conn) setWindow(n int) {
	c.window = n
	c.widest = max(c.widest, n)
}

// ready takes an event of the host's socket.
func (c *conn) ready(events uint32) {
	if c.phase == dialing {
		c.dialed()
		if c.phase != opening {
			return
		}
	}
	if events&unix.EPOLLERR != 0 && c.ended {
		c.broken() // nobody reads any more, who would find out
		return
	}
	const more = unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|more) != 0 {
		c.readable = true
	}
	if events&more != 0 {
		c.hung = true
	}
	if events&unix.EPOLLOUT != 0 {
		c.passOn()
	}
	c.pump()
}

// dialed passes the outcome of the host's connect on.
func (c *conn) dialed() {
	r := c.relay
	r.dialing--
	if err := connectError(c.fd); err != nil {
		r.forget(c)
		c.refuse(err)
		return
	}
	c.phase = opening
	c.una = newSequence()
	c.recover = c.una
	c.sendSYN()
}

// refuse answers a SYN as the host answered us.
func (c *conn) refuse(err error) {
	c.closeSocket(false)
	r := c.relay
	r.config.Logf("connect to %s: %v", c.flow.Outside, err)
	if !silent(err) && !r.config.Refuse(c.flow, c.rcv-1, err) {
		c.write(flagRST|flagACK, 0, nil)
	}
}

// sendSYN sends our SYN, which acknowledges the container's.
func (c *conn) sendSYN() {
	mss := c.largest()
	options := [sizeOptions]byte{optionMSS, 4, byte(mss >> 8), byte(mss), optionNop, optionScale, 3, windowShift}
	n := 4
	if c.shift >= 0 {
		n = sizeOptions
	}
	c.send(reply{flags: flagSYN | flagACK, seq: c.una, options: options[:n]})
	c.next = c.una + 1
	c.top = c.next
	c.await()
}

// take takes a segment of the container's.
func (c *conn) take(s *Segment) {
	c.heard, c.calls = c.relay.now, 0
	switch {
	case s.flags&flagRST != 0:
		c.takeReset(s)
	case c.phase == dialing: // the SYN again, or nonsense
	case s.flags&flagSYN != 0:
		c.takeSYN(s)
	case c.phase == lingers:
		c.acknowledge()
	case s.flags&flagACK != 0 && c.takeACK(s):
		c.takeData(s)
		c.pump()
	}
}

// takeReset ends the connection if a reset is believable (RFC 5961, 3.2).
func (c *conn) takeReset(s *Segment) {
	switch ahead := int32(s.seq - c.rcv); {
	case ahead == 0:
		if c.phase == dialing {
			c.relay.dialing--
		}
		c.closeSocket(true)
		c.relay.forget(c)
	case c.phase != dialing && ahead > 0 && int(ahead) <= maxTaken:
		c.acknowledge() // whoever is in earnest knows the number then
	}
}

// takeSYN answers a SYN of a connection that there is.
func (c *conn) takeSYN(s *Segment) {
	switch {
	case c.phase == lingers && s.flags&flagACK == 0: // the port is used again
		r := c.relay
		r.forget(c)
		if !r.closed {
			r.open(s)
		}
	case c.phase == opening && s.seq+1 == c.rcv:
		c.sendSYN()
	default:
		c.acknowledge() // RFC 5961, 4.2
	}
}

// finish ends the connection if both sides have.
func (c *conn) finish() {
	if !c.finTaken || !c.shut || c.phase != open {
		return
	}
	c.closeSocket(false)
	c.dropEarly()
	c.phase = lingers
	c.resend = c.relay.now + lingering
	c.relay.quick = true
}

// reset ends the connection on both sides as abruptly as TCP can.
func (c *conn) reset() {
	if c.phase == dialing {
		c.relay.dialing--
	}
	if c.phase == opening || c.phase == open {
		c.write(flagRST|flagACK, c.next, nil)
	}
	c.closeSocket(true)
	c.relay.forget(c)
}

// broken ends the connection whose host's side was reset.
func (c *conn) broken() { c.reset() }

func (c *conn) closeSocket(abruptly bool) {
	if c.fd < 0 {
		return
	}
	delete(c.relay.sockets, int32(c.fd))
	if abruptly {
		breakOff(c.fd)
	} else {
		unix.Close(c.fd)
	}
	c.fd = -1
}

// write sends a segment.
func (c *conn) write(flags byte, seq uint32, payload []byte) {
	c.send(reply{flags: flags, seq: seq, payload: payload})
}

// send completes a segment and sends it.
func (c *conn) send(s reply) {
	s.flow, s.mac, s.ack, s.mss = c.flow, c.mac, c.rcv, c.mss
	s.window = c.offer(s.flags&flagSYN != 0)
	c.owes = false
	c.relay.config.Write(s.headers(&c.relay.head, c.relay.config.MAC), s.payload)
}

// offer returns the window to offer. A SYN's is not scaled.
func (c *conn) offer(isSYN bool) uint16 {
	c.offered = max(c.relay.pool.share(maxTaken)-c.taken.size, 0)
	if isSYN || c.shift < 0 {
		c.offered = min(c.offered, 0xffff)
		return uint16(c.offered)
	}
	return uint16(c.offered >> windowShift)
}

func (c *conn) acknowledge() { c.write(flagACK, c.next, nil) }

// owe has the segments taken be acknowledged when all that came with them were.
func (c *conn) owe() {
	c.owes = true
	if !c.isDue {
		c.isDue = true
		c.relay.due = append(c.relay.due, c)
	}
}
