//go:build !front

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"rbox/idmap"
	"rbox/userns/confine"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// A Trait is one thing that confines a container.
type Trait struct {
	Name  string   `json:"name"`
	Asked []string `json:"asked"`           // what the container was made with
	Found []string `json:"found,omitempty"` // what the kernel says of it; nil: it does not run, or the kernel does not tell
}

// A SecurityReport is what confines one container.
type SecurityReport struct {
	Container string  `json:"container"`
	ID        string  `json:"id"`
	Pid       int     `json:"pid,omitempty"` // of its first process; 0: it does not run
	Traits    []Trait `json:"traits"`
}

// security reports what confines the container that has the name.
func (c *DoctorCmd) security(app *App) error {
	home, err := app.Home()
	if err != nil {
		return err
	}
	info, err := findContainer(home, c.Security)
	if err != nil {
		return err
	}
	report := newSecurityReport(info)
	if c.Format == "json" {
		enc := json.NewEncoder(app.Stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(report)
	}
	writeSecurity(app.Stdout, report)
	return nil
}

// newSecurityReport asks the kernel where the container runs.
func newSecurityReport(info container.Info) SecurityReport {
	r := SecurityReport{Container: info.Name(), ID: info.Config.ID, Traits: asked(info)}
	if !info.Running || info.State.Pid == 0 {
		return r
	}
	found := foundIn(info.State.Pid, info.Config.Plan)
	if found == nil { // it has just ended
		return r
	}
	r.Pid = info.State.Pid
	found[traitMonitor] = foundOwn(monitorOf(info.State))
	for _, a := range info.State.Networks {
		found[traitServer+a.Network] = foundOwn(serverOf(a))
	}
	for i := range r.Traits {
		r.Traits[i].Found = found[r.Traits[i].Name]
	}
	return r
}

// The names of traits that the kernel tells of.
const (
	traitUser       = "user"
	traitUIDs       = "user ids"
	traitGIDs       = "group ids"
	traitEffective  = "capabilities"
	traitBounding   = "capabilities to be had"
	traitAmbient    = "capabilities of a user"
	traitNewPrivs   = "no new privileges"
	traitSeccomp    = "system calls"
	traitNamespaces = "own namespaces"
	traitMasked     = "hidden paths"
	traitReadOnly   = "read-only paths"
	traitRoot       = "root file system"
	traitCgroup     = "cgroup"
	traitLabel      = "security module"
	traitMonitor    = "its monitor"
	traitServer     = "network " // and its name: the process that serves it
)

// asked is what the container was made with.
func asked(info container.Info) []Trait {
	c, p := info.Config, info.Config.Plan
	effective, bounding := capabilitiesOf(info)
	user := p.Process.User
	if user == "" {
		user = "0"
	}
	ambient := []string{}
	if len(effective) != len(bounding) {
		ambient = effective
	}
	root := "writable"
	if p.ReadOnly {
		root = "read-only"
	}
	var devices []string
	for _, d := range p.Devices {
		devices = append(devices, d.Source)
	}
	if p.AllDevices {
		devices = append(devices, "all that you may open")
	}
	return append([]Trait{
		{Name: "privileged", Asked: []string{yesNo(c.Options.Privileged)}},
		{Name: traitUser, Asked: []string{user}},
		{Name: traitUIDs, Asked: mappings(p.Namespaces.UIDs)},
		{Name: traitGIDs, Asked: mappings(p.Namespaces.GIDs)},
		{Name: traitEffective, Asked: effective},
		{Name: traitBounding, Asked: bounding},
		{Name: traitAmbient, Asked: ambient},
		{Name: traitNewPrivs, Asked: []string{yesNo(p.Process.NoNewPrivileges)}},
		{Name: traitSeccomp, Asked: []string{askedSeccomp(&p.Process)}},
		{Name: traitNamespaces, Asked: ownKinds(&p.Namespaces)},
		{Name: traitMasked, Asked: notNil(p.Masked)},
		{Name: traitReadOnly, Asked: notNil(p.Locked)},
		{Name: traitRoot, Asked: []string{root}},
		{Name: "devices", Asked: notNil(devices)},
		{Name: traitCgroup, Asked: []string{askedCgroup(info)}},
		{Name: traitLabel, Asked: []string{"none"}},
		{Name: "Landlock", Asked: []string{"none"}},
		{Name: traitMonitor, Asked: []string{"ALL"}}, // in its user namespace; what confined it would confine the container
	}, askedServers(info)...)
}

// askedServers are what the processes that serve the container's networks are to be.
func askedServers(info container.Info) (list []Trait) {
	for _, r := range info.Networks() {
		asked := []string{"seccomp filter", "no new privileges", "Landlock", "no capabilities"}
		if r.Plan.Name != "" { // which containers join and leave
			asked = append(asked[:3], "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN")
		}
		list = append(list, Trait{Name: traitServer + container.RequestName(r), Asked: asked})
	}
	return list
}

// foundOwn is what the kernel says of a process of rbox's own, in the words of askedServers.
func foundOwn(p *ProcessConfinement) (found []string) {
	if p == nil {
		return nil
	}
	found = append(found, "process "+strconv.Itoa(p.Pid))
	if p.Seccomp == "filter" {
		found = append(found, "seccomp filter")
	}
	if p.NoNewPrivs {
		found = append(found, "no new privileges")
	}
	if p.Landlock > 0 {
		found = append(found, "Landlock "+strconv.Itoa(p.Landlock))
	}
	if p.Scoped {
		found = append(found, "signals no other process")
	}
	if len(p.Capabilities) == 0 {
		found = append(found, "no capabilities")
	}
	found = append(found, p.Capabilities...)
	return found
}

// askedSeccomp is the profile of the filter.
func askedSeccomp(p *stage.Process) string {
	switch profile := p.Seccomp.Profile; profile {
	case "", confine.BuiltinProfile:
		return "Docker's default profile"
	default:
		return profile
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// mappings are ranges of ids as the container has them, and as the outer user
// namespace does.
func mappings(maps []idmap.Mapping) (list []string) {
	for _, m := range maps {
		list = append(list, mappingText(uint64(m.Inside), uint64(m.Outside), uint64(m.Count)))
	}
	return notNil(list)
}

func mappingText(inside, outside, count uint64) string {
	if count == 1 {
		return fmt.Sprintf("%d is %d", inside, outside)
	}
	return fmt.Sprintf("%d-%d are %d-%d", inside, inside+count-1, outside, outside+count-1)
}

// ownKinds are the namespaces that the container has for itself.
func ownKinds(n *stage.Namespaces) (kinds []string) {
	for _, kind := range allNamespaces {
		own := n.Own(kind)
		switch kind {
		case "time":
			own = len(n.TimeOffsets) > 0
		case "user":
			own = n.JoinUser == 0
		}
		if own {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// allNamespaces are the kinds that there are, as in /proc/PID/ns.
var allNamespaces = []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

// askedCgroup is who was to make the container's cgroup.
func askedCgroup(info container.Info) string {
	limits := info.Limits()
	switch m := info.Config.Cgroup.Manager; {
	case m != "":
		return m
	case limits.IsZero():
		return "if this host grants one"
	}
	return "with limits"
}

// foundIn is what the kernel says of the process pid, by the traits' names; nil
// if it is gone.
func foundIn(pid int, p stage.Plan) map[string][]string {
	dir := "/proc/" + strconv.Itoa(pid)
	c, ok := confinementOf(pid)
	if !ok {
		return nil
	}
	seccomp := c.Seccomp
	if c.Filters > 1 {
		seccomp = fmt.Sprintf("%d filters", c.Filters)
	}
	hidden, readOnly, root := foundPaths(dir, p)
	return map[string][]string{
		traitUser:       {fmt.Sprintf("%d:%d on this host", c.UID, c.GID)},
		traitUIDs:       foundMap(dir + "/uid_map"),
		traitGIDs:       foundMap(dir + "/gid_map"),
		traitEffective:  c.Effective,
		traitBounding:   c.Bounding,
		traitAmbient:    c.Ambient,
		traitNewPrivs:   {yesNo(c.NoNewPrivs)},
		traitSeccomp:    {seccomp},
		traitNamespaces: foundNamespaces(dir),
		traitMasked:     hidden,
		traitReadOnly:   readOnly,
		traitRoot:       {root},
		traitCgroup:     {oneLine(readText(dir + "/cgroup"))},
		traitLabel:      {foundLabel(dir)},
	}
}

func readText(path string) string {
	b, _ := os.ReadFile(path)
	return strings.Trim(string(b), "\n\x00 ")
}

// foundLabel is what a Linux security module calls the process.
func foundLabel(dir string) string {
	if label := readText(dir + "/attr/current"); label != "" {
		return label
	}
	return "none"
}

// foundMap are ranges of ids as the container has them, and as this host does.
func foundMap(path string) (list []string) {
	for line := range strings.Lines(readText(path)) {
		var inside, outside, count uint64
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 {
			list = append(list, mappingText(inside, outside, count))
		}
	}
	return notNil(list)
}

// foundNamespaces are those that we are not in.
func foundNamespaces(dir string) (kinds []string) {
	for _, kind := range allNamespaces {
		theirs, err := os.Readlink(dir + "/ns/" + kind)
		ours, oursErr := os.Readlink("/proc/self/ns/" + kind)
		if errors.Join(err, oursErr) == nil && theirs != ours {
			kinds = append(kinds, kind)
		}
	}
	return notNil(kinds)
}

// foundPaths are those paths of the plan that a mount covers, or makes
// read-only, and what / is (proc_pid_mountinfo(5)).
func foundPaths(dir string, p stage.Plan) (hidden, readOnly []string, root string) {
	hidden, readOnly, root = []string{}, []string{}, "unknown"
	for line := range strings.Lines(readText(dir + "/mountinfo")) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		point, writable := f[4], !slices.Contains(strings.Split(f[5], ","), "ro")
		switch {
		case slices.Contains(p.Masked, point):
			hidden = append(hidden, point)
		case slices.Contains(p.Locked, point) && !writable:
			readOnly = append(readOnly, point)
		case point == "/" && writable:
			root = "writable"
		case point == "/":
			root = "read-only"
		}
	}
	return hidden, readOnly, root
}

// writeSecurity prints the report for people.
func writeSecurity(w io.Writer, r SecurityReport) {
	fmt.Fprintf(w, "container %s (%s)", r.Container, container.Short(r.ID))
	if r.Pid != 0 {
		fmt.Fprintf(w, ", process %d", r.Pid)
	} else {
		fmt.Fprint(w, ", which does not run")
	}
	fmt.Fprintln(w)
	for _, t := range r.Traits {
		fmt.Fprintf(w, "\n%-24s asked  %s\n", t.Name, traitText(t.Asked))
		if t.Found != nil {
			fmt.Fprintf(w, "%-24s found  %s\n", "", traitText(t.Found))
		}
	}
}

func traitText(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	shorter := make([]string, len(list))
	for i, s := range list {
		shorter[i] = strings.TrimPrefix(s, "CAP_")
	}
	return strings.Join(shorter, ", ")
}
