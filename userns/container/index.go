package container

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where there are many containers, opening two files of each takes a listing
// longer than all else. So what Brief has read it keeps in one file, the
// index: for each container three lines, which are its id with the file of its
// control socket, the part of its config.json that listings need, and its
// state.json. The second never changes. The others hold as long as the file
// "changed" is what it was before they were read: who writes a state then writes
// that. The index is only ever a shortcut: without it, or if it cannot be read,
// files are read.
const (
	indexName   = "index"
	changedName = "changed"
	indexFormat = "rbox index 3 "
)

// manyContainers is how many make the index worth its while.
const manyContainers = 64

// markChanged tells that a state in the folder of a container has changed.
func markChanged(dir string) { (&Home{filepath.Dir(filepath.Dir(dir))}).markChanged() }

func (h *Home) markChanged() {
	var mark [8]byte
	rand.Read(mark[:])
	fd, err := unix.Open(filepath.Join(h.Dir, changedName), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err == nil {
		// In place: nobody ever sees less than a whole one, but of the first.
		_, err = unix.Pwrite(fd, []byte(hex.EncodeToString(mark[:])), 0)
		unix.Close(fd)
	}
	if err != nil {
		os.Remove(filepath.Join(h.Dir, indexName))
	}
}

// changeMark is what stands for the states as they are now, "" if nothing does.
// It holds for one boot: what a power cut leaves of files is another matter.
func (h *Home) changeMark() string {
	b, err := os.ReadFile(filepath.Join(h.Dir, changedName))
	if err != nil || len(b) != 16 {
		return ""
	}
	return string(b) + bootID()
}

// indexed is what the index has of one container.
type indexed struct {
	socket      socketFile // of its control socket, while it runs
	head, state string     // the files' text
}

// An index is read or to be written.
type index struct {
	mark  string // changeMark as it was before the states were read
	items map[string]indexed
}

// readIndex returns the index, empty if there is none.
func (h *Home) readIndex() index {
	x := index{items: map[string]indexed{}}
	b, err := os.ReadFile(filepath.Join(h.Dir, indexName))
	if err != nil {
		return x
	}
	// As it is, since nothing changes it: a copy would cost as much as reading it.
	text, known := strings.CutPrefix(unsafe.String(unsafe.SliceData(b), len(b)), indexFormat)
	// The last line says that the file is whole.
	text, whole := strings.CutSuffix(text, "\nend\n")
	if !known || !whole {
		return x
	}
	x.mark, text, _ = strings.Cut(text, "\n")
	x.items = make(map[string]indexed, len(text)/500)
	for text != "" {
		var name, head, state string
		name, text, _ = strings.Cut(text, "\n")
		head, text, _ = strings.Cut(text, "\n")
		state, text, _ = strings.Cut(text, "\n")
		id, socket, _ := strings.Cut(name, " ")
		file, _ := strconv.ParseUint(socket, 10, 64)
		x.items[id] = indexed{socketFile(file), head, state}
	}
	return x
}

// claims is how many containers of the index seem to run.
func (x index) claims() (n int) {
	for _, item := range x.items {
		if item.socket != 0 {
			n++
		}
	}
	return n
}

// write replaces the index. That it cannot costs time and nothing else.
func (x index) write(h *Home) {
	b := []byte(indexFormat + x.mark + "\n")
	for id, item := range x.items {
		for _, part := range []string{id, " ", strconv.FormatUint(uint64(item.socket), 10), "\n", item.head, "\n", item.state, "\n"} {
			b = append(b, part...)
		}
	}
	replaceFile(filepath.Join(h.Dir, indexName), append(b, "end\n"...))
}
