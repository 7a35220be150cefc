package container

import (
	"errors"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"rbox/userns"
)

// A client is an rbox that the monitor serves.
type client struct {
	sock int

	mu     sync.Mutex
	viewer *viewer
	files  []*os.File // for the first message that tells of a start
	which  streams
	guest  bool          // it asked for a program beside the container's
	exec   *userns.Child // that program, while it runs
	master *os.File      // of that one's terminal
	closed bool
	caller *callerTerminal // what it was started on, while that is raw
}

// send writes to the client, unless it is gone. It does not wait for one that
// reads nothing, being stopped for instance: that one misses what it can do
// without, else it loses the connection.
func (c *client) send(m message, files ...*os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return unix.EPIPE
	}
	err := sendFlags(c.sock, m, unix.MSG_DONTWAIT, files...)
	if err == unix.EAGAIN && m.Notice == "" && (m.Ended == nil || !m.Ended.Again) {
		unix.Shutdown(c.sock, unix.SHUT_RDWR)
	}
	return err
}

// sendStarted tells of the program's start, with the streams kept for the client.
func (c *client) sendStarted(pid int) {
	c.send(message{Started: pid, Streams: c.which}, c.files...)
	closeFiles(c.files)
	c.files = nil
}

// busy says that the client asked for a program of its own.
func (c *client) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.guest
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	unix.Close(c.sock)
}

// listen serves all who connect to the container's socket.
func (m *monitor) listen() {
	sock, err := -1, error(nil)
	m.listening.Do(func() { sock, err = listenControl(m.Dir) })
	if err != nil {
		m.first.send(message{Notice: "other commands cannot reach the container: " + err.Error()})
	}
	if sock < 0 {
		return
	}
	for {
		fd, _, err := unix.Accept4(sock, unix.SOCK_CLOEXEC)
		if err == unix.EINTR || err == unix.ECONNABORTED {
			continue
		}
		if err != nil {
			return
		}
		if !trusted(fd) {
			unix.Close(fd)
			continue
		}
		c := &client{sock: fd}
		m.mu.Lock()
		m.clients[c] = true
		m.mu.Unlock()
		go m.serve(c)
	}
}

