package tcp

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// From the container to the host's socket.

// takeData takes what a segment carries, and what came early and follows it.
func (c *conn) takeData(s *Segment) {
	c.takePart(s.seq, s.payload, s.flags&flagFIN != 0)
	for len(c.early) > 0 && int32(c.rcv-c.early[0].seq) >= 0 {
		e := c.early[0]
		c.early = slices.Delete(c.early, 0, 1)
		c.takePart(e.seq, e.chunk.bytes[:e.chunk.written], e.ends)
		c.relay.early--
		c.relay.pool.put(e.chunk)
	}
}

// takePart takes payload, which begins with the byte seq, and the end behind it.
func (c *conn) takePart(seq uint32, payload []byte, ends bool) {
	known := int(int32(c.rcv - seq)) // bytes of it, or before it, that came before
	switch {
	case known < 0:
		c.keepEarly(seq, payload, ends)
		return
	case known > len(payload) || c.finished:
		if len(payload) > 0 || ends || known > 0 {
			c.owe() // sent twice, or only to hear of us
		}
		return
	}
	payload = payload[known:]
	const beyond = 128 << 10 // what windows rounded off may be wrong by, and more
	if room := max(c.relay.pool.share(maxTaken)+beyond-c.taken.size, 0); len(payload) > room {
		payload, ends = payload[:room], false
		c.owe() // the window may be less than it was told
	}
	if len(payload) > 0 && !c.deliver(payload) {
		return
	}
	c.rcv += uint32(len(payload))
	if ends {
		c.rcv++
		c.finished = true
		c.passEnd()
	}
	if len(payload) > 0 || ends || known > 0 {
		c.owe()
	}
}

// early is what came before its turn: a segment from one processor overtakes one from
// another on its way over a veth.
type early struct {
	seq   uint32
	ends  bool
	chunk *chunk
}

// Limits of what is kept: more than may be on the way, and 16 MiB for all connections.
const (
	maxEarly    = 2 * maxTaken >> 16
	maxAllEarly = 256
)

// keepEarly keeps a segment until its turn. That one is missing is told at once only if
// many have overtaken it, since the container sends it again when it hears it thrice.
func (c *conn) keepEarly(seq uint32, payload []byte, ends bool) {
	const usual = 3
	if len(c.early) < usual {
		c.owe()
	} else {
		c.acknowledge()
	}
	at, found := slices.BinarySearchFunc(c.early, seq, func(e early, seq uint32) int { return cmp.Compare(int32(e.seq-seq), 0) })
	if found || len(payload) == 0 && !ends || len(c.early) >= maxEarly || c.relay.early >= maxAllEarly {
		return
	}
	e := early{seq: seq, ends: ends, chunk: c.relay.pool.get()}
	e.chunk.written = copy(e.chunk.bytes[:], payload)
	c.relay.early++
	c.early = slices.Insert(c.early, at, e)
}

func (c *conn) dropEarly() {
	for _, e := range c.early {
		c.relay.early--
		c.relay.pool.put(e.chunk)
	}
	c.early = nil
}

// deliver gives payload to the host's socket, and keeps what that does not take. False:
// the connection has broken.
func (c *conn) deliver(payload []byte) bool {
	n := 0
	if c.taken.size == 0 {
		var errno unix.Errno
		if n, errno = send(c.fd, payload); errno == unix.EAGAIN {
			n = 0
		} else if errno != 0 {
			c.broken()
			return false
		}
	}
	c.taken.append(payload[n:], &c.relay.pool)
	return true
}

// passOn gives the host's socket what it did not take before.
func (c *conn) passOn() {
	if c.taken.size == 0 {
		return
	}
	for c.taken.size > 0 {
		n, errno := send(c.fd, c.taken.at(0))
		if errno == unix.EAGAIN {
			break
		}
		if errno != 0 {
			c.broken()
			return
		}
		c.taken.drop(n, &c.relay.pool)
	}
	if c.offered < maxTaken/2 && c.taken.size < maxTaken/2 {
		c.acknowledge() // that there is room again
	}
	c.passEnd()
}

// passEnd shuts the host's socket down for writing once it has all that the container sent.
func (c *conn) passEnd() {
	if !c.finished || c.shut || c.taken.size > 0 {
		return
	}
	if unix.Shutdown(c.fd, unix.SHUT_WR) != nil {
		c.broken()
		return
	}
	c.shut = true
	c.finish()
}
