package cgroupv2

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// manager answers one connection as systemd does.
type manager struct {
	t      *testing.T
	answer func(serial uint32) []byte // to the call; nil: it hangs up
}

// serve returns the run-time directory in which m can be reached, and what it was asked.
func (m manager) serve() (runtime string, asked chan string) {
	m.t.Helper()
	runtime = m.t.TempDir()
	l, err := net.Listen("unix", filepath.Join(runtime, "private"))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { l.Close() })
	asked = make(chan string, 2)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for line := ""; line != "BEGIN\r\n"; {
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
			if strings.Contains(line, "AUTH") {
				asked <- line
				io.WriteString(conn, "OK 0123456789abcdef\r\n")
			}
		}
		b := &bus{r: r}
		call, err := b.receive()
		if err != nil {
			m.t.Error(err)
			return
		}
		asked <- call.member
		if m.answer != nil {
			conn.Write(m.answer(1))
		}
	}()
	return runtime, asked
}

// reply is a message of the given kind, with a string as its body.
func reply(kind byte, serial uint32, text string) []byte {
	var body, h marshal
	body.string(text)
	h.bytes('l', kind, 0, 1)
	h.uint32(uint32(len(body.b)))
	h.uint32(7)
	h.array(8, func() {
		h.align(8)
		h.bytes(fieldReplySerial)
		h.signature("u")
		h.uint32(serial)
		if kind == methodError {
			h.align(8)
			h.bytes(fieldError)
			h.signature("s")
			h.string("org.freedesktop.DBus.Error.AccessDenied")
		}
	})
	h.align(8)
	return append(h.b, body.b...)
}

func TestManagerCall(t *testing.T) {
	for name, tc := range map[string]struct {
		answer    func(uint32) []byte
		want, err string
	}{
		"a job": {func(n uint32) []byte { return reply(methodReturn, n, "/job/1") }, "/job/1", ""},
		"others": {func(n uint32) []byte {
			return append(reply(methodReturn, n+5, "/no"), reply(methodReturn, n, "/job/2")...)
		}, "/job/2", ""},
		"an error": {func(n uint32) []byte { return reply(methodError, n, "Access denied") }, "", "Access denied"},
		"hangs up": {nil, "", "EOF"},
		"nonsense": {func(uint32) []byte { return bytes.Repeat([]byte("x"), 64) }, "", "does not speak D-Bus"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, asked := manager{t, tc.answer}.serve()
			b, err := dialManager(filepath.Join(dir, "private"), 1000, busPatience)
			if err != nil {
				t.Fatal(err)
			}
			defer b.close()
			if who := <-asked; !strings.Contains(who, hex.EncodeToString([]byte("1000"))) {
				t.Errorf("it said %q", who)
			}
			serial, err := b.managerCall("StartTransientUnit", "ssa(sv)a(sa(sv))", scopeCall("a.scope", Request{ID: "id", Pids: []int{5, 6}, Parent: "x.slice"}))
			if err != nil {
				t.Fatal(err)
			}
			if member := <-asked; member != "StartTransientUnit" {
				t.Errorf("it called %s", member)
			}
			m, err := b.await(serial, func(busMessage) {})
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("got %v, want %q", err, tc.err)
			}
			u := unmarshal{b: m.body}
			if got := u.string(); err == nil && got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// What comes from the socket, whatever it is, is read or refused.
func FuzzReceive(f *testing.F) {
	f.Add(reply(methodReturn, 1, "/job/1"))
	f.Add(reply(methodError, 1, "no"))
	f.Add([]byte("l\x04\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &bus{r: bufio.NewReader(bytes.NewReader(data))}
		for {
			m, err := b.receive()
			if err != nil {
				return
			}
			jobRemoved(m.body)
		}
	})
}
