package stage

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/userns/confine"
)

// steps names the steps of what p's first process does.
func steps(p *Plan, r Ready) (names []string) {
	program := p.Program(r)
	for i := 0; ; i++ {
		name := program.Name(i)
		if name == "start" {
			return names
		}
		names = append(names, name)
	}
}

func ready() Ready {
	return Ready{Root: "/mnt/root", Account: Account{UID: 1000, GID: 1000}, Streams: []int{0, 1, 2}, InitFile: -1, JoinUser: -1}
}

// plan is one with everything in it.
func plan() *Plan {
	p := &Plan{
		ReadOnly: true, Hostname: "box", Masked: []string{"/proc/kcore"}, Locked: []string{"/proc/sys"},
		Sysctls: [][2]string{{"net.ipv4.ip_forward", "1"}},
	}
	p.Process.Args, p.Process.Cwd = []string{"sh"}, "/work"
	p.Process.Rlimits = []Rlimit{{unix.RLIMIT_NOFILE, 10, 20}}
	p.Process.Capabilities = confine.DefaultCapabilities
	return p
}

// Each pair holds in every kind of container that has both steps.
var order = [][2]string{
	{"wait for the parent", "bind the root file system"},
	{"chdir /", "make all mounts private"}, // the masks, too
	{"make all mounts private", "drop a capability"},
	{"mount proc", "mask /proc/kcore"}, // nothing may cover the mask
	{"mount proc", "make /proc/sys read-only"},
	{"mask /proc/kcore", "pivot_root"},
	{"set sysctl net.ipv4.ip_forward", "make /proc/sys read-only"}, // it could not be set later
	{"mask /proc/kcore", "move /proc into place"},                  // where a container may reach it
	{"make /proc/sys read-only", "move /proc into place"},
	{"bind /proc/sys/net", "bind /proc/sys"},
	{"move /proc into place", "pivot_root"},
	{"keep capabilities", "set the user id"},
	{"set the user id", "set the capabilities"},
	{"set the capabilities", "raise a capability"},
	{"raise a capability", "prctl"}, // which a change of capabilities may clear
	{"pivot_root", "unmount the host's root"},
	{"unmount the host's root", "chdir /"},
	{"chdir /", "place a descriptor"},
	{"chdir /", "open /dev/pts/0"}, // the container's own
	{"chdir /", "chdir to /work"},
	{"chdir /", "make / read-only"},
	{"make / read-only", "drop a capability"},
	{"setsid", "take the terminal"},
	{"place a descriptor", "close other descriptors"},
	{"set resource limit nofile", "drop a capability"},
	{"drop a capability", "set the user id"}, // CAP_SETPCAP goes with the ids
	{"set the groups", "set the group id"},
	{"set the group id", "set the user id"},
	{"pretend that there are other ids", "set the user id"}, // it needs CAP_SYS_ADMIN
	{"set the capabilities", "install the seccomp filter"},
	{"set no_new_privs", "install the seccomp filter"},
	{"unblock signals", "install the seccomp filter"}, // nothing but exec comes after it
	{"unblock signals", "set no_new_privs"},
	{"set the user id", "prctl"}, // which a change of ids clears
	{"prctl", "find the parent alive"},
	{"find the parent alive", "exec "},
	{"reset signals", "exec "},
	{"unblock signals", "exec "},
	{"install the seccomp filter", "exec "},
}

func TestProgramOrder(t *testing.T) {
	for name, change := range map[string]func(p *Plan, r *Ready){
		"all ids":       func(*Plan, *Ready) {},
		"one id":        func(p *Plan, _ *Ready) { p.Namespaces.Single = true },
		"keep groups":   func(p *Plan, _ *Ready) { p.Process.KeepGroups = true },
		"a terminal":    func(p *Plan, r *Ready) { r.Terminal = "/dev/pts/0" },
		"its own init":  func(p *Plan, r *Ready) { r.InitFile = 9 },
		"a path":        func(p *Plan, _ *Ready) { p.Process.Args = []string{"/bin/sh"} },
		"another's ids": func(p *Plan, r *Ready) { r.JoinUser = 9 },
		"no privileges": func(p *Plan, _ *Ready) { p.Process.NoNewPrivileges = true },
		"host network":  func(p *Plan, _ *Ready) { p.Namespaces.HostNetwork = true },
	} {
		t.Run(name, func(t *testing.T) {
			p, r := plan(), ready()
			change(p, &r)
			got := steps(p, r)
			for _, pair := range order {
				is := func(prefix string) func(string) bool {
					return func(step string) bool {
						return step == prefix || strings.HasSuffix(prefix, " ") && strings.HasPrefix(step, prefix)
					}
				}
				first := slices.IndexFunc(got, is(pair[1]))
				last := len(got) - 1
				for last >= 0 && !is(pair[0])(got[last]) {
					last--
				}
				if first >= 0 && last > first {
					t.Errorf("%q at %d comes after %q at %d", pair[0], last, pair[1], first)
				}
			}
			inEvery(t, got)
			exec := slices.IndexFunc(got, func(s string) bool { return strings.HasPrefix(s, ExecStep) })
			for _, step := range got[exec:] {
				if !strings.HasPrefix(step, ExecStep) {
					t.Errorf("%q comes after exec", step)
				}
			}
		})
	}
}

