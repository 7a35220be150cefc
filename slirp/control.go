package slirp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Files in the directory of a named network that is in use on this host.
const (
	controlName = "control" // socket of its process
	lockName    = "lock"    // held by who starts that process, and by the process when it ends
)

// Join connects to the process of the named network whose directory is dir. If there is
// none, start is to start it with listener as its socket. Both happen under a lock, so
// that there is one process however many come at the same time.
func Join(dir string, start func(listener *os.File) error) (sock int, err error) {
	lock, err := LockControl(dir)
	if err != nil {
		return -1, err
	}
	defer lock.Close()
	sock, err = Connect(dir)
	if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
		return sock, err
	}
	listener, err := listen(dir)
	if err != nil {
		return -1, err
	}
	defer listener.Close()
	if err := start(listener); err != nil {
		return -1, err
	}
	return Connect(dir) // it waits to be accepted
}

// LockControl returns the lock of the network's directory, which it makes.
func LockControl(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			continue // its last user has removed it just now
		}
		if err != nil {
			return nil, err
		}
		if err := flock(lock); err != nil {
			lock.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		held, err := lock.Stat()
		there, gone := os.Lstat(path)
		if err == nil && gone == nil && os.SameFile(held, there) {
			return lock, nil
		}
		lock.Close()
	}
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

// RemoveControl removes dir. The caller holds its lock, and accepts nobody any more.
func RemoveControl(dir string) {
	os.Remove(filepath.Join(dir, controlName))
	os.Remove(filepath.Join(dir, lockName))
	os.Remove(dir)
}

// Connect connects to the process of the named network whose directory is dir.
func Connect(dir string) (sock int, err error) {
	return control(dir, func(sock int, a *unix.SockaddrUnix) error {
		for {
			err := unix.Connect(sock, a)
			if err != unix.EINTR {
				return err
			}
		}
	})
}

// listen makes the socket of the process.
func listen(dir string) (*os.File, error) {
	sock, err := control(dir, func(sock int, a *unix.SockaddrUnix) error {
		os.Remove(filepath.Join(dir, controlName)) // of a process that was killed
		if err := unix.Bind(sock, a); err != nil {
			return err
		}
		return unix.Listen(sock, unix.SOMAXCONN)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(sock), controlName), nil
}

// control makes a socket and has use give it dir's address, by a descriptor: paths may
// be longer than the 108 bytes of a socket's address (unix(7)).
func control(dir string, use func(int, *unix.SockaddrUnix) error) (sock int, err error) {
	path := filepath.Join(dir, controlName)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	sock, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := use(sock, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(fd) + "/" + controlName}); err != nil {
		unix.Close(sock)
		return -1, &os.PathError{Op: "connect to", Path: path, Err: err}
	}
	return sock, nil
}

// A Call is what comes by a connection to a network's process. The first one asks for an
// endpoint, with the container's network namespace, or asks about a name; later ones
// bring anew what may change.
type Call struct {
	Request

	// Again: the endpoint's addresses are those that it had when the process was
	// killed, or before its container's last end. If another has taken them it gets others.
	Again bool `json:",omitempty"`

	// Metric orders the default routes of a container's networks (RTA_PRIORITY of
	// rtnetlink(7)): the lowest is used.
	Metric int `json:",omitempty"`

	// Sisters are the directories of the other named networks that the container is on.
	Sisters []string `json:",omitempty"`

	// Publish are ports that lead to the endpoint from now on, which has had none. The
	// container's network namespace comes with them, and a Reply answers.
	Publish []Port `json:",omitempty"`

	// Ask is a DNS message about a name of this network, or with Out about any that the
	// network's process can ask others for.
	Ask []byte `json:",omitempty"`
	Out bool   `json:",omitempty"`
}
