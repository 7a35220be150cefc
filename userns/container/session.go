package container

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Streams say how rbox is connected to a program of a container.
type Streams struct {
	Direct   bool   // the program has rbox's own descriptors
	Input    bool   // what is typed here goes to the program
	Output   bool   // what it shows is shown here
	Terminal bool   // it has a terminal
	Signals  bool   // what rbox gets is for the program
	Keys     []byte // typed, they end the connection; none do if empty
}

// ErrDetached says that the user detached from what goes on.
var ErrDetached = errors.New("detached")

// A session is rbox in the foreground of one program of a container: it hands
// on signals and, unless the program has the streams itself, everything typed
// and shown.
type session struct {
	Streams
	control  int
	notice   func(string)
	detach   bool // return once it has started
	starting bool // the monitor waits until we listen
	guest    bool // the program is one beside the container's
	started  bool
	// unanswered is asked whether to wait on for the start, where control tells
	// so (EAGAIN) from time to time.
	unanswered func(waited time.Duration) error

	signals  chan os.Signal
	terminal atomic.Pointer[os.File] // master of the program's, if it has one
	input    inlet
	shown    sync.WaitGroup
	detached chan struct{}
	restore  func()
}

// serve talks with the monitor until the program has ended.
func (s *session) serve() (int, error) {
	s.restore = func() {}
	if s.signals == nil {
		s.signals = make(chan os.Signal, 64)
	}
	defer func() { s.restore() }()
	if !s.Terminal { // nothing else can end it
		return s.follow()
	}
	s.detached = make(chan struct{})
	status := make(chan func() (int, error), 1)
	go func() {
		n, err := s.follow()
		status <- func() (int, error) { return n, err }
	}()
	select {
	case result := <-status:
		return result()
	case <-s.detached:
		os.Stderr.WriteString("\r\n") // the cursor stands where the program left it
		return 0, ErrDetached
	}
}

// follow hears the monitor until the program has ended.
func (s *session) follow() (int, error) {
	begun := time.Now()
	for { // what fails once it has started is a signal that came too late
		m, files, err := receive(s.control)
		switch {
		case err == unix.EAGAIN:
			if s.started {
				continue
			}
			if err := s.unanswered(time.Since(begun)); err != nil {
				return 0, err
			}
		case err != nil:
			return 0, err
		case m.Failed != nil && !s.started:
			return 0, m.Failed
		case m.Notice != "":
			s.notice(m.Notice)
		case m.Underway:
			s.listen()
		case m.Started != 0:
			if s.detach {
				return 0, nil
			}
			if s.started { // once more
				s.connectInput(m.Streams, files)
				continue
			}
			s.started = true
			if s.unanswered != nil {
				unix.SetsockoptTimeval(s.control, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{})
			}
			s.begin(m.Streams, files)
		case m.Ended != nil && s.guest && !s.started: // that is the container's end
		case m.Ended != nil && m.Ended.Again && s.starting:
			s.input.lead(nil)
		case m.Ended != nil:
			s.drain()
			return m.Ended.Status, nil
		}
	}
}

// begin starts what goes on beside the program.
func (s *session) begin(which streams, files []*os.File) {
	if !s.starting && !s.guest {
		s.listen() // before the terminal has its size: it may change
	}
	if s.Direct {
		letGo()
	} else {
		s.connect(which, files)
	}
	go s.forward()
}

// listen asks for all signals that the container gets in our place, and lets
// the program start. For each signal the Go runtime switches threads twice: the
// time for it is while the monitor mounts.
func (s *session) listen() {
	switch {
	case s.Signals && !s.detach:
		signal.Notify(s.signals, forwarded(s.Terminal)...)
	case s.Terminal:
		signal.Notify(s.signals, unix.SIGWINCH)
	}
	if s.starting {
		send(s.control, message{Listening: true})
	}
}

// letGo replaces our copies of the container's streams, so that who reads or
// writes their other ends learns of the container's closing them. Errors
// still go to stderr.
func letGo() {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	unix.Dup3(null, 0, 0)
	unix.Dup3(null, 1, 0)
	unix.Close(null)
}

// forward hands signals to the program.
func (s *session) forward() {
	for sig := range s.signals {
		n := sig.(unix.Signal)
		terminal := s.terminal.Load()
		if terminal != nil && n == unix.SIGWINCH {
			s.resize()
			continue
		}
		send(s.control, message{Signal: int(n)})
		if terminal != nil && n == unix.SIGHUP {
			go s.hangUp()
		}
	}
}

// hangUpTime is what a program gets to end by itself once its terminal is gone.
const hangUpTime = 10 * time.Second

func (s *session) hangUp() {
	time.Sleep(hangUpTime)
	send(s.control, message{Signal: int(unix.SIGKILL)})
}

