// Package container keeps a container's files, starts its monitor, and is that
// monitor. What it runs comes as a stage.Plan; it knows nothing of images.
package container

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/slirp"
	"rbox/userns/stage"
	"rbox/userns/wire"
)

// Config is what a container was made to be: its folder's config.json. It does
// not change while the container exists.
type Config struct {
	ID          string // 64 hexadecimal digits
	Name        string // at first; State.Name is a newer one
	Image       string // as the user wrote it
	ImageID     string // of the configuration, "" for a directory
	Created     time.Time
	Labels      map[string]string `json:",omitempty"`
	Annotations map[string]string `json:",omitempty"`
	Entrypoint  []string          `json:",omitempty"` // the part of Plan.Process.Args that is not Command
	Command     []string          `json:",omitempty"`
	StopSignal  string            `json:",omitempty"` // "" is SIGTERM
	StopTimeout int               // seconds that stop grants; -1: for ever
	Timeout     int               `json:",omitempty"` // seconds that it may run; 0: no limit
	AutoRemove  bool
	OpenStdin   bool          `json:",omitempty"` // stdin is a pipe or the terminal, not /dev/null
	StdinOnce   bool          `json:",omitempty"` // it ends with the first that was attached to it
	PidFile     string        `json:",omitempty"` // takes the pid of process 1, as the host sees it
	Log         LogConfig     `json:",omitzero"`
	Restart     RestartPolicy `json:",omitzero"`
	Health      *Healthcheck  `json:",omitempty"`
	Volumes     []VolumeUse   `json:",omitempty"`
	// Networks are what was asked for, the first with the ports; none with
	// namespaces that are shared, or with a loopback interface alone.
	Networks []slirp.Request `json:",omitempty"`
	Options  Options         `json:",omitzero"`
	Cgroup   Cgroup          `json:",omitzero"`
	Plan     stage.Plan
}

// LogConfig says what becomes of the container's output.
type LogConfig struct {
	Driver  string `json:",omitempty"` // "file", "none" or "passthrough": the program has rbox's own streams
	MaxSize int64  `json:",omitempty"` // bytes of one file; 0: no limit
	MaxFile int    `json:",omitempty"` // files in all
}

// RestartPolicy says when the monitor starts a container again that has ended.
type RestartPolicy struct {
	Name  string `json:",omitempty"` // "", which is no, "on-failure", "always", "unless-stopped"
	Limit int    `json:",omitempty"` // of on-failure; 0: none
}

// Healthcheck is a command that tells how the container fares.
type Healthcheck struct {
	Test          []string      // "CMD" and arguments, or "CMD-SHELL" and a line for sh
	Interval      time.Duration // nanoseconds in JSON, as Docker's
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}

// VolumeUse is a volume that the container mounts.
type VolumeUse struct {
	Name      string
	Target    string
	Anonymous bool // made for this container: rm -v removes it
}

// Options are what the user asked for where the plan alone does not tell.
type Options struct {
	Network string   `json:",omitempty"` // "none", "host", "private", "container:ID", "ns:PATH" or names, with commas
	Userns  string   `json:",omitempty"`
	Pid     string   `json:",omitempty"`
	Ipc     string   `json:",omitempty"`
	Uts     string   `json:",omitempty"`
	AddHost []string `json:",omitempty"`
	DNS     []string `json:",omitempty"`
	Search  []string `json:",omitempty"` // --dns-search
	DNSOpts []string `json:",omitempty"` // --dns-option
	Exposed []string `json:",omitempty"` // ports that the image and --expose name, as 80/tcp
	// PublishAll gives each of them a port of the host.
	PublishAll bool     `json:",omitempty"`
	Binds      []string `json:",omitempty"` // -v as given
	CapAdd     []string `json:",omitempty"` // as CAP_NET_RAW, or ALL
	CapDrop    []string `json:",omitempty"`
	Privileged bool     `json:",omitempty"`
	// SecurityOpt are those of --security-opt, as given.
	SecurityOpt []string `json:",omitempty"`
	Args        []string `json:",omitempty"` // the command line that made it, after the program's name
	Dir         string   `json:",omitempty"` // where that was given
}

// State is what became of it: its folder's state.json, written by whoever
// holds the container's lock.
type State struct {
	Name       string    `json:",omitempty"` // since it was renamed
	Pid        int       // of process 1, as the host sees it; 0 when it has ended
	StartTime  uint64    // of that process, clock ticks since boot: proves that Pid is still the same
	BootID     string    // of the boot that both belong to
	Monitor    int       `json:",omitempty"` // pid of the monitor, as the host sees it
	Started    time.Time `json:",omitzero"`
	Finished   time.Time `json:",omitzero"`
	ExitStatus int
	Error      string           `json:",omitempty"` // why it did not start
	OOMKilled  bool             `json:",omitempty"`
	Paused     bool             `json:",omitempty"`
	Restarting bool             `json:",omitempty"` // it has ended and is to be started again
	Restarts   int              `json:",omitempty"` // times that the restart policy has started it
	Stopped    bool             `json:",omitempty"` // by the user: the restart policy rests
	Cgroup     string           `json:",omitempty"` // directory of its cgroup, while it runs
	Usage      *Usage           `json:",omitempty"` // what its last run took
	Limits     *cgroupv2.Limits `json:",omitempty"` // since they were changed
	Restart    *RestartPolicy   `json:",omitempty"` // likewise
	Health     *Health          `json:",omitempty"`

	Networks []Attachment `json:",omitempty"` // that it is on while it runs
	// Wanted is what connecting and disconnecting made of Config.Networks, nil
	// while that holds.
	Wanted *[]slirp.Request `json:",omitempty"`
}

// Health is what the health checks found.
type Health struct {
	Status        string // "starting", "healthy" or "unhealthy"
	FailingStreak int
	Log           []HealthResult `json:",omitempty"` // the last five
}

// HealthResult is one check.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int
	Output     string
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
	defer markChanged(dir)
	return writeInPlace(filepath.Join(dir, "state.json"), os.O_CREATE, wire.AppendJSON(nil, s))
}

// reserveState makes a state.json where there is none, so that a full disk shows
// before the program runs: to write into what is there takes no room.
func reserveState(dir string, s State) error {
	err := writeInPlace(filepath.Join(dir, "state.json"), os.O_CREATE|os.O_EXCL, wire.AppendJSON(nil, s))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// replaceState is writeState, whole or not at all, but on a full disk.
func replaceState(dir string, s State) error {
	defer markChanged(dir)
	path, text := filepath.Join(dir, "state.json"), wire.AppendJSON(nil, s)
	err := replaceFile(path, text)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		if writeInPlace(path, 0, text) == nil {
			return nil
		}
	}
	return err
}

// writeInPlace gives the file at path the text, in the room that it has.
func writeInPlace(path string, flags int, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteAt(text, 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(text)))
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
	if err := wire.ReadJSON(b, v); err != nil {
		return &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
	}
	return nil
}
