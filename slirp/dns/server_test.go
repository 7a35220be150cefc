package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ask is the message that asks for name; edns, if not 0, is the size of answers taken.
func ask(t testing.TB, id uint16, name string, kind dnsmessage.Type, edns int) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	b.StartQuestions()
	b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET})
	if edns > 0 {
		b.StartAdditionals()
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(edns, 0, true)
		b.OPTResource(h, dnsmessage.OPTResource{})
	}
	msg, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// read is what msg says: its code and records in words.
func read(t testing.TB, msg []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(msg); err != nil {
		t.Fatalf("%x: %v", msg, err)
	}
	words := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	if m.Truncated {
		words = append(words, "truncated")
	}
	for _, r := range m.Answers {
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			words = append(words, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			words = append(words, netip.AddrFrom16(body.AAAA).String())
		case *dnsmessage.PTRResource:
			words = append(words, body.PTR.String())
		}
	}
	return strings.Join(words, " ")
}

func testNames() *Names {
	n := NewNames("rbox.internal", netip.MustParsePrefix("10.89.0.0/24"), netip.MustParsePrefix("fd00::/64"))
	n.Add([]string{"web", "0123456789ab", "www"}, addrs("10.89.0.2", "fd00::2")...)
	n.Add([]string{"Db.Example"}, addrs("10.89.0.3")...)
	return n
}

