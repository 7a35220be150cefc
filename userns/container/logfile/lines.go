package logfile

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// blockLen is how much is read at once.
	blockLen = 256 << 10
	// pieceLen is what of one line is kept in memory: a longer one comes in pieces.
	pieceLen = 1 << 20
	// backLen is how much is read at once where lines are counted from the end.
	backLen = 64 << 10
	// peekLen is how much of a line is seen by who counts them.
	peekLen = 64
)

// Lines reads the lines of a file that is rotated, of path.2, path.1 and path,
// in the order in which they were written. It misses none and gives none twice
// while another process writes and rotates, unless files are deleted that it
// has not come to yet. What follows the last newline is not given: it is being
// written.
type Lines struct {
	path   string
	follow bool
	files  []*os.File // oldest first; the first is being read
	limit  int64      // of the last file: what has been written since is not for who does not follow
	buf    []byte
	start  int   // of what is not given yet, in buf
	off    int64 // where the file goes on after buf

	rotated bool // the last file has another name now, so nothing more is written to it
	watch   *watch
}

// OpenLines returns the lines that path and its predecessors have now and, with
// follow, those that are still to come. No file is as good as an empty one.
func OpenLines(path string, follow bool) (*Lines, error) {
	l := &Lines{path: path, follow: follow, limit: math.MaxInt64}
	files, err := l.newer(nil)
	if err != nil {
		return nil, err
	}
	l.files = files
	if n := len(files); n > 0 && !follow {
		st, err := files[n-1].Stat()
		if err != nil {
			l.Close()
			return nil, err
		}
		l.limit = st.Size()
	}
	return l, nil
}

// scans is how often the files are looked for anew because a rotation came in
// between. One that writes so fast loses its reader some lines rather than all.
const scans = 1000

// newer opens the files that are newer than old, or all, the oldest first.
func (l *Lines) newer(old *os.File) (files []*os.File, err error) {
	for range scans {
		if files, err = l.scan(old); err != nil || l.newest(files, old) {
			return files, err
		}
		closeAll(files)
	}
	return l.scan(old)
}

// newest tells whether the last of files, or old, still is the newest there is:
// then no rotation has ended since they were looked for.
func (l *Lines) newest(files []*os.File, old *os.File) bool {
	if len(files) > 0 {
		old = files[len(files)-1]
	}
	var now fs.FileInfo
	for i := range 2 { // in the midst of a rotation there is no path, but a path.1
		var err error
		if now, err = os.Stat(numbered(l.path, i)); err == nil {
			break
		}
	}
	if old == nil || now == nil {
		return old == nil && now == nil
	}
	is, err := old.Stat()
	return err == nil && os.SameFile(is, now)
}

// scan is newer where no rotation ends meanwhile.
//
// It goes from the newest to the oldest. A rotation that is under way moves
// files in the same direction and the oldest first, so that each is met, some
// twice, with at most one number missing in between.
func (l *Lines) scan(old *os.File) (files []*os.File, err error) {
	var infos []fs.FileInfo
	last := lastNumber(l.path)
	for i, missing := 0, 0; i <= last || missing < 2; i++ {
		f, err := os.Open(numbered(l.path, i))
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		if err != nil {
			closeAll(files)
			return nil, err
		}
		missing = 0
		st, err := f.Stat()
		if err != nil || seen(infos, st) {
			f.Close()
			continue
		}
		if old != nil {
			if is, err := old.Stat(); err == nil && os.SameFile(is, st) {
				f.Close()
				break
			}
		}
		infos = append(infos, st)
		files = append([]*os.File{f}, files...)
	}
	return files, nil
}

func seen(infos []fs.FileInfo, st fs.FileInfo) bool {
	for _, other := range infos {
		if os.SameFile(other, st) {
			return true
		}
	}
	return false
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// lastNumber is the highest number that a predecessor of path has.
func lastNumber(path string) (last int) {
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if n, err := strconv.Atoi(number); ok && err == nil && n < 1<<16 {
			last = max(last, n)
		}
	}
	return last
}

// Next returns the next line without its newline, which is valid until the
// next call. Of a very long line it returns a piece, and whole is false for
// all but the last. io.EOF says that there is no more yet.
func (l *Lines) Next() (line []byte, whole bool, err error) {
	fresh := l.start // what is before holds no newline
	for {
		if i := bytes.IndexByte(l.buf[fresh:], '\n'); i >= 0 {
			line, l.start = l.buf[l.start:fresh+i], fresh+i+1
			return line, true, nil
		}
		if len(l.buf)-l.start >= pieceLen {
			line, l.start = l.buf[l.start:], len(l.buf)
			return line, false, nil
		}
		if fresh, err = l.fill(); err != nil {
			return nil, false, err
		}
	}
}

