//go:build !front

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rbox/cgroupv2"
	"rbox/idmap"
)

// patient is the host under examination: the doctor's means to look and to
// try. Tests swap them to walk every rung.
type patient struct {
	data, exe, user string
	uid             int
	runtime         func() (string, error) // the runtime directory, made
	place           func() (string, error) // of layers, made; "" is the data directory

	read      func(name string) ([]byte, error)
	exists    func(name string) bool
	getenv    func(name string) string
	mapIDs    func() mapped
	tryInside func(ids idmap.Maps, scratch string) (map[string]*Fault, error)
	cgroup    func(uid int) cgroups
	ping      func() error
}

// mapped is what became of the ladder of ids: the maps that the kernel took.
type mapped struct {
	maps    idmap.Maps // none if err is set
	skipped []error
	err     error // not even one id: there is no user namespace
}

// cgroups is what there is to make a container's cgroup of.
type cgroups struct {
	own     cgroupv2.Report
	err     error    // own could not be read
	manager string   // socket of the user's systemd, "" if it does not answer
	dir     string   // its cgroup, "" if that is not in sight
	managed []string // controllers that it has from the system's
}

// examine tries everything. It changes nothing but the data directory, which
// it makes if it is missing.
func (p *patient) examine() Diagnosis {
	d := Diagnosis{Host: p.facts()}
	ids := p.mapIDs()
	scratch, dataErr := p.scratch()
	if dataErr == nil {
		defer os.RemoveAll(scratch)
	}
	inside, insideErr := map[string]*Fault{}, ids.err
	if insideErr == nil {
		inside, insideErr = p.tryInside(ids.maps, scratch)
	}
	// Ubuntu's AppArmor lets the namespace be made and forbids its use.
	if f := inside["mount"]; f != nil && insideErr == nil {
		insideErr = errors.New(f.Why)
	}
	d.Needs = append(d.Needs, p.userNamespace(inside["mount"], insideErr), p.ids(ids))
	if insideErr != nil {
		inside = nil
	}
	d.Needs = append(d.Needs, namespaces(inside))
	d.Needs = append(d.Needs, p.dataDirectory(dataErr))
	store := func(n Need) Need { return n }
	if inside != nil && dataErr == nil {
		store = p.layerStore(ids.maps, inside)
	}
	for _, l := range ladders {
		if l.needsData && dataErr != nil {
			d.Needs = append(d.Needs, Need{Name: l.name, State: Untried})
			continue
		}
		n := l.climb(inside)
		if n.Name == layerStore {
			n = store(n)
		}
		d.Needs = append(d.Needs, n)
	}
	d.Needs = append(d.Needs, p.pings(), p.ports(), p.cgroups(), p.runtimeDirectory(), p.lingering())
	return d
}

// scratch makes a directory where the store lives.
func (p *patient) scratch() (string, error) {
	if err := os.MkdirAll(p.data, 0o700); err != nil {
		return "", err
	}
	return os.MkdirTemp(p.data, ".doctor-")
}

func (p *patient) userNamespace(mount *Fault, err error) Need {
	n := Need{Name: "user namespace", Rung: "a new one", State: Best}
	if err == nil {
		return n
	}
	n.Rung, n.State = "", Fatal
	if mount != nil {
		n.Skipped = []Fault{{"a new one", mount.Why, mount.Cures}}
	} else {
		n.Skipped = []Fault{p.fault("a new one", err)}
	}
	return n
}

// ids tells which ids a container gets.
func (p *patient) ids(m mapped) Need {
	n := Need{Name: "ids"}
	const all = "all subordinate ranges"
	for _, err := range m.skipped {
		n.Skipped = append(n.Skipped, p.fault(all, err))
	}
	switch {
	case m.err != nil:
		n.State = Untried
	case m.maps.Single:
		n.State, n.Rung = Lower, "your own id alone (all files look like root's)"
	default:
		n.State, n.Rung = Best, fmt.Sprintf("%d uids, %d gids", idCount(m.maps.UIDs), idCount(m.maps.GIDs))
		if len(n.Skipped) > 0 {
			n.State = Lower
		}
	}
	return n
}

func idCount(maps []idmap.Mapping) (n uint64) {
	for _, m := range maps {
		n += uint64(m.Count)
	}
	return n
}

// namespaceKinds are the namespaces of a container beside its user namespace, and
// whether none runs without.
var namespaceKinds = []struct {
	name  string
	vital bool
}{{"mount", true}, {"pid", true}, {"ipc", true}, {"uts", true}, {"network", false}, {"cgroup", false}, {"time", false}}

