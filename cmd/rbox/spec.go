package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"rbox/rootfs"
	"rbox/rootfs/image"
	"rbox/rootfs/volume"
	"rbox/userns/container"
	"rbox/userns/stage"
)

func isTerminal(fd int) bool { return term.IsTerminal(fd) }

// plan turns flags and the image's defaults into the container's plan.
func (c *RunCmd) plan(from *base, n ids, id string) (stage.Plan, error) {
	p := stage.Plan{
		Root: from.root, ReadOnly: c.ReadOnly, Namespaces: n.Namespaces, Hostname: c.hostname(id, n),
	}
	var err error
	if p.ShmSize, err = parseSize(c.ShmSize); err != nil {
		return p, fmt.Errorf("--shm-size: %w", err)
	}
	if p.Mounts, err = c.mounts(from); err != nil {
		return p, err
	}
	if n.HostIPC {
		p.Mounts = append(p.Mounts, rootfs.Mount{Type: "bind", Source: "/dev/shm", Target: "/dev/shm"})
	}
	p.Files = []stage.File{{Target: "/etc/hostname", Text: []byte(p.Hostname + "\n")}}
	p.Process, err = c.process(from.config, n, p.Hostname)
	return p, err
}

// hostname is the one asked for, that of whom it is shared with, this host's
// with its network, else the short id.
func (c *RunCmd) hostname(id string, n ids) string {
	switch {
	case c.Hostname != "":
		return c.Hostname
	case slices.Contains(n.Joined, "uts"), n.peer.Config.ID != "":
		return n.peerName
	}
	if name, err := os.Hostname(); err == nil && (n.HostNetwork || n.HostUTS) {
		return name
	}
	return container.Short(id)
}

// process decides what runs, where and as whom.
func (c *RunCmd) process(config image.ContainerConfig, n ids, hostname string) (stage.Process, error) {
	p := stage.Process{
		Terminal: c.TTY, Init: c.Init, Preserve: c.PreserveFDs, Cwd: "/", User: config.User,
	}
	if n.kept != nil {
		p.User = fmt.Sprintf("%d:%d", n.kept.uid, n.kept.gid)
		p.Login = &stage.Login{Name: loginName(), Home: homeDir(), UID: n.kept.uid, GID: n.kept.gid}
	}
	if c.User != "" {
		p.User = c.User
	}
	if config.WorkingDir != "" {
		p.Cwd = filepath.Join("/", config.WorkingDir)
	}
	if c.Workdir != "" {
		if !filepath.IsAbs(c.Workdir) {
			return p, fmt.Errorf("the working directory %q is not absolute", c.Workdir)
		}
		p.Cwd = filepath.Clean(c.Workdir)
	}
	for _, g := range c.GroupAdd {
		if g == "keep-groups" {
			p.KeepGroups = true
		} else {
			p.Groups = append(p.Groups, g)
		}
	}
	if p.KeepGroups && len(p.Groups) > 0 {
		return p, errors.New("--group-add keep-groups excludes other groups: they can be kept or set, not both")
	}
	if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil && c.TTY && !c.create {
		p.Rows, p.Cols = size.Row, size.Col
	}
	for _, l := range c.Ulimit {
		r, err := stage.ParseRlimit(l)
		if err != nil {
			return p, err
		}
		p.Rlimits = append(p.Rlimits, r)
	}
	var err error
	if p.Args, err = c.command(config); err != nil {
		return p, err
	}
	p.Env, err = c.environment(config.Env, hostname)
	return p, err
}

// loginName is the user's, as far as the environment knows it.
func loginName() string {
	for _, name := range []string{os.Getenv("USER"), os.Getenv("LOGNAME"), filepath.Base(homeDir())} {
		if name != "" && !strings.ContainsAny(name, ":\n/") {
			return name
		}
	}
	return "user"
}

// entrypoint is what runs, in Docker's two parts: a command replaces the
// image's, a new entry point drops it.
func (c *RunCmd) entrypoint(config image.ContainerConfig) (entry, args []string) {
	entry, args = config.Entrypoint, config.Cmd
	if c.Entrypoint != nil {
		args = nil
		entry = nil
		if s := *c.Entrypoint; strings.HasPrefix(s, "[") && json.Unmarshal([]byte(s), &entry) != nil || s != "" && entry == nil {
			entry = []string{s}
		}
	}
	if given := c.Words[1:]; len(given) > 0 {
		args = given
	}
	return entry, args
}