// fill moves what is not given yet to the start of the buffer and reads on. It
// returns where in the buffer the new begins.
func (l *Lines) fill() (fresh int, err error) {
	l.buf = l.buf[:copy(l.buf, l.buf[l.start:])]
	l.start = 0
	for {
		fresh = len(l.buf)
		if n, err := l.read(); n > 0 || err != nil {
			return fresh, err
		}
		// What has no newline yet may still be cut off by who could not write it whole.
		l.off -= int64(len(l.buf))
		l.buf = l.buf[:0]
		if more, err := l.advance(); err != nil {
			return 0, err
		} else if !more {
			return 0, io.EOF
		}
	}
}

// read reads a block of the first file, or 0 bytes at its end.
func (l *Lines) read() (int, error) {
	if len(l.files) == 0 {
		return 0, nil
	}
	room := int64(blockLen)
	if len(l.files) == 1 {
		room = min(room, l.limit-l.off)
	}
	if room <= 0 {
		return 0, nil
	}
	have := len(l.buf)
	if cap(l.buf)-have < int(room) {
		l.buf = append(make([]byte, 0, 2*cap(l.buf)+int(room)), l.buf...)
	}
	n, err := l.files[0].ReadAt(l.buf[have:have+int(room)], l.off)
	l.buf = l.buf[:have+n]
	l.off += int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// advance goes on to the next file after the end of one. It returns false where
// there is no more to read yet.
func (l *Lines) advance() (bool, error) {
	if len(l.files) > 1 {
		l.files[0].Close()
		l.files, l.off, l.rotated = l.files[1:], 0, false
		return true, nil
	}
	if !l.follow {
		return false, nil
	}
	if len(l.files) == 0 {
		files, err := l.newer(nil)
		l.files = files
		return len(files) > 0, err
	}
	is, err := l.files[0].Stat()
	if err != nil {
		return false, err
	}
	if is.Size() < l.off { // it was emptied by hand
		l.off = 0
		return is.Size() > 0, nil
	}
	if l.rotated {
		files, err := l.newer(l.files[0])
		l.files = append(l.files, files...)
		return len(files) > 0, err
	}
	// What was written before it was renamed is there by now: it is read once more.
	st, err := os.Stat(l.path)
	l.rotated = err == nil && !os.SameFile(is, st)
	return l.rotated, nil
}

// skipOlder passes over files that were written last before t.
func (l *Lines) skipOlder(t time.Time) {
	for len(l.files) > 1 {
		if st, err := l.files[0].Stat(); err != nil || !st.ModTime().Before(t) {
			return
		}
		l.files[0].Close()
		l.files = l.files[1:]
	}
}

// SeekEnd passes over all lines that are there.
func (l *Lines) SeekEnd() error {
	return l.seekBack(func([]byte) bool { return false })
}

// seekBack makes Next begin with the last line of which keep, called with the
// beginning of each, the last first, returns true, without a false in between.
func (l *Lines) seekBack(keep func(head []byte) bool) error {
	for i := len(l.files) - 1; i >= 0; i-- {
		st, err := l.files[i].Stat()
		if err != nil {
			return err
		}
		end := st.Size()
		if i == len(l.files)-1 {
			end = min(end, l.limit)
		}
		from, found, err := lastLines(l.files[i], end, keep)
		if err != nil {
			return err
		}
		if found {
			closeAll(l.files[:i])
			l.files, l.off = l.files[i:], from
			return nil
		}
	}
	return nil
}

// lastLines goes backwards through the lines of f before end. It returns where
// the last one that keep took begins, and whether there was one that it did not.
func lastLines(f *os.File, end int64, keep func(head []byte) bool) (from int64, found bool, err error) {
	buf := make([]byte, backLen+peekLen) // lines that begin in a block may end in the next
	from = -1                            // until the end of the last line is seen
	for hi := end; hi > 0; {
		lo := max(0, hi-backLen)
		n, err := f.ReadAt(buf[:min(end-lo, hi-lo+peekLen)], lo)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, false, err
		}
		block := buf[:n]
		for rest := block[:min(int64(n), hi-lo)]; ; {
			i := bytes.LastIndexByte(rest, '\n')
			if i < 0 && lo > 0 {
				break
			}
			if from >= 0 && !keep(firstLine(block[i+1:])) {
				return from, true, nil
			}
			if from >= 0 || i >= 0 {
				from = lo + int64(i) + 1
			}
			if i < 0 {
				break
			}
			rest = rest[:i]
		}
		hi = lo
	}
	return max(from, 0), false, nil
}

// firstLine is the beginning of the line that b begins with.
func firstLine(b []byte) []byte {
	b = b[:min(len(b), peekLen)]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i]
	}
	return b
}

// lastEnd is where the last whole line of f, which has size bytes, ends.
func lastEnd(f *os.File, size int64) int64 {
	if size == 0 {
		return 0
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil || last[0] == '\n' {
		return size
	}
	from, _, err := lastLines(f, size, func([]byte) bool { return false })
	if err != nil {
		return size
	}
	return from
}

// Close closes the files.
func (l *Lines) Close() error {
	closeAll(l.files)
	l.files = nil
	if l.watch != nil {
		l.watch.close()
		l.watch = nil
	}
	return nil
}
