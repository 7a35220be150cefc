package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A Server answers queries. Its fields are set before it serves.
type Server struct {
	// Names it answers for itself; nil: none.
	Names *Names

	// Upstream says whom to ask for a client about all other names. Nil: nobody, as on
	// a network without a way out; other names then do not exist.
	Upstream func(client netip.Addr) Config

	// Sisters, if not nil, is asked before Upstream: the names of the other networks
	// that the client is on. It returns nil if those know nothing.
	Sisters func(client netip.Addr, msg []byte) []byte

	// Dial connects to an upstream server; nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	once    sync.Once
	forward *forwarder
}

// What one server does at a time. Beyond it, packets are dropped, as by a full socket,
// and connections wait.
const (
	maxPackets     = 1000 // queries over UDP that wait for an upstream server, each with a socket
	maxConnections = 200
)

// idle is how long a connection may say nothing (RFC 7766, 6.2.3, wants seconds).
const idle = 10 * time.Second

// ServePacket answers what comes in by conn until that is closed.
func (s *Server) ServePacket(conn net.PacketConn) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	slots := make(chan struct{}, maxPackets)
	buf := make([]byte, 65535)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		q, refusal, ok := parseQuery(buf[:n])
		if !ok {
			if refusal != nil {
				conn.WriteTo(refusal, from)
			}
			continue
		}
		if answer := s.Names.answer(q); answer != nil {
			conn.WriteTo(q.fit(answer), from)
			continue
		}
		msg := append([]byte(nil), buf[:n]...)
		select {
		case slots <- struct{}{}:
			go func() {
				defer func() { <-slots }()
				conn.WriteTo(q.fit(s.elsewhere(ctx, clientOf(from), "udp", msg, q)), from)
			}()
		default:
		}
	}
}

// ServeStream answers what comes in by connections to l until that is closed.
func (s *Server) ServeStream(l net.Listener) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	slots := make(chan struct{}, maxConnections)
	for {
		slots <- struct{}{}
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-slots }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.serveConn(ctx, conn)
		}()
	}
}

// serveConn answers the queries of one connection, one after the other, until it says
// nothing more.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	for {
		conn.SetDeadline(time.Now().Add(idle))
		msg, err := readMessage(conn, "tcp", nil)
		if err != nil {
			return
		}
		q, answer, ok := parseQuery(msg)
		if ok {
			if answer = s.Names.answer(q); answer == nil {
				answer = s.elsewhere(ctx, clientOf(conn.RemoteAddr()), "tcp", msg, q)
			}
		}
		if answer == nil {
			return
		}
		conn.SetDeadline(time.Now().Add(idle))
		out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(answer)), uint16(len(answer)))
		if _, err := conn.Write(append(out, answer...)); err != nil {
			return
		}
	}
}

// elsewhere has others answer what the table of names does not know.
func (s *Server) elsewhere(ctx context.Context, client netip.Addr, network string, msg []byte, q query) []byte {
	if s.Sisters != nil {
		if answer := s.Sisters(client, msg); answer != nil {
			return answer
		}
	}
	if answer := s.Names.deny(q); answer != nil {
		return answer
	}
	if s.Upstream == nil {
		return q.finish(q.begin(dnsmessage.RCodeNameError, false), dnsmessage.RCodeNameError)
	}
	answer, err := s.forwarder().ask(ctx, s.Upstream(client), network, msg, q)
	if err != nil {
		return q.finish(q.begin(dnsmessage.RCodeServerFailure, false), dnsmessage.RCodeServerFailure)
	}
	return answer
}

// Answer is the answer to msg if the table of names has one; else nil.
func (n *Names) Answer(msg []byte) []byte {
	q, _, ok := parseQuery(msg)
	if !ok {
		return nil
	}
	return n.answer(q)
}

// Ask has the upstream servers answer msg, for the network as such; nil: they do not, or
// it is no query.
func (s *Server) Ask(msg []byte) []byte {
	q, _, ok := parseQuery(msg)
	if !ok || s.Upstream == nil {
		return nil
	}
	answer, err := s.forwarder().ask(context.Background(), s.Upstream(netip.Addr{}), "udp", msg, q)
	if err != nil {
		return nil
	}
	return answer
}

// fit is answer if the client takes that much over UDP.
func (q *query) fit(answer []byte) []byte {
	if len(answer) > q.room {
		return q.truncated()
	}
	return answer
}

// forwarder is the one that packets and streams share, with what it knows of the servers.
func (s *Server) forwarder() *forwarder {
	s.once.Do(func() {
		s.forward = &forwarder{dial: s.Dial, patience: patience}
		if s.Dial == nil {
			s.forward.dial = new(net.Dialer).DialContext
		}
	})
	return s.forward
}

// clientOf is the address of a client, without a zone.
func clientOf(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