// command joins both parts.
func (c *RunCmd) command(config image.ContainerConfig) ([]string, error) {
	entry, args := c.entrypoint(config)
	all := append(append([]string(nil), entry...), args...)
	if len(all) == 0 {
		return nil, &adviceError{fmt.Errorf("%s: no command specified, and the image has none", c.Words[0]), "rbox run " + c.Words[0] + " sh"}
	}
	if all[0] == "" {
		return nil, fmt.Errorf("%s: the command is empty", c.Words[0])
	}
	return all, nil
}

// environment is the image's variables, then what Docker adds, then files and
// flags; a later one replaces an earlier of the same name.
func (c *RunCmd) environment(fromImage []string, hostname string) ([]string, error) {
	given, err := givenEnv(c.EnvFile, c.Env)
	if err != nil {
		return nil, err
	}
	env := append([]string{"container=rbox", "HOSTNAME=" + hostname}, fromImage...)
	return lastOfEach(append(env, given...)), nil
}

// givenEnv is what files hold, then what flags say.
func givenEnv(files, flags []string) (env []string, err error) {
	for _, file := range files {
		lines, err := readEnvFile(file)
		if err != nil {
			return nil, err
		}
		env = append(env, lines...)
	}
	for _, e := range flags {
		if strings.HasPrefix(e, "=") || e == "" {
			return nil, fmt.Errorf("invalid environment variable %q: it has no name", e)
		}
		env = append(env, e)
	}
	return env, nil
}

// lastOfEach keeps the last value of each name, in the order the names first
// came; NAME alone takes the value of our own environment, or removes it.
func lastOfEach(env []string) []string {
	at := map[string]int{}
	out := []string{}
	for _, kv := range env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok {
			value, set := os.LookupEnv(name)
			if !set {
				if i, dup := at[name]; dup {
					out[i] = ""
					delete(at, name)
				}
				continue
			}
			kv = name + "=" + value
		}
		if i, dup := at[name]; dup {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return slices.DeleteFunc(out, func(kv string) bool { return kv == "" })
}

// readEnvFile reads NAME=VALUE lines as Docker does: no quoting, # begins a
// comment line, NAME alone takes our own value.
func readEnvFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	defer f.Close()
	return parseEnv(path, bufio.NewScanner(f))
}

func parseEnv(path string, lines *bufio.Scanner) (env []string, err error) {
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimLeft(strings.TrimPrefix(lines.Text(), "\ufeff"), " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, _ := strings.Cut(line, "=")
		if name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%s line %d: %q is not a variable's name", path, n, name)
		}
		env = append(env, line)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return env, nil
}

// mounts are the image's volumes and what the flags ask for; of two on one
// target the later wins.
func (c *RunCmd) mounts(from *base) ([]rootfs.Mount, error) {
	all := append([]rootfs.Mount(nil), from.mounts...)
	for target := range from.config.Volumes {
		if target = filepath.Clean(target); filepath.IsAbs(target) && target != "/" {
			all = append(all, rootfs.Mount{Type: "volume", Target: target})
		}
	}
	for _, kind := range []struct {
		flag  string
		specs []string
		parse func(string) (rootfs.Mount, error)
	}{
		{"--volume", c.Volume, parseVolume}, {"--mount", c.Mount, parseMount}, {"--tmpfs", c.Tmpfs, parseTmpfs},
	} {
		for _, spec := range kind.specs {
			m, err := kind.parse(spec)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", kind.flag, spec, err)
			}
			m.NoCopy = m.NoCopy || m.Type == "volume" && from.image == hostImage
			all = append(all, m)
		}
	}
	last := map[string]int{}
	for i, m := range all {
		last[m.Target] = i
	}
	var kept []rootfs.Mount
	for i, m := range all {
		if last[m.Target] == i {
			kept = append(kept, m)
		}
	}
	return rootfs.Sorted(kept), nil
}

