package dns

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A forwarder asks the servers of a Config.
type forwarder struct {
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	patience time.Duration

	mu     sync.Mutex
	silent map[netip.AddrPort]time.Time // when these last let us wait in vain
	turn   int                          // for the option rotate
}

// patience is how long a server is waited for before another one is asked as well. The
// third of them is asked before the C library gives up, which waits five seconds.
const patience = 2 * time.Second

// rest is how long a server that did not answer is asked last.
const rest = 30 * time.Second

// A result is what came of asking one server.
type result struct {
	msg []byte
	err error
}

// ask sends msg to one server after the other, each getting a head start of patience,
// and once more to all of them, since packets get lost. It returns the first good
// answer; if there is none, the last bad one.
func (f *forwarder) ask(ctx context.Context, c Config, network string, msg []byte, q query) ([]byte, error) {
	if c.has("use-vc") {
		network = "tcp"
	}
	servers := f.order(c)
	tries := append(servers, servers...)
	ctx, cancel := context.WithTimeout(ctx, c.timeout()+time.Duration(len(tries)-1)*f.patience)
	defer cancel()

	results := make(chan result, len(tries))
	next, pending := 0, 0
	start := func() {
		server := tries[next]
		next++
		pending++
		go func() {
			msg, err := f.exchange(ctx, network, server, msg, q)
			results <- result{msg, err}
		}()
	}
	timer := time.NewTimer(f.patience)
	defer timer.Stop()
	var last result
	for start(); pending > 0; {
		more := len(tries)
		select {
		case r := <-results:
			pending--
			if r.err == nil && !failed(r.msg) {
				return r.msg, nil
			}
			if r.err == nil || last.msg == nil {
				last = r
			}
			more = len(servers) // who has refused once will again
		case <-timer.C:
			f.mark(tries[next-1])
		}
		if next < more {
			start()
			timer.Reset(f.patience)
		}
	}
	return last.msg, last.err
}

// failed tells of an answer that another server may better: the C library goes on
// after these too.
func failed(msg []byte) bool {
	switch dnsmessage.RCode(msg[3] & 0xf) {
	case dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused, dnsmessage.RCodeNotImplemented:
		return true
	}
	return false
}

// order is the servers of c, those last that were silent lately.
func (f *forwarder) order(c Config) []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	servers := c.servers()
	if c.has("rotate") {
		f.turn++
		n := f.turn % len(servers)
		servers = append(servers[n:len(servers):len(servers)], servers[:n]...)
	}
	var good, bad []netip.AddrPort
	for _, s := range servers {
		if time.Since(f.silent[s]) < rest {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}

// mark remembers that a server is silent.
func (f *forwarder) mark(server netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s, since := range f.silent {
		if time.Since(since) > rest {
			delete(f.silent, s) // of resolv.confs long gone
		}
	}
	if f.silent == nil {
		f.silent = map[netip.AddrPort]time.Time{}
	}
	f.silent[server] = time.Now()
}

// exchange asks one server, with an id of our own, from a port that the kernel chose:
// both together keep others from guessing answers. The answer has the client's id.
func (f *forwarder) exchange(ctx context.Context, network string, server netip.AddrPort, msg []byte, q query) ([]byte, error) {
	conn, err := f.dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	id := uint16(rand.Uint32())
	out := append(make([]byte, 0, 2+len(msg)), byte(len(msg)>>8), byte(len(msg)))
	out = append(out, msg...)
	binary.BigEndian.PutUint16(out[2:], id)
	if network == "udp" {
		out = out[2:]
	}
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	var buf []byte
	if network == "udp" {
		buf = make([]byte, max(q.room, maxUDP))
	}
	for {
		answer, err := readMessage(conn, network, buf)
		if err != nil {
			return nil, err
		}
		if answers(answer, id, q.question) {
			binary.BigEndian.PutUint16(answer, q.header.ID)
			return answer, nil
		}
	}
}

// readMessage reads a packet into buf, or from a stream what follows its length (RFC
// 1035, 4.2.2).
func readMessage(r io.Reader, network string, buf []byte) ([]byte, error) {
	if network == "udp" {
		n, err := r.Read(buf)
		return buf[:n], err
	}
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// answers tells whether msg is the answer to the question that was asked with id. One
// that complains may leave the question out.
func answers(msg []byte, id uint16, asked dnsmessage.Question) bool {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != id {
		return false
	}
	got, err := p.Question()
	if err == dnsmessage.ErrSectionDone {
		return h.RCode != dnsmessage.RCodeSuccess
	}
	return err == nil && got.Type == asked.Type && got.Class == asked.Class &&
		strings.EqualFold(got.Name.String(), asked.Name.String())
}
