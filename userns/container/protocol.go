package container

import (
	"io"
	"os"

	"golang.org/x/sys/unix"

	"rbox/userns/wire"
)

// A message passes between rbox and the monitor, one to a packet. Of its
// fields one is set.
type message struct {
	Run       string   // to the monitor: the folder; with it come config.json, the plan, streams 0 to 2, descriptors to preserve, the layers' lock
	Underway  bool     // from the monitor: it has the container
	Listening bool     // to the monitor: signals are heard from now on, the program may start
	Started   int      // from the monitor: pid of process 1; the terminal comes with it
	Failed    *Failure // from the monitor: the container did not start
	Ended     *ended   // from the monitor: it has ended and is cleaned up
	Notice    string   // from the monitor: what was lost on the way
	Signal    int      // to the monitor, for process 1
}

// ended is how process 1 ended.
type ended struct {
	Status int // exit status, or 128+n after signal n
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

// maxRights is SCM_MAX_FD, the most descriptors that one message carries.
const maxRights = 253

// send writes m, and files with it.
func send(sock int, m message, files ...*os.File) error {
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
		err := unix.Sendmsg(sock, b, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// receive reads a message and the files that came with it. The end of the
// other side is io.EOF.
func receive(sock int) (m message, files []*os.File, err error) {
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*maxRights))
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(sock, b, oob, unix.MSG_CMSG_CLOEXEC)
		// ECONNRESET tells, once, that the other side left a message of ours
		// unread; what it said before is still to be had.
		if err != unix.EINTR && err != unix.ECONNRESET {
			break
		}
	}
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

// ExitStatus is what rbox exits with.
func (f *Failure) ExitStatus() int { return f.Status }

// handOver returns a file in memory that holds c: it may be larger than a message.
func handOver(c Config) (*os.File, error) {
	fd, err := unix.MemfdCreate("rbox-plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "plan")
	if _, err := f.Write(wire.Append(nil, c)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readHanded is the other side of handOver, and closes f.
func readHanded(f *os.File, c *Config) error {
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	return wire.Read(b, c)
}