func namespaces(inside map[string]*Fault) Need {
	n := Need{Name: "namespaces", State: Best}
	if inside == nil {
		n.State = Untried
		return n
	}
	var have []string
	for _, k := range namespaceKinds {
		f := inside[k.name]
		if f == nil {
			have = append(have, k.name)
			continue
		}
		n.Skipped = append(n.Skipped, *f)
		if k.vital {
			n.State = Fatal
		} else if n.State == Best {
			n.State = Lower
		}
	}
	n.Rung = strings.Join(have, ", ")
	return n
}

// systemd tells whether systemd runs this host.
func (p *patient) systemd() bool { return p.exists("/run/systemd/system") }

// dataDirectory tells whether the data directory can be written.
func (p *patient) dataDirectory(err error) Need {
	if err == nil {
		return Need{Name: "data directory", Rung: p.data, State: Best}
	}
	f := Fault{Rung: p.data, Why: err.Error(), Cures: []Cure{{Do: "export RBOX_ROOT=/a/directory/you/can/write"}}}
	return Need{Name: "data directory", State: Fatal, Skipped: []Fault{f}}
}

// ladder is a need whose rungs are tried inside the user namespace, best
// first. bottom is the rung that needs no trial, if there is one.
type ladder struct {
	name      string
	rungs     []string // names of probes
	bottom    string
	needsData bool
}

const layerStore = "layer store"

var ladders = []ladder{
	{"root file system", []string{"overlay", "fuse-overlayfs", "copy by reflink"}, "copy", true},
	{layerStore, []string{"files of all ids"}, "the data directory, at a loss", true},
	{"/proc", []string{"fresh proc"}, "the host's /proc", false},
	{"/sys", []string{"fresh sysfs"}, "the host's /sys, read-only", false},
	{"init program", []string{"sealed memfd"}, "read-only bind", false},
	{"network", []string{byTap, byVeth, bySlirp4netns, byPasta}, "the host's", false},
	{"FUSE device", []string{"/dev/fuse"}, "", false},
}

// layerStore finds the place of layers. Where that is not the data directory,
// what inside says of drivers is of the place then. It returns what tells of the
// place in the need.
func (p *patient) layerStore(maps idmap.Maps, inside map[string]*Fault) func(Need) Need {
	same := func(n Need) Need { return n }
	if inside["files of all ids"] == nil && p.getenv(layersVariable) == "" {
		return same
	}
	place, err := p.place()
	if none := (*NoPlaceError)(nil); errors.As(err, &none) {
		return func(n Need) Need {
			n.Rung, n.State = "", Fatal
			if none.Lone {
				n.Rung, n.State = "the data directory, for your own id alone", Lower
			}
			n.Skipped = append(n.Skipped, p.fault("elsewhere", err))
			return n
		}
	}
	if err != nil || place == "" { // other needs tell of other errors
		return same
	}
	if scratch, err := os.MkdirTemp(place, ".doctor-"); err == nil {
		defer os.RemoveAll(scratch)
		if there, err := p.tryInside(maps, scratch); err == nil {
			for _, probe := range []string{"overlay", "fuse-overlayfs", "copy by reflink"} {
				inside[probe] = there[probe]
			}
		}
	}
	return func(n Need) Need {
		n.Rung = place
		return n
	}
}

// climb returns the best rung of l that works, and how the others fare.
func (l ladder) climb(inside map[string]*Fault) Need {
	n := Need{Name: l.name, State: Best}
	if inside == nil {
		n.State = Untried
		return n
	}
	for _, rung := range l.rungs {
		switch f := inside[rung]; {
		case f == nil && n.Rung == "":
			n.Rung = rung
		case f == nil:
			n.Spare = append(n.Spare, rung)
		case n.Rung == "":
			n.State = Lower
			n.Skipped = append(n.Skipped, *f)
		default:
			n.Broken = append(n.Broken, *f)
		}
	}
	switch {
	case n.Rung == "" && l.bottom == "":
		n.State = Lost
	case n.Rung == "":
		n.Rung = l.bottom
	case len(l.rungs) > 1 && l.bottom != "":
		n.Spare = append(n.Spare, l.bottom)
	}
	return n
}

// limitControllers are those of the limits that people use, allControllers of
// all that there are.
var (
	limitControllers = []string{"cpu", "memory", "pids"}
	allControllers   = []string{"cpu", "cpuset", "io", "memory", "pids"}
)

