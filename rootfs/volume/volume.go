// Package volume keeps volumes: directories that outlive the containers which
// mount them. Many processes, on all hosts that share the folder, may use it at
// a time, and each may be killed at any time.
//
//	NAME/volume.json  what it is; locked, shared, by whoever is about to use it, and alone by who removes it
//	NAME/_data        its content: a directory, or a link to one of the user's
//	NAME/filling      locked by who copies an image's content to it
//	.new-… .old-…     one that is being made, one that is being deleted
package volume

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
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

const (
	dataDir    = "_data"
	recordFile = "volume.json"
	fillLock   = "filling"
	unborn     = ".new-"
	doomed     = ".old-"
)

// makingTime is far more than it takes to make a volume.
const makingTime = time.Minute

// A Store is the folder of all volumes.
type Store struct{ Dir string }

// A Volume is what volume.json holds.
type Volume struct {
	Name      string
	CreatedAt time.Time
	Labels    map[string]string `json:",omitempty"`
	Options   map[string]string `json:",omitempty"` // as the user gave them
	Anonymous bool              `json:",omitempty"` // nobody named it
	Device    string            `json:",omitempty"` // the directory that it stands for, if it is none of its own
}

// NewName returns the name of an anonymous volume.
func NewName() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// NameError reports a name that no volume can have.
type NameError struct{ Name string }

func (e *NameError) Error() string {
	if len(e.Name) < 2 {
		return fmt.Sprintf("%q: volume name is too short, names should be at least two alphanumeric characters", e.Name)
	}
	return fmt.Sprintf("%q includes invalid characters for a local volume name, only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", e.Name)
}

// Hint is for those who meant a directory.
func (e *NameError) Hint() string { return "for a directory write ./" + e.Name }

// maxName is what a file's name may have (NAME_MAX), less what a doomed one gets.
const maxName = 255 - len(doomed) - 17

// CheckName returns *NameError unless name has Docker's form of one.
func CheckName(name string) error {
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return &NameError{name}
		}
	}
	if len(name) < 2 || len(name) > maxName {
		return &NameError{name}
	}
	return nil
}

// NotFoundError reports that there is no such volume.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string { return "no such volume: " + e.Name }

// Hint lists those there are.
func (e *NotFoundError) Hint() string { return "rbox volume ls" }

// BusyError reports a volume that another command is about to use or remove.
type BusyError struct{ Name string }

func (e *BusyError) Error() string { return "volume " + e.Name + " is in use by another command" }

func (s *Store) folder(name string) string { return filepath.Join(s.Dir, name) }

// Mountpoint is where the content of the volume name lies.
func (s *Store) Mountpoint(name string) string { return filepath.Join(s.Dir, name, dataDir) }

// FolderOf is the folder of the volume whose content lies at mountpoint.
func FolderOf(mountpoint string) string { return filepath.Dir(mountpoint) }

// Create makes the volume v unless there is one of its name.
func (s *Store) Create(v Volume) (made bool, err error) {
	if err := CheckName(v.Name); err != nil {
		return false, err
	}
	if _, err := os.Lstat(s.folder(v.Name)); err == nil {
		return false, nil
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return false, err
	}
	tmp := filepath.Join(s.Dir, unborn+NewName()[:16])
	err = errors.Join(os.Mkdir(tmp, 0o700), makeIn(tmp, v))
	if err == nil {
		err = os.Rename(tmp, s.folder(v.Name))
	}
	if err == nil {
		return true, nil
	}
	os.RemoveAll(tmp)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return false, nil // somebody else made it first
	}
	return false, fmt.Errorf("create volume %s: %w", v.Name, err)
}

