package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rbox/slirp"
	"rbox/slirp/link"
)

// A foreign driver is another program that makes a tap in the container's network
// namespace and serves it. Its directory, private, is a tmpfs that only it and the
// thread that starts it see: nothing of it outlives them.
const (
	foreignDir   = "/tmp"
	foreignNetns = foreignDir + "/netns" // the container's network namespace
)

// foreignTime is how long such a program may take until it is ready.
const foreignTime = 10 * time.Second

// A MissingDriverError reports a driver that is not installed.
type MissingDriverError struct{ Program string }

func (e *MissingDriverError) Error() string { return e.Program + " is not installed" }

// Hint installs it.
func (e *MissingDriverError) Hint() string {
	pkg := e.Program
	if pkg == "pasta" {
		pkg = "passt"
	}
	return "as root: apt-get install " + pkg + " (or dnf); rbox's own driver needs nothing: --network private"
}

// foreign is what differs between such programs.
type foreign struct {
	program string
	args    []string
	// ready is where it writes once it serves: a pipe for it as descriptor 3, or
	// a file of foreignDir.
	ready string
	// then is called, on the thread that started it, once it is.
	then func() error
}

// start runs f and returns when it is ready. down is closed when it has ended,
// which it does once stop is closed.
func (f foreign) start(netns int) (down, stop chan struct{}, err error) {
	path, err := exec.LookPath(f.program)
	if err != nil {
		return nil, nil, &MissingDriverError{f.program}
	}
	started := make(chan error)
	down, stop = make(chan struct{}), make(chan struct{})
	go func() {
		// Its mount namespace is of no use to others, and the kernel kills the
		// program when this thread ends.
		runtime.LockOSThread()
		defer close(down)
		f.run(path, netns, started, stop)
	}()
	return down, stop, <-started
}

// run is the program's life, on a thread of its own.
func (f foreign) run(path string, netns int, started chan<- error, stop <-chan struct{}) {
	fail := func(err error) { started <- fmt.Errorf("%s: %w", f.program, err) }
	if err := enterForeignDir(netns); err != nil {
		fail(err)
		return
	}
	ready, theirs, err := f.readyPipe()
	if err != nil {
		fail(err)
		return
	}
	defer ready.Close()
	var says bytes.Buffer
	cmd := exec.Command(path, f.args...)
	cmd.Stdout, cmd.Stderr = &says, &says
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // what it started may have its stderr
	if theirs != nil {
		cmd.ExtraFiles = []*os.File{theirs}
	}
	err = cmd.Start()
	if theirs != nil {
		theirs.Close()
	}
	if err != nil {
		fail(err)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err = awaitReady(ready, ended); err == nil && f.then != nil {
		err = f.then()
	}
	if err == nil {
		started <- nil
		select {
		case <-ended:
		case <-stop:
			if cmd.Process.Kill() == nil { // else it goes with this thread
				<-ended
			}
		}
		return
	}
	cmd.Process.Kill()
	<-ended
	if text := complaint(says.String()); text != "" {
		err = errors.New(text)
	}
	fail(err)
}

// enterForeignDir gives this thread a mount namespace with the directory, and in
// it the container's network namespace.
func enterForeignDir(netns int) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make mounts slaves: %w", err)
	}
	if err := unix.Mount("tmpfs", foreignDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=1m"); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: foreignDir, Err: err}
	}
	if err := os.WriteFile(foreignNetns, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", netns), foreignNetns, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: foreignNetns, Err: err}
	}
	return nil
}

// readyPipe is what the program tells that it is ready by, and the end of it
// that is passed on to it, if it is.
func (f foreign) readyPipe() (ready, theirs *os.File, err error) {
	if f.ready == "" {
		return os.Pipe()
	}
	if err := unix.Mkfifo(f.ready, 0o600); err != nil {
		return nil, nil, &os.PathError{Op: "mkfifo", Path: f.ready, Err: err}
	}
	ready, err = os.OpenFile(f.ready, os.O_RDWR|unix.O_NONBLOCK, 0)
	return ready, nil, err
}

// awaitReady waits until something is written to ready, or the program ends.
func awaitReady(ready *os.File, ended chan error) error {
	ready.SetReadDeadline(time.Now().Add(foreignTime))
	told := make(chan error, 1)
	go func() {
		_, err := ready.Read(make([]byte, 1))
		told <- err
	}()
	select {
	case err := <-told:
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("not ready after %v", foreignTime)
		}
		if errors.Is(err, io.EOF) {
			return errors.New("it ended before it was ready")
		}
		return err
	case err := <-ended:
		ended <- err // for run
		return errors.New("it ended before it was ready")
	}
}

// complaint is the last line of what a program said before it failed that tells why.
func complaint(text string) (line string) {
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "WARNING:") && !strings.HasPrefix(l, "child failed") && !strings.Contains(l, "syslog") {
			line = l
		}
	}
	return line
}

// serveForeign connects netns by f, and gives the container's interface, which f
// makes, the addresses that r asks for.
func serveForeign(netns int, f foreign, r slirp.Request) (*served, error) {
	ready := r.Endpoint
	config, err := linkConfig(r)
	if err != nil {
		return nil, err
	}
	var l *link.Link
	more := f.then
	f.then = func() (err error) {
		if l, err = link.Configure(netns, config); err == nil && more != nil {
			err = more()
		}
		return err
	}
	down, stop, err := f.start(netns)
	if err != nil {
		return nil, err
	}
	ready.MAC = l.MAC.String()
	s := &served{reply: slirp.Reply{Ready: &ready, Link: "tap"}, down: down, end: func() {
		close(stop)
		<-down
	}}
	if l.Without6 != nil {
		ready.IP6 = netip.Addr{}
		s.reply.Notices = append(s.reply.Notices, l.Without6.Error())
	}
	return s, nil
}

// without6 is r without IPv6.
func without6(r slirp.Request) slirp.Request {
	r.Plan.Subnet6, r.Plan.Gateway6, r.Plan.DNS6, r.Endpoint.IP6 = netip.Prefix{}, netip.Addr{}, netip.Addr{}, netip.Addr{}
	return r
}
