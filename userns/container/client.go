package container

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
)

// A Client speaks with the monitor of a running container.
type Client struct {
	Name  string // what errors call the container: at first the short id
	home  *Home
	id    string
	sock  *os.File
	ended *ended // told while something else was awaited
	toEnd bool   // see DialToEnd
}

// NotRunningError reports a container that does not run.
type NotRunningError struct{ Name string }

func (e *NotRunningError) Error() string { return fmt.Sprintf("container %s is not running", e.Name) }

// Hint starts it.
func (e *NotRunningError) Hint() string { return "rbox start " + e.Name }

// DeafError reports a monitor that does not answer.
type DeafError struct {
	ID      string
	Monitor int  // its pid
	Stopped bool // by a signal
}

func (e *DeafError) Error() string {
	why := "does not answer"
	if e.Stopped {
		why = "is stopped (SIGSTOP)"
	}
	return fmt.Sprintf("the monitor of container %s, process %d, %s", Short(e.ID), e.Monitor, why)
}

// Hint has it go on, or ends it.
func (e *DeafError) Hint() string {
	end := "rbox rm -f " + Short(e.ID)
	if e.Stopped {
		return fmt.Sprintf("kill -CONT %d    (or %s)", e.Monitor, end)
	}
	return end
}

// answerTime is far more than a monitor takes to answer. Whether a signal has
// stopped it is looked for every askPause.
const (
	answerTime = 30 * time.Second
	askPause   = time.Second
)

// deaf is what to say of a monitor that has not answered for so long, nil as
// long as it may yet.
func (h *Home) deaf(id string, waited time.Duration) error {
	s := readState(h.folder(id))
	e := &DeafError{ID: id, Monitor: s.Monitor, Stopped: s.monitorLives(id) && s.monitorStopped()}
	if !e.Stopped && waited < answerTime {
		return nil
	}
	return e
}

// wake has a monitor go on that a signal has stopped.
func (h *Home) wake(id string) {
	if s := readState(h.folder(id)); s.monitorLives(id) && s.monitorStopped() {
		unix.Kill(s.Monitor, unix.SIGCONT)
	}
}

// End kills a container whose monitor does not answer, with that.
func (h *Home) End(id string) error {
	killMonitor(h.folder(id))
	for begun := time.Now(); ; time.Sleep(dialPause) {
		info, err := h.Inspect(id)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && !info.Running:
			return nil
		case err != nil:
			return err
		case time.Since(begun) > endingTime:
			return &DeafError{ID: id, Monitor: info.State.Monitor}
		}
	}
}

// dialTime is how long a monitor may take from its container's start until it
// listens, and dialPause what is waited in between: the start does not wait for it.
const (
	dialTime  = 5 * time.Second
	dialPause = time.Millisecond
)

// Dial connects to the monitor of the container id. It returns
// *NotRunningError if there is none.
func (h *Home) Dial(id string) (*Client, error) { return h.dial(id, false) }

// DialToEnd is Dial for who ends the container: a monitor that a signal has
// stopped, or stops meanwhile, goes on to see to it.
func (h *Home) DialToEnd(id string) (*Client, error) { return h.dial(id, true) }

func (h *Home) dial(id string, toEnd bool) (*Client, error) {
	for begun := time.Now(); ; time.Sleep(dialPause) {
		if toEnd {
			h.wake(id)
		}
		sock, err := dialControl(h.folder(id))
		if err == nil {
			return &Client{Name: Short(id), home: h, id: id, sock: os.NewFile(uintptr(sock), "monitor"), toEnd: toEnd}, nil
		}
		if !isGone(err) {
			return nil, fmt.Errorf("reach the monitor of container %s: %w", Short(id), err)
		}
		info, err := h.Inspect(id)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && !info.Running:
			return nil, &NotRunningError{Short(id)}
		case err != nil:
			return nil, err
		case time.Since(begun) > dialTime:
			return nil, h.deaf(id, answerTime)
		}
	}
}

// Close ends the connection.
func (c *Client) Close() { c.sock.Close() }

func (c *Client) fd() int { return int(c.sock.Fd()) }

// Signal sends sig to the container's process 1.
func (c *Client) Signal(sig unix.Signal) error { return c.ask(message{Signal: int(sig)}) }

// Stop is Signal, and the restart policy rests: the container is to end.
func (c *Client) Stop(sig unix.Signal) error {
	return c.ask(message{Signal: int(sig), Stop: true, InOrder: true})
}

// Kill is Stop by SIGKILL, which is no stop to who looks at events.
func (c *Client) Kill() error {
	return c.ask(message{Signal: int(unix.SIGKILL), Stop: true})
}

// Rename gives the container another name.
func (c *Client) Rename(name string) error { return c.ask(message{Rename: name}) }

