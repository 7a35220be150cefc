// Package cgroupv2 knows which control groups this host gives us.
package cgroupv2

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mode is how a host mounts its control groups.
type Mode string

// The modes of systemd's documentation (systemd.io/CGROUP_DELEGATION).
const (
	Unified Mode = "v2"     // version 2 with all controllers
	Hybrid  Mode = "hybrid" // version 2 beside version 1, which has controllers
	Legacy  Mode = "v1"     // version 1 alone
	None    Mode = "none"   // no control groups in sight
)

// Report is what Detect found. Dir is "" where our cgroup cannot be seen.
type Report struct {
	Mode  Mode   `json:"mode"`
	Mount string `json:"mount,omitempty"` // where version 2 is mounted
	Path  string `json:"path,omitempty"`  // our cgroup, from the "0::" line of /proc/self/cgroup
	Dir   string `json:"dir,omitempty"`   // the directory of it

	// Controllers are those that Dir can hand to children of its own
	// (cgroup.controllers); V1 are those that version 1 holds.
	Controllers []string `json:"controllers,omitempty"`
	V1          []string `json:"v1,omitempty"`

	// Blocked tells why we cannot make cgroups below Dir; "" if we can.
	Blocked string `json:"blocked,omitempty"`
}

// Delegated tells whether we may make cgroups and limit what is in them.
func (r Report) Delegated() bool { return r.Blocked == "" && len(r.Controllers) > 0 }

// Missing returns those of controllers that a child of Dir could not have.
func (r Report) Missing(controllers ...string) []string {
	var missing []string
	for _, c := range controllers {
		if !slices.Contains(r.Controllers, c) {
			missing = append(missing, c)
		}
	}
	return missing
}

// Detect looks at the control groups of this process and changes nothing. It
// fails only if the kernel's own files cannot be read.
func Detect() (Report, error) {
	return detect(os.ReadFile, func(name string) error {
		return unix.Faccessat(unix.AT_FDCWD, name, unix.W_OK, unix.AT_EACCESS)
	})
}

// detect is Detect with the means to read a file and to ask for write access.
func detect(read func(string) ([]byte, error), writable func(string) error) (Report, error) {
	mountInfo, err := read("/proc/self/mountinfo")
	if err != nil {
		return Report{}, err
	}
	mounts, err := mountinfo.GetMountsFromReader(bytes.NewReader(mountInfo), mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return Report{}, fmt.Errorf("/proc/self/mountinfo: %w", err)
	}
	own, err := read("/proc/self/cgroup")
	if err != nil {
		return Report{}, err
	}
	r := Report{Mode: None}
	var v2 *mountinfo.Info
	for _, m := range mounts {
		if m.FSType == "cgroup2" && v2 == nil {
			v2 = m
		}
	}
	r.Path, r.V1 = parseCgroup(string(own))
	r.Mode = mode(v2 != nil, len(mounts) > 0, r.V1)
	if v2 == nil {
		r.Blocked = "cgroup version 2 is not mounted"
		return r, nil
	}
	r.Mount = v2.Mountpoint
	r.Dir = dirOf(v2.Mountpoint, v2.Root, r.Path)
	if r.Dir == "" {
		r.Blocked = fmt.Sprintf("our cgroup %s does not lie below %s, which is mounted", r.Path, v2.Root)
		return r, nil
	}
	controllers, err := read(path.Join(r.Dir, "cgroup.controllers"))
	if err != nil {
		r.Blocked = err.Error()
		return r, nil
	}
	r.Controllers = strings.Fields(string(controllers))
	r.Blocked = blocked(r.Dir, writable)
	return r, nil
}

// blocked tells which of the files that delegation hands over
// (cgroups(7), "Cgroups delegation") we cannot write.
func blocked(dir string, writable func(string) error) string {
	for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		file := path.Join(dir, name)
		if err := writable(file); err != nil {
			return fmt.Sprintf("%s: %v", file, err)
		}
	}
	return ""
}

func mode(v2, any bool, v1 []string) Mode {
	switch {
	case v2 && len(v1) > 0:
		return Hybrid
	case v2:
		return Unified
	case any:
		return Legacy
	}
	return None
}

// parseCgroup reads /proc/self/cgroup: our path in version 2 ("" if there is
// none) and the controllers that version 1 holds. A hierarchy with a name and
// no controller is systemd's own and counts for nothing.
func parseCgroup(s string) (v2 string, v1 []string) {
	for line := range strings.Lines(s) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(f) != 3:
		case f[0] == "0" && f[1] == "":
			v2 = f[2]
		default:
			for c := range strings.SplitSeq(f[1], ",") {
				if c != "" && !strings.HasPrefix(c, "name=") {
					v1 = append(v1, c)
				}
			}
		}
	}
	slices.Sort(v1)
	return v2, v1
}

// dirOf returns the directory of the cgroup own where its hierarchy's cgroup
// root is mounted on mount; "" if own does not lie in root.
func dirOf(mount, root, own string) string {
	if own == "" || strings.HasPrefix(own+"/", "/../") {
		return "" // outside of our cgroup namespace
	}
	if root == "/" {
		return path.Join(mount, own)
	}
	rest, ok := strings.CutPrefix(own+"/", root+"/")
	if !ok {
		return ""
	}
	return path.Join(mount, rest)
}
