package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/idmap"
	"rbox/rootfs"
)

// The doctor's probes are this program run again, in a test the test binary.
func init() {
	if os.Args[0] == probeName {
		os.Exit(probeMain(os.Args[1:]))
	}
}

// healthy is a host that grants everything.
func healthy(t *testing.T) *patient {
	xdg := t.TempDir()
	full := idmap.Maps{
		UIDs: []idmap.Mapping{{Inside: 0, Outside: 1000, Count: 1}, {Inside: 1, Outside: 100000, Count: 65536}},
		GIDs: []idmap.Mapping{{Inside: 0, Outside: 1000, Count: 1}, {Inside: 1, Outside: 100000, Count: 65536}},
	}
	return &patient{
		data: filepath.Join(t.TempDir(), "rbox"), exe: "/usr/bin/rbox", user: "kim", uid: 1000,
		runtime: func() (string, error) { return xdg + "/rbox", nil },
		place:   func() (string, error) { return "", nil },
		read:    func(string) ([]byte, error) { return nil, os.ErrNotExist },
		exists:  func(name string) bool { return name == "/run/systemd/system" || name == "/var/lib/systemd/linger/kim" },
		getenv: func(name string) string {
			return map[string]string{"XDG_RUNTIME_DIR": xdg}[name]
		},
		mapIDs:    func() mapped { return mapped{maps: full} },
		tryInside: inside(),
		ping:      func() error { return nil },
		cgroup: func(int) cgroups {
			return cgroups{own: cgroupv2.Report{Mode: cgroupv2.Unified}, manager: "/run/user/1000/systemd/private", managed: []string{"cpu", "memory", "pids"}}
		},
	}
}

// inside makes the probes of these names fail.
func inside(names ...string) func(idmap.Maps, string) (map[string]*Fault, error) {
	return func(idmap.Maps, string) (map[string]*Fault, error) {
		faults := map[string]*Fault{}
		for _, name := range names {
			faults[name] = &Fault{Rung: name, Why: "it fails", Cures: cureOf(name, unix.ENOSPC)}
		}
		return faults, nil
	}
}

