package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveMain deletes the folder of a container; one that runs is an error, or
// is killed first. Like the monitor it is root of the outer user namespace.
func RemoveMain(home, id string, running bool) error {
	h := &Home{home}
	if strings.HasPrefix(id, ".") { // no container yet, or none any more
		return h.delete(filepath.Join(home, passing, id))
	}
	lock, err := h.tryLock(id)
	if errors.Is(err, unix.EWOULDBLOCK) {
		if !running {
			return fmt.Errorf("container %s is running", Short(id))
		}
		if lock, err = h.end(id); err == nil && lock == nil {
			return nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer lock.Close()
	return h.remove(id)
}

// end kills a running container and waits for its monitor to let go of the
// lock. A container that its monitor has removed meanwhile gives no lock.
func (h *Home) end(id string) (lock *os.File, err error) {
	dir := h.folder(id)
	lock, err = os.OpenFile(filepath.Join(dir, "config.json"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	killContainer(dir)
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if !h.exists(id) {
		lock.Close()
		return nil, nil
	}
	return lock, err
}

// killContainer ends the container in dir for good: its monitor does it, or,
// where that cannot be reached, losing process 1 makes it end.
func killContainer(dir string) {
	if sock, err := dialControl(dir); err == nil {
		defer unix.Close(sock)
		if send(sock, message{Stop: true, Signal: int(unix.SIGKILL)}) == nil {
			receive(sock)
			return
		}
	}
	var s State
	if err := readJSON(dir, "state.json", &s); err == nil && s.alive() {
		unix.Kill(s.Pid, unix.SIGKILL)
	}
}

// removeFolder deletes dir, its lock last: while that is there and held, a Sweep
// leaves the work to us.
func removeFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == "config.json" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// remove deletes the container's folder, whoever owns what is in it, and its name.
func (h *Home) remove(id string) error {
	dir, err := h.doom(id)
	if err != nil {
		return err
	}
	return h.delete(dir)
}

// doom takes the name from the container id and gives its folder one that
// tells its fate: should we be killed, the next Sweep goes on. It returns the
// folder's new path.
func (h *Home) doom(id string) (string, error) {
	var c Config
	if err := readJSON(h.folder(id), "config.json", &c); err != nil {
		h.forgetNameOf(id)
	}
	return h.doomNamed(id, c.Name)
}

func (h *Home) doomNamed(id, name string) (string, error) {
	going := filepath.Join(h.Dir, passing, doomed+id)
	h.forget(id, name)
	return going, os.Rename(h.folder(id), going)
}
