package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// restoreConfig has the monitor of the container in dir write config.json
// again, if somebody deleted it while the container runs: what the file says,
// and the lock on it, are needed to see the container. It tells whether the
// file is there again, perhaps because another asked for it.
func restoreConfig(dir string) bool {
	sock := -1
	for begun := time.Now(); sock < 0; time.Sleep(dialPause) {
		if _, err := os.Lstat(filepath.Join(dir, "config.json")); !errors.Is(err, fs.ErrNotExist) {
			return err == nil
		}
		state := readState(dir)
		if !state.claims() {
			return false
		}
		var err error
		if sock, err = dialControl(dir); err != nil && (!isGone(err) || !state.alive() || time.Since(begun) > listenTime) {
			return false
		}
	}
	defer unix.Close(sock)
	return askRestore(sock)
}

// askRestore asks the monitor for the files that are missing.
func askRestore(sock int) bool {
	tv := unix.NsecToTimeval(int64(listenTime)) // it may be stopped
	unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	if send(sock, message{Restore: true}) != nil {
		return false
	}
	answer, files, err := receive(sock)
	closeFiles(files)
	return err == nil && answer.Done
}

// lostState is the state of a container that has no state.json, or none that
// can be read: nothing became of it yet; or its monitor knows; or it has ended,
// as its folder shows, and nobody knows how.
func lostState(dir string) (s State) {
	if _, err := os.Lstat(filepath.Join(dir, controlName)); err == nil {
		if sock, err := dialControl(dir); err == nil {
			restored := askRestore(sock)
			unix.Close(sock)
			if restored && readJSON(dir, "state.json", &s) == nil {
				return s
			}
		}
	} else if !hasRun(dir) {
		return State{}
	}
	if st, err := os.Stat(dir); err == nil { // about when it was lost
		s = State{Started: st.ModTime(), Finished: st.ModTime(), ExitStatus: killed}
	}
	return s
}

// hasRun tells whether the container in dir has left a log, or has been mounted:
// overlayfs makes a directory in its work directory.
func hasRun(dir string) bool {
	for _, trace := range []string{"work/work", elsewhere + "/work/work", "log"} {
		if _, err := os.Lstat(filepath.Join(dir, trace)); err == nil {
			return true
		}
	}
	return false
}

// listenTime is far more than a monitor takes from recording its container's
// start until it listens. Only one that cannot be asked at all is waited for so
// long, and no other command would reach that.
const listenTime = time.Second

// restore is the monitor's part.
func (m *monitor) restore() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var s State
	if readJSON(m.Dir, "state.json", &s) != nil {
		if err := m.saveState(); err != nil {
			return err
		}
	}
	return m.restoreConfig()
}

func (m *monitor) restoreConfig() error {
	name := filepath.Join(m.Dir, "config.json")
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	os.Remove(name + ".new")
	file, err := os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	c := m.Config
	c.Plan.Process.Env = m.env
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = (&Folder{config: file}).Write(c)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		file.Close()
		return err
	}
	m.held = append(m.held, m.config) // whoever waits for that lock still does
	m.config = file
	return nil
}
