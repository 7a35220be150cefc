package tests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// leftovers waits until no process and no mount has to do with dir, and names
// those that are there after limit, ending the processes.
func leftovers(dir string, limit time.Duration) (names []string) {
	var pids []int
	eventually(limit, func() bool {
		before := pids
		pids = processesOf(dir)
		for _, pid := range before { // half way through exit(2) it shows nothing of what it was, but holds its locks
			if !slices.Contains(pids, pid) && alive(pid) {
				pids = append(pids, pid)
			}
		}
		return len(pids) == 0
	})
	for _, pid := range pids {
		names = append(names, describe(pid))
	}
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for line := range strings.Lines(string(mounts)) {
			if mentions(line, dir) {
				names = append(names, "mount: "+strings.TrimSpace(line))
			}
		}
	}
	return names
}

// processesOf lists the processes, but this one, whose arguments, environment,
// working folder, executable or mounts lie in dir.
func processesOf(dir string) (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && isOf(pid, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func isOf(pid int, dir string) bool {
	base := fmt.Sprintf("/proc/%d/", pid)
	if s, err := os.ReadFile(base + "stat"); err != nil || ended(s) {
		return false
	}
	for _, file := range []string{"cmdline", "environ", "mountinfo"} {
		if data, err := os.ReadFile(base + file); err == nil && mentions(string(data), dir) {
			return true
		}
	}
	for _, link := range []string{"cwd", "exe"} {
		if to, err := os.Readlink(base + link); err == nil && mentions(to, dir) {
			return true
		}
	}
	return false
}

// mentions reports whether text has the path dir, or one below it, in it.
func mentions(text, dir string) bool {
	for {
		i := strings.Index(text, dir)
		if i < 0 {
			return false
		}
		text = text[i+len(dir):]
		if text == "" || !('0' <= text[0] && text[0] <= '9') {
			return true
		}
	}
}

// ended tells by a /proc/PID/stat whether the process is a zombie. Its first
// thread is one also while another calls execve(2).
func ended(stat []byte) bool {
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return len(f) > 17 && f[0] == "Z" && f[17] == "1"
}

func describe(pid int) string {
	base := fmt.Sprintf("/proc/%d/", pid)
	comm, _ := os.ReadFile(base + "comm")
	args, _ := os.ReadFile(base + "cmdline")
	status, _ := os.ReadFile(base + "status")
	var parent string
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "PPid:") {
			parent = strings.TrimSpace(line)
		}
	}
	return fmt.Sprintf("process %d (%s) %s: %s", pid, bytes.TrimSpace(comm), parent, bytes.ReplaceAll(args, []byte{0}, []byte{' '}))
}

// children lists the processes below pid, itself not included.
func children(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		for _, f := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(all, child)
				all = append(all, children(child)...)
			}
		}
	}
	return all
}

// alive reports whether pid is a process that has not ended.
func alive(pid int) bool {
	s, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !ended(s)
}