// trusted tells whether the other side is the user that we are.
func trusted(sock int) bool {
	cred, err := unix.GetsockoptUcred(sock, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && int(cred.Uid) == unix.Geteuid()
}

// serve carries out a client's requests until it is gone.
func (m *monitor) serve(c *client) {
	for {
		msg, files, err := receive(c.sock)
		if err != nil {
			m.lose(c)
			return
		}
		if msg.asks() && hasLeft(c.sock) {
			closeFiles(files)
			continue
		}
		m.answer(c, msg, files)
	}
}

// hasLeft tells whether the other side of a socket is closed. Who has left
// without an answer, because we were stopped for instance, wants none any more.
func hasLeft(sock int) bool {
	fds := []unix.PollFd{{Fd: int32(sock), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) != 0
}

// answer carries out one request.
func (m *monitor) answer(c *client, msg message, files []*os.File) {
	switch {
	case msg.Exec:
		m.exec(c, files)
		return
	case msg.Attach != nil:
		m.attach(c, msg.Attach.Input)
		return
	case msg.Raw != nil && len(files) == 1:
		c.remember(&callerTerminal{files[0], msg.Raw})
		return
	case msg.Cooked:
		c.remember(nil)
		return
	case msg.Detach:
		m.release(c)
	case msg.StdinEnd:
		if m.console != nil && m.StdinOnce {
			m.console.endInput()
		}
	}
	var err error
	if msg.InOrder {
		m.mu.Lock()
		m.inOrder = true
		m.mu.Unlock()
	}
	resting := msg.Stop && m.halt()
	if msg.Stop {
		m.thaw() // it is to hear of it
	}
	if msg.Signal != 0 {
		err = m.signal(c, unix.Signal(msg.Signal))
		if resting && err == errNotRunning {
			err = nil
		}
	}
	if msg.Rename != "" {
		err = m.rename(msg.Rename)
	}
	if msg.Connect != nil && len(files) == 1 {
		err = m.connectNetwork(*msg.Connect, files[0])
	}
	if msg.Disconnect != "" {
		err = m.disconnectNetwork(msg.Disconnect)
	}
	if msg.Restore {
		err = m.restore()
	}
	if msg.Limits != nil {
		err = m.limit(*msg.Limits)
	}
	if msg.Restart != nil {
		err = m.setRestart(*msg.Restart)
	}
	if msg.Pause != 0 {
		err = m.pause(msg.Pause == 1)
	}
	if err != nil {
		c.send(message{Failed: failure(err)})
		return
	}
	c.send(message{Done: true})
}

// errNoFreezer says that processes cannot be frozen here.
var errNoFreezer = &Failure{
	Text: "cannot pause the container: it has no cgroup of its own", Status: 125,
	Advice: "rbox doctor tells what this host lacks",
}

// lose is the end of a client. A container goes with the rbox in whose
// foreground it is.
func (m *monitor) lose(c *client) {
	m.mu.Lock()
	delete(m.clients, c)
	owner := m.owner == c
	m.mu.Unlock()
	if owner {
		m.halt()
		m.end(unix.SIGKILL)
	}
	c.mu.Lock()
	if c.exec != nil {
		unix.Kill(-c.exec.Pid, unix.SIGKILL) // its session's foreground, or all that it started
		unix.Kill(c.exec.Pid, unix.SIGKILL)
	}
	c.caller.restore()
	v := c.viewer
	c.mu.Unlock()
	if m.console != nil {
		m.console.drop(v)
	}
	c.remember(nil)
	c.close()
}

// remember keeps the terminal that the client makes raw, whose modes are to be
// restored if it is killed; nil: it has done so itself.
func (c *client) remember(t *callerTerminal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.caller.forget()
	c.caller = t
}

// release lets what c runs outlive c.
func (m *monitor) release(c *client) {
	c.mu.Lock()
	if c.exec != nil && c.master != nil {
		go drain(c.master)
	}
	c.exec = nil
	c.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.owner == c {
		m.owner = nil
		unix.Setsid() // the caller's session may end
	}
}

// halt puts the restart policy to rest, and tells whether the container is
// between two runs.
func (m *monitor) halt() (resting bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	resting = m.state.Restarting
	if m.state.Stopped {
		return resting
	}
	m.state.Stopped = true
	close(m.stop)
	if !m.AutoRemove {
		m.saveState()
	}
	return resting
}

// errNotRunning answers those who come too late.
var errNotRunning = errors.New("the container is not running")

// signal sends sig to the program that c runs, else to process 1.
func (m *monitor) signal(c *client, sig unix.Signal) error {
	if c.guest {
		return c.signal(sig)
	}
	return m.end(sig)
}

// signal sends sig to the client's program, unless that has ended.
func (c *client) signal(sig unix.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.exec == nil {
		return nil
	}
	return unix.Kill(c.exec.Pid, sig)
}

// end sends sig to process 1.
func (m *monitor) end(sig unix.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.starting { // the program may run already and only we not know
		m.begun.Wait()
	}
	if m.child == nil {
		return errNotRunning
	}
	m.event("kill", map[string]string{"signal": strconv.Itoa(int(sig))})
	return m.kill(sig)
}

// rename gives the container another name.
func (m *monitor) rename(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := Info{Config: m.Config, State: m.state}.Name()
	err := m.home.rename(m.ID, old, name, func() error {
		before := m.state.Name
		m.state.Name = name
		err := m.saveState()
		if err != nil {
			m.state.Name = before
		}
		return err
	})
	if err != nil {
		return err
	}
	m.event("rename", map[string]string{"oldName": "/" + old})
	return nil
}

// attach connects c to the container's streams.
func (m *monitor) attach(c *client, input bool) {
	if m.console == nil {
		c.send(message{Failed: &Failure{
			Text: "cannot attach: the program has the streams of the rbox that started it", Status: 125,
			Advice: "start such containers with -d, -t or --log-driver file",
		}})
		return
	}
	m.mu.Lock()
	ended := m.child == nil && !m.state.Restarting
	m.mu.Unlock()
	if ended {
		c.send(message{Failed: failure(errNotRunning)})
		return
	}
	v, which, files, err := m.console.view(input)
	if err != nil {
		c.send(message{Failed: failure(err)})
		return
	}
	c.mu.Lock()
	c.viewer = v
	c.mu.Unlock()
	m.mu.Lock()
	pid := m.state.Pid
	m.event("attach", nil)
	m.mu.Unlock()
	c.send(message{Started: max(pid, 1), Streams: which}, files...)
	closeFiles(files)
}
