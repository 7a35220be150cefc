package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/rootfs"
	"rbox/userns"
	"rbox/userns/stage"
)

// Descriptors that the monitor is started with, beside /dev/null and stderr.
const (
	controlFD = 3 + iota // socket to rbox
	keeperFD             // the keeper's lock
)

// monitor is one container's, in the outer user namespace and a mount
// namespace of its own. The container's tree is mounted there.
type monitor struct {
	Config
	dir     string     // the container's folder, under its last name
	scratch string     // where we mount
	config  *os.File   // its config.json, which has its lock
	plan    *os.File   // the Config, as handed over
	streams []*os.File // the container's descriptors 0 to 2, and those it keeps
	held    []*os.File // what only needs to stay open: the lock of the layers
	tree    *rootfs.Tree
	fuse    *rootfs.FuseMount

	master   *os.File
	terminal string // the container's path of it
	caller   *callerTerminal
	initFile *os.File
	child    *userns.Child
}

// MonitorMain waits for a container and runs it, from its mounts to its
// removal. It must be called on the main thread, locked: the kernel kills the
// container when the thread that cloned it ends, and shows the main thread
// alone in /proc/self. scratch is an empty directory to mount on.
func MonitorMain(scratch string) error {
	unix.Umask(0o022) // whatever the caller's: it is for the caller's files
	unix.CloseOnExec(controlFD)
	unix.CloseOnExec(keeperFD)
	// What the terminal sends is for the container, and comes from rbox.
	signal.Ignore(unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGTERM, unix.SIGTSTP, unix.SIGTTOU, unix.SIGTTIN, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE)
	unready := prepare(scratch) // while rbox reads its command line
	order, files, err := receive(controlFD)
	if err != nil || order.Run == "" || len(files) < 5 {
		return nil // rbox thought better of it, or was killed
	}
	send(controlFD, message{Underway: true})
	m := &monitor{dir: order.Run, scratch: scratch, config: files[0], plan: files[1], streams: files[2:]}
	if err = unready; err == nil {
		err = m.run()
	}
	if err != nil {
		if m.PidFile != "" {
			os.Remove(m.PidFile)
		}
		m.doom()
		send(controlFD, message{Failed: failure(err)})
	}
	return m.cleanUp()
}

// target is where the container's root is mounted.
func (m *monitor) target() string { return m.scratch + "/root" }

// failure gives err the status and the hint that rbox reports.
func failure(err error) *Failure {
	f := &Failure{Text: err.Error(), Status: 125}
	var same *Failure
	if errors.As(err, &same) {
		return same
	}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		f.Advice = hinted.Hint()
	}
	return f
}

// run returns an error if the container did not start; it has told rbox of all else.
func (m *monitor) run() error {
	if err := readHanded(m.plan, &m.Config); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	n := 3 + m.Plan.Process.Preserve
	if n > len(m.streams) {
		return errors.New("the container's descriptors did not come")
	}
	m.streams, m.held = m.streams[:n], m.streams[n:]
	if m.Plan.Process.Terminal {
		m.caller = rememberTerminal(m.streams[0])
	}
	account, err := m.mount()
	if err != nil {
		return err
	}
	if err := m.start(account); err != nil {
		return err
	}
	if err := m.announce(); err != nil {
		m.child.Kill()
		return err
	}
	go m.obey()
	return m.finish()
}

// announce records that the container runs and tells rbox.
func (m *monitor) announce() error {
	start, err := startTime(m.child.Pid)
	if err != nil {
		return err
	}
	state := State{Pid: m.child.Pid, StartTime: start, BootID: bootID(), Started: time.Now()}
	if err := writeState(m.dir, state); err != nil {
		return err
	}
	if m.Plan.Namespaces.JoinUser != 0 { // its pid was not known before
		if err := m.writePidFile(m.child.Pid); err != nil {
			return err
		}
	}
	m.releaseStreams()
	if m.master != nil {
		return send(controlFD, message{Started: m.child.Pid}, m.master)
	}
	return send(controlFD, message{Started: m.child.Pid})
}

// writePidFile tells the user the pid of process 1, if asked to.
func (m *monitor) writePidFile(pid int) error {
	if m.PidFile == "" {
		return nil
	}
	return replaceFile(m.PidFile, []byte(strconv.Itoa(pid)))
}

// releaseStreams lets go of the container's streams, so that who reads or
// writes their other ends learns of the container's closing them.
func (m *monitor) releaseStreams() {
	for i, f := range m.streams {
		if m.caller == nil || i > 0 {
			f.Close()
		}
	}
	if null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		unix.Dup3(null, 2, 0)
		unix.Close(null)
	}
}

