package container

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Home is the folder of all containers of this host. Many hosts may share
// the folder above it; each judges and cleans its own.
//
//	HOST/ID/       one container: config.json, state.json, lock, upper, ...
//	HOST/names/    a file per name, which holds the id
//	HOST/dying/    a file per container that is to be removed when it ends
type Home struct{ Dir string }

// OpenHome opens the folder of this host's containers below dir.
func OpenHome(dir string) (*Home, error) {
	h := &Home{filepath.Join(dir, hostKey())}
	if _, err := os.Lstat(filepath.Join(h.Dir, dying)); err == nil {
		return h, nil
	}
	for _, sub := range []string{names, dying} {
		if err := os.MkdirAll(filepath.Join(h.Dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	return h, nil
}

const (
	names = "names"
	dying = "dying"
)

// hostKey tells hosts apart: diskless nodes share machine ids, so their names count too.
func hostKey() string {
	id, _ := os.ReadFile("/etc/machine-id")
	host, _ := os.Hostname()
	sum := sha256.Sum256([]byte(strings.TrimSpace(string(id)) + "\n" + host))
	return hex.EncodeToString(sum[:8])
}

// A Folder is one container's, locked: whoever holds the lock runs it.
type Folder struct {
	Dir  string
	Name string
	home *Home
	lock *os.File
}

// NameInUseError reports that another container has the name.
type NameInUseError struct{ Name, ID string }

func (e *NameInUseError) Error() string {
	return fmt.Sprintf("the container name %q is already in use by container %s", e.Name, e.ID)
}

// Hint frees the name.
func (e *NameInUseError) Hint() string { return "rbox rm " + e.Name + "    (or choose another --name)" }

// BadNameError reports a name that no container can have.
type BadNameError struct{ Name string }

func (e *BadNameError) Error() string {
	return fmt.Sprintf("invalid container name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed", e.Name)
}

// CheckName returns *BadNameError unless name has Docker's form of one.
func CheckName(name string) error {
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return &BadNameError{name}
		}
	}
	if name == "" || len(name) > 200 {
		return &BadNameError{name}
	}
	return nil
}

// Create makes the folder of a new container, locked, and takes its name.
func (h *Home) Create(id, name string, autoRemove bool) (*Folder, error) {
	dir := filepath.Join(h.Dir, id)
	if autoRemove {
		if err := os.WriteFile(filepath.Join(h.Dir, dying, id), []byte(name), 0o600); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	f := &Folder{dir, name, h, nil}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		f.lock = lock
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = h.takeName(name, id)
	}
	if err != nil {
		f.Discard()
		return nil, err
	}
	return f, nil
}

// takeName records that id has name. A name whose container is gone is free.
func (h *Home) takeName(name, id string) error {
	path := filepath.Join(h.Dir, names, name)
	for {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_, err = f.WriteString(id)
			return errors.Join(err, f.Close())
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		owner, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(owner) > 0 {
			if _, err := os.Lstat(filepath.Join(h.Dir, string(owner))); err == nil {
				return &NameInUseError{name, string(owner)}
			}
		}
		os.Remove(path)
	}
}

// Lock is the descriptor that holds the folder's lock.
func (f *Folder) Lock() *os.File { return f.lock }

// Discard removes a folder in which nothing belongs to subordinate ids yet.
func (f *Folder) Discard() {
	os.RemoveAll(f.Dir)
	f.home.forget(filepath.Base(f.Dir), f.Name)
	if f.lock != nil {
		f.lock.Close()
	}
}

// forget removes what points to a container whose folder is gone.
func (h *Home) forget(id, name string) {
	path := filepath.Join(h.Dir, names, name)
	if owner, err := os.ReadFile(path); err == nil && string(owner) == id {
		os.Remove(path)
	}
	os.Remove(filepath.Join(h.Dir, dying, id))
}

// NoContainerError reports that no container matches.
type NoContainerError struct{ Name string }

func (e *NoContainerError) Error() string { return "no such container: " + e.Name }

// Hint lists those there are.
func (e *NoContainerError) Hint() string { return "rbox ps -a" }

// Find returns the id of the container that name, an id or an unambiguous
// beginning of one means.
func (h *Home) Find(name string) (string, error) {
	if CheckName(name) != nil {
		return "", &NoContainerError{name}
	}
	if id, err := os.ReadFile(filepath.Join(h.Dir, names, name)); err == nil {
		if _, err := os.Lstat(filepath.Join(h.Dir, string(id))); err == nil {
			return string(id), nil
		}
	}
	ids, err := h.IDs()
	if err != nil {
		return "", err
	}
	match := ""
	for _, id := range ids {
		if strings.HasPrefix(id, name) {
			if match != "" {
				return "", fmt.Errorf("%s is the beginning of several container ids", name)
			}
			match = id
		}
	}
	if match == "" {
		return "", &NoContainerError{name}
	}
	return match, nil
}

// IDs lists the containers of this host.
func (h *Home) IDs() (ids []string, err error) {
	entries, err := os.ReadDir(h.Dir)
	for _, e := range entries {
		if len(e.Name()) == 64 {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// Info is a container as the host finds it now.
type Info struct {
	Config  Config
	State   State
	Running bool // its monitor lives
}

// Inspect reads the container id. One that is being made or removed at this
// moment reads as absent: the error matches fs.ErrNotExist.
func (h *Home) Inspect(id string) (Info, error) {
	var info Info
	dir := filepath.Join(h.Dir, id)
	if err := readJSON(dir, "config.json", &info.Config); err != nil {
		return info, err
	}
	if err := readJSON(dir, "state.json", &info.State); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return info, err
	}
	lock, err := h.tryLock(id)
	switch {
	case err == nil:
		lock.Close()
	case errors.Is(err, unix.EWOULDBLOCK):
		info.Running = info.State.Pid != 0
	case errors.Is(err, fs.ErrNotExist):
		info.Running = info.State.alive()
	default:
		return info, err
	}
	if !info.Running {
		info.State.Pid = 0
	}
	return info, nil
}

// List returns all containers of this host, newest first.
func (h *Home) List() ([]Info, error) {
	ids, err := h.IDs()
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, id := range ids {
		info, err := h.Inspect(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Config.Created.After(all[j].Config.Created) })
	return all, nil
}

// tryLock takes the container's lock if nobody holds it.
func (h *Home) tryLock(id string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(h.Dir, id, "lock"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// Dead lists containers that were to be removed at their end and whose monitor
// was killed before it could.
func (h *Home) Dead() (ids []string) {
	entries, _ := os.ReadDir(filepath.Join(h.Dir, dying))
	for _, e := range entries {
		lock, err := h.tryLock(e.Name())
		if err == nil {
			lock.Close()
			ids = append(ids, e.Name())
		} else if errors.Is(err, fs.ErrNotExist) && h.gone(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// gone tells whether the folder of id, which has no lock, is no longer in the making.
func (h *Home) gone(id string) bool {
	st, err := os.Stat(filepath.Join(h.Dir, dying, id))
	return err == nil && time.Since(st.ModTime()) > makingTime
}
