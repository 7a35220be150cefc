package idmap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// An ExhaustedError reports that no more namespaces of a kind can be made.
type ExhaustedError struct {
	Kind    string // "network"
	Setting string // its limit: "user.max_net_namespaces"
	Limit   string // what that is here
	Err     error
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("no %s namespace: %s (%s) is used up (%v)", e.Kind, e.Setting, e.Limit, e.Err)
}

// Unwrap is the kernel's own error.
func (e *ExhaustedError) Unwrap() error { return e.Err }

// Hint is how to have more.
func (e *ExhaustedError) Hint() string {
	more := twice(e.Limit)
	if e.Limit == "0" {
		more = "28633"
	}
	return "end other containers, or as root: sysctl -w " + e.Setting + "=" + more
}

// limited are the namespaces that have limits of their own (namespaces(7)), but for user
// namespaces.
var limited = []struct {
	kind, setting string
	flag          int
}{
	{"network", "user.max_net_namespaces", unix.CLONE_NEWNET},
	{"mount", "user.max_mnt_namespaces", unix.CLONE_NEWNS},
	{"PID", "user.max_pid_namespaces", unix.CLONE_NEWPID},
	{"IPC", "user.max_ipc_namespaces", unix.CLONE_NEWIPC},
	{"UTS", "user.max_uts_namespaces", unix.CLONE_NEWUTS},
	{"cgroup", "user.max_cgroup_namespaces", unix.CLONE_NEWCGROUP},
}

// exhausted finds out which kind of namespace it was, of those that one clone(2) was to make,
// that there are too many of: it makes one of each, if we may. nil: none of these.
func exhausted(err error) error {
	if !errors.Is(err, unix.ENOSPC) {
		return nil
	}
	for _, l := range limited {
		made := make(chan error)
		go func() {
			runtime.LockOSThread() // for ever: the namespace goes with the thread
			made <- unix.Unshare(l.flag)
		}()
		if <-made == unix.ENOSPC {
			limit, _ := os.ReadFile("/proc/sys/" + strings.ReplaceAll(l.setting, ".", "/"))
			return &ExhaustedError{l.kind, l.setting, strings.TrimSpace(string(limit)), err}
		}
	}
	return nil
}