func TestExamine(t *testing.T) {
	denied := idmap.ExplainUserNS(unix.EPERM)
	elsewhere := t.TempDir()
	for name, tc := range map[string]struct {
		change func(*patient)
		// want has, for each need that is not "ok", its state and rung.
		want  map[string]string
		fatal bool
	}{
		"healthy": {change: func(*patient) {}},
		"one id": {
			change: func(p *patient) {
				p.mapIDs = func() mapped {
					err := &idmap.NoSubIDsError{User: "kim", File: "/etc/subuid", Free: 100000}
					return mapped{maps: idmap.Maps{Single: true}, skipped: []error{err}}
				}
			},
			want: map[string]string{"ids": "lower your own id alone (all files look like root's)"},
		},
		"no user namespaces": {
			change: func(p *patient) { p.mapIDs = func() mapped { return mapped{err: denied} } },
			want: map[string]string{
				"user namespace": "fatal ", "ids": "untried ", "namespaces": "untried ", "root file system": "untried ", "layer store": "untried ",
				"/proc": "untried ", "/sys": "untried ", "init program": "untried ", "network": "untried ", "FUSE device": "untried ",
			},
			fatal: true,
		},
		"user namespaces of no use": {
			change: func(p *patient) { p.tryInside = inside("mount") },
			want: map[string]string{
				"user namespace": "fatal ", "namespaces": "untried ", "root file system": "untried ", "layer store": "untried ",
				"/proc": "untried ", "/sys": "untried ", "init program": "untried ", "network": "untried ", "FUSE device": "untried ",
			},
			fatal: true,
		},
		"no time namespace": {
			change: func(p *patient) { p.tryInside = inside("time") },
			want:   map[string]string{"namespaces": "lower mount, pid, ipc, uts, network, cgroup"},
		},
		"no PID namespace": {
			change: func(p *patient) { p.tryInside = inside("pid") },
			want:   map[string]string{"namespaces": "fatal mount, ipc, uts, network, cgroup, time"},
			fatal:  true,
		},
		"no tun": {
			change: func(p *patient) { p.tryInside = inside(byTap, byPasta) },
			want:   map[string]string{"network": "lower embedded stack, by a veth pair"},
		},
		"no ping, no low ports": {
			change: func(p *patient) {
				p.ping = func() error { return unix.EACCES }
				p.read = func(name string) ([]byte, error) {
					text, ok := map[string]string{"/proc/sys/net/ipv4/ping_group_range": "1\t0\n", "/proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n"}[name]
					if !ok {
						return nil, os.ErrNotExist
					}
					return []byte(text), nil
				}
			},
			want: map[string]string{"ping": "lower to the gateway, and between containers"},
		},
		"no overlay": {
			change: func(p *patient) { p.tryInside = inside("overlay") },
			want:   map[string]string{"root file system": "lower fuse-overlayfs"},
		},
		"copies": {
			change: func(p *patient) { p.tryInside = inside("overlay", "fuse-overlayfs") },
			want:   map[string]string{"root file system": "lower copy by reflink"},
		},
		"whole copies": {
			change: func(p *patient) { p.tryInside = inside("overlay", "fuse-overlayfs", "copy by reflink") },
			want:   map[string]string{"root file system": "lower copy"},
		},
		"the lower rungs": {
			change: func(p *patient) {
				p.tryInside = inside("files of all ids", "fresh proc", "fresh sysfs", "sealed memfd", byTap, byVeth, bySlirp4netns, byPasta, "/dev/fuse")
			},
			want: map[string]string{
				"layer store": "lower the data directory, at a loss", "/proc": "lower the host's /proc", "/sys": "lower the host's /sys, read-only",
				"init program": "lower read-only bind", "network": "lower the host's", "FUSE device": "none ",
			},
		},
		"layers elsewhere": {
			change: func(p *patient) {
				p.place = func() (string, error) { return elsewhere, nil }
				p.tryInside = func(ids idmap.Maps, scratch string) (map[string]*Fault, error) {
					if strings.HasPrefix(scratch, elsewhere) {
						return map[string]*Fault{}, nil
					}
					return inside("files of all ids", "overlay", "copy by reflink")(ids, scratch)
				}
			},
			want: map[string]string{"layer store": "lower " + elsewhere},
		},
		"no place for layers": {
			change: func(p *patient) {
				p.tryInside = inside("files of all ids")
				p.place = func() (string, error) { return "", &NoPlaceError{Why: "NFS takes none"} }
			},
			want:  map[string]string{"layer store": "fatal "},
			fatal: true,
		},
		"read-only home": {
			change: func(p *patient) { p.data = "/proc/nothing/rbox" },
			want:   map[string]string{"data directory": "fatal ", "root file system": "untried ", "layer store": "untried "},
			fatal:  true,
		},
		"no systemd, a subtree of ours": {
			change: func(p *patient) {
				p.cgroup = func(int) cgroups {
					return cgroups{own: cgroupv2.Report{Mode: cgroupv2.Unified, Dir: "/sys/fs/cgroup/kim", Controllers: []string{"cpu", "memory", "pids"}}}
				}
			},
			want: map[string]string{"cgroup": "lower writable subtree /sys/fs/cgroup/kim with cpu, memory, pids"},
		},
		"systemd without controllers, nothing of ours": {
			change: func(p *patient) {
				p.cgroup = func(int) cgroups {
					return cgroups{own: cgroupv2.Report{Mode: cgroupv2.Unified, Blocked: "no"}, manager: "/run/x", managed: []string{"memory"}}
				}
			},
			want: map[string]string{"cgroup": "none "},
		},
		"no runtime directory of the session": {
			change: func(p *patient) {
				p.getenv = func(string) string { return "" }
				p.runtime = func() (string, error) { return "/home/kim/run", nil }
			},
			want: map[string]string{"runtime directory": "lower /home/kim/run"},
		},
		"no lingering": {
			change: func(p *patient) { p.exists = func(name string) bool { return name == "/run/systemd/system" } },
			want:   map[string]string{"lingering": "none "},
		},
		"no systemd to linger": {change: func(p *patient) { p.exists = func(string) bool { return false } }},
		"no runtime directory at all": {
			change: func(p *patient) { p.runtime = func() (string, error) { return "", errors.New("no") } },
			want:   map[string]string{"runtime directory": "fatal "},
			fatal:  true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy(t)
			tc.change(p)
			d := p.examine()
			got := map[string]string{}
			for _, n := range d.Needs {
				if n.State == Best {
					if len(n.Skipped) > 0 || n.Rung == "" {
						t.Errorf("%+v is called ok", n)
					}
					continue
				}
				got[n.Name] = string(n.State) + " " + n.Rung
				if n.State != Untried && len(n.Skipped) == 0 {
					t.Errorf("%s: no reason given", n.Name)
				}
			}
			if tc.want == nil {
				tc.want = map[string]string{}
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
			var unfit *UnfitError
			if errors.As(d.err(), &unfit) != tc.fatal {
				t.Errorf("err() = %v", d.err())
			}
			if left, _ := os.ReadDir(p.data); len(left) > 0 {
				t.Errorf("left in the data directory: %v", left)
			}
		})
	}
}

