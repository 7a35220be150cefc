package tcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second // more than anything takes

var (
	inside   = netip.MustParseAddr("10.0.2.100")
	inside6  = netip.MustParseAddr("fd00::100")
	outside  = netip.MustParseAddr("198.51.100.1") // which is the host's 127.0.0.1
	outside6 = netip.MustParseAddr("2001:db8::1")
	ourMAC   = [6]byte{2, 0, 0, 0, 0, 2}
	theirMAC = [6]byte{2, 0, 0, 0, 0, 1}
)

// bed is a Relay whose container is the test.
type bed struct {
	t     *testing.T
	relay *Relay
	epoll int
	ahead int64     // how much later it is for the relay
	sent  []Segment // by the relay, not yet looked at
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t}
	var err error
	if b.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	b.relay = New(Config{
		MAC: ourMAC, MTU: 1500, Epoll: b.epoll, Write: b.write, Idle: func() {}, Logf: t.Logf,
		Outside: func(a netip.Addr) (netip.Addr, error) {
			if a == outside {
				return netip.MustParseAddr("127.0.0.1"), nil
			}
			return netip.Addr{}, syscall.ENETUNREACH
		},
		Refuse: func(_ Flow, _ uint32, err error) bool { return errors.Is(err, syscall.ENETUNREACH) },
	})
	clock := b.relay.clock
	b.relay.clock = func() int64 { return clock() + b.ahead }
	t.Cleanup(func() {
		b.relay.Close()
		unix.Close(b.epoll)
	})
	return b
}

// write checks a frame as the container's kernel would, and keeps its segment.
func (b *bed) write(headers, payload []byte) {
	frame := append(bytes.Clone(headers), payload...)
	packet := frame[sizeFront:]
	s, ok := Parse(packet)
	if !ok {
		b.t.Fatalf("the relay sent %x", frame)
	}
	if [6]byte(frame[sizeVirtio:]) != theirMAC || [6]byte(frame[sizeVirtio+6:]) != ourMAC {
		b.t.Errorf("Ethernet header %x", frame[sizeVirtio:sizeFront])
	}
	if fold(sum(packet[:sizeIPv4])) != 0xffff {
		b.t.Errorf("checksum of IP header %x", packet[:sizeIPv4])
	}
	// A sum over a pseudo header alone, which the kernel completes.
	pseudo := sum(packet[12:20]) + protocolTCP + uint32(len(packet)-sizeIPv4)
	if got := binary.BigEndian.Uint16(packet[sizeIPv4+16:]); got != fold(pseudo) {
		b.t.Errorf("checksum %x, want %x", got, fold(pseudo))
	}
	b.sent = append(b.sent, s)
}

// step does what there is to do, as the stack's goroutine does; false: nothing.
func (b *bed) step(ms int) bool {
	b.relay.Wait()
	var events [16]unix.EpollEvent
	n, _ := unix.EpollWait(b.epoll, events[:], ms)
	b.relay.Woken()
	for _, e := range events[:max(n, 0)] {
		b.relay.Ready(e)
	}
	b.relay.Flush()
	return n > 0
}

// pass lets time go by for the relay.
func (b *bed) pass(d time.Duration) {
	b.relay.Wait() // as before any wait
	b.ahead += int64(d)
	b.relay.Woken()
	b.relay.Wait()
}

// next waits for the relay's next segment.
func (b *bed) next() Segment {
	b.t.Helper()
	for end := time.Now().Add(patience); len(b.sent) == 0; b.step(10) {
		if time.Now().After(end) {
			b.t.Fatal("the relay sends nothing")
		}
	}
	s := b.sent[0]
	b.sent = b.sent[1:]
	return s
}

// quiet fails if the relay sends something.
func (b *bed) quiet() {
	b.t.Helper()
	for b.step(0) {
	}
	if len(b.sent) > 0 {
		b.t.Errorf("the relay sent %+v", b.sent[0])
	}
}

// peer is the container's end of a connection.
type peer struct {
	*bed
	flow     Flow
	seq, ack uint32
	window   int
}

