package container

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where there are many containers, opening two files of each takes a listing
// longer than all else. So what Brief has read it keeps in one file, the
// index: for each container three lines, which are its id, the part of its
// config.json that listings need, and its state.json. The first two never change. The states hold as long as the file "changed" is what
// it was before they were read: who writes a state then writes that. The index
// is only ever a shortcut: without it, or if it cannot be read, files are read.
const (
	indexName   = "index"
	changedName = "changed"
	indexFormat = "rbox index 2 "
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
	head, state string // the files' text
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
		var id, head, state string
		id, text, _ = strings.Cut(text, "\n")
		head, text, _ = strings.Cut(text, "\n")
		state, text, _ = strings.Cut(text, "\n")
		x.items[id] = indexed{head, state}
	}
	return x
}

// write replaces the index. That it cannot costs time and nothing else.
func (x index) write(h *Home) {
	b := []byte(indexFormat + x.mark + "\n")
	for id, item := range x.items {
		for _, part := range []string{id, "\n", item.head, "\n", item.state, "\n"} {
			b = append(b, part...)
		}
	}
	replaceFile(filepath.Join(h.Dir, indexName), append(b, "end\n"...))
}
