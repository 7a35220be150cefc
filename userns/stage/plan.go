// Package stage turns a container's plan into what happens between the host
// and the user's program: the mounts that the monitor makes, then a program of
// system calls for the process that becomes the container's first.
package stage

import (
	"rbox/idmap"
	"rbox/rootfs"
)

// A Plan is all that the monitor needs to know, decided beforehand in the
// host's namespaces. It is handed over as JSON.
type Plan struct {
	Scratch    string // an empty directory of the host, for a tmpfs that is the monitor's alone
	Root       Root
	Files      []File
	Mounts     []rootfs.Mount // in order
	ShmSize    int64          // /dev/shm, bytes
	Devices    []Device
	ReadOnly   bool // the root file system
	Namespaces Namespaces
	Process    Process
	Hostname   string
	Masked     []string // paths hidden from the container
	Locked     []string // paths made read-only
	Sysctls    [][2]string
}

// Target is where the monitor mounts the container's root.
func (p *Plan) Target() string { return p.Scratch + "/root" }

// Root says what becomes the container's /.
type Root struct {
	// Driver is "overlay" or "fuse-overlayfs", of Lowers (lowest first),
	// Upper and Work; or "dir", a bind of Dir.
	Driver      string
	Lowers      []string
	Upper, Work string
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
	ReadOnly       bool
}

// Namespaces that differ from the rule: a new one of each kind but time.
type Namespaces struct {
	// UIDs and GIDs map the container's user namespace into the outer one.
	UIDs, GIDs []idmap.Mapping
	Single     bool // one id alone: the container is told that chown worked
	// JoinUser is a process whose user namespace the container shares; 0: none.
	JoinUser    int
	HostNetwork bool
	// TimeOffsets, "monotonic" and "boottime", in seconds (time_namespaces(7)).
	TimeOffsets map[string]int64
}

// Process is the user's program.
type Process struct {
	Args         []string
	Env          []string
	Cwd          string
	User         string // "", name, uid, either with ":" and group (name or gid)
	KeepGroups   bool   // keep the caller's supplementary groups
	Groups       []string
	Terminal     bool
	Rows, Cols   uint16 // of the terminal at first
	Init         bool   // rbox's own init stays as process 1
	Preserve     int    // descriptors beyond 2 to keep
	Rlimits      []Rlimit
	Capabilities uint64 // bounding set; bit n is capability n
}

// Rlimit is one resource limit (getrlimit(2)); ^0 is no limit.
type Rlimit struct {
	Resource   int
	Soft, Hard uint64
}
