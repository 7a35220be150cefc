package container

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
	"rbox/userns"
)

// A Launch is a container about to run.
type Launch struct {
	Folder   *Folder
	Config   Config
	Layers   *os.File   // lock of the image's layers, or nil
	Network  *os.File   // executable of the network process, if Config.Networks need it
	Preserve []*os.File // descriptors 3 and on of the container
	Fresh    bool       // it has just been made
	// Unwritten leaves its config.json to Run: nothing that outlasts a kill of this
	// process needs it.
	Unwritten bool
	Detach    bool // it runs on when this process ends
	Streams
	Notice func(string)
}

// A Monitor is a container's monitor that waits for the container, so that it
// starts while rbox still finds out what to run. It ends by itself if this
// process does.
type Monitor struct {
	outer   *userns.Outer
	stage   string
	cmd     *userns.Cmd
	control *os.File
}

// monitorName is what a monitor is called in lists of processes; its container's
// id comes next.
const monitorName = "rbox-monitor"

// stageCommand prepares the stage executable. One processor is enough for what
// it does, and to start with one is quicker than to change to it.
func stageCommand(outer *userns.Outer, stage string) *userns.Cmd {
	cmd := outer.Command(stage)
	cmd.Env = append(cmd.Env, "GOMAXPROCS=1")
	return cmd
}

// StartMonitor starts the monitor of the container id in h from the stage executable.
func StartMonitor(h *Home, outer *userns.Outer, stage, id string) (*Monitor, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	control, far := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer far.Close()
	cmd := stageCommand(outer, stage)
	cmd.Args = []string{monitorName, id, h.mountpoint()}
	cmd.NewMount = true
	cmd.Locked = true  // a container can have its processes run it: #!/proc/self/exe
	cmd.Survive = true // it ends the container in order
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{far, outer.Lock()}
	if err := cmd.Start(); err != nil {
		control.Close()
		return nil, err
	}
	return &Monitor{outer, stage, cmd, control}, nil
}

// Abandon ends a monitor that got no container.
func (m *Monitor) Abandon() {
	m.control.Close()
	m.cmd.Wait()
}

// Run starts the container. With Detach it returns once that runs; else when
// it has ended, and is removed if it is to be, with its exit status, or when the
// user detaches from it. An error means that it did not start, or that the
// monitor was lost; *Failure carries a status of its own. If this process ends
// in the foreground of the container, the container does.
func (m *Monitor) Run(l *Launch) (status int, err error) {
	if err := m.hand(l); err != nil {
		return 0, m.lost(l)
	}
	if l.Unwritten { // while it starts
		if err := l.Folder.Write(l.Config); err != nil {
			l.Notice("other commands do not see the container: " + err.Error())
		}
		Record(l.Folder.home, Info{Config: l.Config}, "create", nil)
	}
	l.Folder.Close() // the monitor has the lock, and must be the last to
	// Until we listen for them, a signal ends us, and with us what has been started.
	s := &session{Streams: l.Streams, control: int(m.control.Fd()), notice: l.Notice, detach: l.Detach, starting: true}
	status, err = s.serve()
	if errors.Is(err, io.EOF) {
		err = m.lost(l)
	}
	return status, err
}

// hand gives the monitor the container and all that it is to hold.
func (m *Monitor) hand(l *Launch) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	streams := []*os.File{null, os.Stdout, os.Stderr}
	if l.Input {
		streams[0] = os.Stdin
	}
	if l.Detach {
		streams = []*os.File{null, null, null}
	}
	plan, err := handOver(l.Config)
	if err != nil {
		return err
	}
	defer plan.Close()
	files := append([]*os.File{l.Folder.config, plan}, streams...)
	files = append(files, l.Preserve...)
	if l.Layers != nil {
		files = append(files, l.Layers)
	}
	if l.Network != nil {
		files = append(files, l.Network)
	}
	return send(int(m.control.Fd()), message{Run: &order{
		Dir: l.Folder.Dir, Fresh: l.Fresh, Detach: l.Detach, Direct: l.Direct, Watch: !l.Detach && !l.Direct && l.Output, Input: l.Input,
		Networked: l.Network != nil,
	}}, files...)
}

// lost cleans up after a monitor that was killed.
func (m *Monitor) lost(l *Launch) error {
	m.control.Close() // should it live after all
	m.cmd.Wait()
	if l.Config.AutoRemove {
		// Its container goes with it; the next command would remove the folder too.
		l.Folder.config.Close()
		Remove(l.Folder.home, m.outer, m.stage, l.Config.ID, true)
	}
	return errLost()
}

// errLost says that the monitor is gone, and with it the container.
func errLost() error {
	return &Failure{Text: "the container's monitor was killed", Status: killed}
}

// PickDriver tries the storage drivers for writable layers in dir, on the
// host's behalf and as root of the outer user namespace. The choice carries stamp.
func PickDriver(outer *userns.Outer, stage, dir, stamp string) (rootfs.Choice, error) {
	var choice rootfs.Choice
	r, w, err := os.Pipe()
	if err != nil {
		return choice, err
	}
	defer r.Close()
	cmd := stageCommand(outer, stage)
	cmd.Args = []string{"rbox-probe", dir, stamp}
	cmd.NewMount = true
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	err = cmd.Start()
	w.Close()
	if err != nil {
		return choice, err
	}
	err = json.NewDecoder(r).Decode(&choice)
	if status, waitErr := cmd.Wait(); waitErr != nil || status != 0 {
		err = fmt.Errorf("try the storage drivers in %s: failed", dir)
	}
	return choice, err
}

// ProbeMain is the other side of PickDriver.
func ProbeMain(dir, stamp string) error {
	return json.NewEncoder(os.Stdout).Encode(rootfs.Choose(dir, stamp))
}

// Sweep removes what killed monitors left of containers that were to be
// removed when they end.
func Sweep(h *Home, outer *userns.Outer, stage string) error {
	for _, id := range h.Dead() {
		if err := Remove(h, outer, stage, id, false); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes the container id. One that runs is an error, or is killed if
// force is set.
func Remove(h *Home, outer *userns.Outer, stage, id string, force bool) error {
	var failed error
	err := RemoveAll(h, outer, stage, []string{id}, force, func(_ string, err error) { failed = err })
	return errors.Join(err, failed)
}

// RemoveAll is Remove of many, several at a time. It calls done for each, as
// soon as it is removed or cannot be.
func RemoveAll(h *Home, outer *userns.Outer, stage string, ids []string, force bool, done func(id string, err error)) error {
	const atOnce = 1000 // of 64 digits: far below what one command line takes
	for len(ids) > atOnce {
		if err := RemoveAll(h, outer, stage, ids[:atOnce], force, done); err != nil {
			return err
		}
		ids = ids[atOnce:]
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := stageCommand(outer, stage)
	cmd.Args = append([]string{"rbox-remove", h.Dir}, ids...)
	if force {
		cmd.Args[0] = "rbox-remove-running"
	}
	cmd.Stdout, cmd.Stderr = w, os.Stderr
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	told := 0
	for lines := bufio.NewScanner(r); lines.Scan(); told++ {
		id, why, _ := strings.Cut(lines.Text(), " ")
		if why != "" {
			done(id, fmt.Errorf("remove container %s: %s", Short(id), why))
		} else {
			done(id, nil)
		}
	}
	if _, err := cmd.Wait(); err != nil {
		return err
	}
	if told < len(ids) {
		return fmt.Errorf("remove containers: the process that does it was killed")
	}
	return nil
}
