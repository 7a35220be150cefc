// Package tcp ends the TCP connections of containers, and makes each anew with a socket of
// the host's.
//
// It is TCP for one kind of link: a cable to a kernel on the same machine, which hands
// over and takes segments of 64 KiB and fills checksums in. Nothing on it is slow or
// congested, next to nothing is lost, though some may overtake others on a veth, and only
// what the container's kernel itself has no room for waits. So there is no congestion
// control, and what was lost is sent again from there on. All of a Relay happens on the
// goroutine that polls: a segment goes through to the host's socket, and what a socket has
// to a segment, without a wake-up in between.
package tcp

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config is what a Relay needs of the stack it is part of.
type Config struct {
	MAC   [6]byte // of the gateway
	MTU   int     // of the link
	Epoll int     // where sockets of the host are to be polled (epoll(7)), with events for Ready

	// Write sends a frame, headers before payload, without waiting.
	Write func(headers, payload []byte)
	// Outside returns the host's address for what a container calls dst.
	Outside func(dst netip.Addr) (netip.Addr, error)
	// Refuse answers a SYN with the ICMP message that err stands for; false: there is none.
	Refuse func(f Flow, sequence uint32, err error) bool
	// Idle is called some time after the last connection, to give memory back.
	Idle func()
	Logf func(format string, args ...any)
}

// Times, in nanoseconds as all times here. The link has no delay to speak of: what has no
// answer soon was lost, or the other side's program is stopped.
const (
	tick         = int64(100 * time.Millisecond) // how exact the others are
	resendFirst  = int64(200 * time.Millisecond) // RFC 6298 has 1 s, Linux this (TCP_RTO_MIN)
	resendLast   = int64(10 * time.Second)
	resendTries  = 15                 // Linux's tcp_retries2
	openTries    = 6                  // Linux's tcp_syn_retries
	lingering    = int64(time.Second) // TIME-WAIT: no segment from before comes late
	slowTick     = int64(30 * time.Second)
	keepIdle     = int64(2 * time.Minute) // a named network's containers come and go without a word
	keepTries    = 4                      // one each slowTick
	giveBackTime = int64(3 * time.Second) // after the last connection, memory is given back
)

// maxDialing is how many connections may be on their way to the host: each has a socket
// there before the container has any cost of it.
const maxDialing = 4096

// Relay is the TCP connections of a network's containers. But for Wait, Woken, Segment, Ready
// and Flush, which are one goroutine's, its methods may be called by any.
type Relay struct {
	config Config

	mu      sync.Mutex
	conns   map[Flow]*conn
	sockets map[int32]*conn // by their descriptors
	token   int32           // of the latest one
	dialing int
	most    int     // sockets at once
	due     []*conn // that have something to acknowledge
	early   int     // chunks that hold what came before its turn
	pool    pool
	head    [maxHeaders]byte // of the frame that is being made

	clock  func() int64 // the time since New
	now    int64        // when the goroutine began with what it is at
	next   int64        // when to look after all connections
	quick  bool         // some connection waits for an answer
	idle   int64        // when to give memory back; 0: there is none to give
	closed bool
}

// New returns a Relay without connections.
func New(c Config) *Relay {
	start := time.Now()
	return &Relay{
		config: c, conns: map[Flow]*conn{}, sockets: map[int32]*conn{}, most: mostSockets(),
		clock: func() int64 { return int64(time.Since(start)) },
	}
}

// Len is how many connections there are, with those that are only remembered.
func (r *Relay) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// Segment takes a segment. False: it is of no connection here.
func (r *Relay) Segment(s *Segment) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.conns[s.Flow]; c != nil {
		c.take(s)
		return true
	}
	if s.flags&(flagSYN|flagACK|flagRST|flagFIN) != flagSYN || s.MAC == ([6]byte{}) || r.closed {
		return false
	}
	return r.open(s)
}

// open makes the connection that a SYN asks for: on the host first, so that what happens
// there is what the container sees.
func (r *Relay) open(s *Segment) bool {
	addr, err := r.config.Outside(s.Outside.Addr())
	if err != nil {
		return r.config.Refuse(s.Flow, s.seq, err)
	}
	if r.dialing >= maxDialing || len(r.sockets) >= r.most {
		return true // it will ask again
	}
	c := newConn(r, s)
	c.fd, err = connectHost(netip.AddrPortFrom(addr, s.Outside.Port()))
	if err == nil {
		err = r.watch(c)
	}
	if err != nil {
		c.refuse(err)
		return true
	}
	r.conns[c.flow] = c
	r.dialing++
	return true
}

// watch has events of a connection's socket come to Ready. They are edges: a socket that
// once could be read or written is taken for one that still can until it says otherwise.
func (r *Relay) watch(c *conn) error {
	if r.token++; r.token == 0 {
		r.token++ // which is what is not ours
	}
	c.token = r.token
	err := unix.EpollCtl(r.config.Epoll, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(c.fd), Pad: c.token,
	})
	if err != nil {
		return err
	}
	r.sockets[int32(c.fd)] = c
	return nil
}

// Ready takes an event of a socket's.
func (r *Relay) Ready(e unix.EpollEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.sockets[e.Fd]; c != nil && c.token == e.Pad { // not of a socket closed meanwhile
		c.ready(e.Events)
	}
}

// Flush acknowledges what was taken since the last time.
func (r *Relay) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range r.due {
		c.isDue, r.due[i] = false, nil
		if c.owes {
			c.acknowledge()
		}
	}
	r.due = r.due[:0]
}

// Wait looks after connections whose time has come, and returns for how many milliseconds
// nothing else is to be done; -1: until something happens.
func (r *Relay) Wait() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now >= r.next {
		r.lookAfter()
	}
	until := r.next
	switch {
	case r.quick:
		r.next = min(r.next, r.now+tick)
		until = r.next
	case len(r.conns) == 0 && r.idle == 0:
		return -1
	case len(r.conns) == 0 && r.now < r.idle:
		until = r.idle
	case len(r.conns) == 0:
		r.idle, r.pool = 0, pool{}
		r.config.Idle()
		return -1
	}
	return int((until-r.now)/int64(time.Millisecond)) + 1
}

// Woken notes the time. It comes first when there is something to do.
func (r *Relay) Woken() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.clock()
}

// lookAfter looks at each connection's times.
func (r *Relay) lookAfter() {
	r.quick = false
	for _, c := range r.conns {
		c.lookAfter()
		r.quick = r.quick || c.waits()
	}
	r.next = r.now + slowTick
}

// forget drops a connection.
func (r *Relay) forget(c *conn) {
	delete(r.conns, c.flow)
	c.closeSocket(false)
	c.sending.release(&r.pool)
	c.taken.release(&r.pool)
	c.dropEarly()
	c.phase, c.owes, c.resend = over, false, 0
	r.idle = r.now + giveBackTime
}

// Forget resets the connections of a container that has left the network.
func (r *Relay) Forget(container netip.Addr) {
	r.resetIf(func(f Flow) bool { return f.Inside.Addr() == container })
}

// Close resets all connections and makes no more.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.resetIf(func(Flow) bool { return true })
}

func (r *Relay) resetIf(is func(Flow) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for f, c := range r.conns {
		if is(f) {
			c.reset()
		}
	}
}

// silent reports whether a connect that failed with err gets no answer: one that timed out
// on the host times out in the container.
func silent(err error) bool { return errors.Is(err, syscall.ETIMEDOUT) }

// newSequence returns where a connection's sequence numbers begin.
func newSequence() uint32 { return rand.Uint32() } // of the runtime's ChaCha8: cannot be guessed