// Limit changes the container's limits.
func (c *Client) Limit(l cgroupv2.Limits) error { return c.ask(message{Limits: &l}) }

// Restart changes the container's restart policy.
func (c *Client) Restart(p RestartPolicy) error { return c.ask(message{Restart: &p}) }

// Pause freezes the container, or thaws it.
func (c *Client) Pause(freeze bool) error {
	if freeze {
		return c.ask(message{Pause: 1})
	}
	return c.ask(message{Pause: 2})
}

// ask sends a request and waits until it is met.
func (c *Client) ask(m message, files ...*os.File) error {
	if err := send(c.fd(), m, files...); err != nil {
		return c.gone(err)
	}
	c.within(askPause)
	defer c.within(0)
	for begun := time.Now(); ; {
		answer, files, err := receive(c.fd())
		closeFiles(files)
		switch {
		case err == unix.EAGAIN:
			waited := time.Since(begun)
			if c.toEnd && waited < answerTime {
				c.home.wake(c.id)
				continue
			}
			if err := c.home.deaf(c.id, waited); err != nil {
				return err
			}
		case err != nil:
			return c.gone(err)
		case answer.Failed != nil:
			return answer.Failed
		case answer.Ended != nil:
			c.ended = answer.Ended
		case answer.Done:
			return nil
		}
	}
}

// gone says what the loss of the connection means: a monitor that has recorded
// its container's end went in order.
func (c *Client) gone(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	dir := c.home.folder(c.id)
	if _, err := os.Lstat(dir); err != nil || !readState(dir).claims() {
		return &NotRunningError{c.Name}
	}
	return errLost()
}

// Ended waits for the container's end for as long as limit, for ever if that
// is negative. again says that the restart policy starts it again.
func (c *Client) Ended(limit time.Duration) (status int, ended, again bool, err error) {
	if c.ended == nil {
		if c.ended, err = c.awaitEnd(limit); c.ended == nil {
			return 0, false, false, err
		}
	}
	e := c.ended
	c.ended = nil
	return e.Status, true, e.Again, nil
}

// within bounds the wait for each message from now on; 0 is no bound.
func (c *Client) within(limit time.Duration) {
	tv := unix.NsecToTimeval(int64(limit))
	unix.SetsockoptTimeval(c.fd(), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

func (c *Client) awaitEnd(limit time.Duration) (*ended, error) {
	defer c.within(0)
	for begun := time.Now(); ; {
		pause := time.Duration(0)
		if limit >= 0 {
			pause = max(limit-time.Since(begun), time.Microsecond)
		}
		if c.toEnd && (pause == 0 || pause > askPause) {
			pause = askPause
		}
		c.within(pause)
		m, files, err := receive(c.fd())
		closeFiles(files)
		switch {
		case err == unix.EAGAIN && c.toEnd && (limit < 0 || time.Since(begun) < limit):
			c.home.wake(c.id) // a signal may have stopped it since it answered
		case err == unix.EAGAIN:
			return nil, nil
		case err != nil:
			return nil, c.gone(err)
		case m.Ended != nil:
			return m.Ended, nil
		}
	}
}

// Attach connects s to the container's streams until its program ends, whose
// exit status it returns, or the user detaches.
func (c *Client) Attach(s Streams, notice func(string)) (int, error) {
	if err := send(c.fd(), message{Attach: &attachRequest{Input: s.Input}}); err != nil {
		return 0, c.gone(err)
	}
	return c.serve(&session{Streams: s, notice: notice})
}

// Exec runs a further program in the container and returns its exit status.
// With e.Detach it returns once that runs.
func (c *Client) Exec(e ExecRequest, s Streams, preserve []*os.File, notice func(string)) (int, error) {
	request, err := handOver(e)
	if err != nil {
		return 0, err
	}
	defer request.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	files := []*os.File{request, null, null, null}
	if s.Direct {
		files = []*os.File{request, null, os.Stdout, os.Stderr}
		if s.Input {
			files[1] = os.Stdin
		}
	}
	l := &session{Streams: s, notice: notice, detach: e.Detach, guest: true, signals: make(chan os.Signal, 64)}
	l.listen() // the program may be heard of before the monitor says that it has started
	if err := send(c.fd(), message{Exec: true}, append(files, preserve...)...); err != nil {
		return 0, c.gone(err)
	}
	return c.serve(l)
}

func (c *Client) serve(s *session) (int, error) {
	s.control = c.fd()
	s.unanswered = func(waited time.Duration) error { return c.home.deaf(c.id, waited) }
	c.within(askPause)
	status, err := s.serve()
	if errors.Is(err, io.EOF) {
		if err = errLost(); !s.started {
			err = c.gone(io.EOF)
		}
	}
	return status, err
}
