package stack

import (
	"encoding/hex"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// frames that a container sent, after their virtio-net headers: an ARP request for the
// gateway, a SYN, a datagram, an echo request, a neighbor solicitation.
var frames = []string{
	"ffffffffffff" + "020000000001" + "0806" + "0001080006040001" + "020000000001" + "0a000264" + "000000000000" + "0a000202",
	"020000000002" + "020000000001" + "0800" + "4500002800000000400666cb0a000264c6336401" + "9c40005000000001000000005002ffff00000000",
	"020000000002" + "020000000001" + "0800" + "450000200000000040110000" + "0a000264c6336401" + "9c4000350000000c0000" + "68692121",
	"020000000002" + "020000000001" + "0800" + "4500001c00000000400100000a0002640a000202" + "0800f7fe00010000",
	"3333ff000002" + "020000000001" + "86dd" + "6000000000203affe80000000000000000000000000001ff0200000000000000000001ff000002" + "87000000" + "00000000" + "fd000000000000000000000000000002" + "0101020000000001",
}

// FuzzFrame feeds the stack frames as a container may make them: whatever they are, the
// stack neither panics nor keeps anything of them.
func FuzzFrame(f *testing.F) {
	for _, frame := range frames {
		b, err := hex.DecodeString(frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(0), byte(0), uint16(0), b)
		f.Add(byte(1), byte(5), uint16(2), b)
	}
	s, err := New(Config{
		MAC: []byte{2, 0, 0, 0, 0, 2}, Gateway: gateway4, Gateway6: gateway6, DNS: dns4,
		Internal: true, // so that no packet of the fuzzer's leaves
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	r := newReader(s.link, -1)
	f.Fuzz(func(t *testing.T, flags, segmentation byte, segment uint16, frame []byte) {
		clear(r.front[:])
		r.front[0], r.front[1] = flags, segmentation
		r.front[4], r.front[5] = byte(segment), byte(segment>>8)
		n := copy(r.front[virtioSize:], frame)
		n += copy(r.packet.AsSlice(), frame[n:])
		r.frame(virtioSize + n)
		if s.relay.Len()+len(s.udp.flows)+len(s.ping.flows) > 0 {
			t.Error("something of the frame stayed")
		}
	})
}

// FuzzControl reads control messages as only a broken kernel would write them.
func FuzzControl(f *testing.F) {
	m := datagram{from: netip.MustParseAddr("192.0.2.1")}
	f.Add(m.control(nil, true))
	f.Add(appendControl(nil, unix.SOL_IP, unix.IP_RECVERR, make([]byte, 32)))
	f.Add(appendControl(nil, unix.SOL_IPV6, unix.IPV6_RECVERR, make([]byte, 44)))
	f.Fuzz(func(_ *testing.T, control []byte) {
		parseError(control)
		destination(control)
	})
}
