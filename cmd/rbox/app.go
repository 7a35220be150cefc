package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
	"rbox/slirp"
	"rbox/userns"
	"rbox/userns/container"
)

// App is what commands share: where things lie and how to speak to the user.
type App struct {
	Root    string // images and containers; $RBOX_ROOT
	Runtime string // what need not outlive a boot; found by the method of the same meaning
	Quiet   bool
	Stdout  io.Writer
	Stderr  io.Writer

	outer   *userns.Outer
	home    *container.Home
	around  *slirp.Surroundings
	storage *rootfs.Choice      // where layers lie, and how they are mounted
	early   *early              // of `rbox run`
	memory  map[string]*os.File // carried executables, where no file may be executed
	held    []*os.File          // locks of volumes and networks
}

func newApp() *App {
	return &App{Root: dataRoot(), Stdout: os.Stdout, Stderr: os.Stderr}
}

// dataRoot is $RBOX_ROOT, else rbox in the user's data directory (XDG Base
// Directory Specification).
func dataRoot() string {
	if dir := os.Getenv("RBOX_ROOT"); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return dir
		}
		return abs
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "rbox")
	}
	return filepath.Join(homeDir(), ".local/share/rbox")
}

// homeDir is $HOME; without one, rbox can still run with RBOX_ROOT.
func homeDir() string {
	if dir := os.Getenv("HOME"); dir != "" {
		return dir
	}
	return "/nonexistent"
}

// Notice tells the user something that is no failure, in one line.
func (a *App) Notice(text string) {
	if !a.Quiet {
		fmt.Fprintln(a.Stderr, "rbox: "+visible(text))
	}
}

// A RootError reports that rbox cannot keep its files where it should.
type RootError struct {
	Dir string
	Err error
}

func (e *RootError) Error() string {
	return fmt.Sprintf("cannot use %s: %v", e.Dir, reason(e.Err))
}
func (e *RootError) Unwrap() error { return e.Err }

// Hint moves rbox elsewhere.
func (e *RootError) Hint() string {
	return "export RBOX_ROOT=/a/directory/you/can/write"
}

// reason is err without the system call and path that a *fs.PathError carries.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// Home returns the folder of this host's containers.
func (a *App) Home() (*container.Home, error) {
	if a.home == nil {
		h, err := container.OpenHome(filepath.Join(a.Root, "containers"))
		if err != nil {
			return nil, &RootError{a.Root, err}
		}
		a.home = h
	}
	return a.home, nil
}

// Outer returns the outer user namespace, made now if this is the first use.
func (a *App) Outer() (*userns.Outer, error) {
	if a.outer != nil {
		return a.outer, nil
	}
	if a.early == nil { // else it has been done
		markInherited() // keeper and monitors outlive us, and locks of the caller's are not to
	}
	dir, err := a.runtimeDir()
	if err != nil {
		return nil, err
	}
	a.outer, err = userns.Open(userns.Options{Dir: dir, Stage: a.Stage, Idle: keeperIdle(), Warn: a.Notice, Lone: a.lone()})
	return a.outer, err
}

// outerAndStage are what it takes to start processes in the outer namespace.
func (a *App) outerAndStage() (outer *userns.Outer, stage string, err error) {
	if outer, err = a.Outer(); err != nil {
		return nil, "", err
	}
	stage, err = a.Stage()
	return outer, stage, err
}

// keeperIdle is how long the keeper outlives the last command: $RBOX_KEEPER_IDLE.
func keeperIdle() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("RBOX_KEEPER_IDLE")); err == nil && d > 0 {
		return d
	}
	return 5 * time.Minute
}

// runtimeDir walks the ladder of runtime directories: $RBOX_RUNTIME,
// $XDG_RUNTIME_DIR if it is ours, a private one below the data directory.
func (a *App) runtimeDir() (string, error) {
	if a.Runtime != "" {
		return a.Runtime, nil
	}
	dir := os.Getenv("RBOX_RUNTIME")
	if dir == "" {
		if xdg := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(xdg) && ours(xdg) {
			dir = filepath.Join(xdg, "rbox")
		}
	}
	if dir == "" {
		host, _ := os.Hostname()
		dir = filepath.Join(a.Root, "run", host)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", &RootError{dir, err}
	}
	if !ours(dir) {
		return "", &RootError{dir, errors.New("it belongs to another user, or others may write to it")}
	}
	a.Runtime = dir
	return dir, nil
}

