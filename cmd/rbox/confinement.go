package main

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"rbox/userns/confine"
	"rbox/userns/container"
)

// A Confinement is what the kernel says of a process (proc_pid_status(5)).
type Confinement struct {
	Effective   []string // capabilities
	Permitted   []string
	Inheritable []string
	Bounding    []string
	Ambient     []string
	NoNewPrivs  bool
	Seccomp     string // "off", "strict" or "filter"
	Filters     int    // of seccomp, in a row
	UID, GID    uint32 // effective, as this host counts
}

// A ProcessConfinement is what confines a process of rbox's own.
type ProcessConfinement struct {
	Pid          int
	Capabilities []string // ALL: all of its user namespace
	NoNewPrivs   bool
	Seccomp      string
	Filters      int
	Landlock     int  `json:",omitempty"` // the version that keeps it to its files, as it has found itself; 0: none
	Scoped       bool `json:",omitempty"` // it can signal no other process
}

// serverOf is the process that serves a network of a running container; nil if it has gone.
func serverOf(a container.Attachment) *ProcessConfinement {
	if a.Sandbox == nil {
		return nil
	}
	p := ownProcess(a.Sandbox.Pid, "rbox-network")
	if p != nil {
		p.Landlock, p.Scoped = a.Sandbox.Landlock, a.Sandbox.Scoped
	}
	return p
}

// monitorOf is the process that keeps a running container; nil if it has gone.
func monitorOf(s container.State) *ProcessConfinement { return ownProcess(s.Monitor, "rbox-monitor") }

// ownProcess asks the kernel about pid, if that is still what was started as name.
func ownProcess(pid int, name string) *ProcessConfinement {
	args, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if first, _, _ := strings.Cut(string(args), "\x00"); first != name {
		return nil
	}
	c, ok := confinementOf(pid)
	if !ok {
		return nil
	}
	p := &ProcessConfinement{Pid: pid, Capabilities: c.Effective, NoNewPrivs: c.NoNewPrivs, Seccomp: c.Seccomp, Filters: c.Filters}
	if slices.Equal(c.Effective, c.Bounding) {
		p.Capabilities = []string{"ALL"}
	}
	return p
}

// confinementOf asks the kernel about pid; ok is false if there is no such process.
func confinementOf(pid int) (c Confinement, ok bool) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil || pid <= 0 {
		return c, false
	}
	return parseConfinement(string(status)), true
}

func parseConfinement(status string) (c Confinement) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "CapEff":
			c.Effective = capabilitySet(value)
		case "CapPrm":
			c.Permitted = capabilitySet(value)
		case "CapInh":
			c.Inheritable = capabilitySet(value)
		case "CapBnd":
			c.Bounding = capabilitySet(value)
		case "CapAmb":
			c.Ambient = capabilitySet(value)
		case "NoNewPrivs":
			c.NoNewPrivs = value == "1"
		case "Seccomp":
			c.Seccomp = map[string]string{"0": "off", "1": "strict", "2": "filter"}[value]
		case "Seccomp_filters":
			c.Filters, _ = strconv.Atoi(value)
		case "Uid":
			c.UID = effectiveID(value)
		case "Gid":
			c.GID = effectiveID(value)
		}
	}
	return c
}

// capabilitySet is the set that the kernel writes in hexadecimal.
func capabilitySet(hex string) []string {
	set, _ := strconv.ParseUint(hex, 16, 64)
	return confine.CapabilityNames(set)
}

// effectiveID is the second of an id's four kinds.
func effectiveID(four string) uint32 {
	f := strings.Fields(four)
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.ParseUint(f[1], 10, 32)
	return uint32(n)
}