// cgroups tells how containers can be limited. They run without.
func (p *patient) cgroups() Need {
	const scope, subtree = "systemd user scope", "writable subtree"
	c := p.cgroup(p.uid)
	n := Need{Name: "cgroup", State: Best, Rung: scope}
	why := "systemd --user does not answer"
	if c.manager != "" {
		missing := without(limitControllers, c.managed)
		if len(missing) == 0 {
			if c.dir != "" {
				n.Rung += " in " + c.dir
			}
			n.Rung += " with " + strings.Join(c.managed, ", ")
			if lacks := without(allControllers, c.managed); len(lacks) > 0 {
				n.Rung += ", without " + strings.Join(lacks, ", ")
			}
			return n
		}
		why = "systemd --user has no " + strings.Join(missing, ", ")
	}
	n.Skipped = append(n.Skipped, Fault{scope, why, p.delegationCures(c)})
	n.State, n.Rung = Lower, subtree
	switch missing := c.own.Missing(limitControllers...); {
	case c.err != nil:
		why = c.err.Error()
	case c.own.Blocked != "":
		why = c.own.Blocked
	case len(missing) > 0:
		why = fmt.Sprintf("%s has no %s", c.own.Dir, strings.Join(missing, ", "))
		if c.own.Mode == cgroupv2.Hybrid {
			why += ": cgroup version 1 holds them"
		}
	default:
		n.Rung += " " + c.own.Dir + " with " + strings.Join(c.own.Controllers, ", ")
		return n
	}
	n.Skipped = append(n.Skipped, Fault{Rung: subtree, Why: why})
	n.State, n.Rung = Lost, ""
	return n
}

// without returns the words of all that are not in some.
func without(all, some []string) []string {
	var missing []string
	for _, s := range all {
		if !slices.Contains(some, s) {
			missing = append(missing, s)
		}
	}
	return missing
}

// detectCgroup looks at our cgroup and at the user's systemd.
func detectCgroup(uid int) cgroups {
	var c cgroups
	c.own, c.err = cgroupv2.Detect()
	for _, socket := range []string{
		filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "systemd/private"),
		fmt.Sprintf("/run/user/%d/systemd/private", uid),
	} {
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err == nil {
			conn.Close()
			c.manager = socket
			break
		}
	}
	dir := fmt.Sprintf("%s/user.slice/user-%d.slice/user@%[2]d.service", c.own.Mount, uid)
	if b, err := os.ReadFile(dir + "/cgroup.controllers"); err == nil {
		c.dir, c.managed = dir, strings.Fields(string(b))
	}
	return c
}

// runtimeDirectory tells where what need not outlive a boot is kept.
func (p *patient) runtimeDirectory() Need {
	n := Need{Name: "runtime directory", State: Best}
	dir, err := p.runtime()
	if err != nil {
		n.State, n.Skipped = Fatal, []Fault{p.fault("any", err)}
		return n
	}
	n.Rung = dir
	xdg := p.getenv("XDG_RUNTIME_DIR")
	if p.getenv("RBOX_RUNTIME") != "" || xdg != "" && strings.HasPrefix(dir, filepath.Clean(xdg)+"/") {
		return n
	}
	f := Fault{Rung: "$XDG_RUNTIME_DIR", Why: "it is not set"}
	usual := fmt.Sprintf("/run/user/%d", p.uid)
	switch {
	case xdg != "":
		f.Why = xdg + " is not a directory of ours that nobody else may write to"
	case p.exists(usual):
		f.Cures = []Cure{{Do: "export XDG_RUNTIME_DIR=" + usual}}
	case p.systemd():
		f.Cures = []Cure{{Do: "log in by ssh or a console instead of su or sudo"}, p.linger()}
	}
	n.State, n.Skipped = Lower, []Fault{f}
	return n
}

// lingerDir has a file for each user who lingers; logind keeps it.
const lingerDir = "/var/lib/systemd/linger/"

// lingers tells whether the user's systemd stays while nobody is logged in.
func (p *patient) lingers() bool { return p.exists(lingerDir + p.user) }

// lingering tells what becomes of containers in the background when the user
// logs out.
func (p *patient) lingering() Need {
	n := Need{Name: "lingering", State: Best}
	switch {
	case !p.systemd():
		n.Rung = "not needed: no systemd ends what runs at logout"
	case p.lingers():
		n.Rung = "units of yours start at boot and run on after logout"
	default:
		why := "systemd starts no unit of yours at boot; at your last logout it ends them and, with KillUserProcesses=yes, all containers"
		stay := Cure{Do: "systemd-run --user --scope rbox run -d IMAGE, for a container that KillUserProcesses=yes is not to end"}
		n.State, n.Skipped = Lost, []Fault{{"after logout", why, []Cure{stay, p.linger()}}}
	}
	return n
}
