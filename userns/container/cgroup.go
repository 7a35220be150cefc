package container

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
)

// Cgroup says which cgroup the container is to have, and its limits.
type Cgroup struct {
	Manager  string          `json:",omitempty"` // as cgroupv2.Request has it
	Parent   string          `json:",omitempty"`
	Limits   cgroupv2.Limits `json:",omitzero"`
	OOMScore *int            `json:",omitempty"` // oom_score_adj of its processes
	UID      int             `json:",omitempty"` // of the user, as the host counts
	Runtime  string          `json:",omitempty"` // the user's run-time directory
}

// Limits are those that hold for the container now.
func (i Info) Limits() cgroupv2.Limits {
	if i.State.Limits != nil {
		return *i.State.Limits
	}
	return i.Config.Cgroup.Limits
}

// Usage is what a container's processes have used, once it has ended.
type Usage struct {
	CPU        time.Duration `json:",omitempty"`
	MemoryPeak int64         `json:",omitempty"` // bytes
}

// enterCgroup gives the container a cgroup with its limits. On a host without
// it has none, unless that was asked for.
func (m *monitor) enterCgroup() error {
	c := &m.Cgroup
	if m.state.Limits != nil { // changed since the container was made
		c.Limits = *m.state.Limits
	}
	optional := c.Manager == "" && c.Parent == "" && c.Limits.IsZero()
	if c.Manager == cgroupv2.Disabled || optional && !cgroupv2.Available() {
		return nil
	}
	if m.group != nil { // of the last run
		if err := m.group.Renew(); err != nil {
			return err
		}
		return m.group.Apply(&c.Limits)
	}
	group, err := cgroupv2.Make(cgroupv2.Request{
		Manager: c.Manager, Parent: c.Parent, ID: m.ID, Needs: c.Limits.Controllers(),
		Pids: append([]int{os.Getpid()}, m.ownUplinks()...), UID: c.UID, Runtime: c.Runtime, Grace: m.StopTimeout,
	})
	if m.withoutCpuset(err) {
		return m.enterCgroup()
	}
	if err != nil {
		if optional {
			return nil
		}
		return err
	}
	m.group = group
	return group.Apply(&c.Limits)
}

// withoutCpuset takes the container's processors by affinity, which its programs
// could change, if the controller that would hold them there is all that a
// cgroup lacks.
func (m *monitor) withoutCpuset(err error) bool {
	var missing *cgroupv2.NotDelegatedError
	l := &m.Cgroup.Limits
	if !errors.As(err, &missing) || !slices.Equal(missing.Missing, []string{"cpuset"}) || l.CPUs == "" || l.Mems != "" {
		return false
	}
	m.affinity, l.CPUs = l.CPUs, ""
	m.first.send(message{Notice: "--cpuset-cpus binds the program's threads only: the controller cpuset is not delegated"})
	return true
}

// adjust sets what the process pid is to have from its start, and hands on to its
// children.
func (m *monitor) adjust(pid int) error {
	if m.affinity != "" {
		list, err := cgroupv2.ParseSet(m.affinity)
		if err != nil {
			return err
		}
		var set unix.CPUSet
		for _, n := range list {
			set.Set(n)
		}
		if err := unix.SchedSetaffinity(pid, &set); err != nil {
			return &os.SyscallError{Syscall: "--cpuset-cpus " + m.affinity, Err: err}
		}
	}
	if m.Cgroup.OOMScore == nil {
		return nil
	}
	score := strconv.Itoa(*m.Cgroup.OOMScore)
	err := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(score), 0)
	if errors.Is(err, fs.ErrPermission) {
		return &Failure{Text: "--oom-score-adj " + score + ": lower than rbox has it itself", Status: 125, Advice: "cat /proc/self/oom_score_adj tells the least"}
	}
	return err
}

// account keeps what the run that has ended took.
func (m *monitor) account() {
	if m.group == nil {
		return
	}
	u, err := cgroupv2.Read(m.group.Dir)
	if err != nil {
		return
	}
	m.state.Usage = &Usage{CPU: u.CPU, MemoryPeak: u.MemoryPeak}
	if u.OOMKills > 0 {
		m.state.OOMKilled = true
		m.event("oom", nil)
	}
}

// leaveCgroup removes the cgroup, with all processes that may still be in it.
func (m *monitor) leaveCgroup() {
	if m.group == nil {
		return
	}
	if err := m.group.Remove(); err != nil {
		m.first.send(message{Notice: "remove the container's cgroup: " + err.Error()})
	}
	m.group = nil
}

// pause freezes the container, or thaws it.
func (m *monitor) pause(on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.child == nil:
		return errNotRunning
	case m.group == nil:
		return errNoFreezer
	case on && m.state.Paused:
		return errors.New("the container is already paused")
	case !on && !m.state.Paused:
		return errors.New("the container is not paused")
	}
	if err := m.group.Freeze(on); err != nil {
		return err
	}
	m.state.Paused = on
	if on {
		m.event("pause", nil)
	} else {
		m.event("unpause", nil)
	}
	return m.saveState()
}

// limit changes the limits of the container while it runs.
func (m *monitor) limit(changed cgroupv2.Limits) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.child == nil:
		return errNotRunning
	case m.group == nil:
		return &Failure{Text: "cannot limit the container: it has no cgroup of its own", Status: 125, Advice: "rbox doctor tells what this host lacks"}
	}
	if err := m.group.Limit(&changed); err != nil {
		return err
	}
	limits := Info{Config: m.Config, State: m.state}.Limits().With(changed)
	m.state.Limits = &limits
	m.event("update", nil)
	return m.saveState()
}

// thaw lets a container that is paused go on.
func (m *monitor) thaw() {
	m.mu.Lock()
	paused := m.state.Paused
	m.mu.Unlock()
	if paused {
		m.pause(false)
	}
}

// errPaused answers those whose program would not start.
var errPaused = &Failure{Text: "the container is paused", Status: 125, Advice: "rbox unpause -a"}

// kill sends process 1 the signal that ends it, and all others of the container's
// with it, where it has a cgroup.
func (m *monitor) kill(sig unix.Signal) error {
	if sig == unix.SIGKILL && m.group != nil && m.group.Kill() == nil {
		return nil
	}
	return unix.Kill(m.child.Pid, sig)
}