// makeIn fills the folder of a new volume.
func makeIn(dir string, v Volume) error {
	if v.Device != "" {
		if err := os.Symlink(v.Device, filepath.Join(dir, dataDir)); err != nil {
			return err
		}
	} else {
		data := filepath.Join(dir, dataDir)
		// Whatever the umask: it is for the user's files.
		if err := errors.Join(os.Mkdir(data, 0o755), os.Chmod(data, 0o755)); err != nil {
			return err
		}
	}
	record, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, recordFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(record)
	if err == nil && !v.Anonymous {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Use makes the volume v unless there is one of its name, and sees to it that
// nobody removes it while the result is open.
func (s *Store) Use(v Volume) (hold *os.File, made bool, err error) {
	for {
		hold, err := s.lock(v.Name, unix.LOCK_SH)
		var missing *NotFoundError
		if !errors.As(err, &missing) {
			return hold, made, err
		}
		if made, err = s.Create(v); err != nil {
			return nil, false, err
		}
	}
}

// lock takes the lock of the volume name.
func (s *Store) lock(name string, how int) (*os.File, error) {
	path := filepath.Join(s.Dir, name, recordFile)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
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
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	// It may have been removed while we waited.
	var locked, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &locked); err == nil && unix.Stat(path, &there) == nil &&
		locked.Dev == there.Dev && locked.Ino == there.Ino {
		return f, nil
	}
	f.Close()
	return s.lock(name, how)
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return err
		}
	}
}

// Get reads the volume name.
func (s *Store) Get(name string) (Volume, error) {
	if CheckName(name) != nil {
		return Volume{}, &NotFoundError{name}
	}
	v := Volume{}
	path := filepath.Join(s.Dir, name, recordFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return v, &NotFoundError{name}
	}
	if err != nil {
		return v, err
	}
	if json.Unmarshal(text, &v) != nil { // a power cut took it; the content is what counts
		v = Volume{}
	}
	if st, err := os.Stat(path); err == nil && v.CreatedAt.IsZero() {
		v.CreatedAt = st.ModTime()
	}
	v.Name = name
	return v, nil
}

// List returns all volumes, by name.
func (s *Store) List() ([]Volume, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []Volume
	for _, e := range entries {
		v, err := s.Get(e.Name())
		var missing *NotFoundError
		if errors.As(err, &missing) {
			continue // none, or removed at this moment
		}
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

// Doom takes the volume name out of the store and returns the folder that is
// to be deleted. allowed, called when no command can begin to use the volume,
// may refuse.
func (s *Store) Doom(name string, allowed func() error) (dir string, err error) {
	if CheckName(name) != nil {
		return "", &NotFoundError{name}
	}
	lock, err := s.lock(name, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := allowed(); err != nil {
		return "", err
	}
	return doom(s.folder(name))
}

// doom gives the folder of a volume a name that tells its fate.
func doom(dir string) (string, error) {
	parent, name := filepath.Split(dir)
	for suffix := ""; ; suffix = "-" + NewName()[:16] {
		going := parent + doomed + name + suffix
		err := os.Rename(dir, going)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			continue // an earlier one of that name is being deleted still
		}
		return going, err
	}
}

// Leftovers lists the folders that killed processes left, to be deleted.
func (s *Store) Leftovers() (dirs []string) {
	entries, _ := os.ReadDir(s.Dir)
	for _, e := range entries {
		making := strings.HasPrefix(e.Name(), unborn)
		if st, err := e.Info(); making && (err != nil || time.Since(st.ModTime()) < makingTime) {
			continue
		}
		if making || strings.HasPrefix(e.Name(), doomed) {
			dirs = append(dirs, s.folder(e.Name()))
		}
	}
	return dirs
}

// Hide takes the volume whose folder is dir, that nobody else uses, out of its
// store, for Remove to delete. A volume that is gone is no error.
func Hide(dir string) error {
	if _, err := doom(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove deletes the folder dir of a volume that nobody else uses, whoever owns
// what is in it: for root of the outer user namespace. A volume that is gone is
// no error, and one that was being removed when its remover was killed is deleted.
func Remove(dir string) error {
	going, err := doom(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(going)
}
