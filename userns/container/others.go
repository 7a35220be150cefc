package container

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountNamespace identifies the mount namespace of a process, 0 if it has ended.
func mountNamespace(pid int) uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/mnt", &st) != nil {
		return 0
	}
	return st.Ino
}

// killOthers ends what is left of a container without a pid namespace of its
// own, where the kernel does not end it with process 1: the processes in its
// mount namespace, until there are none.
func killOthers(ns uint64) {
	if ns != 0 {
		killThose(func(pid int) bool { return mountNamespace(pid) == ns })
	}
}

// killStrays is killOthers for a container whose monitor was killed and could
// not: its processes are those whose root directory is the container's, which
// names the folder that its writable layer lies in.
func killStrays(c *Config) {
	if c.ID == "" || c.Plan.Namespaces.Own("pid") {
		return
	}
	killThose(func(pid int) bool { return strings.Contains(rootMount(pid), "/"+c.ID+"/") })
}

// rootMount is the line of /proc/PID/mountinfo for what is mounted on the
// process's root directory: "ID PARENT DEVICE ROOT / ..." (proc_pid_mountinfo(5)).
func rootMount(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			return line
		}
	}
	return ""
}

// killThose kills the processes that belong, until there are none.
func killThose(belongs func(pid int) bool) {
	for found := true; found; {
		found = false
		dir, err := os.Open("/proc")
		if err != nil {
			return
		}
		names, _ := dir.Readdirnames(-1)
		dir.Close()
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil && belongs(pid) {
				found = killIf(belongs, pid) || found
			}
		}
	}
}

// killIf kills pid, should it by now be another process only if that belongs, too.
func killIf(belongs func(pid int) bool, pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ENOSYS { // before Linux 5.3
		return unix.Kill(pid, unix.SIGKILL) == nil
	}
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return belongs(pid) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}
