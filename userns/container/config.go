// Package container keeps a container's files, starts its monitor, and is that
// monitor. What it runs comes as a stage.Plan; it knows nothing of images.
package container

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"rbox/userns/stage"
)

// Config is what a container was made to be: its folder's config.json.
type Config struct {
	ID         string // 64 hexadecimal digits
	Name       string
	Image      string // as the user wrote it
	ImageID    string // of the configuration, "" for a directory
	Created    time.Time
	Labels     map[string]string `json:",omitempty"`
	StopSignal string            `json:",omitempty"`
	AutoRemove bool
	PidFile    string `json:",omitempty"` // takes the pid of process 1, as the host sees it
	Plan       stage.Plan
}

// State is what became of it: its folder's state.json.
type State struct {
	Pid        int       // of process 1, as the host sees it; 0 when it has ended
	StartTime  uint64    // of that process, clock ticks since boot: proves that Pid is still the same
	BootID     string    // of the boot that both belong to
	Started    time.Time `json:",omitzero"`
	Finished   time.Time `json:",omitzero"`
	ExitStatus int
}

// NewID returns a random container id.
func NewID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Short is the form of an id that people read.
func Short(id string) string { return id[:min(len(id), 12)] }

// writeState makes state.json hold s. A reader may meet it half written:
// readJSON then says that it is not there.
func writeState(dir string, s State) error {
	return os.WriteFile(filepath.Join(dir, "state.json"), s.appendJSON(nil), 0o600)
}

// appendJSON is json.Marshal for one type: learning it takes encoding/json
// longer than a container takes to start its program.
func (s State) appendJSON(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"Pid":`...), int64(s.Pid), 10)
	b = strconv.AppendUint(append(b, `,"StartTime":`...), s.StartTime, 10)
	b = append(append(append(b, `,"BootID":"`...), s.BootID...), '"')
	for name, t := range map[string]time.Time{"Started": s.Started, "Finished": s.Finished} {
		if !t.IsZero() {
			b = append(append(append(b, `,"`...), name...), `":"`...)
			b = append(t.AppendFormat(b, time.RFC3339Nano), '"')
		}
	}
	b = strconv.AppendInt(append(b, `,"ExitStatus":`...), int64(s.ExitStatus), 10)
	return append(b, '}')
}

// replaceFile writes b to a temporary name and renames it to path.
func replaceFile(path string, b []byte) error {
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// readJSON reads the file name in dir into v. What is cut short is being
// written: the error matches fs.ErrNotExist.
func readJSON(dir, name string, v any) error {
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
	}
	return nil
}
