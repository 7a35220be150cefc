package container

import (
	"errors"
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
	c := processState(s.Monitor)
	return c == 'T' || c == 't'
}

// isOver tells whether the process that s names has ended, which its monitor has
// not recorded yet, or did not live to: the kernel kills the process before the
// last thread of a killed monitor lets go of the lock.
func (s State) isOver() bool {
	return s.Pid != 0 && (!s.alive() || processState(s.Pid) == 'Z')
}

// processState is field 3 of /proc/PID/stat (proc_pid_stat(5)), 0 without one.
func processState(pid int) byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if i := strings.LastIndexByte(string(b), ')'); err == nil && i >= 0 && i+2 < len(b) {
		return b[i+2]
	}
	return 0
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
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The command's name is in brackets and may hold anything.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return 0, errors.New("unreadable /proc/PID/stat")
	}
	return strconv.ParseUint(f[n-3], 10, 64)
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
