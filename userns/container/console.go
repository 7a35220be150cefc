package container

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rbox/userns/container/logfile"
)

// A console is what the container's streams lead to where the program does not
// have rbox's own: it writes the log, and shows each client what the program
// writes from then on. A client that does not read holds the program up, as a
// full pipe would. It outlasts restarts of the program.
type console struct {
	log   *logfile.Writer // nil: there is none
	lost  func(error)     // told that the log has gaps
	told  sync.Once       // of that
	input bool            // the program reads from a pipe, not /dev/null

	mu      sync.Mutex
	sources []*os.File // what the program writes
	viewers map[*viewer]bool
	stdin   *os.File // where input goes: a pipe, or the terminal's master
	tty     terminal // the program's, if it has one
	ended   bool     // no more input is to come
	copying sync.WaitGroup
}

// pipe makes a pipe. The ends that are ours do not block a thread; a program
// would be astonished at one that does not block.
func pipe(ourRead, ourWrite bool) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	for i, ours := range []bool{ourRead, ourWrite} {
		if ours {
			unix.SetNonblock(fds[i], true)
		}
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// A viewer is a client's ends of the pipes that it is shown the streams by.
type viewer struct{ out, err *os.File }

func (v *viewer) close() {
	for _, f := range []*os.File{v.out, v.err} {
		if f != nil {
			f.Close()
		}
	}
}

// pipes makes the program's streams and returns its ends of them, to be closed
// once it has them.
func (c *console) pipes() (theirs []*os.File, err error) {
	var ours [3]*os.File
	defer func() {
		if err != nil {
			closeFiles(append(theirs, ours[:]...))
		}
	}()
	for i := range 3 {
		if i == 0 && !c.input {
			null, err := os.Open(os.DevNull)
			if err != nil {
				return theirs, err
			}
			theirs = append(theirs, null)
			continue
		}
		r, w, err := pipe(i > 0, false)
		if err != nil {
			return theirs, err
		}
		if i == 0 {
			theirs, ours[0] = append(theirs, r), w
		} else {
			theirs, ours[i] = append(theirs, w), r
		}
	}
	c.mu.Lock()
	c.stdin, c.sources = ours[0], ours[1:]
	if c.ended && c.stdin != nil {
		c.stdin.Close()
		c.stdin = nil
	}
	c.mu.Unlock()
	c.copying.Go(func() { c.copy(logfile.Stdout, ours[1]) })
	c.copying.Go(func() { c.copy(logfile.Stderr, ours[2]) })
	return theirs, nil
}

// lead has the console lead to the program's terminal.
func (c *console) lead(t terminal) error {
	fd, err := unix.FcntlInt(t.master.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	c.mu.Lock()
	c.stdin, c.tty = os.NewFile(uintptr(fd), "terminal"), t
	c.sources = []*os.File{c.stdin}
	c.mu.Unlock()
	c.copying.Go(func() { c.copy(logfile.Stdout, c.stdin) })
	return nil
}

// copy hands on what comes from r until its other end is closed.
func (c *console) copy(stream logfile.Stream, r *os.File) {
	defer r.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := r.Read(b)
		if n > 0 {
			c.show(stream, b[:n])
		}
		if err != nil { // a terminal says EIO
			return
		}
	}
}

func (c *console) show(stream logfile.Stream, b []byte) {
	if c.log != nil {
		if err := c.log.Write(stream, b); err != nil && c.lost != nil {
			c.told.Do(func() { c.lost(err) })
		}
	}
	for _, v := range c.watching() {
		f := v.out
		if stream == logfile.Stderr {
			f = v.err
		}
		if f == nil {
			continue
		}
		if _, err := f.Write(b); err != nil {
			c.drop(v)
		}
	}
}

func (c *console) watching() []*viewer {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*viewer, 0, len(c.viewers))
	for v := range c.viewers {
		list = append(list, v)
	}
	return list
}

