// Package logfile keeps what a container writes, in the format of Kubernetes'
// container runtimes (CRI), which Podman calls k8s-file:
//
//	2026-11-22T17:00:00.123456789Z stdout F a line
//	2026-11-22T17:00:00.123456789Z stderr P a piece of a line: it had no newline
//
// The output is kept byte for byte: newlines end entries, all else is text.
package logfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is one of the two that a container writes to.
type Stream int8

const (
	Stdout Stream = 1
	Stderr Stream = 2
)

const (
	// stampLayout is RFC 3339 in UTC with all nine digits, so that every stamp has the same length.
	stampLayout = "2006-01-02T15:04:05.000000000Z"
	// headLen is the length of what precedes the text of an entry.
	headLen = len(stampLayout) + len(" stdout F ")
	// tagAt is where F or P stands in an entry.
	tagAt = headLen - 2
	// bufferLen bounds what one write(2) takes, if one entry is not longer than that.
	bufferLen = 256 << 10
	// retryAfter is how long a Writer that failed loses output before it tries again.
	retryAfter = time.Second
)

// Writer appends a container's output to its log. Its methods may be called at the same time.
type Writer struct {
	path    string
	maxSize int64 // bytes of one file; 0: no limit
	maxFile int   // files in all
	pause   time.Duration

	mu    sync.Mutex
	file  *os.File // nil until something is written
	size  int64    // of file
	buf   []byte   // entries that are not written yet
	lost  int64    // bytes of output that could not be written
	why   error    // so
	retry time.Time
}

// Open returns a Writer that appends to the file path, which is made when there
// is something to write. A file that would become longer than maxSize bytes
// (0: no limit) is renamed to path.1, path.1 to path.2 and so on, and one is
// deleted where there would be more than maxFile.
func Open(path string, maxSize int64, maxFile int) *Writer {
	return &Writer{path: path, maxSize: maxSize, maxFile: max(maxFile, 1), pause: retryAfter}
}

// Write appends b, a piece of what the container wrote, as entries with the
// time of now. An error is returned once: what is written until the file can be
// written again is lost, and then the log says how much that was.
func (w *Writer) Write(s Stream, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.lost > 0 && now.Before(w.retry) {
		w.lost += int64(len(b))
		return nil
	}
	failing := w.lost > 0
	rest, err := w.write(now, s, b)
	if err != nil {
		w.lost += int64(len(rest))
		w.why, w.retry = err, now.Add(w.pause)
		if failing {
			return nil
		}
	}
	return err
}

// write writes b and returns what of it was not even tried.
func (w *Writer) write(now time.Time, s Stream, b []byte) (rest []byte, err error) {
	if err := w.open(); err != nil {
		return b, err
	}
	w.appendLoss(now)
	var array [headLen]byte
	head := appendHead(array[:0], now, s)
	for len(b) > 0 {
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line = b[:i+1]
		}
		if err := w.makeRoom(headLen + len(line) + 1); err != nil {
			return b, err
		}
		w.appendEntry(head, line)
		b = b[len(line):]
	}
	return nil, w.flush()
}

// appendHead appends what precedes the text of an entry that is a whole line.
func appendHead(b []byte, t time.Time, s Stream) []byte {
	b = t.UTC().AppendFormat(b, stampLayout)
	if s == Stderr {
		return append(b, " stderr F "...)
	}
	return append(b, " stdout F "...)
}

// appendEntry appends a line, or a piece of one, to what is to be written.
func (w *Writer) appendEntry(head, line []byte) {
	tag := len(w.buf) + tagAt
	w.buf = append(append(w.buf, head...), line...)
	if line[len(line)-1] != '\n' {
		w.buf[tag] = 'P'
		w.buf = append(w.buf, '\n')
	}
}

// appendLoss appends an entry that tells of output that was lost before.
func (w *Writer) appendLoss(now time.Time) {
	if w.lost == 0 {
		return
	}
	w.buf = appendHead(w.buf, now, Stderr)
	w.buf = append(w.buf, "rbox: "...)
	w.buf = strconv.AppendInt(w.buf, w.lost, 10)
	w.buf = append(w.buf, " bytes of output were not logged: "...)
	w.buf = append(append(w.buf, reason(w.why)...), '\n')
}

// reason is err without the path that a *fs.PathError carries.
func reason(err error) string {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}

// makeRoom writes and rotates so that an entry of n bytes can be appended.
func (w *Writer) makeRoom(n int) error {
	if used := w.size + int64(len(w.buf)); w.maxSize > 0 && used > 0 && used+int64(n) > w.maxSize {
		if err := w.flush(); err != nil {
			return err
		}
		return w.rotate()
	}
	if len(w.buf) > 0 && len(w.buf)+n > bufferLen {
		return w.flush()
	}
	return nil
}

// flush writes the entries in the buffer. After a failure the file ends with
// the last that could be written whole, and the output of the others is lost.
func (w *Writer) flush() error {
	b := w.buf
	w.buf = w.buf[:0]
	n, err := w.file.Write(b)
	w.size += int64(n)
	if err == nil {
		w.lost = 0 // the log says so
		return nil
	}
	whole := bytes.LastIndexByte(b[:n], '\n') + 1
	if whole > 0 {
		w.lost = 0 // it is the first entry that says so
	} else if w.lost > 0 {
		b = b[bytes.IndexByte(b, '\n')+1:]
	}
	w.lost += outputLen(b[whole:])
	if torn := int64(n - whole); torn > 0 {
		// By the size that it has, should another have made the file shorter.
		if st, err := w.file.Stat(); err == nil && st.Size() >= torn {
			w.size = st.Size() - torn
			w.file.Truncate(w.size)
		}
	}
	return err
}

// outputLen is how many bytes of output the entries in b hold.
func outputLen(b []byte) (n int64) {
	for len(b) > 0 {
		i := headLen + bytes.IndexByte(b[headLen:], '\n') + 1
		n += int64(i - headLen)
		if b[tagAt] == 'P' {
			n--
		}
		b = b[i:]
	}
	return n
}

// open opens the file if it is not. An entry that was cut off, as by the end
// of a host, is removed.
func (w *Writer) open() error {
	if w.file != nil {
		return nil
	}
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.file, w.size = f, st.Size()
	if end := lastEnd(f, w.size); end != w.size && f.Truncate(end) == nil {
		w.size = end
	}
	return nil
}

// rotate puts the file aside. The oldest is moved first, so that a reader who
// opens path, path.1 and so on in this order misses none.
func (w *Writer) rotate() error {
	for i := min(w.maxFile-1, lastNumber(w.path)+1); i > 1; i-- {
		err := os.Rename(numbered(w.path, i-1), numbered(w.path, i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := error(nil)
	if w.maxFile > 1 {
		err = os.Rename(w.path, numbered(w.path, 1))
	} else {
		err = os.Remove(w.path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.file.Close()
	w.file = nil
	return w.open()
}

// numbered is the name of the file that was put aside i rotations ago.
func numbered(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

// Close closes the file. What was lost is told in it, if it now can be.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := error(nil)
	if w.lost > 0 {
		if err = w.open(); err == nil {
			w.appendLoss(time.Now())
			err = w.flush()
		}
	}
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
		w.file = nil
	}
	return err
}