func TestNames(t *testing.T) {
	n := testNames()
	for name, tc := range map[string]struct {
		question string
		kind     dnsmessage.Type
		want     string // "" is no answer
	}{
		"A":                   {"web.", dnsmessage.TypeA, "Success 10.89.0.2"},
		"AAAA":                {"web.", dnsmessage.TypeAAAA, "Success fd00::2"},
		"any":                 {"db.example.", dnsmessage.TypeALL, "Success 10.89.0.3"},
		"alias":               {"www.", dnsmessage.TypeA, "Success 10.89.0.2"},
		"case":                {"wEb.", dnsmessage.TypeA, "Success 10.89.0.2"},
		"in the domain":       {"web.RBOX.internal.", dnsmessage.TypeA, "Success 10.89.0.2"},
		"with a dot":          {"db.example.", dnsmessage.TypeA, "Success 10.89.0.3"},
		"no data":             {"db.example.", dnsmessage.TypeAAAA, "Success"},
		"another type":        {"web.", dnsmessage.TypeMX, "Success"},
		"unknown":             {"nobody.", dnsmessage.TypeA, ""},
		"unknown in domain":   {"nobody.rbox.internal.", dnsmessage.TypeA, "NameError"},
		"the domain":          {"rbox.internal.", dnsmessage.TypeA, "NameError"},
		"looks like domain":   {"xrbox.internal.", dnsmessage.TypeA, ""},
		"reverse":             {"2.0.89.10.in-addr.arpa.", dnsmessage.TypePTR, "Success web.rbox.internal."},
		"reverse of a dotted": {"3.0.89.10.in-addr.arpa.", dnsmessage.TypePTR, "Success Db.Example."},
		"reverse of nobody":   {"9.0.89.10.in-addr.arpa.", dnsmessage.TypePTR, "NameError"},
		"reverse of others":   {"9.0.90.10.in-addr.arpa.", dnsmessage.TypePTR, ""},
		"reverse v6":          {"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "Success web.rbox.internal."},
		"reverse, no data":    {"2.0.89.10.in-addr.arpa.", dnsmessage.TypeTXT, "Success"},
		"root":                {".", dnsmessage.TypeNS, ""},
	} {
		t.Run(name, func(t *testing.T) {
			q, _, _ := parseQuery(ask(t, 7, tc.question, tc.kind, 1232))
			answer := n.answer(q)
			if answer == nil {
				answer = n.deny(q)
			}
			if tc.want == "" {
				if answer != nil {
					t.Errorf("got %s", read(t, answer))
				}
				return
			}
			if got := read(t, answer); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if id := binary.BigEndian.Uint16(answer); id != 7 {
				t.Errorf("id %d", id)
			}
		})
	}
}

func TestNamesAreRemoved(t *testing.T) {
	n := testNames()
	remove := n.Add([]string{"web", "web", "other"}, addrs("10.89.0.9")...)
	n.Add([]string{"other"}, addrs("10.89.0.10")...)
	remove()
	for name, want := range map[string]string{"web.": "Success 10.89.0.2", "other.": "Success 10.89.0.10"} {
		if got := read(t, n.Answer(ask(t, 1, name, dnsmessage.TypeA, 0))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := n.reverse("9.0.89.10.in-addr.arpa."); got != "" {
		t.Errorf("the address of a container that is gone: %s", got)
	}
	if len(n.byName) != 5 || len(n.byAddr) != 4 {
		t.Errorf("left: %v %v", n.byName, n.byAddr)
	}
}

func TestSharedAliasTakesTurns(t *testing.T) {
	n := NewNames("")
	all := addrs("10.0.0.1", "10.0.0.2", "10.0.0.3")
	for _, a := range all {
		n.Add([]string{"shared"}, a)
	}
	first := map[netip.Addr]bool{}
	for range 200 {
		list := n.find("shared")
		first[list[0]] = true
		slices.SortFunc(list, netip.Addr.Compare)
		if !slices.Equal(list, all) {
			t.Fatalf("got %v", list)
		}
	}
	if len(first) != 3 {
		t.Errorf("only %v come first", first)
	}
}

// upstream is a server on loopback that answers by reply, which returns nil for silence.
func upstream(t *testing.T, reply func(network string, q query, msg []byte) []byte) (addr string) {
	t.Helper()
	l, conn := listenBoth(t)
	go func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			msg := bytes.Clone(buf[:n])
			go func() {
				if q, _, ok := parseQuery(msg); ok {
					if answer := reply("udp", q, msg); answer != nil {
						conn.WriteTo(answer, from)
					}
				}
			}()
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				msg, err := readMessage(c, "tcp", nil)
				if q, _, ok := parseQuery(msg); err == nil && ok {
					if answer := reply("tcp", q, msg); answer != nil {
						c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// listenBoth listens on one port of loopback for TCP and UDP.
func listenBoth(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil { // that port is another's for UDP
			l.Close()
			continue
		}
		t.Cleanup(func() { l.Close(); conn.Close() })
		return l, conn
	}
}

// known answers every question for an address with addr.
func known(addr string) func(string, query, []byte) []byte {
	return func(_ string, q query, _ []byte) []byte {
		return q.answerAddresses(addrs(addr))
	}
}

func silence(string, query, []byte) []byte { return nil }

// serve runs a Server whose upstream servers 192.0.2.1, 192.0.2.2... are those given,
// and returns where to ask it.
func serve(t *testing.T, options []string, servers ...string) (addr string) {
	t.Helper()
	where := map[string]string{}
	c := Config{Options: options}
	for i, s := range servers {
		name := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		c.Servers = append(c.Servers, name)
		where[net.JoinHostPort(name.String(), "53")] = s
	}
	s := &Server{
		Names:    testNames(),
		Upstream: func(netip.Addr) Config { return c },
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, where[address])
		},
	}
	s.forwarder().patience = 50 * time.Millisecond
	return run(t, s)
}

func run(t *testing.T, s *Server) (addr string) {
	t.Helper()
	l, conn := listenBoth(t)
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.ServePacket(conn); err != nil {
			t.Error(err)
		}
	})
	done.Go(func() {
		if err := s.ServeStream(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { l.Close(); conn.Close(); done.Wait() })
	return l.Addr().String()
}

// exchange asks the server at addr.
func exchange(t *testing.T, network, addr string, msg []byte) []byte {
	t.Helper()
	answer, err := tryExchange(network, addr, msg)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func tryExchange(network, addr string, msg []byte) ([]byte, error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	out := msg
	if network == "tcp" {
		out = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	}
	if _, err := c.Write(out); err != nil {
		return nil, err
	}
	return readMessage(c, network, make([]byte, 65535))
}

func TestForward(t *testing.T) {
	refused := func(_ string, q query, _ []byte) []byte { return q.refuse(dnsmessage.RCodeRefused) }
	lies := func(_ string, q query, _ []byte) []byte { // another's id, another question
		q.header.ID++
		return q.answerAddresses(addrs("6.6.6.6"))
	}
	nobody, _ := listenBoth(t)
	nobody.Close() // no TCP there
	for name, tc := range map[string]struct {
		options []string
		servers []func(string, query, []byte) []byte
		want    string
	}{
		"one":                 {servers: []func(string, query, []byte) []byte{known("1.2.3.4")}, want: "Success 1.2.3.4"},
		"the first":           {servers: []func(string, query, []byte) []byte{known("1.2.3.4"), known("5.6.7.8")}, want: "Success 1.2.3.4"},
		"silent, then good":   {servers: []func(string, query, []byte) []byte{silence, known("5.6.7.8")}, want: "Success 5.6.7.8"},
		"two silent":          {servers: []func(string, query, []byte) []byte{silence, silence, known("5.6.7.8")}, want: "Success 5.6.7.8"},
		"refused, then good":  {servers: []func(string, query, []byte) []byte{refused, known("5.6.7.8")}, want: "Success 5.6.7.8"},
		"all refuse":          {servers: []func(string, query, []byte) []byte{refused, refused}, want: "Refused"},
		"refused, silent":     {options: []string{"timeout:1"}, servers: []func(string, query, []byte) []byte{refused, silence}, want: "Refused"},
		"a forger, then good": {servers: []func(string, query, []byte) []byte{lies, known("5.6.7.8")}, want: "Success 5.6.7.8"},
		"no such name": {servers: []func(string, query, []byte) []byte{
			func(_ string, q query, _ []byte) []byte { return q.refuse(dnsmessage.RCodeNameError) }, known("5.6.7.8"),
		}, want: "NameError"},
		"all silent": {options: []string{"timeout:1"}, servers: []func(string, query, []byte) []byte{silence}, want: "ServerFailure"},
		"use-vc": {options: []string{"use-vc"}, servers: []func(string, query, []byte) []byte{
			func(network string, q query, _ []byte) []byte {
				if network != "tcp" {
					return q.refuse(dnsmessage.RCodeNameError)
				}
				return q.answerAddresses(addrs("1.2.3.4"))
			},
		}, want: "Success 1.2.3.4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var servers []string
			for _, reply := range tc.servers {
				servers = append(servers, upstream(t, reply))
			}
			addr := serve(t, tc.options, servers...)
			for _, network := range []string{"udp", "tcp"} {
				answer := exchange(t, network, addr, ask(t, 99, "example.com.", dnsmessage.TypeA, 0))
				if got := read(t, answer); got != tc.want {
					t.Errorf("%s: got %q, want %q", network, got, tc.want)
				}
				if id := binary.BigEndian.Uint16(answer); id != 99 {
					t.Errorf("%s: id %d", network, id)
				}
			}
		})
	}
}

func TestForwardAsksAgainForALostPacket(t *testing.T) {
	var asked atomic.Int32
	server := upstream(t, func(_ string, q query, _ []byte) []byte {
		if asked.Add(1) == 1 {
			return nil
		}
		return q.answerAddresses(addrs("1.2.3.4"))
	})
	addr := serve(t, nil, server)
	if got := read(t, exchange(t, "udp", addr, ask(t, 1, "example.com.", dnsmessage.TypeA, 0))); got != "Success 1.2.3.4" {
		t.Error(got)
	}
}

func TestSilentServerIsAskedLast(t *testing.T) {
	var asked atomic.Int32
	dead := upstream(t, func(string, query, []byte) []byte { asked.Add(1); return nil })
	addr := serve(t, nil, dead, upstream(t, known("1.2.3.4")))
	for range 5 {
		exchange(t, "udp", addr, ask(t, 1, "example.com.", dnsmessage.TypeA, 0))
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestQueryPassesUnchanged(t *testing.T) {
	msg := ask(t, 5, "eXample.com.", dnsmessage.TypeA, 1400)
	var got atomic.Value
	addr := serve(t, nil, upstream(t, func(_ string, q query, msg []byte) []byte {
		got.Store(bytes.Clone(msg))
		return q.answerAddresses(addrs("1.2.3.4"))
	}))
	answer := exchange(t, "udp", addr, msg)
	if sent := got.Load().([]byte); !bytes.Equal(sent[2:], msg[2:]) {
		t.Errorf("sent %x, not %x", sent, msg)
	}
	if q, _, _ := parseQuery(append([]byte{0, 5, 1, 0}, answer[4:]...)); !q.edns {
		t.Error("the answer has lost its OPT record")
	}
}

func TestLongAnswers(t *testing.T) {
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}))
	}
	addr := serve(t, nil, upstream(t, func(network string, q query, _ []byte) []byte {
		return q.answerAddresses(many)
	}))
	for _, tc := range []struct {
		network string
		edns    int
		want    string
	}{{"udp", 0, "Success truncated"}, {"udp", 1232, "Success truncated"}, {"udp", 4096, "Success 10.1.0.0"}, {"tcp", 0, "Success 10.1.0.0"}} {
		got := read(t, exchange(t, tc.network, addr, ask(t, 1, "example.com.", dnsmessage.TypeA, tc.edns)))
		if !strings.HasPrefix(got, tc.want) || tc.edns == 4096 && len(strings.Fields(got)) != 201 {
			t.Errorf("%s, %d: %s", tc.network, tc.edns, got)
		}
	}
}

func TestNamesOverBothTransports(t *testing.T) {
	addr := serve(t, nil, upstream(t, silence))
	for _, network := range []string{"udp", "tcp"} {
		if got := read(t, exchange(t, network, addr, ask(t, 1, "WEB.", dnsmessage.TypeA, 0))); got != "Success 10.89.0.2" {
			t.Errorf("%s: %s", network, got)
		}
	}
}

func TestManyQueriesOnOneConnection(t *testing.T) {
	addr := serve(t, nil, upstream(t, known("1.2.3.4")))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	for i := range 3 {
		msg := ask(t, uint16(i), "example.com.", dnsmessage.TypeA, 0)
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	}
	for i := range 3 {
		answer, err := readMessage(c, "tcp", nil)
		if err != nil || binary.BigEndian.Uint16(answer) != uint16(i) {
			t.Fatalf("answer %d: %x, %v", i, answer, err)
		}
	}
}

func TestManyClients(t *testing.T) {
	addr := serve(t, nil, upstream(t, known("1.2.3.4")))
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			network := []string{"udp", "tcp"}[i%2]
			msg := ask(t, uint16(i), fmt.Sprintf("host%d.example.com.", i), dnsmessage.TypeA, 0)
			answer, err := tryExchange(network, addr, msg)
			if err != nil || binary.BigEndian.Uint16(answer) != uint16(i) || read(t, answer) != "Success 1.2.3.4" {
				t.Errorf("%s %d: %x, %v", network, i, answer, err)
			}
		})
	}
	all.Wait()
}