// view adds a client and returns the descriptors for it, to be closed once sent.
func (c *console) view(input bool) (v *viewer, which streams, files []*os.File, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v = &viewer{}
	defer func() {
		if err != nil {
			v.close()
			closeFiles(files)
		}
	}()
	if files, which, err = c.inlet(input); err != nil {
		return v, 0, files, err
	}
	for _, s := range []struct {
		end   **os.File
		which streams
	}{{&v.out, streamOutput}, {&v.err, streamErrors}} {
		if s.which == streamErrors && c.tty.master != nil {
			continue
		}
		r, w, err := pipe(false, true)
		if err != nil {
			return v, 0, files, err
		}
		*s.end, files, which = w, append(files, r), which|s.which
	}
	if c.viewers == nil {
		c.viewers = map[*viewer]bool{}
	}
	c.viewers[v] = true
	return v, which, files, nil
}

// inlet is a descriptor for who gives the program input or, with a terminal, its
// size. The caller holds c.mu.
func (c *console) inlet(input bool) (files []*os.File, which streams, err error) {
	if c.tty.master == nil && (!input || c.stdin == nil) {
		return nil, 0, nil
	}
	from := c.stdin
	if c.tty.master != nil {
		from, which = c.tty.master, streamTerminal
	}
	fd, err := unix.FcntlInt(from.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, 0, err
	}
	return []*os.File{os.NewFile(uintptr(fd), "input")}, which | streamInput, nil
}

// newInlet is inlet for the viewer v after a restart; none if it has left.
func (c *console) newInlet(v *viewer, input bool) (files []*os.File, which streams, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.viewers[v] {
		return nil, 0, nil
	}
	return c.inlet(input)
}

// drop lets go of a client; nil is none.
func (c *console) drop(v *viewer) {
	if v == nil {
		return
	}
	c.mu.Lock()
	delete(c.viewers, v)
	c.mu.Unlock()
	v.close()
}

// endInput ends the program's stdin once its readers have read what is in it.
func (c *console) endInput() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.tty.master == nil && c.stdin != nil {
		c.stdin.Close()
		c.stdin = nil
	}
}

// A callerTerminal is the terminal that an rbox was started on, with its modes
// then: rbox makes it raw, and may be killed before it can undo that.
type callerTerminal struct {
	file  *os.File
	modes *unix.Termios
}

func (c *callerTerminal) restore() {
	if c != nil {
		unix.IoctlSetTermios(int(c.file.Fd()), unix.TCSETS, c.modes)
	}
}

func (c *callerTerminal) forget() {
	if c != nil {
		c.file.Close()
	}
}

// lastWords is what those who look on get to take what the program wrote last,
// and what keeps its streams open though it is not of the container to let go.
const lastWords = 3 * time.Second

// hurry sees to it that neither keeps the container from ending. The pipes to
// those who look on get room for all that the program's hold, so that one who
// is slow misses nothing.
func (c *console) hurry() {
	const room = 256 << 10
	deadline := time.Now().Add(lastWords)
	for _, v := range c.watching() {
		for _, f := range []*os.File{v.out, v.err} {
			if f != nil {
				unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, room)
				f.SetWriteDeadline(deadline)
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.sources {
		f.SetReadDeadline(deadline)
	}
}

// calm is the end of hurry for who stays.
func (v *viewer) calm() {
	for _, f := range []*os.File{v.out, v.err} {
		if f != nil {
			f.SetWriteDeadline(time.Time{})
		}
	}
}

// finish waits until all that the program wrote is handed on, lets go of all
// viewers but stays, and readies the console for the next start.
func (c *console) finish(stays *viewer) {
	c.mu.Lock()
	c.tty.over()
	c.mu.Unlock()
	c.hurry()
	c.copying.Wait()
	if stays != nil {
		stays.calm()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	closeFiles([]*os.File{c.stdin, c.tty.master})
	c.stdin, c.tty = nil, terminal{}
	for v := range c.viewers {
		if v != stays {
			v.close()
			delete(c.viewers, v)
		}
	}
	if c.log != nil {
		c.log.Close() // it opens again where it is written to
	}
}

// drain reads a terminal that nobody looks at any more, so that the program
// goes on.
func drain(master *os.File) { io.Copy(io.Discard, master) }

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
