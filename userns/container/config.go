// Package container keeps a container's files, starts its monitor, and is that
// monitor. What it runs comes as a stage.Plan; it knows nothing of images.
package container

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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
	// Upper is where a writable layer must be deleted, if not in the folder.
	Upper   string `json:",omitempty"`
	PidFile string `json:",omitempty"` // takes the pid of process 1, as the host sees it
	Plan    stage.Plan
}

// State is what became of it: its folder's state.json.
type State struct {
	Pid        int       // of process 1, as the host sees it; 0 when it has ended
	StartTime  uint64    // of that process, clock ticks since boot: proves that Pid is still the same
	BootID     string    // of the boot that both belong to
	Started    time.Time `json:",omitzero"`
	Finished   time.Time `json:",omitzero"`
	ExitStatus int
	Error      string `json:",omitempty"` // why it did not start
}

// NewID returns a random container id.
func NewID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Short is the form of an id that people read.
func Short(id string) string { return id[:min(len(id), 12)] }

// writeJSON replaces the file name in dir by one that holds v.
func writeJSON(dir, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, name), b)
}

// replaceFile writes b to a temporary name and renames it to path.
func replaceFile(path string, b []byte) error {
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// readJSON reads the file name in dir into v.
func readJSON(dir, name string, v any) error {
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
