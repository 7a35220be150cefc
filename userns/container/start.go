package container

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/rootfs"
	"rbox/userns"
	"rbox/userns/confine"
	"rbox/userns/stage"
)

// start clones the container's first process and waits until it has become the
// user's program.
func (m *monitor) start(account stage.Account, heard func(*client) error) error {
	if err := m.checkMapped(account); err != nil {
		return err
	}
	if err := m.unshareTime(); err != nil {
		return err
	}
	if err := m.enterCgroup(); err != nil {
		return err
	}
	if err := m.enterNetwork(); err != nil {
		return err
	}
	streams, err := m.programStreams()
	if err != nil {
		return err
	}
	ready := stage.Ready{Root: m.target(), Kernel: m.scratch, Account: account, Terminal: m.terminal.name, Streams: numbers(streams), Kept: numbers(m.streams[3:]), InitFile: -1, JoinUser: -1}
	flags := m.Plan.Flags() | unix.CLONE_NEWUSER
	if m.group != nil { // the namespace is to begin at the group, not where we are
		ready.InCgroup = true
		flags &^= unix.CLONE_NEWCGROUP
	}
	if m.initFile != nil {
		ready.InitFile = int(m.initFile.Fd())
	}
	if m.Plan.Namespaces.JoinUser != 0 {
		joined, err := m.openJoined()
		if err != nil {
			return err
		}
		defer closeFiles(joined)
		ready.JoinUser, flags = int(joined[0].Fd()), 0
		for i, kind := range m.Plan.Namespaces.Joined {
			ready.Joined = append(ready.Joined, stage.Namespace{Kind: kind, File: int(joined[1+i].Fd())})
		}
	}
	userns.RestoreNoFile()
	prepare := []func(pid int) error{func(pid int) error {
		if err := m.adjust(pid); err != nil {
			return err
		}
		if !m.Plan.Namespaces.Own("pid") { // known before it can end
			m.sharesPids = mountNamespace(pid)
		}
		if ready.JoinUser < 0 {
			if err := writeMaps(pid, m.Plan.Namespaces); err != nil {
				return err
			}
			if err := m.writePidFile(pid); err != nil { // before the program can look for it
				return err
			}
		}
		if err := m.askNetworks(pid); err != nil {
			return err
		}
		return heard(m.first)
	}}
	if len(m.uplinks) > 0 {
		ready.Networked, ready.Sysctls = true, m.networkSysctls()
		prepare = append(prepare, m.awaitNetworks)
		m.awaitUplinks()
	}
	child, err := userns.StartPrepared(m.Plan.Program(ready), flags, m.group.FD(), prepare...)
	if m.console != nil {
		closeFiles(streams)
	}
	if err != nil {
		return explain(err, account)
	}
	m.mu.Lock()
	m.child = child
	m.mu.Unlock()
	if slices.Contains(child.Notes, stage.HostProc) {
		m.first.send(message{Notice: "/proc is the host's: a fresh one is forbidden while mounts cover parts of it (" + rootfs.Covering("/proc") + ")"})
	}
	return nil
}

// openJoined opens the other container's namespaces that this one is to share,
// the user namespace first.
func (m *monitor) openJoined() (files []*os.File, err error) {
	n := &m.Plan.Namespaces
	for _, kind := range append([]string{"user"}, n.Joined...) {
		ns, err := os.Open("/proc/" + strconv.Itoa(n.JoinUser) + "/ns/" + kind)
		if err != nil {
			closeFiles(files)
			return nil, errors.New("the container whose namespaces it is to share has ended")
		}
		files = append(files, ns)
	}
	return files, nil
}

// programStreams are the descriptors 0 to 2 of the program, where it has no
// terminal: rbox's own, or pipes that lead to the console. Whoever is to see
// what it writes from the start is made a viewer.
func (m *monitor) programStreams() (streams []*os.File, err error) {
	if m.console == nil {
		return m.streams[:3], nil
	}
	if m.terminal.master == nil {
		streams, err = m.console.pipes()
	} else {
		err = m.console.lead(m.terminal)
	}
	if err == nil && m.Watch {
		m.Watch = false // a restart has the same viewers
		m.first.viewer, m.first.which, m.first.files, err = m.console.view(m.Input)
	}
	return streams, err
}

// heard waits until rbox hears the signals that are for the program.
func heard(first *client) error {
	for {
		msg, _, err := receive(first.sock)
		if err != nil || msg.Listening {
			return err
		}
	}
}

// unneeded is heard's part in a restart.
func unneeded(*client) error { return nil }

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

// enterNetwork takes the monitor to the network namespace that the plan names,
// and with it all that it clones: only from outside the container's own user
// namespace is there a way in.
func (m *monitor) enterNetwork() error {
	path := m.Plan.Namespaces.NetworkPath
	if path == "" {
		return nil
	}
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	defer ns.Close()
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_SETNS, ns.Fd(), unix.CLONE_NEWNET, 0); errno != 0 {
		return &Failure{
			Text:   fmt.Sprintf("enter the network namespace %s: %v", path, errno),
			Advice: "only one that was made below rbox's user namespace can be entered, as by: rbox unshare unshare -n sleep 1000", Status: 125,
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
	if name, ok := strings.CutPrefix(step.Step, stage.SysctlStep); ok {
		return explainSysctl(name, step.Err)
	}
	if dir, ok := strings.CutPrefix(step.Step, stage.ChdirStep); ok {
		return &Failure{Text: fmt.Sprintf("working directory %q: %v", clip(dir), step.Err), Status: 126}
	}
	if step.Step == stage.SeccompStep && (step.Err == unix.ENOSYS || step.Err == unix.EINVAL) {
		return &Failure{Text: step.Error(), Advice: "if this kernel has no seccomp filters: --security-opt seccomp=unconfined", Status: 125}
	}
	if !strings.HasPrefix(step.Step, stage.ExecStep) {
		return fmt.Errorf("start the program: %w", err)
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

// explainSysctl says why the kernel does not set the sysctl name.
func explainSysctl(name string, err unix.Errno) error {
	f := &Failure{Text: fmt.Sprintf("--sysctl %s: %v", clip(name), err), Status: 125}
	switch err {
	case unix.ENOENT:
		f.Text = fmt.Sprintf("--sysctl %s: there is no such setting in a namespace of this kernel", clip(name))
		f.Advice = "ls " + clip(confine.SysctlFile(name))
	case unix.EACCES, unix.EPERM: // of an IPC namespace before Linux 6.9
		f.Text = fmt.Sprintf("--sysctl %s: this kernel lets this host's root alone set it, even in a namespace of the container's", clip(name))
	case unix.EINVAL, unix.ERANGE:
		f.Text = fmt.Sprintf("--sysctl %s: the kernel does not take this value", clip(name))
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
