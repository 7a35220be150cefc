// Package network keeps the networks that users make: what each is, as a file of
// its own. Many processes, on all hosts that share the folder, may use it at a
// time, and each may be killed at any time.
//
//	NAME.json  what it is; locked, shared, by whoever is about to use it, and alone by who removes it
//	lock       locked by who makes one: of two, the second must see the first's subnets
package network

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/slirp"
)

// A Store is the folder of all networks.
type Store struct{ Dir string }

// A Network is what its file holds. It never changes.
type Network struct {
	Name    string
	ID      string // 64 hexadecimal digits
	Created time.Time
	Labels  map[string]string `json:",omitempty"`
	Options map[string]string `json:",omitempty"` // as the user gave them
	Plan    slirp.Plan
}

// NotFoundError reports that there is no such network.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return "no such network: " + e.Name }

// Hint makes it, if it can have the name.
func (e *NotFoundError) Hint() string {
	if slirp.CheckName(e.Name) != nil {
		return "rbox network ls"
	}
	return "rbox network create " + e.Name
}

// ExistsError reports that the name is taken.
type ExistsError struct{ Name string }

func (e *ExistsError) Error() string { return "network " + e.Name + " exists already" }

// BusyError reports a network that another command is about to use or remove.
type BusyError struct{ Name string }

func (e *BusyError) Error() string { return "network " + e.Name + " is in use by another command" }

const suffix = ".json"

func (s *Store) path(name string) string { return filepath.Join(s.Dir, name+suffix) }

// Create makes the network n and returns it with its id and what its plan
// leaves open: subnets that overlap neither another network's nor routes, which
// are the host's; gateways.
func (s *Store) Create(n Network, routes []netip.Prefix) (Network, error) {
	if err := slirp.CheckName(n.Name); err != nil {
		return n, err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return n, err
	}
	lock, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return n, err
	}
	defer lock.Close()
	if err := flock(lock, unix.LOCK_EX); err != nil {
		return n, &fs.PathError{Op: "lock", Path: lock.Name(), Err: err}
	}
	others, err := s.List()
	if err != nil {
		return n, err
	}
	if slices.ContainsFunc(others, func(o Network) bool { return o.Name == n.Name }) {
		return n, &ExistsError{n.Name}
	}
	n.Plan.Name, n.ID, n.Created = n.Name, newID(), time.Now()
	if err := settle(&n.Plan, others, routes); err != nil {
		return n, err
	}
	return n, s.write(n)
}

func newID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// write makes the file of n, complete from the moment it can be seen.
func (s *Store) write(n Network) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path(n.Name))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("create network %s: %w", n.Name, err)
	}
	return nil
}

// Get reads the network name.
func (s *Store) Get(name string) (n Network, err error) {
	if slirp.CheckName(name) != nil {
		return n, &NotFoundError{name}
	}
	text, err := os.ReadFile(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return n, &NotFoundError{name}
	}
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(text, &n); err != nil || n.Name != name {
		return n, fmt.Errorf("%s is not a network's file: remove it and create the network again", s.path(name))
	}
	return n, nil
}

// List returns all networks, by name.
func (s *Store) List() (all []Network, err error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || slirp.CheckName(name) != nil {
			continue
		}
		n, err := s.Get(name)
		if errors.As(err, new(*NotFoundError)) {
			continue // removed at this moment
		}
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Find is Get by the name, the id or the beginning of the id, of one alone.
func (s *Store) Find(word string) (Network, error) {
	n, err := s.Get(word)
	if !errors.As(err, new(*NotFoundError)) {
		return n, err
	}
	all, listErr := s.List()
	if listErr != nil {
		return n, listErr
	}
	found := 0
	for _, o := range all {
		if len(word) >= 2 && strings.HasPrefix(o.ID, word) {
			n, found = o, found+1
		}
	}
	switch found {
	case 0:
		return Network{}, err
	case 1:
		return n, nil
	}
	return Network{}, fmt.Errorf("%s: the ids of %d networks begin so", word, found)
}

// Use returns the network name, and sees to it that nobody removes it while
// hold is open.
func (s *Store) Use(name string) (n Network, hold *os.File, err error) {
	if hold, err = s.lock(name, unix.LOCK_SH); err != nil {
		return n, nil, err
	}
	if n, err = s.Get(name); err != nil {
		hold.Close()
		return n, nil, err
	}
	return n, hold, nil
}

// Remove removes the network name. Allowed, called when no command can begin to
// use it, may refuse.
func (s *Store) Remove(name string, allowed func() error) error {
	lock, err := s.lock(name, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := allowed(); err != nil {
		return err
	}
	return os.Remove(s.path(name))
}

// lock takes the lock of the network name.
func (s *Store) lock(name string, how int) (*os.File, error) {
	if slirp.CheckName(name) != nil {
		return nil, &NotFoundError{name}
	}
	for {
		f, err := os.OpenFile(s.path(name), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &NotFoundError{name}
		}
		if err != nil {
			return nil, err
		}
		if err := flock(f, how); err != nil {
			f.Close()
			if err == unix.EWOULDBLOCK {
				return nil, &BusyError{name}
			}
			return nil, &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
		// It may have been removed, and another made, while we waited.
		locked, err := f.Stat()
		if there, err2 := os.Stat(s.path(name)); err == nil && err2 == nil && os.SameFile(locked, there) {
			return f, nil
		}
		f.Close()
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return err
		}
	}
}