// parseVolume reads SOURCE:TARGET[:OPTIONS] of -v, or TARGET alone.
func parseVolume(spec string) (rootfs.Mount, error) {
	f := strings.Split(spec, ":")
	if len(f) == 1 && filepath.IsAbs(spec) {
		return volumeMount("", spec)
	}
	if len(f) < 2 || len(f) > 3 || f[0] == "" {
		return rootfs.Mount{}, errors.New("want SOURCE:TARGET[:OPTIONS]")
	}
	mount := bindMount
	if !strings.ContainsRune(f[0], '/') && f[0] != "." && f[0] != ".." {
		mount = volumeMount
	}
	m, err := mount(f[0], f[1])
	if err != nil || len(f) == 2 {
		return m, err
	}
	for _, o := range strings.Split(f[2], ",") {
		switch o {
		case "ro":
			m.ReadOnly = true
		case "rw", "z", "Z", "rbind", "rprivate", "private", "cached", "delegated", "consistent", "":
		case "bind":
			m.Flat = true
		case "nocopy":
			m.NoCopy = true
		case "nosuid":
			m.Flags |= unix.MS_NOSUID
		case "nodev":
			m.Flags |= unix.MS_NODEV
		case "noexec":
			m.Flags |= unix.MS_NOEXEC
		default:
			return m, fmt.Errorf("unknown option %q", o)
		}
	}
	if m.NoCopy && m.Type == "bind" {
		return m, errors.New("nocopy is for volumes: nothing is copied to a directory of yours")
	}
	return m, nil
}

// volumeMount is a volume, by its name until it is made; an anonymous one has none.
func volumeMount(name, target string) (rootfs.Mount, error) {
	m := rootfs.Mount{Type: "volume", Source: name, Target: filepath.Clean(target)}
	if name != "" {
		if err := volume.CheckName(name); err != nil {
			return m, err
		}
	}
	return m, checkTarget(target)
}

func checkTarget(target string) error {
	if !filepath.IsAbs(target) {
		return fmt.Errorf("the target %q is not absolute", target)
	}
	if filepath.Clean(target) == "/" {
		return errors.New("the target cannot be /")
	}
	return nil
}

// bindMount checks both ends of a bind.
func bindMount(source, target string) (rootfs.Mount, error) {
	m := rootfs.Mount{Type: "bind", Source: absolute(source), Target: filepath.Clean(target)}
	if err := checkTarget(target); err != nil {
		return m, err
	}
	if _, err := os.Stat(m.Source); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return m, &adviceError{fmt.Errorf("%s does not exist", m.Source), "mkdir -p " + m.Source}
		}
		return m, err
	}
	return m, nil
}

// parseMount reads the comma-separated fields of --mount.
func parseMount(spec string) (rootfs.Mount, error) {
	var m rootfs.Mount
	kind, source, target := "volume", "", ""
	for _, field := range strings.Split(spec, ",") {
		k, v, has := strings.Cut(field, "=")
		on := !has || v == "true" || v == "1"
		var err error
		switch k {
		case "type":
			kind = v
		case "source", "src":
			source = v
		case "target", "destination", "dst":
			target = v
		case "readonly", "ro":
			m.ReadOnly = on
		case "rw":
			m.ReadOnly = !on
		case "bind-nonrecursive":
			m.Flat = on
		case "bind-propagation":
			if v != "rprivate" && v != "private" {
				err = fmt.Errorf("bind-propagation %s: a user namespace has private mounts only", v)
			}
		case "tmpfs-size":
			m.Size, err = parseSize(v)
		case "tmpfs-mode":
			m.Mode, err = parseMode(v)
		case "volume-nocopy":
			m.NoCopy = on
		case "volume-driver":
			if v != "local" {
				err = fmt.Errorf("volume-driver %s: there is local alone", v)
			}
		case "volume-label", "volume-opt":
			err = &adviceError{fmt.Errorf("%s: a volume gets it when it is made", k), "rbox volume create --label … --opt … NAME"}
		case "relabel", "consistency":
		default:
			err = fmt.Errorf("unknown field %q", k)
		}
		if err != nil {
			return m, err
		}
	}
	switch kind {
	case "bind":
		if source == "" {
			return m, errors.New("source is missing")
		}
		b, err := bindMount(source, target)
		m.Type, m.Source, m.Target = b.Type, b.Source, b.Target
		return m, err
	case "volume":
		if strings.ContainsRune(source, '/') {
			return m, &adviceError{fmt.Errorf("%q is not the name of a volume", source), "for a directory add type=bind"}
		}
		v, err := volumeMount(source, target)
		m.Type, m.Source, m.Target = v.Type, v.Source, v.Target
		return m, err
	case "tmpfs":
		m.Type, m.Target = kind, filepath.Clean(target)
		if !filepath.IsAbs(target) || m.Target == "/" {
			return m, fmt.Errorf("the target %q is not an absolute path below /", target)
		}
		return m, nil
	}
	return m, fmt.Errorf("type %q: there are bind, volume and tmpfs", kind)
}

