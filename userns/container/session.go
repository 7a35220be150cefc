package container

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A session is rbox in the foreground of one container: it hands on signals
// and, with a terminal, everything typed and shown.
type session struct {
	*Launch
	control int
	signals chan os.Signal
	master  *os.File
	shown   sync.WaitGroup // the copying of the terminal's output
	restore func()
}

// serve talks with the monitor until the container has ended.
func (s *session) serve() (int, error) {
	s.restore = func() {}
	defer func() { s.restore() }()
	for {
		m, files, err := receive(s.control)
		switch {
		case err != nil:
			return 0, err
		case m.Failed != nil:
			return 0, m.Failed
		case m.Notice != "":
			s.Notice(m.Notice)
		case m.Underway:
			s.listen()
		case m.Started != 0:
			s.begin(files)
		case m.Ended != nil:
			s.drain()
			return m.Ended.Status, nil
		}
	}
}

// begin starts what goes on beside the container.
func (s *session) begin(files []*os.File) {
	if len(files) > 0 {
		s.master = files[0]
		s.openTerminal()
	} else {
		letGo()
	}
	go s.forward()
}

// listen asks for all signals that the container gets in our place, and lets
// the program start. For each signal the Go runtime switches threads twice: the
// time for it is while the monitor mounts.
func (s *session) listen() {
	signal.Notify(s.signals, forwarded(s.Config.Plan.Process.Terminal)...)
	send(s.control, message{Listening: true})
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

// forward hands signals to the container.
func (s *session) forward() {
	for sig := range s.signals {
		n := sig.(unix.Signal)
		if s.master != nil && n == unix.SIGWINCH {
			s.resize()
			continue
		}
		send(s.control, message{Signal: int(n)})
		if s.master != nil && n == unix.SIGHUP {
			go s.hangUp()
		}
	}
}

// hangUpTime is what a container gets to end by itself once its terminal is gone.
const hangUpTime = 10 * time.Second

func (s *session) hangUp() {
	time.Sleep(hangUpTime)
	send(s.control, message{Signal: int(unix.SIGKILL)})
}

// openTerminal puts the user's terminal into raw mode, if stdin is one, and
// copies both ways.
func (s *session) openTerminal() {
	if old, err := term.MakeRaw(0); err == nil && s.Stdin != nil {
		s.restore = func() { term.Restore(0, old) }
	}
	s.resize()
	if s.Stdin != nil {
		go s.typed()
	}
	s.shown.Go(func() { io.Copy(os.Stdout, s.master) })
}

// typed copies what the user types to the container. The end of a stdin that
// is no terminal is typed as Ctrl-D.
func (s *session) typed() {
	io.Copy(s.master, os.Stdin)
	if !term.IsTerminal(0) {
		s.master.Write([]byte{4})
	}
}

// drain shows what the container still had to say: the terminal's other end
// is closed once all its processes are gone.
func (s *session) drain() {
	if s.master != nil {
		s.shown.Wait()
	}
}

// resize gives the container's terminal the size of ours.
func (s *session) resize() {
	size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
	if errors.Is(err, unix.ENOTTY) {
		size, err = unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	}
	if err == nil {
		unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, size)
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
