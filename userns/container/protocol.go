package container

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/slirp"
	"rbox/userns/wire"
)

// A message passes between rbox and the monitor, one to a packet. Of its
// fields one is set, but for the numbers that say more of it.
type message struct {
	// To the monitor.
	Run       *order         // with the files that order names
	Listening bool           // signals are heard from now on: the program may start
	Signal    int            // for process 1
	Stop      bool           // the restart policy rests; with Signal, or alone
	InOrder   bool           // with Stop: the container's end is told as that of a stop
	Detach    bool           // the container is to outlive this client
	Attach    *attachRequest // connect this client to the container's streams
	StdinEnd  bool           // nothing more comes from this client
	Exec      bool           // run one more program; with it come an ExecRequest, and streams 0 to 2 unless it has a terminal
	Rename    string         // the container's new name
	Pause     int            // 1 freezes, 2 thaws
	Raw       *unix.Termios  // the client makes its terminal, which comes with it, raw; so it was before
	Restore   bool           // config.json or state.json was deleted: it is to be there again
	Cooked    bool           // it is no longer raw

	Limits  *cgroupv2.Limits // to be changed
	Restart *RestartPolicy   // likewise

	Connect    *slirp.Request // one more network; the executable of its process comes with it
	Disconnect string         // the network that the container is to leave

	// From the monitor.
	Underway bool     // it has the container
	Started  int      // pid of the program; the streams that rbox is to serve come with it
	Streams  streams  // which those are
	Failed   *Failure // the container or program did not start; the request could not be met
	Ended    *ended   // how it ended
	Notice   string   // what was lost on the way
	Done     bool     // the request is met
}

// asks tells whether the client waits for an answer.
func (m *message) asks() bool {
	return m.Exec || m.Attach != nil || m.Rename != "" || m.Restore || m.Pause != 0 || m.Limits != nil || m.Restart != nil || m.Signal != 0 && !m.Stop
}

// An order says how to run the container. With it come config.json, the plan,
// streams 0 to 2, descriptors to preserve, the layers' lock, and the executable
// of the network process.
type order struct {
	Dir    string
	Detach bool // the container outlives rbox from its start on
	Direct bool // the program gets the streams that came
	Watch  bool // rbox shows what the program writes
	Input  bool // rbox writes what the program reads
	Fresh  bool // the container has no state yet

	Networked bool // that executable comes
}

// streams tells which descriptors come with a message, in this order.
type streams int

const (
	streamInput    streams = 1 << iota // writes to the program: a pipe, or the terminal
	streamOutput                       // what it shows
	streamErrors                       // what it says on stderr, without a terminal
	streamTerminal                     // the first of them is the terminal's master, for its size too
)

// attachRequest asks for the container's streams.
type attachRequest struct{ Input bool }

// ended is how process 1 ended.
type ended struct {
	Status int  // exit status, or 128+n after signal n
	Again  bool // the restart policy starts it again
}

// A Failure is why a container did not start.
type Failure struct {
	Text   string
	Advice string // a hint, or ""
	Status int    // 125 rbox failed, 126 not executable, 127 not found
}

func (f *Failure) Error() string { return f.Text }

// Hint is what the user can do.
func (f *Failure) Hint() string { return f.Advice }

// ExitStatus is what rbox exits with.
func (f *Failure) ExitStatus() int { return f.Status }

// maxRights is SCM_MAX_FD, the most descriptors that one message carries.
const maxRights = 253

// maxMessage bounds a message, bytes; what may be longer goes by a file in memory.
const maxMessage = 64 << 10

// send writes m, and files with it.
func send(sock int, m message, files ...*os.File) error { return sendFlags(sock, m, 0, files...) }

// sendFlags is send with flags of sendmsg(2).
func sendFlags(sock int, m message, flags int, files ...*os.File) error {
	b := wire.Append(nil, m)
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(sock, b, rights, nil, unix.MSG_NOSIGNAL|flags)
		if err != unix.EINTR {
			return err
		}
	}
}

// receive reads a message and the files that came with it. The end of the
// other side is io.EOF.
func receive(sock int) (m message, files []*os.File, err error) {
	// What the longest message takes would be cleared each time.
	n, _, err := receiveInto(sock, nil, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
	if err != nil {
		return m, nil, err
	}
	b, oob := make([]byte, min(n, maxMessage)), make([]byte, unix.CmsgSpace(4*maxRights))
	n, oobn, err := receiveInto(sock, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err == nil && n == 0 {
		return m, nil, io.EOF
	}
	if err != nil {
		return m, nil, err
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err == nil && len(cmsgs) > 0 {
		fds, _ := unix.ParseUnixRights(&cmsgs[0])
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return m, files, wire.Read(b[:n], &m)
}

// receiveInto is recvmsg(2), again where a signal came in between.
func receiveInto(sock int, b, oob []byte, flags int) (n, oobn int, err error) {
	for {
		n, oobn, _, _, err = unix.Recvmsg(sock, b, oob, flags)
		// ECONNRESET tells, once, that the other side left a message of ours
		// unread; what it said before is still to be had.
		if err != unix.EINTR && err != unix.ECONNRESET {
			return n, oobn, err
		}
	}
}

// handOver returns a file in memory that holds v: it may be larger than a message.
func handOver(v any) (*os.File, error) {
	fd, err := unix.MemfdCreate("rbox-plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "plan")
	if _, err := f.Write(wire.Append(nil, v)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readHanded is the other side of handOver, and closes f.
func readHanded(f *os.File, v any) error {
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	return wire.Read(b, v)
}

// controlName is the socket in a container's folder on which its monitor
// hears requests. The folder is ours alone; the container sees nothing of it.
const controlName = "control"

// listenControl makes the socket in dir. Who finds it can connect to it: it has
// another name until it hears.
func listenControl(dir string) (sock int, err error) {
	return controlSocket(dir, controlName+".new", func(sock int, a *unix.SockaddrUnix) error {
		name := filepath.Join(dir, controlName)
		os.Remove(name + ".new") // of a monitor that was killed
		if err := unix.Bind(sock, a); err != nil {
			return os.NewSyscallError("bind", err)
		}
		if err := unix.Listen(sock, 128); err != nil {
			return os.NewSyscallError("listen", err)
		}
		return os.Rename(name+".new", name)
	})
}

// dialControl connects to the socket in dir.
func dialControl(dir string) (sock int, err error) {
	return controlSocket(dir, controlName, func(sock int, a *unix.SockaddrUnix) error {
		for {
			err := unix.Connect(sock, a)
			if err != unix.EINTR && err != unix.EAGAIN {
				return err
			}
		}
	})
}

// controlSocket makes a socket to be used with the path of name in dir, which
// may be longer than the 108 bytes of a socket's address (unix(7)).
func controlSocket(dir, name string, use func(int, *unix.SockaddrUnix) error) (sock int, err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	sock, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := use(sock, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name}); err != nil {
		unix.Close(sock)
		return -1, err
	}
	return sock, nil
}

// isGone says that nobody listens on a socket.
func isGone(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT)
}