// connect copies between our streams and those that came.
func (s *session) connect(which streams, files []*os.File) {
	var in, out, errs *os.File
	for _, p := range []struct {
		which streams
		file  **os.File
	}{{streamInput, &in}, {streamOutput, &out}, {streamErrors, &errs}} {
		if which&p.which != 0 && len(files) > 0 {
			*p.file, files = files[0], files[1:]
		}
	}
	if which&streamTerminal != 0 {
		s.terminal.Store(in)
		s.input.terminal = true
		if out == nil { // nobody else looks at it
			out = in
		}
		s.rawMode()
		s.resize()
	}
	if s.Input && in != nil {
		s.input.lead(in)
		go s.typed()
	} else if in != nil && which&streamTerminal == 0 {
		in.Close()
	}
	if out != nil {
		s.shown.Go(func() { io.Copy(os.Stdout, out) })
	}
	if errs != nil {
		s.shown.Go(func() { io.Copy(os.Stderr, errs) })
	}
}

// connectInput leads what is typed to the program's next run.
func (s *session) connectInput(which streams, files []*os.File) {
	if len(files) != 1 || which&streamInput == 0 {
		closeFiles(files)
		return
	}
	if which&streamTerminal != 0 {
		s.terminal.Store(files[0])
		s.resize()
	}
	if s.Input {
		s.input.lead(files[0])
	}
}

// An inlet is where what is typed goes, from one run of the program to the next.
type inlet struct {
	terminal bool

	mu    sync.Mutex
	file  *os.File      // nil between two runs
	next  chan struct{} // closed once file is another
	ahead []byte        // typed at a terminal between two runs
	ended bool          // no more is to come
}

// typeAhead is how much a terminal keeps that nobody has read yet, as the kernel's do.
const typeAhead = 4096

// lead has what is written from now on go to f; nil: to the run to come.
func (i *inlet) lead(f *os.File) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.file.Close() // who waits to write to it is to write to f
	if i.next != nil {
		close(i.next)
	}
	i.file, i.next = f, make(chan struct{})
	if i.ended {
		f.Close()
	}
	if f != nil && len(i.ahead) > 0 {
		f.Write(i.ahead)
		i.ahead = nil
	}
}

// end closes it for this run and those to come.
func (i *inlet) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ended = true
	i.file.Close()
}

func (i *inlet) now() (*os.File, <-chan struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.file, i.next
}

// Write is to what runs, or to the next run where the other end is gone: a pipe
// that has no reader fails, a terminal that is deaf takes nothing (deafen). With
// a terminal it waits no longer than until the end is known, so that the keys
// that detach are heard.
func (i *inlet) Write(b []byte) (written int, err error) {
	for {
		file, next := i.now()
		n, err := file.Write(b[written:])
		written += n
		if err == nil || i.keep(file, b[written:]) {
			return len(b), nil
		}
		<-next // if there is none, rbox ends
	}
}

// keep takes what is typed at a terminal, file failing, for the next run.
func (i *inlet) keep(file *os.File, b []byte) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.terminal || i.file != file {
		return false
	}
	i.ahead = append(i.ahead, b[:min(len(b), typeAhead-len(i.ahead))]...)
	return true
}

// drainTime is what processes left behind get to write to a terminal that
// nobody but them has open.
const drainTime = 100 * time.Millisecond

// drain shows what the program still had to say. Without others to look at it
// a terminal may stay open for longer than its program lives.
func (s *session) drain() {
	if terminal := s.terminal.Load(); terminal != nil {
		terminal.SetReadDeadline(time.Now().Add(drainTime))
	}
	s.shown.Wait()
}

// rawMode lets each key pass to the program's terminal, if ours is one too.
func (s *session) rawMode() {
	modes, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if !s.Input || err != nil {
		return
	}
	send(s.control, message{Raw: modes}, os.Stdin) // who restores it if we are killed
	if old, err := term.MakeRaw(0); err == nil {
		s.restore = func() {
			term.Restore(0, old)
			send(s.control, message{Cooked: true})
		}
	}
}

// typed copies what comes on stdin to the program. The end of a stdin that is
// no terminal is typed as Ctrl-D into one.
func (s *session) typed() {
	if s.terminal.Load() == nil {
		io.Copy(&s.input, os.Stdin)
		s.input.end()
		send(s.control, message{StdinEnd: true})
		return
	}
	keys := &keyReader{r: os.Stdin, keys: s.Keys}
	io.Copy(&s.input, keys)
	switch {
	case keys.found:
		send(s.control, message{Detach: true})
		close(s.detached)
	case !term.IsTerminal(0):
		s.input.Write([]byte{4})
	}
}

// resize gives the program's terminal the size of ours.
func (s *session) resize() {
	size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
	if errors.Is(err, unix.ENOTTY) {
		size, err = unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	}
	if err == nil {
		unix.IoctlSetWinsize(int(s.terminal.Load().Fd()), unix.TIOCSWINSZ, size)
	}
}

// forwarded lists the signals that the container gets in our place: all but
// those that are ours alone, and with a terminal those that its keys make there.
func forwarded(terminal bool) (list []os.Signal) {
	for n := unix.Signal(1); n < 65; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGKILL, unix.SIGSTOP:
		case 32, 33: // the C library's own
		case unix.SIGWINCH:
			list = append(list, n)
		case unix.SIGTTIN, unix.SIGTTOU:
			if !terminal {
				list = append(list, n)
			}
		default:
			list = append(list, n)
		}
	}
	return list
}
