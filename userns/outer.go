// Package userns makes the namespaces that rbox works in and starts processes
// in them. The outer user namespace holds all of a user's ids; each container
// has one of its own nested in it.
package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/userns/wire"
)

// Outer is the user namespace with all ids of the user, open. While it is
// open its keeper stays.
type Outer struct {
	Maps idmap.Maps
	ns   *os.File // the namespace
	lock *os.File // shared lock of the keeper's file: it is in use
}

// Options say where the keeper's files lie and what it runs.
type Options struct {
	Dir   string                 // runtime directory, ours alone
	Stage func() (string, error) // path of the stage executable
	Idle  time.Duration          // how long the keeper stays unused
	Warn  func(string)           // told why ids are fewer than they could be
	Lone  bool                   // the user's own id alone, whatever else is granted
}

// keeperRecord is what a keeper's file holds: enough to find the namespace and
// to tell that it is the one meant.
type keeperRecord struct {
	Pid    int
	Inode  uint64 // of the user namespace: no other living one has it
	Source string // what the ids were read from, as sourceStamp gives it
	Maps   idmap.Maps
}

// Open joins the user's keeper, or makes one. It returns *idmap.NoUserNSError,
// or what idmap.ExplainUserNS makes of the refusal, if the host forbids user
// namespaces.
func Open(o Options) (*Outer, error) {
	path, err := keeperPath(o)
	if err != nil {
		return nil, err
	}
	stamp := sourceStamp()
	lock, rec, ns, err := lookAt(path)
	if err != nil {
		return nil, err
	}
	if ns != nil && rec.Source == stamp {
		return &Outer{rec.Maps, ns, lock}, nil
	}
	closeAll(ns, lock)
	return openAlone(path, stamp, o)
}

// lookAt opens the keeper's file, with a shared lock that shows that we use it,
// and the namespace it records; nil if that is gone.
func lookAt(path string) (lock *os.File, rec keeperRecord, ns *os.File, err error) {
	for {
		lock, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, rec, nil, fmt.Errorf("open the keeper's file: %w", err)
		}
		if err = flock(lock, unix.LOCK_SH); err != nil {
			lock.Close()
			return nil, rec, nil, err
		}
		if sameFile(lock, path) { // else its keeper has gone meanwhile
			rec, ns = joinable(lock)
			return lock, rec, ns, nil
		}
		lock.Close()
	}
}

// openAlone is Open for one process at a time: it joins what another has made
// meanwhile, or makes a keeper. The file of one that was killed is left to the
// containers that still use its namespace, and hold the file's lock.
func openAlone(path, stamp string, o Options) (*Outer, error) {
	guard, err := os.OpenFile(filepath.Join(o.Dir, "keepers.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the keepers' lock: %w", err)
	}
	defer guard.Close()
	if err := flock(guard, unix.LOCK_EX); err != nil {
		return nil, err
	}
	for {
		lock, rec, ns, err := lookAt(path)
		if err != nil {
			return nil, err
		}
		if ns != nil && rec.Source == stamp {
			return &Outer{rec.Maps, ns, lock}, nil
		}
		unused := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
		switch {
		case !unused && ns != nil: // its ids are out of date, but containers use it
			return &Outer{rec.Maps, ns, lock}, flock(lock, unix.LOCK_SH)
		case !unused:
			os.Remove(path)
		case sameFile(lock, path):
			if ns != nil {
				unix.Kill(rec.Pid, unix.SIGTERM)
				ns.Close()
			}
			outer, err := makeKeeper(lock, stamp, o)
			if err != nil {
				lock.Close()
				return nil, err
			}
			return outer, flock(lock, unix.LOCK_SH)
		}
		closeAll(ns, lock)
	}
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// flock waits for the lock how of f.
func flock(f *os.File, how int) error {
	_, err := eintr(func() (int, error) { return 0, unix.Flock(int(f.Fd()), how) })
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// sameFile tells whether path still leads to f.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// keeperPath names the keeper's file after the user namespace we are in, since
// only a child of that one is of use to us.
func keeperPath(o Options) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &st); err != nil {
		return "", fmt.Errorf("/proc/self/ns/user: %w", err)
	}
	name := "keeper-" + strconv.FormatUint(st.Ino, 10)
	if o.Lone {
		name += "-lone"
	}
	return filepath.Join(o.Dir, name), nil
}

// joinable reads the record in f and opens its namespace; nil if there is none
// or it is gone.
func joinable(f *os.File) (rec keeperRecord, ns *os.File) {
	b := make([]byte, 64<<10)
	n, _ := f.ReadAt(b, 0)
	if wire.ReadJSON(b[:n], &rec) != nil || rec.Pid <= 0 {
		return rec, nil
	}
	ns, err := os.Open("/proc/" + strconv.Itoa(rec.Pid) + "/ns/user")
	if err != nil {
		return rec, nil
	}
	var st unix.Stat_t
	if unix.Fstat(int(ns.Fd()), &st) != nil || st.Ino != rec.Inode {
		ns.Close()
		return rec, nil
	}
	return rec, ns
}

