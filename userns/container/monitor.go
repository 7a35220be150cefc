package container

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/rootfs"
	"rbox/slirp/landlock"
	"rbox/userns"
	"rbox/userns/container/logfile"
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
	order
	home    *Home
	scratch string     // where we mount
	config  *os.File   // config.json, which has the container's lock
	plan    *os.File   // the Config, as handed over
	streams []*os.File // rbox's descriptors 0 to 2, and those that the container keeps
	held    []*os.File // what only needs to stay open: the lock of the layers
	network *os.File   // executable of the network process, if the container needs one
	first   *client    // rbox that started us

	tree     *rootfs.Tree
	fuse     *rootfs.FuseMount
	console  *console // nil: the program has rbox's own streams
	terminal terminal // the program's, if it has one
	initFile *os.File
	env      []string        // the plan's, without what the account adds
	group    *cgroupv2.Group // nil where this host gives us none
	affinity string          // processors, where the group has no say in them

	attached []Attachment // of this run; before it, of the one before
	changing sync.Mutex   // of the networks, while it runs: one at a time

	mu       sync.Mutex
	uplinks  []*uplink     // to the networks that it is on, in their order
	child    *userns.Child // nil while there is none
	state    State
	starting bool       // a restart is under way
	inOrder  bool       // the container was asked to stop
	begun    *sync.Cond // it no longer is
	owner    *client    // the container ends with it; nil: with none
	clients  map[*client]bool
	stop     chan struct{} // closed once the restart policy is to rest
	over     chan struct{} // closed at the end of a run
	main     chan func()   // for the main thread to do

	sharesPids uint64         // the program's mount namespace, if it has no pid namespace of its own; else 0
	once       bool           // the program cannot be started again: what it was given is closed
	listening  sync.Once      // the control socket is made, or will not be
	guests     sync.WaitGroup // further programs, for as long as they need us
}

// MonitorMain waits for a container and runs it, from its mounts to its
// removal. It must be called on the main thread, locked: the kernel kills the
// container when the thread that cloned it ends, and shows the main thread
// alone in /proc/self. scratch is an empty directory to mount on.
func MonitorMain(scratch string) error {
	// For a moment what we clone is a process of the container that has our
	// memory, or a copy: nobody in there may look into it.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	unix.Chdir("/")   // the caller's file system is not to be kept busy
	unix.Umask(0o022) // whatever the caller's: it is for the caller's files
	unix.CloseOnExec(controlFD)
	unix.CloseOnExec(keeperFD)
	// What the terminal sends is for the container, and comes from rbox.
	signal.Ignore(unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGTERM, unix.SIGTSTP, unix.SIGTTOU, unix.SIGTTIN, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE)
	unready := prepare(scratch) // while rbox reads its command line
	msg, files, err := receive(controlFD)
	if err != nil || msg.Run == nil || len(files) < 5 {
		return nil // rbox thought better of it, or was killed
	}
	m := &monitor{
		order: *msg.Run, scratch: scratch, home: &Home{filepath.Dir(filepath.Dir(msg.Run.Dir))},
		config: files[0], plan: files[1], streams: files[2:],
		first: &client{sock: controlFD}, clients: map[*client]bool{}, stop: make(chan struct{}), main: make(chan func()),
	}
	m.begun = sync.NewCond(&m.mu)
	m.first.send(message{Underway: true})
	if err = unready; err == nil {
		err = m.live()
	}
	if err != nil {
		m.fail(err)
	}
	return m.cleanUp()
}

// target is where the container's root is mounted.
func (m *monitor) target() string { return m.scratch + "/root" }

// fail is the end of a container that did not start.
func (m *monitor) fail(err error) {
	f := failure(err)
	m.disconnect()
	if m.PidFile != "" {
		os.Remove(m.PidFile)
	}
	if !m.AutoRemove && m.ID != "" {
		m.mu.Lock()
		m.state.Error, m.state.ExitStatus, m.state.Finished = f.Text, f.Status, time.Now()
		m.saveState()
		m.mu.Unlock()
	}
	m.leaveCgroup()
	m.doom()
	m.first.send(message{Failed: f})
}

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