// obey passes on the signals that rbox sends. When rbox is gone the container
// goes too.
func (m *monitor) obey() {
	for {
		msg, _, err := receive(controlFD)
		if err != nil {
			unix.Kill(m.child.Pid, unix.SIGKILL)
			m.caller.restore()
			return
		}
		if msg.Signal != 0 {
			unix.Kill(m.child.Pid, unix.Signal(msg.Signal))
		}
	}
}

// finish waits for the container's end, cleans up and tells rbox.
func (m *monitor) finish() error {
	ws, err := m.child.Wait()
	if err != nil {
		return err
	}
	status := ws.ExitStatus()
	if ws.Signaled() {
		status = 128 + int(ws.Signal())
	}
	if !m.AutoRemove {
		var state State
		err := readJSON(m.dir, "state.json", &state)
		if err == nil {
			state.Pid, state.Finished, state.ExitStatus = 0, time.Now(), status
			err = writeState(m.dir, state)
		}
		if err != nil {
			send(controlFD, message{Notice: "the container's end is not recorded: " + err.Error()})
		}
	}
	if m.PidFile != "" {
		os.Remove(m.PidFile)
	}
	m.doom()
	return send(controlFD, message{Ended: &ended{status}})
}

// doom makes a container that nobody is to see again one that is being
// removed: its name is free, and no command finds it.
func (m *monitor) doom() {
	if !m.AutoRemove {
		return
	}
	dir, err := (&Home{filepath.Dir(filepath.Dir(m.dir))}).doomNamed(m.ID, m.Name)
	if err != nil {
		send(controlFD, message{Notice: "remove the container: " + err.Error()})
		return
	}
	m.dir = dir
}

// cleanUp deletes the folder of a doomed container. rbox does not wait for it;
// if we are killed, the next rbox goes on. The mounts end with our namespace.
func (m *monitor) cleanUp() error {
	if m.fuse != nil {
		m.fuse.Unmount()
	}
	if !m.AutoRemove {
		return nil
	}
	if m.Plan.Root.Driver == "dir" || len(m.Volumes) > 0 { // mount points cannot be deleted while they are some
		unix.Unmount(m.scratch, unix.MNT_DETACH)
	}
	return errors.Join(m.Config.removeVolumes(filepath.Dir(filepath.Dir(filepath.Dir(m.dir)))), removeFolder(m.dir))
}

