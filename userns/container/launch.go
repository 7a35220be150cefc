package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
	"rbox/userns"
)

// A Launch is a container about to run in the foreground.
type Launch struct {
	Outer    *userns.Outer
	Stage    string // path of the stage executable
	Folder   *Folder
	Config   Config
	Layers   *os.File   // lock of the image's layers, or nil
	Stdin    *os.File   // nil: /dev/null
	Preserve []*os.File // descriptors 3 and on of the container
	Notice   func(string)
}

// Run starts the container and returns when it has ended, with its exit
// status. An error means that it did not start, or that the monitor was lost;
// *Failure carries a status of its own. If this process ends, the container does.
func (l *Launch) Run() (status int, err error) {
	if err := l.Folder.Write(l.Config); err != nil {
		return 0, err
	}
	cmd, control, err := l.startMonitor()
	if err != nil {
		return 0, err
	}
	defer control.Close()
	// Until here a signal ends us, and with us what has been started.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded(l.Config.Plan.Process.Terminal)...)
	s := &session{Launch: l, control: int(control.Fd()), signals: signals}
	status, err = s.serve()
	if errors.Is(err, io.EOF) {
		cmd.Wait()
		return 0, l.lost()
	}
	cmd.Wait()
	return status, err
}

// startMonitor starts the monitor with all that it is to hold.
func (l *Launch) startMonitor() (*userns.Cmd, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	control, far := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer far.Close()
	plan, err := inMemory(l.Config)
	if err != nil {
		control.Close()
		return nil, nil, err
	}
	defer plan.Close()
	cmd := l.Outer.Command(l.Stage)
	cmd.Args = []string{"rbox-monitor", l.Folder.Dir}
	cmd.NewMount = true
	cmd.Survive = true // it sees that we are gone, and ends the container in order
	cmd.Stdin, cmd.Stdout, cmd.Stderr = l.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = append([]*os.File{far, plan, l.Folder.config, l.Outer.Lock(), l.Layers}, l.Preserve...)
	if err := cmd.Start(); err != nil {
		control.Close()
		return nil, nil, err
	}
	return cmd, control, nil
}

// inMemory returns a file that holds v as JSON, at its beginning.
func inMemory(v any) (*os.File, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("rbox-plan", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "plan")
	if _, err := f.Write(b); err != nil {
		return nil, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// lost cleans up after a monitor that was killed.
func (l *Launch) lost() error {
	if l.Config.AutoRemove {
		// Its container goes with it; the next command would remove the folder too.
		l.Folder.config.Close()
		Remove(l.Folder.home, l.Outer, l.Stage, l.Config.ID, true)
	}
	return &Failure{Text: "the container's monitor was killed", Status: 137}
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
	cmd := outer.Command(stage)
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
	driver, skipped := rootfs.PickDriver(dir)
	return json.NewEncoder(os.Stdout).Encode(rootfs.NewChoice(driver, skipped, stamp))
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
	cmd := outer.Command(stage)
	cmd.Args = []string{"rbox-remove", h.Dir, id}
	if force {
		cmd.Args[0] = "rbox-remove-running"
	}
	cmd.Stderr = os.Stderr
	status, err := cmd.Run()
	if err == nil && status != 0 {
		err = fmt.Errorf("remove container %s: its folder could not be deleted", Short(id))
	}
	return err
}

// forwarded lists the signals that the container gets in our place: all but
// those that are ours alone, and with a terminal those that its keys make there.
func forwarded(terminal bool) (list []os.Signal) {
	for n := unix.Signal(1); n < 65; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG, unix.SIGKILL, unix.SIGSTOP:
		case 32, 33: // the C library's own
		case unix.SIGWINCH:
			list = append(list, n)
		case unix.SIGTTIN, unix.SIGTTOU:
			if !terminal {
				list = append(list, n)
			}
		default:
			list = append(list, n)
		}
	}
	return list
}