// Who does not linger learns how a container outlives a logout.
func TestLingeringCures(t *testing.T) {
	p := healthy(t)
	p.exists = func(name string) bool { return name == "/run/systemd/system" }
	n := p.lingering()
	if len(n.Skipped) != 1 || len(n.Skipped[0].Cures) != 2 ||
		!strings.HasPrefix(n.Skipped[0].Cures[0].Do, "systemd-run --user --scope rbox run -d ") || n.Skipped[0].Cures[1].Do != "loginctl enable-linger kim" {
		t.Errorf("%+v", n)
	}
}

func TestCuresOf(t *testing.T) {
	const exe = "/home/kim/bin/rbox"
	for name, tc := range map[string]struct {
		err    error
		admin  bool
		do     string
		script string // a part of it; "" if there is none
	}{
		"no line": {&idmap.NoSubIDsError{User: "kim", File: "/etc/subuid", Free: 165536}, true,
			"usermod --add-subuids 165536-231071", "grep -qs '^kim:' /etc/subuid || echo 'kim:165536:65536' >>/etc/subuid"},
		"no newuidmap": {&idmap.HelperError{Name: "newuidmap", Cure: "as root: apt-get install uidmap"}, true,
			"apt-get install uidmap", "apt-get install -y uidmap"},
		"setuid bit gone": {&idmap.HelperError{Name: "newuidmap", Path: "/bin/newuidmap", Cure: "as root: chmod u+s /bin/newuidmap"}, true,
			"chmod u+s /bin/newuidmap", "chmod u+s /bin/newuidmap"},
		"no_new_privs": {&idmap.HelperError{Name: "newuidmap", Path: "/bin/newuidmap", Cure: "start it elsewhere"}, false,
			"start it elsewhere", ""},
		"sysctl": {&idmap.NoUserNSError{Cause: idmap.CauseDebian, Cure: "as root: sysctl -w x"}, true,
			"sysctl -w x", "sysctl -w kernel.unprivileged_userns_clone=1"},
		"AppArmor": {&idmap.NoUserNSError{Cause: idmap.CauseAppArmor, Cure: "as root: install"}, true,
			"install", `profile rbox "/home/kim/bin/rbox" flags=(unconfined)`},
		"overlay's module": {&rootfs.DriverError{Driver: rootfs.Overlay, Err: unix.ENODEV, Cure: "as root: modprobe overlay"}, true,
			"modprobe overlay", "/etc/modules-load.d/rbox-overlay.conf"},
		"NFS": {&rootfs.DriverError{Driver: rootfs.Overlay, Err: unix.EINVAL, Cure: "set RBOX_ROOT to"}, false, "set RBOX_ROOT to", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := curesOf(tc.err, exe)
			if len(got) != 1 || got[0].Admin != tc.admin || !strings.Contains(got[0].Do, tc.do) {
				t.Fatalf("got %+v, want one of %q", got, tc.do)
			}
			if (tc.script == "") != (got[0].Script == "") || !strings.Contains(got[0].Script, tc.script) {
				t.Errorf("script %q lacks %q", got[0].Script, tc.script)
			}
		})
	}
	if got := curesOf(errors.New("no"), exe); got != nil {
		t.Errorf("an error without a hint is cured by %v", got)
	}
}

