package slirp

import (
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns the two ends of a connection.
func pair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

func TestMessagesArriveWhole(t *testing.T) {
	request := func(ports int) Request {
		r := Request{Plan: Plan{Subnet: netip.MustParsePrefix("10.0.2.0/24")}, Endpoint: Endpoint{IP: netip.MustParseAddr("10.0.2.100")}}
		for i := range ports {
			r.Endpoint.Ports = append(r.Endpoint.Ports, Port{HostPort: uint16(i), ContainerPort: 80, Protocol: "tcp"})
		}
		return r
	}
	for name, ports := range map[string]int{"in a packet": 1, "in a file": 60000} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			want := request(ports)
			if err := Send(a, want, int(null.Fd())); err != nil {
				t.Fatal(err)
			}
			var got Request
			fds, err := Receive(b, &got)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %d ports of %d", len(got.Endpoint.Ports), ports)
			}
			if len(fds) != 1 {
				t.Fatalf("descriptors: %v", fds)
			}
			defer unix.Close(fds[0])
			var st, same unix.Stat_t
			if unix.Fstat(fds[0], &st) != nil || unix.Stat(os.DevNull, &same) != nil || st.Ino != same.Ino {
				t.Error("another file came")
			}
			if flags, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Error("it stays open on exec")
			}
		})
	}
}

func TestNoMessage(t *testing.T) {
	a, b := pair(t)
	for _, packet := range []string{"x{}", "p", "p{", "f", "p[]"} {
		if err := unix.Sendto(a, []byte(packet), 0, nil); err != nil {
			t.Fatal(err)
		}
		var r Reply
		if fds, err := Receive(b, &r); !errors.Is(err, ErrMalformed) || fds != nil {
			t.Errorf("%q: %v, descriptors %v", packet, err, fds)
		}
	}
	unix.Shutdown(a, unix.SHUT_RDWR)
	if _, err := Receive(b, new(Reply)); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// What another process of the user's sends to the socket must not end this one.
func FuzzParse(f *testing.F) {
	text, err := json.Marshal(Request{Endpoint: Endpoint{Names: []string{"a"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte{inPacket}, text...))
	f.Add([]byte("f"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) == 0 {
			return
		}
		var r Request
		if fds, err := parse(packet, nil, &r); len(fds) > 0 || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%v, descriptors %v", err, fds)
		}
	})
}