// live runs the container, as often as its restart policy asks for. It returns
// an error if it did not start; rbox has been told of all else.
func (m *monitor) live() error {
	if err := m.takeOrder(); err != nil {
		return err
	}
	m.env = m.Plan.Process.Env
	if err := m.begin(); err != nil {
		return err
	}
	for pause := time.Duration(0); m.finish(); {
		pause = backOff(pause, time.Since(m.state.Started))
		if !m.rest(pause) {
			m.settle()
			return nil
		}
		m.Plan.Process.Env = m.env
		if err := m.beginAgain(); err != nil {
			m.notStarted(err)
		}
	}
	return nil
}

// takeOrder reads what to run and sorts the descriptors that came.
func (m *monitor) takeOrder() error {
	if err := readHanded(m.plan, &m.Config); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if !m.Fresh {
		if err := readJSON(m.Dir, "state.json", &m.state); err == nil {
			m.state = State{Name: m.state.Name, Wanted: m.state.Wanted, Limits: m.state.Limits, Restart: m.state.Restart}
		}
	}
	n := 3 + m.Plan.Process.Preserve
	if m.Networked && len(m.streams) > 0 {
		last := len(m.streams) - 1
		m.network, m.streams = m.streams[last], m.streams[:last]
	}
	if n > len(m.streams) {
		return errors.New("the container's descriptors did not come")
	}
	m.streams, m.held = m.streams[:n], m.streams[n:]
	if m.Detach {
		unix.Setsid() // the caller's session may end
	} else {
		m.owner = m.first
	}
	if m.Direct {
		return nil
	}
	m.console = &console{input: m.OpenStdin, lost: func(err error) {
		m.first.send(message{Notice: "the log has a gap: " + err.Error()})
	}}
	if m.Log.Driver != "none" {
		m.console.log = logfile.Open(filepath.Join(m.Dir, "log"), m.Log.MaxSize, m.Log.MaxFile)
	}
	return nil
}

// begin mounts and starts the container for the first time.
func (m *monitor) begin() error {
	if err := reserveState(m.Dir, m.state); err != nil { // before it leaves any trace (hasRun)
		return err
	}
	if !m.Fresh {
		killStrays(&m.Config)
	}
	if err := m.startUplinks(); err != nil {
		return err
	}
	account, err := m.mount()
	if err == nil {
		err = m.startOnHost(account, m.start(account, heard))
	}
	if err == nil {
		err = m.announce()
	}
	return err
}