func TestCureOf(t *testing.T) {
	for name, tc := range map[string]struct {
		probe string
		err   error
		want  string
	}{
		"namespaces used up": {"mount", unix.ENOSPC, "user.max_mnt_namespaces"},
		"of another kind":    {"time", unix.ENOSPC, "user.max_time_namespaces"},
		"tun's mode":         {byTap, unix.EACCES, "chmod 666 /dev/net/tun"},
		"no veth":            {byVeth, fmt.Errorf("make a veth pair: %w", unix.EOPNOTSUPP), "modprobe veth"},
		"no packet sockets":  {byVeth, unix.EAFNOSUPPORT, "modprobe af_packet"},
		"no slirp4netns":     {bySlirp4netns, errors.New("it is not installed"), "slirp4netns"},
		"no pasta":           {byPasta, errors.New("it is not installed"), "passt"},
		"no tun":             {byTap, unix.ENOENT, "modprobe tun"},
		"fuse's mode":        {"/dev/fuse", unix.EACCES, "chmod 666 /dev/fuse"},
		"no fuse":            {"/dev/fuse", unix.ENODEV, "modprobe fuse"},
		"memfd":              {"sealed memfd", unix.EACCES, "vm.memfd_noexec=1"},
		"NFS":                {"files of all ids", unix.EPERM, "RBOX_ROOT"},
		"masked proc":        {"fresh proc", unix.EPERM, "unmask=ALL"},
	} {
		t.Run(name, func(t *testing.T) {
			got := cureOf(tc.probe, tc.err)
			if len(got) != 1 || !strings.Contains(got[0].Do, tc.want) {
				t.Errorf("got %+v, want %q", got, tc.want)
			}
		})
	}
}

// The root file system's rungs are tried each, whichever is taken.
func TestClimbTriesAll(t *testing.T) {
	const overlay, fuse, reflink, whole = "overlay", "fuse-overlayfs", "copy by reflink", "copy"
	root := ladders[slices.IndexFunc(ladders, func(l ladder) bool { return l.name == "root file system" })]
	for name, tc := range map[string]struct {
		fails                  []string
		rung                   string
		skipped, spare, broken []string
	}{
		"all":            {rung: overlay, spare: []string{fuse, reflink, whole}},
		"no overlay":     {[]string{overlay}, fuse, []string{overlay}, []string{reflink, whole}, nil},
		"no FUSE either": {[]string{overlay, fuse}, reflink, []string{overlay, fuse}, []string{whole}, nil},
		"overlay alone":  {[]string{fuse, reflink}, overlay, nil, []string{whole}, []string{fuse, reflink}},
		"none":           {[]string{overlay, fuse, reflink}, whole, []string{overlay, fuse, reflink}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			faults, _ := inside(tc.fails...)(idmap.Maps{}, "")
			n := root.climb(faults)
			if n.Rung != tc.rung || !slices.Equal(rungs(n.Skipped), tc.skipped) ||
				!slices.Equal(n.Spare, tc.spare) || !slices.Equal(rungs(n.Broken), tc.broken) {
				t.Errorf("got %+v, want %+v", n, tc)
			}
		})
	}
}

func rungs(faults []Fault) (names []string) {
	for _, f := range faults {
		names = append(names, f.Rung)
	}
	return names
}

// sick is a diagnosis with each kind of thing in it.
func sick() Diagnosis {
	return Diagnosis{
		Host: Facts{Kernel: "6.18", User: "kim", UID: 1000, Data: "/home/kim/.local/share/rbox", FileSystem: "NFS"},
		Needs: []Need{
			{Name: "user namespace", Rung: "a new one", State: Best,
				Spare: []string{"two", "three"}, Broken: []Fault{{"four", "torn", []Cure{{Do: "mend it"}}}}},
			{Name: "root file system", Rung: "copy", State: Lower, Skipped: []Fault{
				{"overlay", "NFS: invalid argument", []Cure{{Do: "set RBOX_ROOT"}}},
				{"fuse-overlayfs", "bad\nnews", []Cure{{Admin: true, Do: "install it", Script: "echo one"}, {Admin: true, Do: "think"}}},
			}},
			{Name: "cgroup", State: Lost, Skipped: []Fault{{"scope", "again", []Cure{{Admin: true, Do: "install it", Script: "echo one"}}}}},
			{Name: "/proc", State: Untried},
		},
	}
}