func TestMalformed(t *testing.T) {
	addr := serve(t, nil, upstream(t, known("1.2.3.4")))
	good := ask(t, 3, "example.com.", dnsmessage.TypeA, 0)
	two := bytes.Clone(good)
	two[5] = 2
	update := bytes.Clone(good)
	update[2] |= 5 << 3
	answer := bytes.Clone(good)
	answer[2] |= 1 << 7
	for name, tc := range map[string]struct {
		msg  []byte
		want string // "" is silence
	}{
		"two questions": {two, "FormatError"},
		"cut":           {good[:len(good)-3], "FormatError"},
		"update":        {update, "NotImplemented"},
		"transfer":      {ask(t, 3, "example.com.", dnsmessage.TypeAXFR, 0), "NotImplemented"},
		"an answer":     {answer, ""},
		"no header":     {good[:11], ""},
		"nothing":       {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.want != "" {
				for _, network := range []string{"udp", "tcp"} {
					if got := read(t, exchange(t, network, addr, tc.msg)); got != tc.want {
						t.Errorf("%s: got %s", network, got)
					}
				}
				return
			}
			if _, err := tryExchange("tcp", addr, tc.msg); !errors.Is(err, io.EOF) {
				t.Errorf("got %v, not the connection's end", err)
			}
		})
	}
}

