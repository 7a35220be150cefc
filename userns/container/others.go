package container

import (
	"os"
	"strconv"

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
	for found := ns != 0; found; {
		found = false
		dir, err := os.Open("/proc")
		if err != nil {
			return
		}
		names, _ := dir.Readdirnames(-1)
		dir.Close()
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil && mountNamespace(pid) == ns {
				found = killIn(ns, pid) || found
			}
		}
	}
}

// killIn kills pid, should it by now be another process only if that is in the
// mount namespace ns, too.
func killIn(ns uint64, pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == unix.ENOSYS { // before Linux 5.3
		return unix.Kill(pid, unix.SIGKILL) == nil
	}
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return mountNamespace(pid) == ns && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}
