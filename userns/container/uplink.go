package container

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/userns"
)

// An uplink is the monitor's side of one network that the container is on: the
// connection to its network process, which attaches the container for as long as
// that is open.
type uplink struct {
	sock    int
	started chan struct{} // closed once the process runs, or could not be started
	over    chan struct{} // closed once it is gone

	mu     sync.Mutex
	child  *userns.Child // the process, while it is ours and lives
	closed bool
	failed error // why it did not start
}

// startUplink starts a network process from its executable. Meanwhile the caller goes on.
func startUplink(exe *os.File) (*uplink, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	u := &uplink{sock: pair[0], started: make(chan struct{}), over: make(chan struct{})}
	go u.run(exe, pair[1])
	runtime.Gosched() // we have one processor: it starts now, and we go on while it does
	return u, nil
}

// run starts the process and waits for its end, on a thread of its own: the
// kernel kills it when the thread that cloned it ends.
func (u *uplink) run(exe *os.File, far int) {
	runtime.LockOSThread()
	defer close(u.over)
	child, err := startNetworkProcess(exe, far)
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

// startNetworkProcess starts the executable exe with connection as descriptor 3.
// It has no terminal, and ends with the thread that calls this.
func startNetworkProcess(exe *os.File, connection int) (*userns.Child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	const program = 4 // descriptor of the executable
	p := userns.NewProgram()
	p.Call("prctl", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, int(unix.SIGKILL))
	p.TellReady()
	p.Call("setsid", unix.SYS_SETSID)
	p.Files(0, []int{int(null.Fd()), int(null.Fd()), int(null.Fd()), connection, int(exe.Fd())})
	p.Call("close the executable on exec", unix.SYS_FCNTL, program, unix.F_SETFD, unix.FD_CLOEXEC)
	p.DefaultSignals()
	p.Call("run the network process", unix.SYS_EXECVEAT, program, p.Str(""),
		p.Strs([]string{"rbox-network"}), p.Strs([]string{"PATH=" + os.Getenv("PATH")}), unix.AT_EMPTY_PATH)
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

// ask sends the request for an endpoint in the network namespace netns.
func (u *uplink) ask(netns *os.File, r slirp.Request) error {
	return slirp.Send(u.sock, r, int(netns.Fd()))
}

// answer waits for what came of the request.
func (u *uplink) answer() (slirp.Reply, error) {
	var reply slirp.Reply
	_, err := slirp.Receive(u.sock, &reply)
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
	return reply, nil
}

// A noNetworkError reports that no network of a container's own works on this host.
type noNetworkError struct{ *Failure }

func (e *noNetworkError) Unwrap() error { return e.Failure }

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
	unix.Close(u.sock)
}

// kill ends the process without closing: the uplink is lost.
func (u *uplink) kill() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.killLocked()
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
