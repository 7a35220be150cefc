package tcp

import "golang.org/x/sys/unix"

// From the host's socket to the container.

// takeACK takes what a segment says of those we sent. False: it is not one to believe.
func (c *conn) takeACK(s *Segment) bool {
	if int32(s.ack-c.top) > 0 || c.phase == opening && s.ack != c.top {
		c.acknowledge() // RFC 9293, 3.10.7.4: of what was never sent
		return false
	}
	window := s.window << max(c.shift, 0)
	news := int32(s.ack - c.una)
	switch {
	case news < 0:
		return true // an old one
	case news > 0:
		c.progress(int(news))
	case c.next != c.una && len(s.payload) == 0 && s.flags&flagFIN == 0 && window == c.window:
		c.repeated()
	}
	c.setWindow(window)
	return true
}

// progress forgets n that were acknowledged: bytes, a SYN before or a FIN behind them.
func (c *conn) progress(n int) {
	c.una += uint32(n)
	if int32(c.next-c.una) < 0 {
		c.next = c.una // what was to be sent again had come
	}
	if c.phase == opening {
		c.phase = open
		n--
	}
	if n > c.sending.size {
		n = c.sending.size
		c.finTaken = true
	}
	c.sending.drop(n, &c.relay.pool)
	c.repeats, c.tries, c.resend, c.probe = 0, 0, 0, 0
	if c.next != c.una {
		c.await()
	}
	c.finish()
}

// repeated counts acknowledgements that say nothing new: the third means that a segment was
// lost and those behind it were not (RFC 5681, 3.2). Once for what was on its way then.
func (c *conn) repeated() {
	if c.repeats++; c.repeats == 3 && int32(c.una-c.recover) >= 0 {
		c.sendAgain()
	}
}

// sendAgain begins again with the first byte that was not acknowledged.
func (c *conn) sendAgain() {
	c.recover = c.top
	c.next = c.una
	c.transmit()
}

// await sets the time to send again.
func (c *conn) await() {
	c.resend = c.relay.now + min(resendFirst<<min(c.tries, 16), resendLast)
	c.relay.quick = true
}

// pump moves what the host's socket has to the container, as much as that takes.
func (c *conn) pump() {
	if c.phase != open {
		return
	}
	for c.readable && !c.ended && c.phase == open {
		room := c.room()
		if room == 0 {
			c.relay.quick = true // see waits
			break
		}
		if c.read(room) {
			c.transmit()
		}
	}
	c.transmit()
}

// room is how much to read: what the container's window has room for, but nothing rather
// than little, if there will be room for more (RFC 9293, 3.8.6.2.1).
func (c *conn) room() int {
	room := min(c.window, c.relay.pool.share(maxFlight)) - c.sending.size
	if room <= 0 || c.sending.size > 0 && room < min(maxPayload, c.widest/2) {
		return 0
	}
	return room
}

// read reads from the host's socket. False: nothing to be sent before more was read.
func (c *conn) read(most int) bool {
	pool := &c.relay.pool
	b := c.sending.room(pool)
	b = b[:min(len(b), most, maxPayload)]
	n, errno := receive(c.fd, b)
	if errno != 0 {
		n = 0
	}
	c.sending.wrote(n, pool)
	switch {
	case errno == unix.EAGAIN:
		c.readable, c.hung = false, false
	case errno != 0:
		c.broken()
		return false
	case n == 0:
		c.ended = true
	case n < len(b) && c.hung:
		return false // what is behind it, the end mostly, goes with it
	case n < len(b):
		c.readable = false // epoll(7): so it is empty
	}
	return true
}

// transmit sends what may be sent.
func (c *conn) transmit() {
	for c.phase == open {
		offset := int(c.next - c.una)
		if offset > c.sending.size { // FIN was sent
			return
		}
		b := c.sending.at(offset)
		b = b[:max(min(len(b), maxPayload, c.window-offset), 0)]
		flags := byte(flagACK)
		if offset+len(b) == c.sending.size {
			flags |= flagPSH
			if c.ended && !c.finTaken {
				flags |= flagFIN
			}
		}
		if len(b) == 0 && flags&flagFIN == 0 {
			return
		}
		c.write(flags, c.next, b)
		c.next += uint32(len(b))
		if flags&flagFIN != 0 {
			c.next++
		}
		if int32(c.next-c.top) > 0 {
			c.top = c.next
		}
		if c.resend == 0 {
			c.tries = 0
			c.await()
		}
	}
}

// waits reports whether the connection wants to be looked after soon.
func (c *conn) waits() bool {
	return c.resend != 0 || c.starves()
}

// starves reports whether only the container's window keeps data back, and nothing on the
// way will bring news of it.
func (c *conn) starves() bool {
	return c.phase == open && c.readable && !c.ended && c.next == c.una && c.room() == 0
}

// lookAfter does what is to be done because of the time.
func (c *conn) lookAfter() {
	now := c.relay.now
	switch {
	case c.resend != 0 && now >= c.resend:
		c.late()
	case c.starves() && now >= c.probe:
		if c.probe != 0 {
			c.call()
			c.tries++ // answered or not: the program inside may read nothing for hours
		}
		c.probe = now + min(resendFirst<<min(c.tries, 16), resendLast)
	case c.phase == open && now-c.heard >= keepIdle && now >= c.probe:
		c.probe = now + slowTick
		c.call()
	}
}

// late does what a time that has passed without an answer asks for.
func (c *conn) late() {
	c.tries++
	switch {
	case c.phase == lingers:
		c.relay.forget(c)
	case c.phase == opening && c.tries <= openTries:
		c.sendSYN()
	case c.phase == open && (c.tries <= resendTries || c.relay.now-c.heard < keepIdle):
		c.await()
		c.sendAgain()
		if c.next == c.una { // the window was closed over it: RFC 9293, 3.8.6.1
			c.write(flagACK, c.una-1, nil)
		}
	default:
		c.reset()
	}
}

// call asks whether the container is there, and for its window: a segment that cannot be
// new is answered with what is awaited (RFC 9293, 3.8.4). Who does not answer is gone.
func (c *conn) call() {
	if c.calls++; c.calls > keepTries && c.relay.now-c.heard > keepIdle {
		c.reset()
		return
	}
	c.write(flagACK, c.una-1, nil)
}