// ours tells whether dir is a directory of ours that nobody else may write to.
func ours(dir string) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR &&
		st.Uid == uint32(os.Geteuid()) && st.Mode&0o022 == 0
}

// stageFiles holds the stage executable, and the hashes of that and of the
// network process. make puts them there before it builds rbox; without them rbox
// builds too, but runs nothing.
//
//go:embed stagebin
var stageFiles embed.FS

// Stage returns the path of the stage executable, written out if it is not
// there yet.
func (a *App) Stage() (string, error) {
	return a.carried(stageFiles, "stagebin/stage.sum", stageFiles, "stagebin/stage", "rbox-stage")
}

// networkSum is the file of stageFiles with the hash of the network process,
// which is written out as networkExe.
const (
	networkSum = "stagebin/network.sum"
	networkExe = "rbox-network"
)

// networkProgramOf opens the network process's executable for a container that
// is to be on networks, nil for others.
func (a *App) networkProgramOf(c *container.Config) (*os.File, error) {
	if len(c.Networks) == 0 {
		return nil, nil
	}
	return a.networkProgram()
}

// carried returns a path of the executable file that rbox carries in files,
// written out as name if it is not there yet, in a folder that has the hash of
// the file, which is in the file sum of sums, so that versions do not mix. Where the data directory allows no
// execution it stays in memory.
func (a *App) carried(sums embed.FS, sum string, files embed.FS, file, name string) (string, error) {
	path, err := a.carriedPath(sums, sum, name)
	if err != nil {
		return "", err
	}
	if noexec(a.Root) {
		return a.inMemory(files, file)
	}
	if length := writtenOut(path); length >= 0 && length == size(files, file) {
		return path, nil
	}
	if err := a.writeOut(files, file, path); err != nil {
		return "", err
	}
	return path, nil
}

// carriedPath is where the executable name lies, whose hash is in the file sum of sums.
func (a *App) carriedPath(sums embed.FS, sum, name string) (string, error) {
	hash, err := sums.ReadFile(sum)
	if err != nil || len(hash) < 32 {
		return "", fmt.Errorf("rbox was built without %s: build it with make", name)
	}
	return filepath.Join(a.Root, "stage", string(hash[:32]), name), nil
}

// writtenOut is the length of an executable that writeOut made, -1 without one.
func writtenOut(path string) int64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Uid == uint32(os.Geteuid()) && st.Mode&0o777 == 0o500 {
		return st.Size
	}
	return -1
}

// size is the length of a carried file in bytes, -1 without one.
func size(files embed.FS, file string) int64 {
	st, err := fs.Stat(files, file)
	if err != nil {
		return -1
	}
	return st.Size()
}

// inMemory copies a carried executable into memory and returns a path by which
// it can be run.
func (a *App) inMemory(files embed.FS, file string) (string, error) {
	if a.memory[file] == nil {
		text, err := files.ReadFile(file)
		if err != nil {
			return "", err
		}
		f, err := userns.SealedFile("rbox", bytes.NewReader(text))
		if err != nil {
			return "", &adviceError{fmt.Errorf("%s is mounted noexec, and %w", a.Root, err), "export RBOX_ROOT=/a/directory/without/noexec"}
		}
		if a.memory == nil {
			a.memory = map[string]*os.File{}
		}
		a.memory[file] = f
	}
	return fmt.Sprintf("/proc/self/fd/%d", a.memory[file].Fd()), nil
}

// noexec tells whether nothing in dir may be executed.
func noexec(dir string) bool {
	var st unix.Statfs_t
	for unix.Access(dir, unix.F_OK) == unix.ENOENT { // it is made on first use
		dir = filepath.Dir(dir)
	}
	return unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}

// writeOut writes a carried file to path, whole or not at all.
func (a *App) writeOut(files embed.FS, file, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return &RootError{a.Root, err}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return &RootError{a.Root, err}
	}
	defer os.Remove(f.Name())
	text, err := files.ReadFile(file)
	if err == nil {
		_, err = f.Write(text)
	}
	err = errors.Join(err, f.Chmod(0o500), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return &RootError{a.Root, err}
	}
	return nil
}
