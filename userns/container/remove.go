package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// removers is how many containers are removed at a time: they wait for their
// monitors and for the disk.
const removers = 8

// RemoveMain deletes the folders of containers and writes a line to stdout for
// each, as soon as it is gone: the id, and what went wrong. One that runs is an
// error, or is killed first. Like the monitor it is root of the outer user
// namespace.
func RemoveMain(home string, ids []string, running bool) error {
	h := &Home{home}
	var (
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range min(removers, len(ids)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ids); i = int(next.Add(1)) - 1 {
				why := ""
				if err := h.removeWhole(ids[i], running); err != nil {
					why = strings.ReplaceAll(err.Error(), "\n", " ")
				}
				os.Stdout.WriteString(ids[i] + " " + why + "\n")
			}
		})
	}
	wg.Wait()
	return nil
}

// removeWhole removes the container id with all that belongs to it.
func (h *Home) removeWhole(id string, running bool) error {
	if strings.HasPrefix(id, ".") { // no container yet, or none any more
		return h.delete(filepath.Join(h.Dir, passing, id), nil)
	}
	lock, err := h.tryLock(id)
	if errors.Is(err, fs.ErrNotExist) && restoreConfig(h.folder(id)) {
		lock, err = h.tryLock(id)
	}
	switch {
	case !errors.Is(err, unix.EWOULDBLOCK):
	case running:
		if lock, err = h.end(id); err == nil && lock == nil {
			return nil
		}
	default:
		lock, err = h.lockEnded(id)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer lock.Close()
	var c Config
	if readJSON(h.folder(id), "config.json", &c) == nil {
		killStrays(&c)
	}
	return h.remove(id, lock)
}

// endingTime is far more than a monitor takes from its container's end to its own.
const endingTime = 5 * time.Second

// hangingTime is more than a monitor takes to that where a hundred others want the processors, too.
const hangingTime = time.Minute

// lockEnded takes the lock of a container that has ended, whose monitor may be
// about to do so; *RunningError reports one that runs.
func (h *Home) lockEnded(id string) (*os.File, error) {
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		lock, err := h.tryLock(id)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return lock, err
		}
		info, err := h.Inspect(id)
		if err != nil {
			return nil, err
		}
		if info.Running && !info.State.IsOver() || time.Since(begun) > endingTime {
			return nil, &RunningError{info.Name()}
		}
	}
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
	begun := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, maxKillPause) {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !h.exists(id) {
			lock.Close()
			return nil, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return lock, err
		}
		killContainer(dir) // each time: one that is about to start cannot be reached yet
		if waited := time.Since(begun); waited > hangingTime || waited > endingTime && readState(dir).monitorStopped() {
			killMonitor(dir) // process 1 goes with it
		}
		time.Sleep(pause)
	}
}

// maxKillPause is the longest pause between two tries to end a container.
const maxKillPause = 20 * time.Millisecond

// killContainer ends the container in dir for good: its monitor does it, or,
// where that cannot be reached, losing process 1 makes it end.
func killContainer(dir string) {
	(&Home{filepath.Dir(filepath.Dir(dir))}).wake(filepath.Base(dir))
	if sock, err := dialControl(dir); err == nil {
		defer unix.Close(sock)
		tv := unix.NsecToTimeval(int64(endingTime))
		unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		if send(sock, message{Stop: true, Signal: int(unix.SIGKILL)}) == nil {
			if _, _, err := receive(sock); err != unix.EAGAIN {
				return
			}
		}
	}
	var s State
	if err := readJSON(dir, "state.json", &s); err == nil && s.alive() {
		unix.Kill(s.Pid, unix.SIGKILL)
	}
}

// killMonitor kills the monitor of the container in dir.
func killMonitor(dir string) {
	if s := readState(dir); s.monitorLives(filepath.Base(dir)) {
		unix.Kill(s.Monitor, unix.SIGKILL)
	}
}

// removeFolder deletes dir, its lock last: while that is there and held, a Sweep
// leaves the work to us. lock is that lock, closed then, or nil: network file
// systems keep a file that is open, and its directory, under another name.
// Where someone else has it open for now, the next Sweep does the rest.
func removeFolder(dir string, lock *os.File) error {
	if err := removeElsewhere(dir); err != nil {
		return err
	}
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
	err = os.RemoveAll(dir)
	if lock == nil || !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	lock.Close()
	for begun := time.Now(); time.Since(begun) < lettingGo; time.Sleep(time.Millisecond) {
		if err := os.RemoveAll(dir); !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

// lettingGo is how long who looks at a container has its lock open, and more.
const lettingGo = time.Second

// remove deletes the container's folder, whoever owns what is in it, and its
// name. It may close the folder's lock.
func (h *Home) remove(id string, lock *os.File) error {
	dir, err := h.doom(id)
	if errors.Is(err, fs.ErrNotExist) && !h.exists(id) { // another, or its monitor, was faster
		return nil
	}
	if err != nil {
		return err
	}
	return h.delete(dir, lock)
}

// doom gives the folder of the container id a name that tells its fate, should
// we be killed the next Sweep goes on, and frees the container's name. It
// returns the folder's new path.
func (h *Home) doom(id string) (string, error) {
	var c Config
	unknown := readJSON(h.folder(id), "config.json", &c) != nil
	going, err := h.doomNamed(id, Info{Config: c, State: readState(h.folder(id))}.Name())
	if unknown {
		h.forgetNameOf(id)
	}
	h.forget(id, c.Name) // a rename that was cut short leaves both
	return going, err
}

func (h *Home) doomNamed(id, name string) (string, error) {
	going := filepath.Join(h.Dir, passing, doomed+id)
	err := os.Rename(h.folder(id), going)
	if err == nil { // not before: a name without its container is free, a container without its name would be lost
		h.forget(id, name)
	}
	return going, err
}

// forgetDoomed frees the names of what is no container yet, or none any more,
// and lies in dir.
func (h *Home) forgetDoomed(dir string, c *Config) {
	base := filepath.Base(dir)
	id := strings.TrimPrefix(strings.TrimPrefix(base, doomed), unborn)
	switch {
	case id == base:
	case c.Name == "": // killed before it was written
		h.forgetNameOf(id)
	default:
		h.forget(id, c.Name)
		h.forget(id, readState(dir).Name)
	}
}
