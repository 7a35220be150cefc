package dns

import (
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// ttl, seconds, is short since an address is another container's as soon as it is free.
const ttl = 1

// A query is a message with the one question that it asks.
type query struct {
	header   dnsmessage.Header
	question dnsmessage.Question
	edns     bool
	room     int // bytes that the answer may have over UDP
}

// udpSize is what a client without EDNS takes (RFC 1035, 4.2.1).
const udpSize = 512

// parseQuery reads a client's message. A refusal, if there is one, is the answer to
// what is no question that can be answered; without a refusal and not ok it deserves none.
func parseQuery(msg []byte) (q query, refusal []byte, ok bool) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || h.Response {
		return q, nil, false // too short for a header, or an answer: two servers must not talk for ever
	}
	q.header, q.room = h, udpSize
	if h.OpCode != 0 {
		return q, q.refuse(dnsmessage.RCodeNotImplemented), false
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return q, q.refuse(dnsmessage.RCodeFormatError), false
	}
	q.question = questions[0]
	if q.question.Type == dnsmessage.TypeAXFR || q.question.Type == typeIXFR {
		return q, q.refuse(dnsmessage.RCodeNotImplemented), false
	}
	q.readEDNS(&p)
	return q, nil, true
}

// typeIXFR is an incremental zone transfer (RFC 1995); its answers are many messages, as AXFR's.
const typeIXFR dnsmessage.Type = 251

// readEDNS looks for the OPT record (RFC 6891). What is malformed there is left for
// the upstream server to judge.
func (q *query) readEDNS(p *dnsmessage.Parser) {
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns, q.room = true, max(int(h.Class), udpSize)
			return
		}
		if p.SkipAdditional() != nil {
			return
		}
	}
}

// refuse is an answer of nothing but the question and a code.
func (q *query) refuse(code dnsmessage.RCode) []byte {
	b, _ := q.begin(code, false).Finish() // cannot fail: a question that was parsed is built
	return b
}

// begin starts an answer of ours.
func (q *query) begin(code dnsmessage.RCode, authoritative bool) *dnsmessage.Builder {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RCode: code,
		Authoritative: authoritative, RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true,
	})
	b.EnableCompression()
	b.StartQuestions()
	if q.question.Name.Length > 0 {
		b.Question(q.question)
	}
	return &b
}

// finish ends the answer b, with EDNS if the query had it.
func (q *query) finish(b *dnsmessage.Builder, code dnsmessage.RCode) []byte {
	if q.edns {
		b.StartAdditionals()
		var h dnsmessage.ResourceHeader
		if h.SetEDNS0(maxUDP, code, false) == nil {
			b.OPTResource(h, dnsmessage.OPTResource{})
		}
	}
	msg, err := b.Finish()
	if err != nil {
		return q.refuse(dnsmessage.RCodeServerFailure)
	}
	return msg
}

// maxUDP is the size of UDP answers that we say we take.
const maxUDP = 4096

// truncated is the answer that has the client ask again over TCP.
func (q *query) truncated() []byte {
	msg := q.finish(q.begin(dnsmessage.RCodeSuccess, false), dnsmessage.RCodeSuccess)
	msg[2] |= 1 << 1 // TC (RFC 1035, 4.1.1)
	return msg
}

// answer is what the table of names has to say; nil: it does not know that name.
func (n *Names) answer(q query) []byte {
	if n == nil || q.question.Class != dnsmessage.ClassINET {
		return nil
	}
	name := q.question.Name.String()
	if back := n.reverse(name); back != "" {
		return q.answerName(back)
	}
	if addrs := n.find(name); len(addrs) > 0 {
		return q.answerAddresses(addrs)
	}
	return nil
}

// deny says that there is no such name, where nobody else can know it; else it returns nil.
func (n *Names) deny(q query) []byte {
	if n == nil || q.question.Class != dnsmessage.ClassINET || !n.owns(q.question.Name.String()) {
		return nil
	}
	return q.finish(q.begin(dnsmessage.RCodeNameError, true), dnsmessage.RCodeNameError)
}

// answerName answers with the name of an address.
func (q *query) answerName(name string) []byte {
	b := q.begin(dnsmessage.RCodeSuccess, true)
	if target, err := dnsmessage.NewName(name + "."); err == nil && q.asks(dnsmessage.TypePTR) {
		b.StartAnswers()
		b.PTRResource(q.resource(), dnsmessage.PTRResource{PTR: target})
	}
	return q.finish(b, dnsmessage.RCodeSuccess)
}

// answerAddresses answers with those of addrs that are asked for. A name without such
// an address has no data, which is not the same as no name: a client that asks for both
// families would believe that and give up.
func (q *query) answerAddresses(addrs []netip.Addr) []byte {
	b := q.begin(dnsmessage.RCodeSuccess, true)
	b.StartAnswers()
	for _, a := range addrs {
		switch {
		case a.Is4() && q.asks(dnsmessage.TypeA):
			b.AResource(q.resource(), dnsmessage.AResource{A: a.As4()})
		case a.Is6() && q.asks(dnsmessage.TypeAAAA):
			b.AAAAResource(q.resource(), dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	return q.finish(b, dnsmessage.RCodeSuccess)
}

func (q *query) asks(t dnsmessage.Type) bool {
	return q.question.Type == t || q.question.Type == dnsmessage.TypeALL
}

func (q *query) resource() dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}
}