// beginAgain is begin after an end.
func (m *monitor) beginAgain() error {
	m.mu.Lock()
	m.starting = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.starting = false
		m.mu.Unlock()
		m.begun.Broadcast()
	}()
	if err := m.startUplinks(); err != nil {
		return err
	}
	m.unmount()
	if err := prepare(m.scratch); err != nil {
		return err
	}
	account, err := m.mount()
	if err == nil {
		err = m.startOnHost(account, m.start(account, unneeded))
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.state.Restarts++
	if err = m.saveStarted(); err != nil {
		m.child.Kill()
		m.child = nil
	} else if m.state.Stopped { // while it could not be signalled
		m.kill(unix.SIGKILL)
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	m.watch()
	m.connectAgain()
	return nil
}

// connectAgain gives rbox in the foreground the new run's input. Where what is
// shown goes has not changed.
func (m *monitor) connectAgain() {
	if m.console == nil {
		return
	}
	m.first.mu.Lock()
	v := m.first.viewer
	m.first.mu.Unlock()
	files, which, err := m.console.newInlet(v, m.Input)
	if err != nil {
		m.first.send(message{Notice: "nothing can be typed: " + err.Error()})
	}
	if len(files) > 0 {
		m.first.send(message{Started: m.child.Pid, Streams: which}, files...)
		closeFiles(files)
	}
}

// notStarted records that a restart went wrong; it counts as an end.
func (m *monitor) notStarted(err error) {
	f := failure(err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.child, m.over = nil, make(chan struct{})
	m.state.Error, m.state.ExitStatus = f.Text, f.Status
	m.state.Started, m.state.Restarts = time.Now(), m.state.Restarts+1
}

// announce records that the container runs, tells rbox, and serves those who
// have requests from now on.
func (m *monitor) announce() error {
	m.mu.Lock()
	err := m.saveStarted()
	m.mu.Unlock()
	if err == nil && m.Plan.Namespaces.JoinUser != 0 { // its pid was not known before
		err = m.writePidFile(m.child.Pid)
	}
	if err != nil {
		m.child.Kill()
		return err
	}
	m.releaseStreams()
	m.watch() // whoever hears of the start may record what it does next
	m.first.sendStarted(m.child.Pid)
	go m.listen()
	go m.serve(m.first)
	if m.Timeout > 0 {
		time.AfterFunc(time.Duration(m.Timeout)*time.Second, func() {
			m.halt()
			m.end(unix.SIGKILL)
		})
	}
	return nil
}

// saveStarted records that process 1 runs.
func (m *monitor) saveStarted() error {
	start, err := startTime(m.child.Pid)
	if err != nil {
		return err
	}
	m.state = State{
		Name: m.state.Name, Restarts: m.state.Restarts, Stopped: m.state.Stopped,
		Pid: m.child.Pid, StartTime: start, BootID: bootID(), Started: time.Now(), Monitor: os.Getpid(),
		Networks: m.attached, Wanted: m.state.Wanted, Limits: m.state.Limits, Restart: m.state.Restart,
	}
	if m.group != nil {
		m.state.Cgroup = m.group.Dir
	}
	if m.Health.args() != nil {
		m.state.Health = &Health{Status: Starting}
	}
	return m.saveState()
}

// watch starts what goes on beside the program until it ends.
func (m *monitor) watch() {
	m.mu.Lock()
	m.over = make(chan struct{})
	for _, u := range m.uplinks {
		go m.guard(u, m.over)
	}
	m.mu.Unlock()
	if m.Health.args() != nil {
		go m.checkHealth(m.over)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.event("start", nil)
}

// saveState writes the state. That of a container that nobody keeps may be
// read half written: it is then read as not there.
func (m *monitor) saveState() error {
	if m.AutoRemove {
		return writeState(m.Dir, m.state)
	}
	return replaceState(m.Dir, m.state)
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
	if m.Restart.Name != "" { // the next run gets what is to be preserved, too
		closeFiles(m.streams[:3])
	} else {
		m.once = m.Direct || len(m.streams) > 3
		closeFiles(m.streams)
	}
	if null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		unix.Dup3(null, 2, 0)
		unix.Close(null)
	}
}

// finish waits for the container's end, records it and tells all who wait. It
// reports whether the container is to be started again.
func (m *monitor) finish() (again bool) {
	status := m.await()
	m.terminal.deafen() // before anybody can know of the end
	close(m.over)
	m.disconnect()
	m.mu.Lock()
	again = m.wantsRestart(status)
	m.state.Pid, m.state.Paused, m.state.Restarting = 0, false, again
	m.state.Finished, m.state.ExitStatus = time.Now(), status
	m.account()
	var err error
	if !m.AutoRemove {
		err = m.saveState()
	}
	m.died(status)
	m.mu.Unlock()
	if m.PidFile != "" {
		os.Remove(m.PidFile)
	}
	m.awaitGuests()
	if m.console != nil {
		m.console.finish(m.staying(again))
	}
	if err != nil {
		m.first.send(message{Notice: "the container's end is not recorded: " + err.Error()})
	}
	if !again {
		m.leaveCgroup()
		m.doom()
	}
	m.tell(message{Ended: &ended{status, again}})
	return again
}

// latePause is between looks for programs that entered a container while it ended.
const latePause = 50 * time.Millisecond

// awaitGuests waits for the ends of further programs: they use the tree, and
// their clients are to hear of it. Without a pid namespace of the container's
// one that was about to start lives on.
func (m *monitor) awaitGuests() {
	if m.sharesPids == 0 {
		m.guests.Wait()
		return
	}
	gone := make(chan struct{})
	go func() {
		m.guests.Wait()
		close(gone)
	}()
	for {
		select {
		case <-gone:
			return
		case <-time.After(latePause):
			killOthers(m.sharesPids)
		}
	}
}

// staying is the one viewer who stays for the next run; the others' connection
// ends with this one.
func (m *monitor) staying(again bool) *viewer {
	if !again {
		return nil
	}
	m.first.mu.Lock()
	defer m.first.mu.Unlock()
	return m.first.viewer
}

// await returns the status of process 1, or of the failure to start it again.
func (m *monitor) await() int {
	if m.child == nil {
		return m.state.ExitStatus
	}
	m.awaitEnd() // until it is reaped its pid is its own
	if m.sharesPids != 0 && (m.group == nil || m.group.Kill() != nil) {
		killOthers(m.sharesPids)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ws, err := m.child.Wait()
	m.child = nil
	switch {
	case err != nil:
		return killed
	case ws.Signaled():
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// awaitEnd waits for the end of process 1, and meanwhile does on this, the main
// thread what onMain is asked to do.
func (m *monitor) awaitEnd() {
	if len(m.Plan.Namespaces.TimeOffsets) == 0 {
		m.child.AwaitEnd()
		return
	}
	ended := make(chan struct{})
	go func() {
		m.child.AwaitEnd()
		close(ended)
	}()
	for {
		select {
		case f := <-m.main:
			f()
		case <-ended:
			return
		}
	}
}

// onMain calls f, for a container with clocks of its own on the main thread:
// only the children of that one have them. A thread of many cannot join a time
// namespace, and a process of the container's user namespace may not join ours.
func (m *monitor) onMain(f func() error) error {
	if len(m.Plan.Namespaces.TimeOffsets) == 0 {
		return f()
	}
	m.mu.Lock()
	over := m.over
	m.mu.Unlock()
	done := make(chan error, 1)
	select {
	case m.main <- func() { done <- f() }:
		return <-done
	case <-over:
		return errNotRunning
	}
}

// tell sends msg to all clients that may wait for the container.
func (m *monitor) tell(msg message) {
	m.mu.Lock()
	list := []*client{m.first}
	for c := range m.clients {
		list = append(list, c)
	}
	m.mu.Unlock()
	for _, c := range list {
		if !c.busy() {
			c.send(msg)
		}
	}
}

// doom makes a container that nobody is to see again one that is being
// removed: its name is free, and no command finds it or its volumes.
func (m *monitor) doom() {
	if !m.AutoRemove {
		return
	}
	m.listening.Do(func() {}) // nobody can connect any more; or the socket in the folder is waited for
	m.mu.Lock()
	m.event("destroy", nil)
	name := Info{Config: m.Config, State: m.state}.Name()
	m.mu.Unlock()
	dir, err := m.home.doomNamed(m.ID, name)
	if err != nil {
		m.first.send(message{Notice: "remove the container: " + err.Error()})
		return
	}
	m.Dir = dir
	if err := m.doomVolumes(filepath.Dir(m.home.Dir)); err != nil {
		m.first.send(message{Notice: "remove the container's volumes: " + err.Error()})
	}
}

// unmount takes the container's tree away.
func (m *monitor) unmount() {
	if m.fuse != nil {
		m.fuse.Unmount()
		m.fuse = nil
	}
	if m.tree != nil {
		m.tree.Close()
		m.tree = nil
	}
	if unix.Unmount(m.scratch, 0) != nil { // mounts are on it, or it is in use
		unix.Unmount(m.scratch, unix.MNT_DETACH)
	}
}

// cleanUp deletes the folder of a doomed container. rbox does not wait for it;
// if we are killed, the next rbox goes on. The mounts end with our namespace.
func (m *monitor) cleanUp() error {
	if m.fuse != nil {
		m.fuse.Unmount()
	}
	if !m.AutoRemove {
		os.Remove(filepath.Join(m.Dir, controlName))
		return nil
	}
	if m.Plan.Root.Driver == "dir" || len(m.Volumes) > 0 { // mount points cannot be deleted while they are some
		unix.Unmount(m.scratch, unix.MNT_DETACH)
	}
	err := m.removeVolumes(filepath.Dir(m.home.Dir))
	keepToRemoving(m.Dir)
	return errors.Join(err, removeFolder(m.Dir, m.config))
}

// keepToRemoving lets this thread, from here on, do nothing with files but what removeFolder
// does in dir: what is deleted was made by a container. Earlier the monitor can have no such
// fence, since it could not mount inside, and the container would be in it, too.
func keepToRemoving(dir string) {
	const remove = landlock.Read | landlock.List | landlock.Remove | landlock.Rmdir
	f := landlock.Fence{Rules: []landlock.Rule{{Path: filepath.Dir(dir), Rights: landlock.List | landlock.Rmdir}, {Path: dir, Rights: remove}}}
	if to := writtenElsewhere(dir); to != "" {
		f.Rules = append(f.Rules, landlock.Rule{Path: filepath.Dir(to), Rights: landlock.List | landlock.Rmdir}, landlock.Rule{Path: to, Rights: remove})
	}
	_, _ = f.AroundThread() // nothing depends on it
}
