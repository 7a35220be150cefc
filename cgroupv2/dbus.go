package cgroupv2

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A bus is a connection to the user's systemd on its private socket, where it
// speaks D-Bus without a bus between (D-Bus Specification 0.43). The monitor makes
// one call in its life: a library for that would cost it more, at each start,
// than this.
type bus struct {
	conn   *os.File
	r      *bufio.Reader
	serial uint32
}

// How long a manager may take to answer: where a cgroup is asked for, as libdbus
// has it, and where a container can do without.
const (
	busPatience   = 25 * time.Second
	shortPatience = 2 * time.Second
)

// dialManager connects to the systemd of the user uid at the socket path.
func dialManager(path string, uid int, patience time.Duration) (*bus, error) {
	conn, err := dialUnix(path)
	if err != nil {
		return nil, fmt.Errorf("the user's systemd: %w", err)
	}
	b := &bus{conn: conn, r: bufio.NewReader(conn)}
	conn.SetDeadline(time.Now().Add(patience))
	if err := b.authenticate(uid); err != nil {
		conn.Close()
		return nil, fmt.Errorf("the user's systemd, %s: %w", path, err)
	}
	return b, nil
}

// dialUnix connects to the socket path. Package net would be initialized at
// each start of a container.
func dialUnix(path string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "connect", Path: path, Err: err}
	}
	unix.SetNonblock(fd, true) // so that deadlines hold
	return os.NewFile(uintptr(fd), path), nil
}

func (b *bus) close() { b.conn.Close() }

// authenticate says who we are, which the kernel tells the other side anyhow.
func (b *bus) authenticate(uid int) error {
	name := hex.EncodeToString([]byte(strconv.Itoa(uid)))
	if _, err := fmt.Fprintf(b.conn, "\x00AUTH EXTERNAL %s\r\nBEGIN\r\n", name); err != nil {
		return err
	}
	line, err := b.r.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("it refuses us: %s", strings.TrimSpace(line))
	}
	return nil
}

// Kinds of messages, and the header's fields that matter here.
const (
	methodCall   = 1
	methodReturn = 2
	methodError  = 3
	signalCall   = 4

	fieldPath        = 1
	fieldInterface   = 2
	fieldMember      = 3
	fieldError       = 4
	fieldReplySerial = 5
	fieldDestination = 6
	fieldSignature   = 8
)

// busMessage is what came: of its header what tells which it is.
type busMessage struct {
	kind          byte
	member, error string
	reply         uint32 // serial of the call that it answers
	body          []byte
}

// managerCall calls a method of systemd's manager. Its results are the body of
// the answer.
func (b *bus) managerCall(member, signature string, body []byte) (reply uint32, err error) {
	b.serial++
	var h marshal
	h.bytes('l', methodCall, 0, 1)
	h.uint32(uint32(len(body)))
	h.uint32(b.serial)
	h.array(8, func() {
		for _, f := range []struct {
			code        byte
			kind, value string
		}{
			{fieldPath, "o", "/org/freedesktop/systemd1"},
			{fieldDestination, "s", "org.freedesktop.systemd1"},
			{fieldInterface, "s", "org.freedesktop.systemd1.Manager"},
			{fieldMember, "s", member},
			{fieldSignature, "g", signature},
		} {
			h.align(8)
			h.bytes(f.code)
			h.signature(f.kind)
			if f.kind == "g" {
				h.signature(f.value)
			} else {
				h.string(f.value)
			}
		}
	})
	h.align(8)
	_, err = b.conn.Write(append(h.b, body...))
	return b.serial, err
}

