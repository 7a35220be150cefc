package logfile

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// pollEvery is how soon a change is seen where the kernel tells of none, as of
// what another host writes to a network file system.
const pollEvery = 250 * time.Millisecond

// restTime makes that what is written without a pause is read in large pieces.
const restTime = 2 * time.Millisecond

// watch wakes who waits for a change in a directory, by inotify(7) where there is some.
type watch struct {
	in   *os.File // nil without inotify
	wake chan struct{}
	tick *time.Ticker
}

func newWatch(dir string) *watch {
	w := &watch{wake: make(chan struct{}, 1), tick: time.NewTicker(pollEvery)}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil { // a user may have only so many
		return w
	}
	w.in = os.NewFile(uintptr(fd), "inotify")
	const what = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE
	unix.InotifyAddWatch(fd, dir, what)
	go w.listen()
	return w
}

// listen passes on that something happened, whatever it is, until w is closed.
func (w *watch) listen() {
	var events [4096]byte
	for {
		if _, err := w.in.Read(events[:]); err != nil {
			return
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
		time.Sleep(restTime)
	}
}

func (w *watch) close() {
	w.tick.Stop()
	if w.in != nil {
		w.in.Close()
	}
}

// Wait returns when Next may have more, or with true when done is closed.
func (l *Lines) Wait(done <-chan struct{}) (ended bool) {
	if l.watch == nil {
		l.watch = newWatch(filepath.Dir(l.path))
		return false // what happened before it was watched is to be looked for
	}
	select {
	case <-l.watch.wake:
	case <-l.watch.tick.C:
	case <-done:
		return true
	}
	return false
}
