package container

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"rbox/userns/wire"
)

// Brief lists the containers of this host, newest first, as List does, but
// reads only what a listing shows: of Config the ID, Name, Image, ImageID,
// Created, Labels, Entrypoint, Command, AutoRemove, Volumes, Options.Network
// and Options.Exposed; of State.Health the Status, of State.Wanted the names.
// Without all, those that do not run are left out.
func (h *Home) Brief(all bool) ([]*Info, error) {
	b := briefing{home: h, all: all}
	for _, sub := range []string{kept, passing} {
		if err := b.list(sub); err != nil {
			return nil, err
		}
	}
	if len(b.ids) >= manyContainers {
		if b.mark = h.changeMark(); b.mark == "" { // before any state is read
			h.markChanged()
			b.mark = h.changeMark()
		}
		b.known = h.readIndex()
		b.fresh = b.mark != "" && b.known.mark == b.mark
		if b.fresh && b.known.claims() >= manyContainers {
			b.listening = listeningSockets()
		}
	}
	list := b.read()
	slices.SortFunc(list, newest)
	return list, nil
}

// ImageUsers lists, by the id of the image, the containers of all hosts that
// keep theirs below dir, as Brief does, and those that are being made or removed.
func ImageUsers(dir string) (map[string][]*Info, error) {
	users := map[string][]*Info{}
	return users, eachOfAll(dir, func(h *Home, id string) {
		// Whether a container of another host runs cannot be known here: its
		// configuration alone counts.
		info, err := h.Inspect(id)
		if err == nil && info.Config.ImageID != "" {
			users[info.Config.ImageID] = append(users[info.Config.ImageID], &info)
		}
	})
}

// newest orders containers as listings show them.
func newest(a, b *Info) int {
	if c := b.Config.Created.Compare(a.Config.Created); c != 0 {
		return c
	}
	return strings.Compare(a.Config.ID, b.Config.ID)
}

// chunk is how many containers one thread reads in a row, or alone where there
// are no more: threads that fill the same pages of memory wait for each other.
const chunk = 64

// A briefing is one call of Brief.
type briefing struct {
	home  *Home
	all   bool
	ids   []string // with the folder that they lie in before each
	mark  string
	known index
	fresh bool // the states that are known hold

	listening map[socketFile]bool // perhaps not all
}

// list adds the containers in the folder sub.
func (b *briefing) list(sub string) error {
	d, err := os.Open(filepath.Join(b.home.Dir, sub))
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	for _, name := range names {
		if !strings.HasPrefix(name, ".") {
			b.ids = append(b.ids, sub+"/"+name)
		}
	}
	return err
}

// read reads the containers, several at a time.
func (b *briefing) read() (list []*Info) {
	d, err := unix.Open(b.home.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(d)
	infos, shown, items := make([]Info, len(b.ids)), make([]bool, len(b.ids)), make([]indexed, len(b.ids))
	var next, news atomic.Int64
	read := func() {
		r := briefReader{briefing: b, dir: d}
		for to := int(next.Add(chunk)); to-chunk < len(b.ids); to = int(next.Add(chunk)) {
			for i := to - chunk; i < min(to, len(b.ids)); i++ {
				shown[i] = r.read(b.ids[i], &infos[i], &items[i])
			}
		}
		news.Add(r.news)
	}
	var others sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0)-1, len(b.ids)/chunk) {
		others.Go(read)
	}
	read()
	others.Wait()
	for i := range infos {
		if shown[i] {
			list = append(list, &infos[i])
		}
	}
	if b.mark != "" && news.Load() >= manyContainers/4 {
		x := index{b.mark, map[string]indexed{}}
		for i, item := range items {
			if item.head != "" {
				_, id, _ := strings.Cut(b.ids[i], "/")
				x.items[id] = item
			}
		}
		x.write(b.home)
	}
	return list
}

// A briefReader reads one container after another into the same buffer.
type briefReader struct {
	*briefing
	dir  int // the Home's
	buf  []byte
	news int64 // containers that were not in the index as they are
}

// read fills info with the container at path and tells whether it is to be
// shown; item becomes what the index is to have of it.
func (r *briefReader) read(path string, info *Info, item *indexed) bool {
	*info = Info{} // written before it is read, new memory is faulted in once, not twice
	sub, id, _ := strings.Cut(path, "/")
	known, ok := r.known.items[id]
	*item = known
	if !ok || !r.fresh {
		item.state = ""
		info.State, item.state = r.state(path)
		r.news++
	} else if known.state != "" {
		scanState(known.state, &info.State)
	}
	if !r.all && !info.State.claims() && (ok || r.mark == "") {
		return false
	}
	// Who listens runs; who is not seen to may run all the same.
	info.Running = ok && info.State.claims() && r.listening[known.socket]
	if (!ok || info.State.claims() && !info.Running) && !r.readConfig(path, info, item, ok) {
		return false
	}
	if !info.Running {
		info.State.end()
		item.socket = 0
	}
	if ok && !scanConfig(known.head, &info.Config) {
		return false
	}
	return info.Running || r.all && sub == kept // the rest the next run removes
}

// readConfig looks at the container's lock and, unless it is known, reads its
// configuration.
func (r *briefReader) readConfig(path string, info *Info, item *indexed, known bool) bool {
	config, err := r.open(path, "/config.json")
	if err == unix.ENOENT && restoreConfig(filepath.Join(r.home.Dir, path)) {
		config, err = r.open(path, "/config.json")
	}
	if err != nil {
		return false
	}
	defer unix.Close(config)
	info.Running, info.State = settle(config, info.State, func() State {
		s, _ := r.state(path)
		return s
	})
	if info.Running && r.mark != "" {
		if socket := r.socket(path); socket != item.socket {
			item.socket = socket
			r.news++
		}
	}
	if known {
		return true
	}
	b, err := r.bytes(config)
	if err != nil {
		return false
	}
	whole := scanConfig(string(beforePlan(b)), &info.Config) || scanConfig(string(b), &info.Config)
	if whole && r.mark != "" && !strings.Contains(item.state, "\n") {
		item.head = headOf(&info.Config)
	}
	return whole // else it is being made
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

func (r *briefReader) open(path, file string) (int, error) {
	return unix.Openat(r.dir, path+file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// socket is the file of the container's control socket, if that is there.
func (r *briefReader) socket(path string) socketFile {
	var st unix.Stat_t
	if unix.Fstatat(r.dir, path+"/"+controlName, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0
	}
	return socketFileOf(st.Dev, st.Ino)
}

// bytes returns what the file holds, in the buffer.
func (r *briefReader) bytes(fd int) ([]byte, error) {
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

// state reads the container's state.json; without one it is its lostState.
func (r *briefReader) state(path string) (s State, text string) {
	for range rereads {
		fd, err := r.open(path, "/state.json")
		if err != nil {
			break
		}
		b, err := r.bytes(fd)
		unix.Close(fd)
		if err != nil {
			break
		}
		s, text = State{}, string(b)
		if scanState(text, &s) {
			return s, text
		}
		runtime.Gosched()
	}
	if s = lostState(filepath.Join(r.home.Dir, path)); s.Started.IsZero() {
		return s, ""
	}
	return s, string(wire.AppendJSON(nil, s))
}
