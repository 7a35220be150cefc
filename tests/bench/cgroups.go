package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
)

// Bars of what cgroups cost.
const (
	mostForCgroup = time.Millisecond       // for a start by cgroupfs
	mostForStats  = 100 * time.Millisecond // for a look at the containers of b.stats
)

// cgroups measures what a cgroup with limits adds to the start of a container: its
// making, filling and removal, and the child in it from its first moment.
func (b *bench) cgroups(rounds int) error {
	own, err := b.enterOwnCgroup()
	if err != nil {
		return err
	}
	defer own.leave()
	flags, resources := own.limits()
	bundle, err := b.bundle()
	if err != nil {
		return err
	}
	rbox := func(manager string, flags ...string) *contestant {
		args := append([]string{"run", "--rm", "--network", "none"}, flags...)
		return b.inCgroup("rbox, "+manager, "", b.rbox, append(args, "alpine", "true")...)
	}
	crun := func(manager, path string, option string) *contestant {
		dir, err := b.limitedBundle(bundle, manager, path, resources)
		c := b.inCgroup("crun, "+manager, "crun", "crun", option, "--root", filepath.Join(b.Run, "crun"), "run", "--bundle", dir, "bench")
		c.missing = errors.Join(c.missing, err)
		return c
	}
	all := []*contestant{
		rbox("none", "--cgroups", "disabled"),
		rbox("cgroupfs", append([]string{"--cgroup-manager", "cgroupfs"}, flags...)...),
		rbox("systemd", append([]string{"--cgroup-manager", "systemd"}, flags...)...),
		crun("none", "", "--cgroup-manager=disabled"),
		crun("cgroupfs", own.path+"/crun", "--cgroup-manager=cgroupfs"),
		crun("systemd", "user.slice:bench:crun", "--cgroup-manager=systemd"),
	}
	if _, err := os.Stat(b.userRuntime() + "/systemd/private"); err != nil {
		all[2].missing, all[5].missing = err, err
	}
	// Each among its like: the kernel is still busy with what the one before has left.
	measure(rounds, all[:3])
	measure(rounds, all[3:])
	table(os.Stdout, "start a container in a cgroup", all, nil)
	fmt.Printf("  %-42s %s\n", "what cgroupfs adds is at most 1 ms", mostOf(added(all[1], all[0]), mostForCgroup))
	fmt.Printf("  %-42s %s\n\n", "what systemd adds is no more than crun's", mostOf(added(all[2], all[0]), added(all[5], all[3])))
	return nil
}

// added is by how much c takes longer than base; 0 if that is not known.
func added(c, base *contestant) time.Duration {
	if c.median() == 0 || base.median() == 0 {
		return 0
	}
	return max(c.median()-base.median(), time.Microsecond)
}

// mostOf is the verdict whether d is at most the bar.
func mostOf(d, bar time.Duration) string {
	if d == 0 || bar == 0 {
		return "not measured"
	}
	return fmt.Sprintf("%s (%s, %s)", met(d <= bar), format(d), format(bar))
}

// stats measures one look at what n containers use.
func (b *bench) stats(rounds, n int) error {
	own, err := b.enterOwnCgroup()
	if err != nil {
		return err
	}
	defer own.leave()
	flags, _ := own.limits()
	command := append([]string{"run", "-d", "--network", "none", "--cgroup-manager", "cgroupfs"}, flags...)
	command = append(command, "alpine", "sleep", "86400")
	defer b.endRbox()
	if err := errors.Join(inParallel(n, func() error { return b.silent("", b.rbox, command...) })...); err != nil {
		return err
	}
	all := []*contestant{b.starter("rbox stats --no-stream", "", b.rbox, "stats", "--no-stream")}
	measure(rounds, all)
	table(os.Stdout, fmt.Sprintf("show what %d running containers use", n), all, nil)
	fmt.Printf("  %-42s %s\n\n", "at most 100 ms", mostOf(all[0].median(), mostForStats))
	return nil
}

// ownCgroup is a cgroup that the account may make others in.
type ownCgroup struct {
	b    *bench
	path string
	made string   // its directory, if it is this program's to remove
	leaf *os.File // the cgroup that commands are started in; nil: where this program is
}

