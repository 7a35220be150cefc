package container

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Brief lists the containers of this host, newest first, as List does, but
// reads only what a listing shows: of Config the ID, Name, Image, ImageID,
// Created, Labels, Entrypoint, Command, AutoRemove, Volumes and
// Options.Network; of State.Health the Status. Without all, those that do not
// run are left out.
func (h *Home) Brief(all bool) ([]*Info, error) {
	var list []*Info
	for _, sub := range []string{kept, passing} {
		some, err := brief(filepath.Join(h.Dir, sub), all)
		if err != nil {
			return nil, err
		}
		list = append(list, some...)
	}
	slices.SortFunc(list, newest)
	return list, nil
}

// ImageUsers lists, by the id of the image, the containers of all hosts that
// keep theirs below dir, as Brief does, and those that are being made or removed.
func ImageUsers(dir string) (map[string][]*Info, error) {
	users := map[string][]*Info{}
	hosts, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, host := range hosts {
		h := &Home{filepath.Join(dir, host.Name())}
		ids, err := h.IDs()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, id := range ids {
			// Whether a container of another host runs cannot be known here: its
			// configuration alone counts.
			info, err := h.Inspect(id)
			if err == nil && info.Config.ImageID != "" {
				users[info.Config.ImageID] = append(users[info.Config.ImageID], &info)
			}
		}
	}
	return users, nil
}

// newest orders containers as listings show them.
func newest(a, b *Info) int {
	return cmp.Or(b.Config.Created.Compare(a.Config.Created), strings.Compare(a.Config.ID, b.Config.ID))
}

// few is how many containers one thread reads faster than several start.
const few = 24

// brief reads the containers in dir, several at a time.
func brief(dir string, all bool) ([]*Info, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	ids, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return strings.HasPrefix(id, ".") })
	infos, shown := make([]Info, len(ids)), make([]bool, len(ids))
	var next atomic.Int64
	read := func() {
		r := briefReader{dir: int(d.Fd()), kept: filepath.Base(dir) == kept}
		for i := int(next.Add(1)) - 1; i < len(ids); i = int(next.Add(1)) - 1 {
			shown[i] = r.read(ids[i], all, &infos[i])
		}
	}
	var others sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0)-1, len(ids)/few) {
		others.Go(read)
	}
	read()
	others.Wait()
	var list []*Info
	for i := range infos {
		if shown[i] {
			list = append(list, &infos[i])
		}
	}
	return list, nil
}

// A briefReader reads one container after another into the same buffer.
type briefReader struct {
	dir  int // where they lie
	kept bool
	buf  []byte
}

// read fills info with the container id and tells whether it is to be shown.
func (r *briefReader) read(id string, all bool, info *Info) bool {
	info.State = r.state(id)
	if !all && !info.State.claims() {
		return false
	}
	config, err := r.open(id, "/config.json")
	if err != nil {
		return false
	}
	defer unix.Close(config)
	info.Running, info.State = settle(config, info.State, func() State { return r.state(id) })
	if !info.Running && !all {
		return false
	}
	b, err := r.all(config)
	if err != nil || !scanConfig(string(beforePlan(b)), &info.Config) && !scanConfig(string(b), &info.Config) {
		return false // it is being made
	}
	return info.Running || r.kept // the rest the next run removes
}

// beforePlan is what comes before the plan, the last in a config.json and by
// far the largest: what of it a listing shows, if anything, costs as much memory
// as all else.
func beforePlan(b []byte) []byte {
	key := []byte(`"Plan":`)
	if i := bytes.Index(b, key); i >= 0 {
		return b[:i+len(key)]
	}
	return b
}

// claims tells whether s is that of a container that runs, if its monitor lives.
func (s State) claims() bool { return s.Pid != 0 || s.Restarting }

// settle finds out whether the container with this config.json and the state s
// runs, and what its state is then: as reread tells it if it ended meanwhile.
func settle(config int, s State, reread func() State) (running bool, now State) {
	for s.claims() {
		// Shared, and only where it decides: others who look must not take us
		// for a monitor.
		if unix.Flock(config, unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK {
			return true, s
		}
		unix.Flock(config, unix.LOCK_UN)
		now := reread()
		if now.Pid == s.Pid && now.Restarting == s.Restarting && now.StartTime == s.StartTime {
			break // its monitor was killed
		}
		s = now
	}
	s.end()
	return false, s
}

func (r *briefReader) open(id, file string) (int, error) {
	return unix.Openat(r.dir, id+file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// all returns what the file holds, in the buffer.
func (r *briefReader) all(fd int) ([]byte, error) {
	if r.buf == nil {
		r.buf = make([]byte, 8<<10)
	}
	n := 0
	for {
		m, err := unix.Read(fd, r.buf[n:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		}
		if n += m; n < len(r.buf) { // a file gives less only at its end
			return r.buf[:n], nil
		}
		r.buf = append(r.buf, make([]byte, len(r.buf))...)
	}
}

// rereads is how often a state that is being written is read again.
const rereads = 100

// state reads the container's state.json, the zero State without one.
func (r *briefReader) state(id string) State {
	for range rereads {
		var s State
		fd, err := r.open(id, "/state.json")
		if err != nil {
			return s
		}
		b, err := r.all(fd)
		unix.Close(fd)
		if err != nil || scanState(string(b), &s) {
			return s
		}
		runtime.Gosched()
	}
	return State{}
}