func TestWriteDiagnosis(t *testing.T) {
	var b strings.Builder
	writeDiagnosis(&b, sick())
	want := `Linux 6.18, kim (uid 1000), data in /home/kim/.local/share/rbox (NFS)

ok       user namespace       a new one
           else two, three
           else not four: torn
             you: mend it
lower    root file system     copy
           not overlay: NFS: invalid argument
             you: set RBOX_ROOT
           not fuse-overlayfs: bad news
             administrator: install it
             administrator: think
none     cgroup               -
           not scope: again
             administrator: install it
untried  /proc                -

Containers run here; 2 of 4 needs could be met better.
rbox doctor --fix-script prints the administrator's part as a script.
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestFixScript(t *testing.T) {
	got := fixScript(sick())
	for _, want := range []string{"#!/bin/sh\n", "\n# root file system: bad news\necho one\n", "# by hand: think\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %q", got, want)
		}
	}
	if strings.Count(got, "echo one") != 1 || strings.Contains(got, "RBOX_ROOT") {
		t.Errorf("%s\nrepeats a step, or has one of the user's", got)
	}
	if got := fixScript(Diagnosis{}); !strings.Contains(got, "nothing to do") {
		t.Errorf("for a healthy host:\n%s", got)
	}
}

// Every script is one that a shell can read, and none lets a name out of its
// quotes.
func TestScriptsAreShell(t *testing.T) {
	p := healthy(t)
	p.user = "k'im; touch /tmp/x"
	d := Diagnosis{Host: Facts{User: p.user + "\ntouch /tmp/y"}, Needs: []Need{{Name: "all"}}}
	add := func(cures ...Cure) {
		d.Needs[0].Skipped = append(d.Needs[0].Skipped, Fault{"x", "y", cures})
	}
	add(p.linger())
	add(curesOf(&idmap.NoSubIDsError{User: p.user, File: "/etc/subuid", Free: 1}, p.exe)...)
	add(curesOf(&idmap.HelperError{Name: "newuidmap", Cure: "as root: x"}, p.exe)...)
	for _, cause := range []string{idmap.CauseCount, idmap.CauseDebian, idmap.CauseAppArmor} {
		add(Cure{Admin: true, Do: cause, Script: userNSScript(cause, p.exe)})
	}
	for _, do := range []string{"modprobe overlay", "modprobe fuse", "chmod 666 /dev/fuse", "apt-get install fuse-overlayfs"} {
		add(Cure{Admin: true, Do: do, Script: driverScript(do)})
	}
	for _, name := range []string{"mount", byTap, byVeth, "sealed memfd"} {
		add(cureOf(name, unix.ENOSPC)...)
		add(cureOf(name, unix.EACCES)...)
	}
	add(p.delegationCures(cgroups{own: cgroupv2.Report{Mode: cgroupv2.Unified}, manager: "x"})...)
	script := fixScript(d)
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n%s", err, out, script)
	}
	if strings.Contains(script, "\ntouch") || !strings.Contains(script, `'k'\''im; touch /tmp/x'`) {
		t.Errorf("a name leaves its quotes:\n%s", script)
	}
}

func TestDoctorHere(t *testing.T) {
	app := &App{Root: t.TempDir(), Runtime: t.TempDir()}
	var out strings.Builder
	app.Stdout = &out
	err := (&DoctorCmd{Format: "json"}).Run(app)
	var unfit *UnfitError
	if err != nil && !errors.As(err, &unfit) {
		t.Fatal(err)
	}
	var d Diagnosis
	if err := json.Unmarshal([]byte(out.String()), &d); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if unfit != nil {
		t.Skipf("no container runs here: %v", unfit)
	}
	if i := slices.IndexFunc(d.Needs, func(n Need) bool { return n.State == Untried }); i >= 0 {
		t.Errorf("%s was not tried", d.Needs[i].Name)
	}
	for _, n := range d.Needs {
		for _, f := range n.Skipped {
			if strings.Contains(f.Why, "the probe") {
				t.Errorf("%s: %s", n.Name, f.Why)
			}
		}
	}
	if left, _ := os.ReadDir(app.Root); len(left) > 0 {
		t.Errorf("left in the data directory: %v", left)
	}
}