// enterOwnCgroup has b start commands in a cgroup of the account's own: as root in a
// new one, else where this program is, if that is delegated.
func (b *bench) enterOwnCgroup() (*ownCgroup, error) {
	if os.Geteuid() != 0 {
		r, err := cgroupv2.Detect()
		if err == nil && r.Blocked != "" {
			err = errors.New(r.Blocked)
		}
		return &ownCgroup{b: b, path: strings.TrimSuffix(r.Path, "/rbox.callers")}, err
	}
	own := &ownCgroup{b: b, path: "/rbench-" + strconv.Itoa(os.Getpid())}
	own.made = "/sys/fs/cgroup" + own.path
	leaf := own.made + "/rbox.callers" // from which rbox makes others beside it
	for _, dir := range []string{own.made, leaf} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			own.leave()
			return nil, err
		}
		for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} {
			if err := os.Chown(filepath.Join(dir, name), int(b.Who.UID), int(b.Who.GID)); err != nil {
				own.leave()
				return nil, err
			}
		}
	}
	var err error
	own.leaf, err = os.Open(leaf)
	b.cgroup = own.leaf
	return own, err
}

// leave undoes enterOwnCgroup, once the processes in it have ended.
func (o *ownCgroup) leave() {
	o.b.cgroup = nil
	if o.leaf != nil {
		o.leaf.Close()
	}
	if o.made == "" {
		return
	}
	var err error
	for range 200 { // the keeper, and monitors that clean up
		os.Remove(o.made + "/rbox.callers")
		if err = os.Remove(o.made); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
}

// limits are some that can be set there: as flags of rbox's, and as crun has them.
func (o *ownCgroup) limits() (flags []string, resources string) {
	text, _ := os.ReadFile("/sys/fs/cgroup" + o.path + "/cgroup.controllers")
	have := strings.Fields(string(text))
	if (cgroupv2.Report{Controllers: have}).Missing("cpu", "memory", "pids") == nil {
		quota := 100000 * runtime.NumCPU() // one that holds nothing up
		return strings.Fields(fmt.Sprintf("-m 64m --cpu-quota %d --pids-limit 64", quota)),
			fmt.Sprintf(`{"memory": {"limit": 67108864, "swap": 134217728}, "cpu": {"quota": %d, "period": 100000}, "pids": {"limit": 64}}`, quota)
	}
	return strings.Fields("--cgroup-conf cgroup.max.depth=10"), `{"unified": {"cgroup.max.depth": "10"}}`
}

// Command is a program that runs as the account, in the cgroup that was entered.
func (b *bench) Command(prog string, args ...string) *exec.Cmd {
	cmd := b.Desk.Command(prog, args...)
	if b.cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(b.cgroup.Fd())
	}
	return cmd
}

// userRuntime is where the account's user manager is found.
func (b *bench) userRuntime() string { return fmt.Sprintf("/run/user/%d", b.Who.UID) }

// inCgroup is starter with the user manager in the environment.
func (b *bench) inCgroup(name, needs, prog string, args ...string) *contestant {
	c := b.starter(name, needs, prog, args...)
	c.once = func() (time.Duration, error) {
		return b.timedIn("XDG_RUNTIME_DIR="+b.userRuntime(), prog, args...)
	}
	return c
}

// limitedBundle is bundle with limits and a cgroup's path, for crun.
func (b *bench) limitedBundle(bundle, name, path, resources string) (dir string, err error) {
	dir = bundle + "-" + name
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return "", err
	}
	var config, limits map[string]any
	if err := errors.Join(json.Unmarshal(data, &config), json.Unmarshal([]byte(resources), &limits)); err != nil {
		return "", err
	}
	config["root"] = map[string]any{"path": filepath.Join(bundle, "rootfs")}
	linux, ok := config["linux"].(map[string]any)
	if !ok {
		return "", fmt.Errorf("%s: no linux in its config.json", bundle)
	}
	if path != "" {
		linux["cgroupsPath"], linux["resources"] = path, limits
	}
	if data, err = json.Marshal(config); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, errors.Join(os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644), unix.Chown(dir, int(b.Who.UID), int(b.Who.GID)))
}
