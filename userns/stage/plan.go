// Package stage turns a container's plan into what happens between the host
// and the user's program: the mounts that the monitor makes, then a program of
// system calls for the process that becomes the container's first.
package stage

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/rootfs"
	"rbox/userns/confine"
)

// A Plan is all that the monitor needs to know, decided beforehand in the
// host's namespaces. It is handed over as JSON.
type Plan struct {
	Root       Root
	Files      []File
	Mounts     []rootfs.Mount // in order
	ShmSize    int64          // /dev/shm, bytes
	Devices    []Device
	ReadOnly   bool // the root file system
	Namespaces Namespaces
	Process    Process
	Hostname   string
	Domainname string   // of the UTS namespace
	Masked     []string // paths hidden from the container
	Locked     []string // paths made read-only
	WriteSys   bool     // /sys, with the container's cgroup, is writable where the kernel lets
	AllDevices bool     // those nodes of the host's /dev that the user may open, too
	Sysctls    [][2]string
}

// Root says what becomes the container's /.
type Root struct {
	// Driver is "overlay" or "fuse-overlayfs", of Lowers (lowest first),
	// Upper and Work; or "dir", a bind of Dir.
	Driver      string
	Lowers      []string
	Upper, Work string
	Volatile    bool // Upper need not survive: it is never synced
	Dir         string
	ReadOnly    bool // what is below Dir, all mounts
}

// File is one that rbox makes up, in the container's memory.
type File struct {
	Target string
	Text   []byte
}

// Device is a node of the host's /dev, bound into the container's.
type Device struct {
	Source, Target string
}

// Namespaces that differ from the rule: a new one of each kind but time.
type Namespaces struct {
	// UIDs and GIDs map the container's user namespace into the outer one.
	UIDs, GIDs []idmap.Mapping
	Single     bool // one id alone: the container is told that chown worked
	// JoinUser is a process whose user namespace the container shares, and the
	// namespaces of the kinds Joined ("net", "pid", "ipc", "uts"); 0: none.
	JoinUser    int
	Joined      []string
	HostNetwork bool
	NetworkPath string // file of a network namespace that it shares; "": none
	HostPID     bool
	HostIPC     bool
	HostUTS     bool
	// TimeOffsets, "monotonic" and "boottime", in seconds (time_namespaces(7)).
	TimeOffsets map[string]int64
}

// Own tells whether the container has a namespace of its own of that kind, as
// in /proc/PID/ns.
func (n *Namespaces) Own(kind string) bool {
	host := kind == "net" && (n.HostNetwork || n.NetworkPath != "") || kind == "pid" && n.HostPID || kind == "ipc" && n.HostIPC || kind == "uts" && n.HostUTS
	return !host && !slices.Contains(n.Joined, kind)
}

// Process is the user's program.
type Process struct {
	Args         []string
	Env          []string
	Cwd          string
	User         string // "", name, uid, either with ":" and group (name or gid)
	Login        *Login // gets a line in passwd and group if the image has none
	KeepGroups   bool   // keep the caller's supplementary groups
	Groups       []string
	Terminal     bool
	Rows, Cols   uint16 // of the terminal at first
	Init         bool   // rbox's own init stays as process 1
	Preserve     int    // descriptors beyond 2 to keep
	Rlimits      []Rlimit
	Capabilities uint64 // bounding set; bit n is capability n
	Ambient      uint64 // those of them that a user who is not root has from the start

	NoNewPrivileges bool // no exec gives more rights (PR_SET_NO_NEW_PRIVS)
	Seccomp         Seccomp
}

// Seccomp is the filter of system calls. None is the built-in one for
// confine.DefaultCapabilities, but for what Unlike says.
type Seccomp struct {
	// Profile is where it comes from: a file, confine.Unconfined for no filter,
	// confine.BuiltinProfile or "".
	Profile string `json:",omitempty"`
	Filter  []byte `json:",omitempty"` // struct sock_filter, one after the other
	Flags   uint32 `json:",omitempty"` // of seccomp(2), of Filter
	// Unlike are the capabilities in which the container's set differs from the
	// usual one, as far as they matter for the built-in profile.
	Unlike uint64 `json:",omitempty"`
}

// Prebuilt returns the built-in filter for a container with such capabilities,
// which the stage executable has already, if it does.
func Prebuilt(capabilities uint64) (s Seccomp, ok bool) {
	s = Seccomp{Profile: confine.BuiltinProfile, Unlike: (capabilities ^ confine.DefaultCapabilities) & confine.BuiltinDepends}
	return s, s.Unlike == 0 || confine.Builtin(capabilities) != ""
}

// filter is what the kernel is to get, "" for none.
func (s *Seccomp) filter() (code string, flags uint32) {
	switch {
	case s.Profile == confine.Unconfined:
		return "", 0
	case len(s.Filter) > 0:
		return string(s.Filter), s.Flags
	}
	code = confine.Builtin(confine.DefaultCapabilities ^ s.Unlike)
	if code == "" { // a set that only another version of rbox has a filter for
		code = confine.Builtin(0)
	}
	return code, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
}

// Login is the user as the host knows them.
type Login struct {
	Name, Home string
	UID, GID   uint32
}

// PasswdLine is the login's line of passwd(5).
func (l *Login) PasswdLine() string {
	return fmt.Sprintf("%s:x:%d:%d:%s:%s:/bin/sh\n", l.Name, l.UID, l.GID, l.Name, l.Home)
}

// GroupLine is the line of group(5) of the login's group.
func (l *Login) GroupLine() string { return fmt.Sprintf("%s:x:%d:\n", l.Name, l.GID) }

// Number is the id that file, passwd or group, lists the login by.
func (l *Login) Number(file string) uint32 {
	if file == "/etc/group" {
		return l.GID
	}
	return l.UID
}

// Rlimit is one resource limit (getrlimit(2)); ^0 is no limit.
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}