func TestNoWayOut(t *testing.T) {
	addr := run(t, &Server{Names: testNames()})
	if got := read(t, exchange(t, "udp", addr, ask(t, 1, "example.com.", dnsmessage.TypeA, 0))); got != "NameError" {
		t.Error(got)
	}
}

func TestSistersComeBeforeUpstream(t *testing.T) {
	other := NewNames("rbox.internal")
	other.Add([]string{"db"}, addrs("10.90.0.2")...)
	addr := run(t, &Server{Names: testNames(), Sisters: func(client netip.Addr, msg []byte) []byte {
		if client != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("client %v", client)
		}
		return other.Answer(msg)
	}})
	for name, want := range map[string]string{
		"db.": "Success 10.90.0.2", "web.": "Success 10.89.0.2", "none.": "NameError", "db.rbox.internal.": "Success 10.90.0.2",
	} {
		if got := read(t, exchange(t, "udp", addr, ask(t, 1, name, dnsmessage.TypeA, 0))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// FuzzQuery holds that whatever comes in, what goes out is an answer to it.
func FuzzQuery(f *testing.F) {
	f.Add(ask(f, 1, "web.", dnsmessage.TypeA, 0))
	f.Add(ask(f, 2, "nobody.rbox.internal.", dnsmessage.TypeAAAA, 1232))
	f.Add(ask(f, 3, "2.0.89.10.in-addr.arpa.", dnsmessage.TypePTR, 100))
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	names := testNames()
	f.Fuzz(func(t *testing.T, msg []byte) {
		q, out, ok := parseQuery(msg)
		if ok {
			if out = names.answer(q); out == nil {
				out = names.deny(q)
			}
			if truncated := q.truncated(); !answers(truncated, q.header.ID, q.question) {
				t.Errorf("%x is no answer to %x", truncated, msg)
			}
		}
		if out == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(out); err != nil {
			t.Fatalf("%x is answered by %x: %v", msg, out, err)
		}
		if !m.Response || m.ID != binary.BigEndian.Uint16(msg) || ok && !answers(out, m.ID, q.question) {
			t.Errorf("%x is no answer to %x", out, msg)
		}
	})
}

// FuzzAnswers holds that an upstream server's message is taken only with our id and question.
func FuzzAnswers(f *testing.F) {
	asked := dnsmessage.Question{Name: dnsmessage.MustNewName("web."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	f.Add(testNames().Answer(ask(f, 1, "web.", dnsmessage.TypeA, 0)))
	f.Add([]byte{0, 1, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		if answers(msg, 1, asked) && (len(msg) < 12 || msg[0] != 0 || msg[1] != 1 || msg[2]&0x80 == 0) {
			t.Errorf("%x passes for an answer", msg)
		}
		if answers(msg, 1, asked) {
			failed(msg)
		}
	})
}
