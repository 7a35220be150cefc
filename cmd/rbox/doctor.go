//go:build !front

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/rootfs"
)

// DoctorCmd is `rbox doctor`: it tries what containers need and tells what
// this host grants, what it does not, and what would cure it.
type DoctorCmd struct {
	Format    string `enum:"text,json" default:"text" help:"text, or json with all that was found."`
	FixScript bool   `help:"Print what an administrator can do as a shell script, instead of the findings."`
	Security  string `help:"Tell what confines a container, as it was asked for and as the kernel says, instead of the findings." placeholder:"CONTAINER"`
}

// Run examines the host. It fails if containers cannot run at all.
func (c *DoctorCmd) Run(app *App) error {
	if c.Security != "" {
		return c.security(app)
	}
	p := here(app)
	diagnosis := p.examine()
	switch {
	case c.FixScript:
		fmt.Fprint(app.Stdout, fixScript(diagnosis))
		return nil
	case c.Format == "json":
		enc := json.NewEncoder(app.Stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(diagnosis); err != nil {
			return err
		}
	default:
		writeDiagnosis(app.Stdout, diagnosis)
	}
	return diagnosis.err()
}

// Diagnosis is what the doctor found.
type Diagnosis struct {
	Host  Facts  `json:"host"`
	Needs []Need `json:"needs"`
}

// Facts are what the findings were found on.
type Facts struct {
	Kernel     string            `json:"kernel"`
	User       string            `json:"user"`
	UID        int               `json:"uid"`
	Data       string            `json:"data"`       // $RBOX_ROOT or its default
	FileSystem string            `json:"filesystem"` // that Data lies on
	Executable string            `json:"executable"`
	Settings   map[string]string `json:"settings"` // sysctls and the like that bear on containers
}

// Need is one thing that containers need, and the rung of its ladder that
// this host bears.
type Need struct {
	Name    string  `json:"need"`
	Rung    string  `json:"rung"` // "" if none holds
	State   State   `json:"state"`
	Skipped []Fault `json:"skipped,omitempty"` // why each better rung fails

	// The rungs below are tried, too: another host, file system or container
	// may have to stand on them.
	Spare  []string `json:"spare,omitempty"`  // those that hold
	Broken []Fault  `json:"broken,omitempty"` // those that fail
}

// State sums up a need.
type State string

// The states of a need.
const (
	Best    State = "ok"      // on the best rung
	Lower   State = "lower"   // on another: containers run, and lack something
	Lost    State = "none"    // on none: containers run without it
	Fatal   State = "fatal"   // on none: no container runs
	Untried State = "untried" // could not be tried, for want of another need
)

// Fault is why a rung fails.
type Fault struct {
	Rung  string `json:"rung"`
	Why   string `json:"why"`
	Cures []Cure `json:"cures,omitempty"`
}

// Cure is one step that would lift a rung's fault.
type Cure struct {
	Admin bool   `json:"administrator"` // only an administrator can; else the user
	Do    string `json:"do"`            // a command, or what to do in words
	// Script is Do for --fix-script: shell lines that may be run again and
	// again. "" if it is no matter of a command.
	Script string `json:"script,omitempty"`
}

// UnfitError reports that no container runs on this host.
type UnfitError struct{ Needs []Need }

func (e *UnfitError) Error() string {
	var names []string
	for _, n := range e.Needs {
		names = append(names, n.Name)
	}
	return "containers cannot run here for want of: " + strings.Join(names, ", ")
}

// Hint is the first cure.
func (e *UnfitError) Hint() string {
	for _, n := range e.Needs {
		for _, f := range n.Skipped {
			for _, c := range f.Cures {
				return c.text()
			}
		}
	}
	return "rbox doctor --fix-script"
}

func (c Cure) text() string {
	if c.Admin {
		return "as root: " + c.Do
	}
	return c.Do
}

// err is an *UnfitError if a need is Fatal.
func (d Diagnosis) err() error {
	var fatal []Need
	for _, n := range d.Needs {
		if n.State == Fatal {
			fatal = append(fatal, n)
		}
	}
	if fatal != nil {
		return &UnfitError{fatal}
	}
	return nil
}

// writeDiagnosis prints d for people: one line for each need, and below it the
// better rungs, why they fail and who can cure that, then the lower ones.
func writeDiagnosis(w io.Writer, d Diagnosis) {
	fmt.Fprintf(w, "Linux %s, %s (uid %d), data in %s (%s)\n\n", d.Host.Kernel, d.Host.User, d.Host.UID, d.Host.Data, d.Host.FileSystem)
	lower, admin := 0, false
	for _, n := range d.Needs {
		rung := n.Rung
		if rung == "" {
			rung = "-"
		}
		fmt.Fprintf(w, "%-8s %-20s %s\n", n.State, n.Name, rung)
		if n.State != Best && n.State != Untried {
			lower++
		}
		for _, f := range n.Skipped {
			admin = writeFault(w, "not", f) || admin
		}
		if len(n.Spare) > 0 {
			fmt.Fprintf(w, "           else %s\n", strings.Join(n.Spare, ", "))
		}
		for _, f := range n.Broken {
			writeFault(w, "else not", f)
		}
	}
	fmt.Fprintln(w)
	switch {
	case d.err() != nil:
		fmt.Fprintln(w, "Containers cannot run here.")
	case lower == 0:
		fmt.Fprintln(w, "Containers run here, with all they need.")
	default:
		fmt.Fprintf(w, "Containers run here; %d of %d needs could be met better.\n", lower, len(d.Needs))
	}
	if admin {
		fmt.Fprintln(w, "rbox doctor --fix-script prints the administrator's part as a script.")
	}
}

// writeFault prints one rung that fails and its cures. It tells whether one is
// an administrator's.
func writeFault(w io.Writer, not string, f Fault) (admin bool) {
	fmt.Fprintf(w, "           %s %s: %s\n", not, f.Rung, oneLine(f.Why))
	for _, c := range f.Cures {
		who := "you"
		if c.Admin {
			who, admin = "administrator", true
		}
		fmt.Fprintf(w, "             %s: %s\n", who, c.Do)
	}
	return admin
}

// here is the host that app runs on.
func here(app *App) *patient {
	p := &patient{
		data:    app.Root,
		runtime: app.runtimeDir,
		place:   app.place,
		read:    os.ReadFile,
		getenv:  os.Getenv,
		exe:     "/usr/local/bin/rbox",
	}
	if exe, err := idmap.Executable(); err == nil {
		p.exe = exe
	}
	p.uid = os.Geteuid()
	p.user = strconv.Itoa(p.uid)
	if u, err := user.LookupId(p.user); err == nil {
		p.user = u.Username
	}
	p.exists = func(name string) bool { _, err := os.Stat(name); return err == nil }
	p.mapIDs = mapIDs
	p.tryInside = tryInside
	p.cgroup, p.ping = detectCgroup, tryPing
	return p
}

// facts reads what the findings rest on.
func (p *patient) facts() Facts {
	var uts unix.Utsname
	unix.Uname(&uts)
	f := Facts{
		Kernel:     unix.ByteSliceToString(uts.Release[:]),
		User:       p.user,
		UID:        p.uid,
		Data:       p.data,
		FileSystem: rootfs.FileSystem(nearestExisting(p.data)),
		Executable: p.exe,
		Settings:   map[string]string{},
	}
	for _, name := range []string{
		"kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns", "vm.memfd_noexec",
		"user.max_user_namespaces", "user.max_mnt_namespaces", "user.max_pid_namespaces", "user.max_net_namespaces",
		"net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", "user.max_uts_namespaces", "user.max_ipc_namespaces", "user.max_cgroup_namespaces", "user.max_time_namespaces",
	} {
		if v, ok := p.sysctl(name); ok {
			f.Settings[name] = v
		}
	}
	status, _ := p.read("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if k, v, _ := strings.Cut(line, ":"); k == "Seccomp" || k == "NoNewPrivs" {
			f.Settings[k] = strings.TrimSpace(v)
		}
	}
	for name, file := range map[string]string{
		"SELinux enforcing": "/sys/fs/selinux/enforce",
		"AppArmor profile":  "/proc/self/attr/apparmor/current",
		"uid_map":           "/proc/self/uid_map",
	} {
		if b, err := p.read(file); err == nil {
			f.Settings[name] = strings.Join(strings.Fields(string(b)), " ")
		}
	}
	return f
}

// sysctl reads a sysctl by its dotted name; ok is false where there is none.
func (p *patient) sysctl(name string) (value string, ok bool) {
	b, err := p.read("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return strings.TrimSpace(string(b)), err == nil
}

// nearestExisting is the nearest directory at or above dir that exists.
func nearestExisting(dir string) string {
	for dir != "/" && dir != "." {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