func (p *peer) send(flags byte, payload string) bool {
	return p.sendAt(p.seq, flags, payload)
}

func (p *peer) sendAt(seq uint32, flags byte, payload string) bool {
	s := Segment{Flow: p.flow, MAC: theirMAC, seq: seq, ack: p.ack, flags: flags, window: p.window, payload: []byte(payload)}
	if flags&flagSYN != 0 {
		s.options = []byte{optionMSS, 4, 5, 0xb4, optionNop, optionScale, 3, 0} // 1460, windows as they are
	}
	taken := p.relay.Segment(&s)
	p.relay.Flush()
	return taken
}

// dial sends a SYN to the port of l.
func (b *bed) dial(l net.Listener) *peer {
	b.t.Helper()
	p := &peer{bed: b, seq: 1000, window: 0xffff, flow: Flow{
		Inside:  netip.AddrPortFrom(inside, 40000),
		Outside: netip.AddrPortFrom(outside, l.Addr().(*net.TCPAddr).AddrPort().Port()),
	}}
	if !p.send(flagSYN, "") {
		b.t.Fatal("the relay does not want the SYN")
	}
	return p
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	l.SetDeadline(time.Now().Add(patience))
	return l
}

// connect makes a connection.
func connect(t *testing.T) (*peer, *net.TCPConn) {
	t.Helper()
	b, l := newBed(t), listen(t)
	p := b.dial(l)
	p.establish()
	host, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	host.SetDeadline(time.Now().Add(patience))
	return p, host
}

func (p *peer) establish() {
	p.t.Helper()
	s := p.next()
	if mss, shift := s.synOptions(); s.flags != flagSYN|flagACK || s.ack != p.seq+1 || mss != 1460 || shift != windowShift {
		p.t.Fatalf("the SYN was answered with %+v, MSS %d, shift %d", s, mss, shift)
	}
	p.seq, p.ack = s.ack, s.seq+1
	p.send(flagACK, "")
}

func (p *peer) want(what string, flags byte, seq, ack uint32, payload string) Segment {
	p.t.Helper()
	s := p.next()
	if s.flags&^flagPSH != flags || s.seq != seq || s.ack != ack || string(s.payload) != payload {
		p.t.Fatalf("%s: got flags %x seq %+d ack %+d %q, want %x %+d %+d %q", what,
			s.flags, int32(s.seq-p.ack), int32(s.ack-p.seq), s.payload, flags, int32(seq-p.ack), int32(ack-p.seq), payload)
	}
	return s
}

func read(t *testing.T, c io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("the host read %q, %v, want %q", got, err, want)
	}
}

func TestBothSidesHalfClose(t *testing.T) {
	p, host := connect(t)
	p.send(flagACK|flagPSH, "question")
	p.want("acknowledged", flagACK, p.ack, p.seq+8, "")
	p.seq += 8
	read(t, host, "question")
	p.send(flagACK|flagFIN, "")
	p.seq++
	p.want("FIN acknowledged", flagACK, p.ack, p.seq, "")
	if n, err := host.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("the host read %d, %v, want the end", n, err)
	}
	host.Write([]byte("answer"))
	p.want("answer", flagACK, p.ack, p.seq, "answer")
	p.ack += 6
	p.send(flagACK, "")
	host.Close()
	p.want("FIN", flagACK|flagFIN, p.ack, p.seq, "")
	p.ack++
	p.send(flagACK, "")
	p.quiet()
	p.pass(2 * time.Second)
	if n := p.relay.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// The host's end comes behind its data, and the acknowledgement of the container's is repeated.
func TestHostEndsFirst(t *testing.T) {
	p, host := connect(t)
	host.Write([]byte("bye"))
	host.Close()
	got := ""
	for {
		one := p.next()
		got += string(one.payload)
		if one.flags&flagFIN != 0 {
			break
		}
	}
	if got != "bye" {
		t.Fatalf("got %q, want %q", got, "bye")
	}
	p.ack += 4
	p.send(flagACK|flagFIN, "")
	p.seq++
	p.want("FIN acknowledged", flagACK, p.ack, p.seq, "")
	p.sendAt(p.seq-1, flagACK|flagFIN, "")
	p.want("FIN acknowledged again", flagACK, p.ack, p.seq, "")
}