// sourceStamp changes when the files that grant subordinate ids do.
func sourceStamp() string {
	stamp := ""
	for _, path := range []string{"/etc/subuid", "/etc/subgid"} {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			stamp += fmt.Sprintf("%d.%d.%d ", st.Ino, st.Mtim.Nano(), st.Size)
		}
	}
	return stamp
}

// makeKeeper starts a keeper and records it in lock, which the caller holds alone.
func makeKeeper(lock *os.File, stamp string, o Options) (*Outer, error) {
	if self, err := os.Readlink("/proc/self"); err == nil && self != strconv.Itoa(os.Getpid()) {
		return nil, &ForeignProcError{}
	}
	stage, err := o.Stage()
	if err != nil {
		return nil, err
	}
	maps := idmap.SingleMaps(idmap.CurrentHost(), nil)
	if !o.Lone {
		if maps, err = idmap.Plan(idmap.CurrentHost()); err != nil {
			return nil, err
		}
	}
	child, err := startKeeper(stage, lock, o)
	if err != nil {
		return nil, idmap.ExplainUserNS(err)
	}
	if err := maps.Write(child.Pid); err != nil {
		child.Kill()
		if maps.Single {
			return nil, err
		}
		// The helpers refused: one id is still to be had.
		maps = idmap.SingleMaps(idmap.CurrentHost(), append(maps.Skipped, err))
		if child, err = startKeeper(stage, lock, o); err != nil {
			return nil, idmap.ExplainUserNS(err)
		}
		if err := maps.Write(child.Pid); err != nil {
			child.Kill()
			return nil, err
		}
	}
	if maps.Single && o.Warn != nil {
		for _, why := range maps.Skipped {
			o.Warn(why.Error())
			if h, ok := why.(interface{ Hint() string }); ok && h.Hint() != "" {
				o.Warn("hint: " + h.Hint())
			}
		}
	}
	outer, err := record(child, lock, keeperRecord{Pid: child.Pid, Source: stamp, Maps: maps})
	if err != nil {
		child.Kill()
	}
	return outer, err
}

// A ForeignProcError reports that /proc counts processes as another pid
// namespace does: an outer container that is itself nested got no proc of its own.
type ForeignProcError struct{}

func (*ForeignProcError) Error() string {
	return "/proc belongs to another pid namespace, so that no process of ours can be found there"
}

// Hint says what the outer container must have.
func (*ForeignProcError) Hint() string {
	return "mount a fresh proc in the outer container: nothing in the /proc around it may be covered (rbox doctor, there)"
}

// startKeeper clones into a new user namespace a process that becomes the
// keeper once its maps are written and it is released.
func startKeeper(stage string, lock *os.File, o Options) (*Child, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	p := NewProgram()
	p.AwaitRelease()
	p.Call("setsid", unix.SYS_SETSID)
	p.Call("chdir /", unix.SYS_CHDIR, p.Str("/"))
	p.Files(0, []int{int(null.Fd()), int(null.Fd()), int(null.Fd()), int(lock.Fd())})
	p.DefaultSignals()
	p.Call("run "+stage, unix.SYS_EXECVE, p.Str(stage),
		p.Strs([]string{"rbox-keeper", o.Idle.String(), lock.Name()}), p.Strs([]string{"GOMAXPROCS=1"}))
	return Start(p, unix.CLONE_NEWUSER, -1)
}

// record releases the keeper and writes its record.
func record(child *Child, lock *os.File, rec keeperRecord) (*Outer, error) {
	ns, err := os.Open("/proc/" + strconv.Itoa(child.Pid) + "/ns/user")
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return nil, err
	}
	rec.Inode = st.Ino
	b, err := json.Marshal(rec)
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = lock.WriteAt(b, 0)
	}
	if err == nil {
		err = child.Release()
	}
	if err == nil {
		err = child.Started()
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	return &Outer{rec.Maps, ns, lock}, nil
}

// Close lets go of the namespace; its keeper stays for others.
func (o *Outer) Close() {
	o.ns.Close()
	o.lock.Close()
}

// Lock is the descriptor that keeps the keeper: a process that outlives its
// parent inherits it.
func (o *Outer) Lock() *os.File { return o.lock }

// KeeperMain is the keeper's life: it holds its user namespace until nobody
// has used it for idle, then removes its file. Descriptor 3 is that file, open
// without a lock of its own: locks belong to the open file, so it opens anew.
func KeeperMain(idle time.Duration, path string) error {
	inherited := os.NewFile(3, path)
	lock, err := os.OpenFile("/proc/self/fd/3", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	inherited.Close()
	for {
		time.Sleep(idle)
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return err
		}
	}
	if sameFile(lock, path) {
		if rec, ns := joinable(lock); ns != nil && rec.Pid != os.Getpid() {
			return nil // another has taken over
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