// inEvery checks that the steps that confine are in every program.
func inEvery(t *testing.T, got []string) {
	t.Helper()
	for _, step := range []string{
		"wait for the parent", "make all mounts private", "pivot_root", "unmount the host's root", "mask /proc/kcore",
		"make /proc/sys read-only", "make / read-only", "close other descriptors", "drop a capability",
		"set the group id", "set the user id", "prctl", "find the parent alive", "reset signals", "install the seccomp filter",
	} {
		if !slices.Contains(got, step) {
			t.Errorf("there is no step %q", step)
		}
	}
}

func TestProgramContents(t *testing.T) {
	const path = "PATH=/a:/b:/c"
	for name, tc := range map[string]struct {
		change func(p *Plan, r *Ready)
		step   string
		want   int // how often
	}{
		"capabilities":         {func(*Plan, *Ready) {}, "drop a capability", 64 - 14},
		"all capabilities":     {func(p *Plan, _ *Ready) { p.Process.Capabilities = ^uint64(0) }, "drop a capability", 0},
		"groups":               {func(*Plan, *Ready) {}, "set the groups", 1},
		"kept groups":          {func(p *Plan, _ *Ready) { p.Process.KeepGroups = true }, "set the groups", 0},
		"groups of one id":     {func(p *Plan, _ *Ready) { p.Namespaces.Single = true }, "set the groups", 0},
		"one id":               {func(p *Plan, _ *Ready) { p.Namespaces.Single = true }, "pretend that there are other ids", 1},
		"many ids":             {func(*Plan, *Ready) {}, "pretend that there are other ids", 0},
		"seccomp":              {func(*Plan, *Ready) {}, "install the seccomp filter", 2}, // with SPEC_ALLOW, and without
		"no seccomp":           {func(p *Plan, _ *Ready) { p.Process.Seccomp.Profile = "unconfined" }, "install the seccomp filter", 0},
		"a seccomp profile":    {func(p *Plan, _ *Ready) { p.Process.Seccomp.Filter = make([]byte, 8) }, "install the seccomp filter", 1},
		"a right for seccomp":  {func(*Plan, *Ready) {}, "set the capabilities", 1},
		"root has the right":   {func(_ *Plan, r *Ready) { r.Account.UID = 0 }, "set the capabilities", 0},
		"no right is needed":   {func(p *Plan, _ *Ready) { p.Process.NoNewPrivileges = true }, "set the capabilities", 0},
		"no_new_privs":         {func(p *Plan, _ *Ready) { p.Process.NoNewPrivileges = true }, "set no_new_privs", 1},
		"new privileges":       {func(*Plan, *Ready) {}, "set no_new_privs", 0},
		"loopback":             {func(*Plan, *Ready) {}, "bring the loopback interface up", 1},
		"the host's loopback":  {func(p *Plan, _ *Ready) { p.Namespaces.HostNetwork = true }, "bring the loopback interface up", 0},
		"writable root":        {func(p *Plan, _ *Ready) { p.ReadOnly = false }, "make / read-only", 0},
		"a directory of PATH":  {func(p *Plan, _ *Ready) { p.Process.Env = []string{path} }, "exec sh", 3 + 1},
		"a path":               {func(p *Plan, _ *Ready) { p.Process.Args = []string{"./sh"} }, "exec ./sh", 1},
		"init":                 {func(_ *Plan, r *Ready) { r.InitFile = 9 }, "exec rbox-init", 1},
		"streams and kept":     {func(_ *Plan, r *Ready) { r.Kept = []int{7, 8} }, "place a descriptor", 5},
		"terminal and kept":    {func(_ *Plan, r *Ready) { r.Terminal, r.Kept = "/dev/pts/0", []int{7} }, "place a descriptor", 1},
		"another's namespaces": {func(_ *Plan, r *Ready) { r.JoinUser = 9 }, "join the user namespace", 1},
	} {
		t.Run(name, func(t *testing.T) {
			p, r := plan(), ready()
			tc.change(p, &r)
			n := 0
			for _, step := range steps(p, r) {
				if step == tc.step {
					n++
				}
			}
			if n != tc.want {
				t.Errorf("%d × %q, want %d", n, tc.step, tc.want)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	p := plan()
	const without = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP
	if got := p.Flags(); got != without|unix.CLONE_NEWNET {
		t.Errorf("%#x", got)
	}
	p.Namespaces.HostNetwork = true
	if got := p.Flags(); got != without {
		t.Errorf("with the host's network: %#x", got)
	}
}

func TestSearchPath(t *testing.T) {
	for _, tc := range []struct {
		env  []string
		want string
	}{
		{nil, DefaultPath},
		{[]string{"XPATH=/x", "PATH=/a"}, "/a"},
		{[]string{"PATH=/a", "PATH=/b"}, "/b"},
		{[]string{"PATH="}, ""},
	} {
		if got := SearchPath(tc.env); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.env, got, tc.want)
		}
	}
}

func ExampleLogin_PasswdLine() {
	fmt.Print((&Login{Name: "kim", Home: "/home/kim", UID: 1000, GID: 100}).PasswdLine())
	// Output: kim:x:1000:100:kim:/home/kim:/bin/sh
}
