package logfile

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// Entry is a piece of what the container wrote.
type Entry struct {
	Time    time.Time
	Stream  Stream
	Partial bool   // the container had not ended the line: it goes on in the stream's next entry
	Text    []byte // without the newline; valid until the next call of Next
}

// Options say which entries a Reader gives. The zero value is: those that are
// there now.
type Options struct {
	Since, Until time.Time // zero: no bound
	Last         bool      // only the last Tail lines
	Tail         int

	// Done makes Next wait for more instead of returning io.EOF, until it is
	// closed: then the rest is given.
	Done <-chan struct{}
	Idle func() // is called before Next waits; may be nil
}

// Reader gives the entries of a log, of all its files.
type Reader struct {
	o     Options
	lines *Lines
	last  Entry
	stamp []byte // that last.Time is written as
	mid   bool   // the next line goes on where last was cut for its length
	tag   bool   // last.Partial, as the log has it
	ended bool
}

// NewReader opens the log that a Writer writes to path. A log that has no file
// is empty.
func NewReader(path string, o Options) (*Reader, error) {
	lines, err := OpenLines(path, o.Done != nil)
	if err != nil {
		return nil, err
	}
	r := &Reader{o: o, lines: lines, last: Entry{Stream: Stdout}}
	if !o.Since.IsZero() {
		lines.skipOlder(o.Since)
	}
	if o.Last {
		err = lines.seekBack(r.counter(o.Tail))
	}
	if err != nil {
		lines.Close()
		return nil, err
	}
	return r, nil
}

// counter returns a function for seekBack that keeps the last n lines: a line
// counts once, in however many pieces it was written.
func (r *Reader) counter(n int) func(head []byte) bool {
	var known [Stderr + 1]bool // the end of the stream's line is counted
	return func(head []byte) bool {
		e, ok := r.parse(head)
		if ok && r.isLater(e) {
			return true
		}
		if !e.Partial || !known[e.Stream] {
			if n <= 0 {
				return false
			}
			n--
		}
		known[e.Stream] = true
		return true
	}
}

func (r *Reader) isLater(e Entry) bool {
	return !r.o.Until.IsZero() && e.Time.After(r.o.Until)
}

// Next returns the next entry, or io.EOF after the last.
func (r *Reader) Next() (Entry, error) {
	for {
		line, whole, err := r.lines.Next()
		if err != nil {
			if errors.Is(err, io.EOF) && r.more() {
				continue
			}
			return Entry{}, err
		}
		e := r.entry(line, whole)
		if r.isLater(e) {
			return Entry{}, io.EOF
		}
		if !e.Time.Before(r.o.Since) {
			return e, nil
		}
	}
}

// more waits, for who follows, until there may be more to read.
func (r *Reader) more() bool {
	if r.o.Done == nil || r.ended || !r.o.Until.IsZero() && time.Now().After(r.o.Until) {
		return false
	}
	if r.o.Idle != nil {
		r.o.Idle()
	}
	r.ended = r.lines.Wait(r.o.Done)
	return true
}

// entry is what line says. What is none of our lines is text of the container.
func (r *Reader) entry(line []byte, whole bool) Entry {
	if r.mid {
		r.last.Text = line
	} else {
		r.last, _ = r.parse(line)
		r.tag = r.last.Partial
	}
	r.mid = !whole
	r.last.Partial = r.tag || !whole
	return r.last
}

// parse reads a line. One that is none of a log becomes text of stdout, with
// the time of the entry before.
func (r *Reader) parse(line []byte) (e Entry, ok bool) {
	e = Entry{Time: r.last.Time, Stream: Stdout, Text: line}
	stamp, stream, tags, text := split(line)
	if len(tags) == 0 || tags[0] != 'F' && tags[0] != 'P' || len(tags) > 1 && tags[1] != ':' {
		return e, false
	}
	switch string(stream) {
	case "stdout":
	case "stderr":
		e.Stream = Stderr
	default:
		return e, false
	}
	if !bytes.Equal(stamp, r.stamp) { // many lines have the time of the one before
		t, ok := parseStamp(stamp)
		if !ok {
			e.Stream = Stdout
			return e, false
		}
		r.stamp, r.last.Time = append(r.stamp[:0], stamp...), t
	}
	e.Time, e.Text, e.Partial = r.last.Time, text, tags[0] == 'P'
	return e, true
}

// split cuts a line at its first three spaces. There are no tags where those lack.
func split(line []byte) (stamp, stream, tags, text []byte) {
	const at = len(stampLayout)
	if len(line) >= headLen && line[at] == ' ' && line[tagAt-1] == ' ' && line[headLen-1] == ' ' { // as a Writer writes it
		return line[:at], line[at+1 : tagAt-1], line[tagAt : headLen-1], line[headLen:]
	}
	stamp, rest, _ := bytes.Cut(line, []byte(" "))
	stream, rest, _ = bytes.Cut(rest, []byte(" "))
	tags, text, _ = bytes.Cut(rest, []byte(" "))
	return stamp, stream, tags, text
}

// parseStamp is time.Parse of RFC 3339, faster for what a Writer writes.
func parseStamp(b []byte) (time.Time, bool) {
	if len(b) != len(stampLayout) || b[len(b)-1] != 'Z' {
		t, err := time.Parse(time.RFC3339Nano, string(b))
		return t, err == nil
	}
	var n [7]int
	for i, at := range [...][2]int{{0, 4}, {5, 7}, {8, 10}, {11, 13}, {14, 16}, {17, 19}, {20, 29}} {
		for _, c := range b[at[0]:at[1]] {
			if c < '0' || c > '9' {
				return time.Time{}, false
			}
			n[i] = n[i]*10 + int(c-'0')
		}
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], n[6], time.UTC)
	return t, b[10] == 'T'
}

// AppendTime appends t as the log has it: RFC 3339 in UTC with nine digits of the second.
func AppendTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, stampLayout) }

// Close closes the log.
func (r *Reader) Close() error { return r.lines.Close() }