func TestRefused(t *testing.T) {
	b, l := newBed(t), listen(t)
	l.Close()
	p := b.dial(l)
	p.want("refused", flagRST|flagACK, 0, p.seq+1, "")
	if n := b.relay.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestRefusedByICMP(t *testing.T) {
	b, l := newBed(t), listen(t)
	p := &peer{bed: b, seq: 1, flow: Flow{netip.AddrPortFrom(inside, 1), netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), l.Addr().(*net.TCPAddr).AddrPort().Port())}}
	if !p.send(flagSYN, "") {
		t.Error("the relay left the SYN to netstack")
	}
	b.quiet()
}

func TestResets(t *testing.T) {
	t.Run("by the container", func(t *testing.T) {
		p, host := connect(t)
		p.sendAt(p.seq+1, flagRST, "") // not the number awaited: RFC 5961
		p.want("challenge", flagACK, p.ack, p.seq, "")
		p.send(flagRST, "")
		if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the host read %v, want %v", err, syscall.ECONNRESET)
		}
	})
	t.Run("by the host", func(t *testing.T) {
		p, host := connect(t)
		host.SetLinger(0)
		host.Close()
		p.want("reset", flagRST|flagACK, p.ack, p.seq, "")
	})
	t.Run("by the host behind its end", func(t *testing.T) {
		p, host := connect(t)
		host.CloseWrite()
		p.want("FIN", flagACK|flagFIN, p.ack, p.seq, "")
		host.SetLinger(0)
		host.Close()
		p.want("reset", flagRST|flagACK, p.ack+1, p.seq, "")
	})
	t.Run("forgotten", func(t *testing.T) {
		p, host := connect(t)
		p.relay.Forget(inside)
		p.want("reset", flagRST|flagACK, p.ack, p.seq, "")
		if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the host read %v, want %v", err, syscall.ECONNRESET)
		}
	})
}

// What was lost on the way from the container is asked for, and what comes twice is taken once.
func TestTakesEachByteOnce(t *testing.T) {
	p, host := connect(t)
	p.sendAt(p.seq+3, flagACK, "def")
	p.want("still awaited", flagACK, p.ack, p.seq, "")
	p.send(flagACK, "abc")
	p.want("abcdef", flagACK, p.ack, p.seq+6, "")
	p.sendAt(p.seq+1, flagACK, "bcdef")
	p.want("known", flagACK, p.ack, p.seq+6, "")
	p.send(flagACK, "abcdef")
	p.want("known", flagACK, p.ack, p.seq+6, "")
	read(t, host, "abcdef")
}

// Segments that overtake each other arrive in their order, with what overlaps once.
func TestTakesWhatCameEarly(t *testing.T) {
	p, host := connect(t)
	for _, at := range []uint32{8, 2, 4, 5, 2} {
		piece, flags := "0123456789"[at:min(at+3, 10)], byte(flagACK)
		if at == 8 {
			flags |= flagFIN
		}
		p.sendAt(p.seq+at, flags, piece)
		p.want("what is missing", flagACK, p.ack, p.seq, "")
	}
	p.send(flagACK, "01")
	p.want("all, and the end", flagACK, p.ack, p.seq+11, "")
	p.quiet()
	if n := p.relay.early; n != 0 {
		t.Errorf("%d segments are kept", n)
	}
	read(t, host, "0123456789")
}

