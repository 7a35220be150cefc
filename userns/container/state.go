package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// alive tells whether the process that s names still is the same and runs.
func (s State) alive() bool {
	if s.Pid == 0 || s.BootID != bootID() {
		return false
	}
	start, err := startTime(s.Pid)
	return err == nil && start == s.StartTime
}

// monitorLives tells whether the process that s names as the monitor still is
// that of the container id.
func (s State) monitorLives(id string) bool {
	if s.Monitor == 0 || s.BootID != bootID() {
		return false
	}
	line, err := os.ReadFile("/proc/" + strconv.Itoa(s.Monitor) + "/cmdline")
	return err == nil && strings.HasPrefix(string(line), monitorName+"\x00"+id+"\x00")
}

// monitorStopped tells whether a signal has stopped the monitor.
func (s State) monitorStopped() bool {
	f := statFields(s.Monitor)
	return f != nil && (f[0] == "T" || f[0] == "t")
}

// IsOver tells whether the process that s names has ended, which its monitor has
// not recorded yet, or did not live to: the kernel kills the process before the
// last thread of a killed monitor lets go of the lock.
func (s State) IsOver() bool {
	return s.Pid != 0 && (!s.alive() || isZombie(s.Pid))
}

// isZombie tells whether pid has ended and nobody has waited for it. Its first
// thread alone may have ended: for good, or while another calls execve(2).
func isZombie(pid int) bool {
	f := statFields(pid)
	return f != nil && f[0] == "Z" && f[20-3] == "1"
}

// bootID is the kernel's random name of this boot.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// startTime is field 22 of /proc/PID/stat (proc_pid_stat(5)), clock ticks since boot.
func startTime(pid int) (uint64, error) { return statField(pid, 22) }

// statField is a number of /proc/PID/stat, after the command's name, which is the second.
func statField(pid, n int) (uint64, error) {
	f := statFields(pid)
	if f == nil {
		return 0, fmt.Errorf("there is no process %d", pid)
	}
	return strconv.ParseUint(f[n-3], 10, 64)
}

// statFields are those of /proc/PID/stat (proc_pid_stat(5)) from the third on, the
// state, and 20 at least; nil if there is no such process.
func statFields(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	// The command's name is in brackets and may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 {
		return nil
	}
	return f
}

// Name is what the container is called now.
func (i Info) Name() string {
	if i.State.Name != "" {
		return i.State.Name
	}
	return i.Config.Name
}

// Status is the container's in Docker's words (Engine API, ContainerState).
func (i Info) Status() string {
	s := i.State
	switch {
	case i.Running && s.Paused:
		return "paused"
	case i.Running && s.Restarting:
		return "restarting"
	case i.Running:
		return "running"
	case s.Started.IsZero() && s.Error == "":
		return "created"
	}
	return "exited"
}

// killed is the status of a container whose end nobody could record: its
// monitor was killed with it, or the host went down.
const killed = 137

// end makes s the state of a container that does not run, whatever was recorded.
func (s *State) end() {
	if s.Finished.Before(s.Started) || s.Pid != 0 || s.Restarting {
		s.ExitStatus = killed
	}
	s.Pid, s.Paused, s.Restarting = 0, false, false
}