// receive reads the next message.
func (b *bus) receive() (m busMessage, err error) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(b.r, head); err != nil {
		return m, err
	}
	if head[0] != 'l' {
		return m, errors.New("it does not speak D-Bus as this machine does")
	}
	bodyLen, fieldsLen := binary.LittleEndian.Uint32(head[4:]), binary.LittleEndian.Uint32(head[12:])
	const most = 1 << 20
	if bodyLen > most || fieldsLen > most {
		return m, errors.New("a D-Bus message is too long")
	}
	padded := (fieldsLen + 7) &^ 7
	rest := make([]byte, padded+bodyLen)
	if _, err := io.ReadFull(b.r, rest); err != nil {
		return m, err
	}
	m.kind, m.body = head[1], rest[padded:]
	u := unmarshal{b: rest[:fieldsLen]}
	for u.err == nil && u.at < len(u.b) {
		u.align(8)
		code := u.byte()
		switch kind := u.signature(); kind {
		case "s", "o":
			switch text := u.string(); code {
			case fieldMember:
				m.member = text
			case fieldError:
				m.error = text
			}
		case "u":
			if n := u.uint32(); code == fieldReplySerial {
				m.reply = n
			}
		case "g":
			u.signature()
		default:
			return m, fmt.Errorf("a D-Bus header has a field of type %q", kind)
		}
	}
	return m, u.err
}

// await reads until the answer to call reply comes; signals go to other.
func (b *bus) await(reply uint32, other func(busMessage)) (busMessage, error) {
	for {
		m, err := b.receive()
		switch {
		case err != nil:
			return m, err
		case m.kind == signalCall:
			other(m)
		case m.reply != reply:
		case m.kind == methodError:
			u := unmarshal{b: m.body}
			return m, &busError{m.error, u.string()}
		case m.kind == methodReturn:
			return m, nil
		}
	}
}

// busError is what systemd answers in place of a result.
type busError struct{ name, text string }

func (e *busError) Error() string {
	if e.text == "" {
		return e.name
	}
	return e.text
}

// marshal writes values in D-Bus's form, each at a multiple of its size.
type marshal struct{ b []byte }

func (m *marshal) align(n int) {
	for len(m.b)%n != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *marshal) bytes(b ...byte) { m.b = append(m.b, b...) }

func (m *marshal) uint32(n uint32) {
	m.align(4)
	m.b = binary.LittleEndian.AppendUint32(m.b, n)
}

func (m *marshal) uint64(n uint64) {
	m.align(8)
	m.b = binary.LittleEndian.AppendUint64(m.b, n)
}

func (m *marshal) string(s string) {
	m.uint32(uint32(len(s)))
	m.b = append(append(m.b, s...), 0)
}

func (m *marshal) signature(s string) { m.b = append(append(append(m.b, byte(len(s))), s...), 0) }

// array writes the length in bytes of what elements writes, which begins at a
// multiple of align and does not count the padding before that.
func (m *marshal) array(align int, elements func()) {
	m.uint32(0)
	at := len(m.b)
	m.align(align)
	begin := len(m.b)
	elements()
	binary.LittleEndian.PutUint32(m.b[at-4:], uint32(len(m.b)-begin))
}

// property writes a structure of a name and a variant of the given type.
func (m *marshal) property(name, kind string, value func()) {
	m.align(8)
	m.string(name)
	m.signature(kind)
	value()
}

// unmarshal reads what marshal writes. After an error all values are zero.
type unmarshal struct {
	b   []byte
	at  int
	err error
}

func (u *unmarshal) take(n int) []byte {
	if u.err == nil && u.at+n > len(u.b) {
		u.err = os.ErrInvalid
	}
	if u.err != nil {
		return make([]byte, n)
	}
	u.at += n
	return u.b[u.at-n : u.at]
}

func (u *unmarshal) align(n int) { u.at = min((u.at+n-1)/n*n, len(u.b)) }

func (u *unmarshal) byte() byte { return u.take(1)[0] }

func (u *unmarshal) uint32() uint32 {
	u.align(4)
	return binary.LittleEndian.Uint32(u.take(4))
}

func (u *unmarshal) string() string { return u.text(int(u.uint32())) }

func (u *unmarshal) signature() string { return u.text(int(u.byte())) }

func (u *unmarshal) text(n int) string {
	if n > len(u.b) {
		u.err = os.ErrInvalid
		return ""
	}
	s := string(u.take(n))
	u.take(1) // NUL
	if u.err != nil {
		return ""
	}
	return s
}
