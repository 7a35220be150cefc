// Package events keeps what happened to the containers, images and volumes of a
// host: a line of JSON for each, as Docker's daemon sends it (Engine API,
// EventMessage), in the file events of the host's folder. There is no daemon:
// whoever does a thing writes it down.
package events

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Event is one thing that happened.
type Event struct {
	Time       time.Time         // zero: now
	Type       string            // "container", "image" or "volume"
	Action     string            // "create", "start", "die", ...
	ID         string            // of the container, image or volume
	Attributes map[string]string // "name", "image", "exitCode", "signal", ..., and labels
}

const (
	fileName = "events"
	oldName  = "events.1"
	// maxSize is the length at which the file becomes events.1.
	maxSize = 8 << 20
)

// Append adds e to the events in the folder dir.
func Append(dir string, e Event) error {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	f, err := openLocked(dir, maxSize)
	if err != nil {
		return err
	}
	_, err = f.Write(append(e.AppendJSON(nil), '\n'))
	return errors.Join(err, f.Close())
}

// openLocked opens the file to append to. The lock, which is shared, says that
// it is not renamed: a line that is written is not missed by who has read a
// file to its end and goes on to the next.
func openLocked(dir string, limit int64) (*os.File, error) {
	path := filepath.Join(dir, fileName)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		if err := lock(f, unix.LOCK_SH); err != nil {
			f.Close()
			return nil, err
		}
		size, is := sameFile(f, path)
		if is && (size < limit || !rotate(f, path)) {
			return f, nil
		}
		f.Close()
	}
}

// rotate renames the file, whose shared lock f has, unless others are writing to
// it: one of the next does it then. It tells whether path is another file now.
func rotate(f *os.File, path string) bool {
	if lock(f, unix.LOCK_EX|unix.LOCK_NB) != nil {
		if lock(f, unix.LOCK_SH) != nil { // which is lost by the attempt (flock(2))
			return true
		}
		_, is := sameFile(f, path)
		return !is
	}
	if _, is := sameFile(f, path); !is {
		return true
	}
	return os.Rename(path, filepath.Join(filepath.Dir(path), oldName)) == nil
}

func lock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// sameFile tells whether path still is the file f, and the size of that.
func sameFile(f *os.File, path string) (size int64, is bool) {
	var a, b unix.Stat_t
	if unix.Fstat(int(f.Fd()), &a) != nil || unix.Stat(path, &b) != nil {
		return 0, false
	}
	return a.Size, a.Dev == b.Dev && a.Ino == b.Ino
}

// AppendJSON appends e as Docker writes events. It is json.Marshal for one
// type, for programs that start too often to learn it.
func (e Event) AppendJSON(b []byte) []byte {
	b = appendString(append(b, `{"Type":`...), e.Type)
	b = appendString(append(b, `,"Action":`...), e.Action)
	b = appendString(append(b, `,"Actor":{"ID":`...), e.ID)
	b = append(b, `,"Attributes":{`...)
	keys := make([]string, 0, len(e.Attributes))
	for key := range e.Attributes {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, key), ':')
		b = appendString(b, e.Attributes[key])
	}
	b = strconv.AppendInt(append(b, `}},"scope":"local","time":`...), e.Time.Unix(), 10)
	b = strconv.AppendInt(append(b, `,"timeNano":`...), e.Time.UnixNano(), 10)
	return append(b, '}')
}

// appendString appends s as a string of JSON. What is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}