// RemoveMain deletes the folder of a container; one that runs is an error, or
// is killed first. Like the monitor it is root of the outer user namespace.
func RemoveMain(home, id string, running bool) error {
	h := &Home{home}
	if strings.HasPrefix(id, ".") { // no container yet, or none any more
		return h.delete(filepath.Join(home, passing, id))
	}
	lock, err := h.tryLock(id)
	if errors.Is(err, unix.EWOULDBLOCK) {
		if !running {
			return fmt.Errorf("container %s is running", Short(id))
		}
		if lock, err = h.end(id); err == nil && lock == nil {
			return nil
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer lock.Close()
	return h.remove(id)
}

// end kills a running container and waits for its monitor to let go of the
// lock. A container that its monitor has removed meanwhile gives no lock.
func (h *Home) end(id string) (lock *os.File, err error) {
	dir := h.folder(id)
	lock, err = os.OpenFile(filepath.Join(dir, "config.json"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s State
	if err := readJSON(dir, "state.json", &s); err == nil && s.alive() {
		unix.Kill(s.Pid, unix.SIGKILL)
	}
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if !h.exists(id) {
		lock.Close()
		return nil, nil
	}
	return lock, err
}

// removeFolder deletes dir, its lock last: while that is there and held, a Sweep
// leaves the work to us.
func removeFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == "config.json" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// remove deletes the container's folder, whoever owns what is in it, and its name.
func (h *Home) remove(id string) error {
	dir, err := h.doom(id)
	if err != nil {
		return err
	}
	return h.delete(dir)
}

// doom takes the name from the container id and gives its folder one that
// tells its fate: should we be killed, the next Sweep goes on. It returns the
// folder's new path.
func (h *Home) doom(id string) (string, error) {
	var c Config
	if err := readJSON(h.folder(id), "config.json", &c); err != nil {
		h.forgetNameOf(id)
	}
	return h.doomNamed(id, c.Name)
}

func (h *Home) doomNamed(id, name string) (string, error) {
	going := filepath.Join(h.Dir, passing, doomed+id)
	h.forget(id, name)
	return going, os.Rename(h.folder(id), going)
}

// start clones the container's first process and waits until it has become the
// user's program.
func (m *monitor) start(account stage.Account) error {
	if err := m.checkMapped(account); err != nil {
		return err
	}
	if err := m.unshareTime(); err != nil {
		return err
	}
	ready := stage.Ready{Root: m.target(), Account: account, Terminal: m.terminal, Streams: numbers(m.streams[:3]), Kept: numbers(m.streams[3:]), InitFile: -1, JoinUser: -1}
	flags := m.Plan.Flags() | unix.CLONE_NEWUSER
	if m.initFile != nil {
		ready.InitFile = int(m.initFile.Fd())
	}
	if pid := m.Plan.Namespaces.JoinUser; pid != 0 {
		ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/user")
		if err != nil {
			return err
		}
		defer ns.Close()
		ready.JoinUser, flags = int(ns.Fd()), 0
	}
	userns.RestoreNoFile()
	child, err := userns.StartPrepared(m.Plan.Program(ready), flags, -1, func(pid int) error {
		if ready.JoinUser >= 0 {
			return heard()
		}
		if err := writeMaps(pid, m.Plan.Namespaces); err != nil {
			return err
		}
		if err := m.writePidFile(pid); err != nil { // before the program can look for it
			return err
		}
		return heard()
	})
	if err != nil {
		return explain(err, account)
	}
	m.child = child
	if slices.Contains(child.Notes, stage.HostProc) {
		send(controlFD, message{Notice: "/proc is the host's: a fresh one is forbidden while mounts cover parts of it (" + rootfs.Covering("/proc") + ")"})
	}
	return nil
}

// heard waits until rbox hears the signals that are for the program.
func heard() error {
	for {
		msg, _, err := receive(controlFD)
		if err != nil || msg.Listening {
			return err
		}
	}
}

// writeMaps maps the container's ids into the outer namespace. Root there
// needs no help with it.
func writeMaps(pid int, n stage.Namespaces) error {
	proc := "/proc/" + strconv.Itoa(pid)
	err := idmap.WriteMap(proc+"/uid_map", n.UIDs)
	if err == nil {
		err = idmap.WriteMap(proc+"/gid_map", n.GIDs)
	}
	if err != nil {
		return fmt.Errorf("map ids: %w", err)
	}
	return nil
}

// numbers are the descriptors of files.
func numbers(files []*os.File) (fds []int) {
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	return fds
}

// unshareTime gives what we clone next a time namespace with the plan's offsets.
func (m *monitor) unshareTime() error {
	offsets := m.Plan.Namespaces.TimeOffsets
	if len(offsets) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fmt.Errorf("make a time namespace (Linux 5.6): %w", err)
	}
	for clock, seconds := range offsets {
		line := fmt.Sprintf("%s %d 0\n", clock, seconds)
		if err := os.WriteFile("/proc/self/timens_offsets", []byte(line), 0); err != nil {
			return fmt.Errorf("set the offset of the %s clock to %d s: %w", clock, seconds, err)
		}
	}
	return nil
}

// explain says what a child that did not start means to the user.
func explain(err error, account stage.Account) error {
	var step *userns.StepError
	if !errors.As(err, &step) {
		return fmt.Errorf("start the container: %w", idmap.ExplainUserNS(err))
	}
	if strings.HasPrefix(step.Step, stage.RlimitStep) && step.Err == unix.EPERM {
		return &Failure{Text: step.Error() + ": above the hard limit", Advice: "the shell shows it: ulimit -H -a", Status: 125}
	}
	if !strings.HasPrefix(step.Step, stage.ExecStep) {
		return fmt.Errorf("start the container: %w", err)
	}
	name := clip(strings.TrimPrefix(step.Step, stage.ExecStep))
	f := &Failure{Text: fmt.Sprintf("run %q: %v", name, step.Err), Status: 126}
	switch step.Err {
	case unix.ENOENT, unix.ENOTDIR:
		f.Status = 127
		f.Text = fmt.Sprintf("run %q: executable file not found in $PATH", name)
		if strings.Contains(name, "/") {
			f.Text = fmt.Sprintf("run %q: no such file, or its interpreter is missing", name)
		}
	case unix.EACCES:
		f.Text = fmt.Sprintf("run %q: permission denied for uid %d", name, account.UID)
		f.Advice = "is it executable? chmod +x it in the image"
	case unix.ENOEXEC:
		f.Text = fmt.Sprintf("run %q: exec format error", name)
		f.Advice = "a program of another architecture (see rbox image inspect), or a script without #! line"
	}
	return f
}

// clip shortens what a message quotes.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