// parseTmpfs reads TARGET[:OPTIONS] of --tmpfs (tmpfs(5)).
func parseTmpfs(spec string) (rootfs.Mount, error) {
	target, options, _ := strings.Cut(spec, ":")
	m := rootfs.Mount{Type: "tmpfs", Target: filepath.Clean(target), Flags: unix.MS_NOEXEC}
	if !filepath.IsAbs(target) || m.Target == "/" {
		return m, fmt.Errorf("the target %q is not an absolute path below /", target)
	}
	for _, o := range strings.Split(options, ",") {
		k, v, _ := strings.Cut(o, "=")
		var err error
		switch k {
		case "", "rw", "nosuid", "nodev", "noexec", "suid", "dev", "tmpcopyup", "notmpcopyup":
		case "ro":
			m.ReadOnly = true
		case "exec":
			m.Flags &^= unix.MS_NOEXEC
		case "size":
			m.Size, err = parseSize(v)
		case "mode":
			m.Mode, err = parseMode(v)
		case "nr_inodes", "nr_blocks":
			if !isCount(v) {
				err = fmt.Errorf("%s: %q is not a number, as 64k is", k, v)
			}
			m.Data = strings.TrimPrefix(m.Data+","+o, ",")
		default:
			err = fmt.Errorf("unknown option %q", o)
		}
		if err != nil {
			return m, err
		}
	}
	return m, nil
}

// isCount tells whether s is a number as the kernel reads it for tmpfs(5): digits
// with an optional unit of 1024.
func isCount(s string) bool {
	if n := len(s); n > 0 && strings.IndexByte("kKmMgG", s[n-1]) >= 0 {
		s = s[:n-1]
	}
	_, err := strconv.ParseUint(s, 10, 63)
	return err == nil
}

func parseMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("mode %q is not octal", s)
	}
	return uint32(n), nil
}

// parseSize reads a size in bytes with an optional unit of 1024, as Docker does:
// 512, 64m, 64MiB, 1.5g.
func parseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "bikmgtBIKMGT")
	unit, shift := strings.ToLower(s[len(number):]), 0
	if unit != "" {
		if i := strings.IndexByte("kmgt", unit[0]); i >= 0 {
			shift, unit = 10*(i+1), strings.TrimPrefix(unit[1:], "i")
		}
	}
	whole, fraction, hasFraction := strings.Cut(number, ".")
	n, err := strconv.ParseUint(whole, 10, 63)
	var part uint64
	if hasFraction && err == nil {
		part, err = strconv.ParseUint(fraction, 10, 32)
	}
	if err != nil || unit != "" && unit != "b" || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size, as 64m is", s)
	}
	return int64(n)<<shift + int64(float64(part)/math.Pow10(len(fraction))*float64(int64(1)<<shift)), nil
}

// timeOffsets reads CLOCK=SECONDS of --time-offset (time_namespaces(7)).
func timeOffsets(specs []string) (map[string]int64, error) {
	all := map[string]int64{}
	for _, spec := range specs {
		clock, value, _ := strings.Cut(spec, "=")
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil || clock != "boottime" && clock != "monotonic" {
			return nil, fmt.Errorf("--time-offset %s: want boottime=SECONDS or monotonic=SECONDS", spec)
		}
		all[clock] = seconds
	}
	return all, nil
}