func TestSendsAgain(t *testing.T) {
	lose := func(t *testing.T) *peer {
		p, host := connect(t)
		host.Write([]byte("abc"))
		p.want("lost", flagACK, p.ack, p.seq, "abc")
		host.Write([]byte("def"))
		p.want("arrives", flagACK, p.ack+3, p.seq, "def")
		return p
	}
	t.Run("in time", func(t *testing.T) {
		p := lose(t)
		p.pass(time.Duration(resendFirst))
		p.want("again", flagACK, p.ack, p.seq, "abcdef")
		p.pass(time.Duration(resendFirst))
		p.quiet()
		p.pass(time.Duration(resendFirst))
		p.want("and again", flagACK, p.ack, p.seq, "abcdef")
		p.ack += 6
		p.send(flagACK, "")
		p.pass(time.Minute)
		p.quiet()
	})
	t.Run("asked three times", func(t *testing.T) {
		p := lose(t)
		p.send(flagACK, "")
		p.send(flagACK, "")
		p.quiet()
		p.send(flagACK, "")
		p.want("again", flagACK, p.ack, p.seq, "abcdef")
		for range 5 {
			p.send(flagACK, "")
		}
		p.quiet()
	})
	t.Run("the SYN", func(t *testing.T) {
		b, l := newBed(t), listen(t)
		p := b.dial(l)
		first := p.next()
		p.pass(time.Duration(resendFirst))
		p.want("again", flagSYN|flagACK, first.seq, p.seq+1, "")
		p.send(flagSYN, "")
		p.want("asked for again", flagSYN|flagACK, first.seq, p.seq+1, "")
		for range 20 {
			p.pass(time.Minute)
		}
		if n := b.relay.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// A closed window stops what the host sends, and is asked about, for as long as it takes.
func TestAsksForAWindow(t *testing.T) {
	p, host := connect(t)
	p.window = 3
	p.send(flagACK, "")
	host.Write([]byte("abcdef"))
	p.want("what fits", flagACK, p.ack, p.seq, "abc")
	p.window, p.ack = 0, p.ack+3
	p.send(flagACK, "")
	p.quiet()
	for range 20 {
		p.pass(time.Duration(resendLast))
		for _, s := range p.sent {
			if s.seq != p.ack-1 || len(s.payload) > 0 {
				t.Fatalf("asked with %+v", s)
			}
		}
		if asked := len(p.sent) > 0; asked {
			p.sent = nil
			p.send(flagACK, "")
		}
	}
	p.window = 100
	p.send(flagACK, "")
	p.want("the rest", flagACK, p.ack, p.seq, "def")
}

// The longer a window is closed the less often it is asked for, though each time answered.
func TestAsksForAWindowLessAndLess(t *testing.T) {
	p, host := connect(t)
	p.window = 0
	p.send(flagACK, "")
	host.Write([]byte("abc"))
	for !p.relay.conns[p.flow].readable {
		p.step(10)
	}
	asked := 0
	for range 600 { // a minute
		p.pass(time.Duration(tick))
		asked += len(p.sent)
		if len(p.sent) > 0 {
			p.sent = nil
			p.send(flagACK, "")
		}
	}
	if asked < 6 || asked > 15 {
		t.Errorf("asked %d times", asked)
	}
	p.window = 100
	p.send(flagACK, "")
	p.want("what waited", flagACK, p.ack, p.seq, "abc")
	p.pass(time.Duration(resendFirst))
	p.want("and again, soon", flagACK, p.ack, p.seq, "abc")
}

// What was lost before the window closed is asked about too: the word that it is open
// again may be lost as well.
func TestAsksForAWindowThatWasTakenBack(t *testing.T) {
	p, host := connect(t)
	host.Write([]byte("abc"))
	p.want("lost", flagACK, p.ack, p.seq, "abc")
	p.window = 0
	p.send(flagACK, "")
	for range 3 * resendTries {
		p.pass(time.Duration(resendLast))
		p.want("is there a window", flagACK, p.ack-1, p.seq, "")
		p.send(flagACK, "")
	}
	p.window = 100
	p.send(flagACK, "")
	p.want("again", flagACK, p.ack, p.seq, "abc")
}

// A read ends before urgent data (tcp(7)), with more behind it; nothing new will tell of that.
func TestUrgentDataIsInItsPlace(t *testing.T) {
	p, host := connect(t)
	raw, err := host.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	host.Write([]byte("abc"))
	raw.Write(func(fd uintptr) bool {
		err = unix.Send(int(fd), []byte("x"), unix.MSG_OOB)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	host.Write([]byte("def"))
	got := ""
	for len(got) < len("abcxdef") {
		s := p.next()
		if s.seq == p.ack { // not a second time
			got += string(s.payload)
			p.ack += uint32(len(s.payload))
			p.send(flagACK, "")
		}
	}
	if got != "abcxdef" {
		t.Errorf("got %q", got)
	}
}

// A host that does not read closes the container's window; nothing is lost.
func TestHostDoesNotRead(t *testing.T) {
	p, host := connect(t)
	const much = 16 << 20
	sent, window := 0, 0xffff
	piece := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	for window >= len(piece) {
		p.send(flagACK, string(piece))
		p.seq += uint32(len(piece))
		if sent += len(piece); sent > much {
			t.Fatal("the window never closes")
		}
		window = p.next().window << windowShift
	}
	got := make(chan int)
	go func() {
		n, _ := io.Copy(io.Discard, host)
		got <- int(n)
	}()
	for window < maxTaken/2 {
		window = p.next().window << windowShift
	}
	p.send(flagACK|flagFIN, "")
	for {
		select {
		case n := <-got:
			if n != sent {
				t.Errorf("%d bytes arrived, want %d", n, sent)
			}
			return
		default:
			p.step(10)
		}
	}
}

// Where others have used up the memory, a connection gets by with little, and loses nothing.
func TestLittleMemory(t *testing.T) {
	t.Run("outward", func(t *testing.T) {
		p, host := connect(t)
		p.relay.pool.used += maxUsed
		c := p.relay.conns[p.flow]
		piece := bytes.Repeat([]byte("0123456789abcdef"), 2000)
		start := p.seq
		for c.taken.size < leastShare {
			p.send(flagACK, string(piece))
			p.seq = p.next().ack
		}
		for range 20 { // far beyond the window
			p.send(flagACK, string(piece))
			p.seq = p.next().ack
		}
		sent := int(p.seq - start)
		if c.taken.size > leastShare+128<<10 || c.offered != 0 {
			t.Errorf("%d bytes are kept, with a window of %d", c.taken.size, c.offered)
		}
		got := make(chan int)
		go func() {
			n, _ := io.Copy(io.Discard, host)
			got <- int(n)
		}()
		for p.next().window<<windowShift < leastShare {
		}
		p.send(flagACK|flagFIN, "")
		for {
			select {
			case n := <-got:
				if n != sent {
					t.Errorf("%d bytes arrived, want %d", n, sent)
				}
				return
			default:
				p.step(10)
			}
		}
	})
	t.Run("inward", func(t *testing.T) {
		p, host := connect(t)
		p.relay.pool.used += maxUsed
		p.relay.conns[p.flow].setWindow(maxFlight)
		p.relay.conns[p.flow].shift = 3
		const much = 1 << 20
		go host.Write(make([]byte, much))
		for got := 0; got < much; {
			s := p.next()
			if s.seq == p.ack { // not a second time
				got += len(s.payload)
				p.ack += uint32(len(s.payload))
			}
			if n := p.relay.conns[p.flow].sending.size; n > leastShare {
				t.Fatalf("%d bytes are on their way", n)
			}
			p.send(flagACK, "")
		}
	})
}

func TestGoneContainer(t *testing.T) {
	p, host := connect(t)
	p.pass(time.Duration(keepIdle))
	p.want("is it there", flagACK, p.ack-1, p.seq, "")
	p.pass(time.Second)
	p.quiet() // time to answer
	for range keepTries {
		p.pass(time.Duration(slowTick))
	}
	if _, err := host.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the host read %v, want %v", err, syscall.ECONNRESET)
	}
}

// A port that is used again at once is a new connection.
func TestPortIsUsedAgain(t *testing.T) {
	b, l := newBed(t), listen(t)
	for i := range 3 {
		p := b.dial(l)
		p.establish()
		host, err := l.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		host.Close()
		p.want("FIN", flagACK|flagFIN, p.ack, p.seq, "")
		p.ack++
		p.send(flagACK|flagFIN, "")
		p.seq++
		p.want("acknowledged", flagACK, p.ack, p.seq, "")
		if n := b.relay.Len(); n != 1 {
			t.Errorf("round %d: %d connections, want the one that is remembered", i, n)
		}
	}
}

// Where there are too many connections a SYN has no answer, until one has ended.
func TestLeavesDescriptorsForOthers(t *testing.T) {
	b, l := newBed(t), listen(t)
	b.relay.most = 1
	one := b.dial(l)
	one.establish()
	two := *one
	two.seq, two.flow.Inside = 5000, netip.AddrPortFrom(inside, 40001)
	if !two.send(flagSYN, "") {
		t.Error("the relay left the SYN to netstack, which resets")
	}
	b.quiet()
	one.send(flagRST, "")
	two.send(flagSYN, "")
	two.establish()
}

func TestHeadersOfIPv6(t *testing.T) {
	r := reply{
		flow: Flow{netip.AddrPortFrom(inside6, 40000), netip.AddrPortFrom(outside6, 80)},
		seq:  1, ack: 2, flags: flagACK, window: 3, payload: make([]byte, 5000), mss: 1440,
	}
	var b [maxHeaders]byte
	frame := append(bytes.Clone(r.headers(&b, ourMAC)), r.payload...)
	s, ok := Parse(frame[sizeFront:])
	if !ok || s.Inside != r.flow.Outside || s.Outside != r.flow.Inside || s.seq != 1 || s.ack != 2 || s.window != 3 || len(s.payload) != 5000 {
		t.Errorf("got %+v", s)
	}
	if frame[1] != gsoTCPv6 || binary.NativeEndian.Uint16(frame[2:]) != sizeEthernet+sizeIPv6+sizeTCP || binary.NativeEndian.Uint16(frame[4:]) != 1440 {
		t.Errorf("virtio-net header %x", frame[:sizeVirtio])
	}
}

// FuzzSegment has a container send any segments on one connection.
func FuzzSegment(f *testing.F) {
	f.Add([]byte{flagACK, 0, 0, 3, flagACK | flagFIN, 3, 0, 0})
	f.Add([]byte{flagSYN, 0, 0, 0, flagRST, 1, 0, 0, flagACK, 0, 255, 200})
	f.Fuzz(func(t *testing.T, script []byte) {
		p, host := connect(t)
		host.Write([]byte("something to acknowledge"))
		for ; len(script) >= 4; script = script[4:] {
			s := Segment{Flow: p.flow, MAC: theirMAC, flags: script[0], window: int(script[1]) << 4,
				seq: p.seq + uint32(int8(script[1])), ack: p.ack + uint32(int8(script[2])), payload: make([]byte, script[3])}
			p.relay.Segment(&s)
			p.step(0)
			p.pass(time.Duration(script[2]) * 50 * time.Millisecond)
			if len(p.sent) > 10000 {
				t.Fatal("the relay does not stop sending")
			}
		}
		p.relay.Close()
		if n := p.relay.Len(); n != 0 || len(p.relay.sockets) != 0 || p.relay.dialing != 0 || p.relay.pool.used != 0 {
			t.Errorf("%d connections, %d sockets, %d dialing, %d chunks are left", n, len(p.relay.sockets), p.relay.dialing, p.relay.pool.used)
		}
	})
}

// FuzzParse reads any packet.
func FuzzParse(f *testing.F) {
	r := reply{flow: Flow{netip.AddrPortFrom(inside, 1), netip.AddrPortFrom(outside, 2)}, options: []byte{optionMSS, 4, 1, 2}, payload: []byte("x"), mss: 1}
	var b [maxHeaders]byte
	f.Add(append(bytes.Clone(r.headers(&b, ourMAC)), r.payload...)[sizeFront:])
	r.flow = Flow{netip.AddrPortFrom(inside6, 1), netip.AddrPortFrom(outside6, 2)}
	f.Add(append(bytes.Clone(r.headers(&b, ourMAC)), r.payload...)[sizeFront:])
	f.Fuzz(func(_ *testing.T, packet []byte) {
		if s, ok := Parse(packet); ok {
			s.synOptions()
		}
	})
}
