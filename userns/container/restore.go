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
	if send(sock, message{Restore: true}) != nil {
		return false
	}
	answer, files, err := receive(sock)
	closeFiles(files)
	return err == nil && answer.Done
}

// listenTime is far more than a monitor takes from recording its container's
// start until it listens. Only one that cannot be asked at all is waited for so
// long, and no other command would reach that.
const listenTime = time.Second

// restoreConfig is the monitor's part.
func (m *monitor) restoreConfig() error {
	m.mu.Lock()
	defer m.mu.Unlock()
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
