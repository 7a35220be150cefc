package container

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/userns"
)

// An uplink is the monitor's side of one network that the container is on: the
// connection to its network process, which attaches the container for as long as
// that is open.
type uplink struct {
	call    slirp.Call // what is asked for; once it is answered, with all that was chosen
	sock    int
	started chan struct{} // closed once the process runs, or could not be started
	over    chan struct{} // closed once it is gone

	// replies is what comes from the process of a named network, which others use
	// too; nil: the process is the container's alone.
	replies chan slirp.Reply

	mu     sync.Mutex
	child  *userns.Child // the process, while it is ours and lives
	closed bool
	failed error // why it did not start
}

// shared tells whether other containers use the process too.
func (u *uplink) shared() bool { return u.replies != nil }

// name is what the network is called.
func (u *uplink) name() string { return RequestName(u.call.Request) }

// startUplink starts what answers the call: a network process of the container's own
// from its executable, or for a named network the one that all its containers share.
// Meanwhile the caller goes on.
func (m *monitor) startUplink(call slirp.Call) (*uplink, error) {
	if call.Plan.Name != "" {
		return m.joinUplink(call)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	u := &uplink{call: call, sock: pair[0], started: make(chan struct{}), over: make(chan struct{})}
	go u.run(m.network, pair[1])
	runtime.Gosched() // we have one processor: it starts now, and we go on while it does
	return u, nil
}

// networkDir is where the process of a named network is found on this host.
func (m *monitor) networkDir(name string) string { return filepath.Join(m.home.Dir, "networks", name) }

// joinUplink connects to the process of a named network, which it starts if the
// container is the first one on it.
func (m *monitor) joinUplink(call slirp.Call) (*uplink, error) {
	dir := m.networkDir(call.Plan.Name)
	sock, err := slirp.Join(dir, func(listener *os.File) error {
		child, err := startNetworkProcess(m.network, int(listener.Fd()), dir, m.scratch)
		if err != nil {
			return err
		}
		go child.Wait() // it may end before us
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", call.Plan.Name, err)
	}
	u := &uplink{call: call, sock: sock, started: make(chan struct{}), over: make(chan struct{}), replies: make(chan slirp.Reply, 1)}
	close(u.started)
	go u.listen()
	return u, nil
}

// listen takes what comes from a named network's process, until it is gone.
func (u *uplink) listen() {
	defer close(u.over)
	for {
		var reply slirp.Reply
		if _, err := slirp.Receive(u.sock, &reply); err != nil {
			return
		}
		select {
		case u.replies <- reply:
		default: // nothing was asked
		}
	}
}

// run starts the process and waits for its end, on a thread of its own: the
// kernel kills it when the thread that cloned it ends.
func (u *uplink) run(exe *os.File, far int) {
	runtime.LockOSThread()
	defer close(u.over)
	child, err := startNetworkProcess(exe, far, "", "")
	close(u.started)
	u.mu.Lock()
	u.child, u.failed = child, err
	if u.closed && err == nil {
		unix.Kill(child.Pid, unix.SIGKILL)
	}
	u.mu.Unlock()
	unix.Close(far) // only now does it end the connection if there is no process
	if err != nil {
		return
	}
	child.AwaitEnd()
	u.mu.Lock()
	defer u.mu.Unlock()
	child.Wait()
	u.child = nil
}

// startNetworkProcess starts the executable exe with connection as descriptor 3. It has
// no terminal. That of a container alone ends with the thread that calls this; that of
// the named network in dir goes its own way, without the container's mounts at scratch.
func startNetworkProcess(exe *os.File, connection int, dir, scratch string) (*userns.Child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	const program = 4 // descriptor of the executable
	args := []string{"rbox-network"}
	p := userns.NewProgram()
	if dir == "" {
		p.Call("prctl", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
		p.TellReady()
	} else {
		args = append(args, dir)
		p.Call("unshare the mount namespace", unix.SYS_UNSHARE, unix.CLONE_NEWNS)
		p.Call("make mounts slaves", unix.SYS_MOUNT, 0, p.Str("/"), 0, unix.MS_REC|unix.MS_SLAVE, 0)
		p.Call("unmount "+scratch, unix.SYS_UMOUNT2, p.Str(scratch), unix.MNT_DETACH).Ignore()
	}
	p.Call("setsid", unix.SYS_SETSID)
	p.Files(0, []int{int(null.Fd()), int(null.Fd()), int(null.Fd()), connection, int(exe.Fd())})
	p.Call("close the executable on exec", unix.SYS_FCNTL, program, unix.F_SETFD, unix.FD_CLOEXEC)
	p.DefaultSignals()
	p.Call("run the network process", unix.SYS_EXECVEAT, program, p.Str(""),
		p.Strs(args), p.Strs([]string{"PATH=" + os.Getenv("PATH")}), unix.AT_EMPTY_PATH)
	child, err := userns.Start(p, 0, -1)
	if err == nil {
		if err = child.Started(); err != nil {
			child.Kill()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("start the network process: %w", err)
	}
	return child, nil
}

// ask sends the call for an endpoint in the network namespace netns.
func (u *uplink) ask(netns *os.File) error {
	return slirp.Send(u.sock, u.call, int(netns.Fd()))
}

// answer waits for what came of the call.
func (u *uplink) answer() (slirp.Reply, error) {
	reply, err := u.receive()
	switch {
	case err != nil:
		return reply, u.lost(err)
	case reply.Failed != nil:
		f := &Failure{Text: "network: " + reply.Failed.Text, Advice: reply.Failed.Hint, Status: 125}
		if reply.Failed.NoWay {
			return reply, &noNetworkError{f}
		}
		return reply, f
	case reply.Ready == nil:
		return reply, errors.New("network: " + slirp.ErrMalformed.Error())
	}
	u.call.Endpoint, u.call.Again = *reply.Ready, true
	return reply, nil
}

// A noNetworkError reports that no network of a container's own works on this host.
type noNetworkError struct{ *Failure }

func (e *noNetworkError) Unwrap() error { return e.Failure }

func (u *uplink) receive() (reply slirp.Reply, err error) {
	if !u.shared() {
		_, err = slirp.Receive(u.sock, &reply)
		return reply, err
	}
	select {
	case reply = <-u.replies:
		return reply, nil
	case <-u.over:
	}
	select {
	case reply = <-u.replies: // the last thing that it said
		return reply, nil
	default:
		return reply, io.EOF
	}
}

// tell sends what has changed since the call.
func (u *uplink) tell(sisters []string) {
	u.call.Sisters = sisters
	slirp.Send(u.sock, slirp.Call{Sisters: sisters})
}

// publish asks for ports in the container's network namespace, beside what was asked
// for, and waits for them.
func (u *uplink) publish(netns *os.File, ports []slirp.Port) (slirp.Reply, error) {
	u.call.Endpoint.Ports = ports // if the process is killed, the next one is asked, too
	if err := slirp.Send(u.sock, slirp.Call{Sisters: u.call.Sisters, Publish: ports}, int(netns.Fd())); err != nil {
		return slirp.Reply{}, u.lost(err)
	}
	return u.answer()
}

// lost says why the connection was.
func (u *uplink) lost(err error) error {
	<-u.over
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failed != nil {
		return &noNetworkError{&Failure{Text: u.failed.Error(), Advice: "use this host's network: --network host", Status: 125}}
	}
	return fmt.Errorf("the network process was killed before the container was attached (%w)", err)
}

// close detaches the container. A process of its own ends.
func (u *uplink) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return
	}
	u.closed = true
	u.killLocked()
	unix.Shutdown(u.sock, unix.SHUT_RDWR) // wakes who waits for an answer
	if u.shared() {
		<-u.over
	}
	unix.Close(u.sock)
}

// leave is close, and waits until the container's ports are free and it is off a
// shared network.
func (u *uplink) leave() {
	switch {
	case u.shared():
		unix.Shutdown(u.sock, unix.SHUT_WR)
		select {
		case <-u.over:
		case <-time.After(leaveTime):
		}
	case len(u.call.Endpoint.Ports) > 0:
		limit := unix.NsecToTimeval(leaveTime.Nanoseconds())
		unix.SetsockoptTimeval(u.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
		unix.Shutdown(u.sock, unix.SHUT_WR)
		slirp.Receive(u.sock, new(slirp.Reply)) // the end of the process, or the limit
	}
	u.close()
}

// leaveTime bounds the wait for a network's process that does not answer.
const leaveTime = 5 * time.Second

// fail makes it one that is lost, which is not the same as closed.
func (u *uplink) fail() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.killLocked()
	unix.Shutdown(u.sock, unix.SHUT_RDWR)
}

func (u *uplink) killLocked() {
	if u.child != nil {
		unix.Kill(u.child.Pid, unix.SIGKILL)
	}
}

// ended tells whether it was closed, rather than lost.
func (u *uplink) ended() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.closed
}
