package confine

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// IPCSettings are the sysctls of an IPC namespace (ipc_namespaces(7)), beside
// those of message queues, fs.mqueue.
var IPCSettings = [...]string{
	"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
	"kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
}

// A SysctlError says why a container cannot have a setting of its own.
type SysctlError struct{ Name, Why, Advice string }

func (e *SysctlError) Error() string { return "--sysctl " + e.Name + ": " + e.Why }

// Hint is what to do instead.
func (e *SysctlError) Hint() string { return e.Advice }

// ParseSysctl reads NAME=VALUE. The name comes back with dots between its parts;
// as sysctl(8) has it, a name whose first separator is a slash has slashes
// between them, and in the other form a slash stands for a dot. kind is the
// namespace, as in /proc/PID/ns, that has the setting.
func ParseSysctl(spec string) (name, value, kind string, err error) {
	name, value, ok := strings.Cut(spec, "=")
	if !ok || value == "" {
		return "", "", "", fmt.Errorf("--sysctl %s: want NAME=VALUE", spec)
	}
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		name = swapped(name)
	}
	if file := SysctlFile(name); path.Clean(file) != file {
		return "", "", "", fmt.Errorf("--sysctl %s: %q is not the name of a setting", spec, name)
	}
	switch {
	case strings.HasPrefix(name, "net."):
		kind = "net"
	case slices.Contains(IPCSettings[:], name), strings.HasPrefix(name, "fs.mqueue."):
		kind = "ipc"
	case name == "kernel.hostname", name == "kernel.domainname":
		kind = "uts"
	default:
		return "", "", "", &SysctlError{name, "it is a setting of the whole host, and no namespace has its own",
			"an administrator sets it: sysctl -w " + name + "=" + value}
	}
	return name, value, kind, nil
}

// SysctlFile is where the setting is, in /proc/sys.
func SysctlFile(name string) string { return "/proc/sys/" + swapped(name) }

// swapped is name with its dots and slashes in each other's place.
func swapped(name string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, name)
}
