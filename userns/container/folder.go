package container

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/rootfs/volume"
	"rbox/slirp"
	"rbox/userns/wire"
)

// A Home is the folder of all containers of this host. Many hosts may share
// the folder above it; each judges and cleans its own.
//
//	HOST/kept/ID/     one container: config.json, state.json, upper, work (or layer, writable.go)
//	HOST/passing/ID/  one that is removed when it ends
//	HOST/names/       a file per name, which holds the id
//	HOST/index        what listings need of all containers (index.go)
//	HOST/mnt/         empty: every monitor mounts its container there, in a namespace of its own
//
// config.json is locked by the monitor for as long as the container runs.
type Home struct{ Dir string }

const (
	names   = "names"
	kept    = "kept"
	passing = "passing"
	mounts  = "mnt"
)

// OpenHome opens the folder of this host's containers below dir.
func OpenHome(dir string) (*Home, error) {
	h := &Home{filepath.Join(dir, hostKey())}
	if _, err := os.Lstat(filepath.Join(h.Dir, mounts)); err == nil {
		return h, nil
	}
	for _, sub := range []string{names, kept, passing, mounts} {
		if err := os.MkdirAll(filepath.Join(h.Dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// folder is where the container id lies.
func (h *Home) folder(id string) string {
	dir := filepath.Join(h.Dir, kept, id)
	if _, err := os.Lstat(dir); err != nil {
		return filepath.Join(h.Dir, passing, id)
	}
	return dir
}

// exists tells whether there is a container id.
func (h *Home) exists(id string) bool {
	_, err := os.Lstat(h.folder(id))
	return err == nil
}

// hasName tells whether name is that of the container id, or of one in the
// making, which takes its name before it is there. A rename that was cut short
// leaves a link to a container that has another.
func (h *Home) hasName(id, name string) bool {
	if _, err := os.Lstat(filepath.Join(h.Dir, passing, unborn+id)); err == nil {
		return true
	}
	if !h.exists(id) {
		return false
	}
	info := Info{State: readState(h.folder(id))}
	err := readJSON(h.folder(id), "config.json", &info.Config)
	return err != nil || info.Name() == name // a configuration is written after its container is born
}

// mountpoint is where monitors mount.
func (h *Home) mountpoint() string { return filepath.Join(h.Dir, mounts) }

// hostKey tells hosts apart: diskless nodes share machine ids, so their names count too.
func hostKey() string {
	id, _ := os.ReadFile("/etc/machine-id")
	host, _ := os.Hostname()
	sum := sha256.Sum256([]byte(strings.TrimSpace(string(id)) + "\n" + host))
	return hex.EncodeToString(sum[:8])
}

// A Folder is one container's, locked: whoever holds the lock runs it. Until
// Born it lies under another name.
type Folder struct {
	Dir    string // where it will lie
	Unborn string // where it lies until then
	// Volumes are the folders of anonymous volumes that were made for the
	// container: Discard removes them.
	Volumes []string
	home    *Home
	config  *os.File // config.json, which has the lock
	id      string
	name    string // once it is taken
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

// Create makes the folder of a new container, locked, to be filled. A folder
// whose maker is killed before Born is removed by the next Sweep.
func (h *Home) Create(id string, autoRemove bool) (*Folder, error) {
	f := &Folder{home: h, id: id, Dir: filepath.Join(h.Dir, kept, id), Unborn: filepath.Join(h.Dir, passing, unborn+id)}
	if autoRemove {
		f.Dir = filepath.Join(h.Dir, passing, id)
	}
	if err := os.Mkdir(f.Unborn, 0o700); err != nil {
		return nil, err
	}
	// Locked before it has its name: a Sweep takes an unlocked one for dead.
	name := filepath.Join(f.Unborn, "config.json")
	config, err := os.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		f.config = config
		err = unix.Flock(int(config.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		f.Discard()
		return nil, err
	}
	return f, nil
}

// RunningError reports a container that runs where it should not.
type RunningError struct{ Name string }

func (e *RunningError) Error() string { return fmt.Sprintf("container %s is running", e.Name) }

// Hint ends it.
func (e *RunningError) Hint() string { return "rbox stop " + e.Name }

// Reopen locks the folder of a container that does not run, and returns its
// configuration. One whose monitor is about to end is waited for; it returns
// *RunningError if it runs on.
func (h *Home) Reopen(id string) (*Folder, Config, error) {
	f := &Folder{home: h, id: id, Dir: h.folder(id)}
	var c Config
	restoreConfig(f.Dir)
	config, err := os.OpenFile(filepath.Join(f.Dir, "config.json"), os.O_RDWR, 0)
	if err != nil {
		return nil, c, err
	}
	begun := time.Now()
	for {
		err = unix.Flock(int(config.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK {
			break
		}
		info, err := h.Inspect(id)
		if err != nil || info.Running && !(info.State.IsOver() && time.Since(begun) < endingTime) {
			config.Close()
			if err == nil {
				err = &RunningError{info.Name()}
			}
			return nil, c, err
		}
		time.Sleep(time.Millisecond)
	}
	if err == nil {
		err = readJSON(f.Dir, "config.json", &c)
	}
	if err != nil {
		config.Close()
		return nil, c, err
	}
	f.config = config
	s := readState(f.Dir)
	s.change(&c)
	// Who sees our lock must not take it for that of a monitor that was killed.
	if s.claims() {
		s.end()
		replaceState(f.Dir, s)
	}
	return f, c, nil
}

// Pass moves the folder of a container that was created to be removed at its
// end to where a Sweep finds it, should its monitor be killed.
func (f *Folder) Pass(c *Config) error {
	dir := filepath.Join(f.home.Dir, passing, f.id)
	if f.Dir == dir {
		return nil
	}
	if err := os.Rename(f.Dir, dir); err != nil {
		return err
	}
	for _, path := range []*string{&c.Plan.Root.Upper, &c.Plan.Root.Work, &c.Plan.Root.Dir} {
		if below, ok := strings.CutPrefix(*path, f.Dir+"/"); ok {
			*path = filepath.Join(dir, below)
		}
	}
	f.Dir = dir
	return f.Write(*c)
}

// Close lets go of the folder.
func (f *Folder) Close() { f.config.Close() }

// Rename gives a container that does not run another name.
func (f *Folder) Rename(c Config, name string) error {
	var s State
	if err := readJSON(f.Dir, "state.json", &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	old := Info{Config: c, State: s}.Name()
	return f.home.rename(f.id, old, name, func() error {
		s.Name = name
		return replaceState(f.Dir, s)
	})
}

// SetLimits changes those of a container that does not run.
func (f *Folder) SetLimits(l cgroupv2.Limits) error {
	return f.setState(func(s *State) { s.Limits = &l })
}

// SetRestart changes the restart policy of a container that does not run.
func (f *Folder) SetRestart(p RestartPolicy) error {
	return f.setState(func(s *State) { s.Restart = &p })
}

// SetNetworks says which networks a container that does not run is to be on.
func (f *Folder) SetNetworks(wanted []slirp.Request) error {
	return f.setState(func(s *State) { s.Wanted = &wanted })
}

// setState changes the state of a container that does not run.
func (f *Folder) setState(change func(*State)) error {
	var s State
	if err := readJSON(f.Dir, "state.json", &s); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	change(&s)
	return replaceState(f.Dir, s)
}

// Write fills config.json: before Born, so that commands find it whole, or
// after, of a container that nobody keeps if its maker is killed in between.
func (f *Folder) Write(c Config) error {
	b := wire.AppendJSON(nil, c)
	_, err := f.config.WriteAt(b, 0)
	if err == nil { // it may have been longer
		err = f.config.Truncate(int64(len(b)))
	}
	return err
}

// Born makes the container one that has a name. It returns *NameInUseError, and
// the folder is gone, if another container has that.
func (f *Folder) Born(name string) error {
	// The name first: should we be killed in between, the next Sweep finds
	// the folder, where a container without its name would stay.
	err := f.home.takeName(name, f.id)
	if err == nil {
		f.name = name
		err = os.Rename(f.Unborn, f.Dir)
	}
	if err != nil {
		f.Discard()
	}
	return err
}

// Folders that are no containers: not locked yet, or being removed.
const (
	unborn = ".new-"
	doomed = ".old-"
)

// takeName records that id has name. A name whose container is gone is free.
func (h *Home) takeName(name, id string) error {
	path := filepath.Join(h.Dir, names, name)
	// A link appears with its content, which a file does not.
	err := os.Symlink(id, path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if owner, err := os.Readlink(path); err == nil && h.hasName(owner, name) {
		return &NameInUseError{name, owner}
	}
	lock, err := h.lockNames()
	if err != nil {
		return err
	}
	defer lock.Close()
	return h.takeStaleName(name, id)
}

// takeStaleName is takeName for who has the lock of names: of several that find
// a name free to take, one gets it.
func (h *Home) takeStaleName(name, id string) error {
	path := filepath.Join(h.Dir, names, name)
	for {
		err := os.Symlink(id, path)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		owner, err := os.Readlink(path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was removed just now
		case err != nil:
			return err
		case owner == id:
			return nil
		case h.hasName(owner, name):
			return &NameInUseError{name, owner}
		default:
			os.Remove(path)
		}
	}
}

// rename gives the container id the name to in place of from, once record has
// recorded it. Who else wants a name of the two waits.
func (h *Home) rename(id, from, to string, record func() error) error {
	lock, err := h.lockNames()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := h.takeStaleName(to, id); err != nil {
		return err
	}
	if err := record(); err != nil {
		h.unlink(id, to)
		return err
	}
	h.unlink(id, from)
	return nil
}

// lockNames is for who removes a name: it may be another's by then.
func (h *Home) lockNames() (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(h.Dir, "names.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// Discard removes a folder in which nothing belongs to subordinate ids yet.
func (f *Folder) Discard() {
	if f.name != "" {
		f.home.forget(f.id, f.name)
	}
	for _, dir := range f.Volumes {
		volume.Remove(dir)
	}
	removeElsewhere(f.Unborn)
	removeElsewhere(f.Dir)
	os.RemoveAll(f.Unborn)
	os.RemoveAll(f.Dir)
	if f.config != nil {
		f.config.Close()
	}
	// Network file systems keep a file that is open, and with it its directory.
	os.Remove(f.Unborn)
	os.Remove(f.Dir)
}

// forget removes the name of a container whose folder is gone.
func (h *Home) forget(id, name string) {
	path := filepath.Join(h.Dir, names, name)
	if owner, err := os.Readlink(path); err != nil || owner != id {
		return
	}
	// Another may take the name as soon as the folder is gone.
	if lock, err := h.lockNames(); err == nil {
		defer lock.Close()
	}
	h.unlink(id, name)
}

// unlink removes name if it is the container id's.
func (h *Home) unlink(id, name string) {
	path := filepath.Join(h.Dir, names, name)
	if owner, err := os.Readlink(path); err == nil && owner == id {
		os.Remove(path)
	}
}

// forgetNameOf removes the name of a container whose configuration does not tell it.
func (h *Home) forgetNameOf(id string) {
	entries, _ := os.ReadDir(filepath.Join(h.Dir, names))
	for _, e := range entries {
		h.forget(id, e.Name())
	}
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
	if id, err := os.Readlink(filepath.Join(h.Dir, names, name)); err == nil && h.exists(id) {
		return id, nil
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
	for _, sub := range []string{kept, passing} {
		entries, err := os.ReadDir(filepath.Join(h.Dir, sub))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				ids = append(ids, e.Name())
			}
		}
	}
	return ids, nil
}

// Info is a container as the host finds it now.
type Info struct {
	Config  Config
	State   State
	Running bool   // its monitor lives
	Dir     string // its folder; only Inspect tells
}

// Inspect reads the container id. One that is being made or removed at this
// moment reads as absent: the error matches fs.ErrNotExist.
func (h *Home) Inspect(id string) (Info, error) {
	dir := h.folder(id)
	info := Info{Dir: dir}
	err := readJSON(dir, "config.json", &info.Config)
	if err != nil && restoreConfig(dir) {
		err = readJSON(dir, "config.json", &info.Config)
	}
	if err != nil {
		return info, err
	}
	config, err := os.Open(filepath.Join(dir, "config.json"))
	if err != nil {
		return info, err
	}
	defer config.Close()
	info.Running, info.State = settle(int(config.Fd()), readState(dir), func() State { return readState(dir) })
	info.State.change(&info.Config)
	return info, nil
}

// change makes of a container's first configuration the one that holds now,
// where rbox has one field for both.
func (s *State) change(c *Config) {
	if s.Restart != nil {
		c.Restart = *s.Restart
	}
}

// readState returns what state.json holds, or lostState without one. One that is
// being written is read again.
func readState(dir string) (s State) {
	for range rereads {
		if readJSON(dir, "state.json", &s) == nil {
			return s
		}
		if _, err := os.Lstat(filepath.Join(dir, "state.json")); err != nil {
			break
		}
		runtime.Gosched()
	}
	return lostState(dir)
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
		if info.Running || filepath.Dir(info.Dir) == filepath.Join(h.Dir, kept) {
			all = append(all, info) // the rest the next run removes
		}
	}
	slices.SortFunc(all, func(a, b Info) int { return newest(&a, &b) })
	return all, nil
}

// tryLock takes the container's lock if nobody holds it.
func (h *Home) tryLock(id string) (*os.File, error) { return lockConfig(h.folder(id)) }

// lockConfig takes the lock of the folder dir if nobody holds it.
func lockConfig(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "config.json"), os.O_RDWR, 0)
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
// was killed before it could, and folders half made or half removed.
func (h *Home) Dead() (ids []string) {
	entries, _ := os.ReadDir(filepath.Join(h.Dir, passing))
	for _, e := range entries {
		lock, err := lockConfig(filepath.Join(h.Dir, passing, e.Name()))
		if err == nil {
			lock.Close()
		}
		switch {
		case err == nil, errors.Is(err, fs.ErrNotExist) && old(e) && !restoreConfig(filepath.Join(h.Dir, passing, e.Name())):
			ids = append(ids, e.Name())
		}
	}
	return ids
}

// makingTime is far more than it takes to lock a new folder, or to delete one
// whose lock is deleted already.
const makingTime = 10 * time.Second

func old(e fs.DirEntry) bool {
	st, err := e.Info()
	return err == nil && time.Since(st.ModTime()) > makingTime
}
