package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/userns/confine"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// confineFlags say what a container may do beyond, or short of, the rule.
type confineFlags struct {
	CapAdd      []string `group:"Confinement" sep:"none" help:"Add a capability, or ALL." placeholder:"CAPABILITY"`
	CapDrop     []string `group:"Confinement" sep:"none" help:"Drop a capability, or ALL." placeholder:"CAPABILITY"`
	Privileged  bool     `group:"Confinement" help:"Take away what confines the container beyond being yours: give it all capabilities of its user namespace, all of /proc and /sys, and the devices that you may open."`
	SecurityOpt []string `group:"Confinement" sep:"none" help:"seccomp=FILE, seccomp=unconfined, no-new-privileges, mask=PATH, unmask=PATH, or unmask=ALL." placeholder:"OPTION"`
	Device      []string `group:"Confinement" sep:"none" help:"Bind a device node of this host, or all in a directory." placeholder:"SOURCE[:TARGET[:rwm]]"`
	Sysctl      []string `group:"Confinement" sep:"none" help:"Set a kernel parameter of the container's network, IPC or UTS namespace." placeholder:"NAME=VALUE"`
}

// confine decides what the container may do: capabilities, paths of the kernel,
// devices, and settings of its namespaces.
func (c *RunCmd) confine(app *App, config *container.Config) (err error) {
	p, o := &config.Plan, &config.Options
	add, drop := words(c.CapAdd), words(c.CapDrop)
	if c.Privileged {
		add = append(add, "ALL")
		p.WriteSys, p.AllDevices = true, true
	} else {
		p.Masked, p.Locked = confine.MaskedPaths(), confine.ReadOnlyPaths()
	}
	if p.Process.Capabilities, p.Process.Ambient, err = capabilities(add, drop, c.Privileged); err != nil {
		return err
	}
	o.CapAdd, o.CapDrop, o.Privileged = capabilityNames(words(c.CapAdd)), capabilityNames(drop), c.Privileged
	if p.Devices, err = devices(c.Device, app.Notice); err != nil {
		return err
	}
	return c.sysctls(p)
}

// words are those of a flag that may be repeated, and have several with commas.
func words(values []string) (all []string) {
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			all = append(all, strings.TrimSpace(one))
		}
	}
	return all
}

// capabilities are the container's bounding set, and those that it has even if
// its user is not root: as with Podman, what was asked for by name.
func capabilities(add, drop []string, privileged bool) (bounding, ambient uint64, err error) {
	if bounding, err = confine.Tweak(add, drop); err != nil {
		flag := "--cap-add"
		if _, addErr := confine.Tweak(add, nil); addErr == nil {
			flag = "--cap-drop"
		}
		return 0, 0, fmt.Errorf("%s: %w", flag, err)
	}
	if privileged {
		return bounding, 0, nil
	}
	for _, name := range add {
		c, _ := confine.Capability(name) // Tweak knows it
		ambient |= c
	}
	return bounding, ambient & bounding, nil
}

// capabilityNames are Docker's spellings of what was given, and ALL.
func capabilityNames(given []string) (names []string) {
	for _, name := range given {
		switch set, _ := confine.Capability(name); set {
		case confine.AllCapabilities:
			names = append(names, "ALL")
		default:
			names = append(names, confine.CapabilityNames(set)...)
		}
	}
	return names
}

// takeHostname makes --sysctl kernel.hostname what it means, --hostname: other
// files tell the name, too.
func (c *RunCmd) takeHostname() error {
	for _, spec := range c.Sysctl {
		name, value, _, err := confine.ParseSysctl(spec)
		if err != nil {
			return err
		}
		if name != "kernel.hostname" {
			continue
		}
		if c.Hostname != "" && c.Hostname != value {
			return fmt.Errorf("conflicting options: --hostname %s and --sysctl %s", c.Hostname, spec)
		}
		c.Hostname = value
	}
	return nil
}

// sysctls are those of the container's own namespaces.
func (c *RunCmd) sysctls(p *stage.Plan) error {
	for _, spec := range c.Sysctl {
		name, value, kind, err := confine.ParseSysctl(spec)
		if err != nil {
			return err
		}
		flag := map[string]string{"net": "--network", "ipc": "--ipc", "uts": "--uts"}[kind]
		if !p.Namespaces.Own(kind) {
			return &confine.SysctlError{Name: name, Why: "it would be set for others too: the container has no " + kind + " namespace of its own", Advice: "leave out " + flag}
		}
		switch name {
		case "kernel.hostname":
		case "kernel.domainname":
			p.Domainname = value
		default:
			p.Sysctls = append(p.Sysctls, [2]string{name, value})
		}
	}
	return nil
}

// sysctlMap are the plan's settings as --sysctl takes them.
func sysctlMap(p stage.Plan) map[string]string {
	m := map[string]string{}
	for _, kv := range p.Sysctls {
		m[kv[0]] = kv[1]
	}
	if p.Domainname != "" {
		m["kernel.domainname"] = p.Domainname
	}
	return m
}

// devices reads SOURCE[:TARGET][:PERMISSIONS] of --device.
func devices(specs []string, notice func(string)) (all []stage.Device, err error) {
	for _, spec := range specs {
		d, permissions, err := parseDevice(spec)
		if err != nil {
			return nil, err
		}
		if strings.Trim("rw", permissions) != "" { // a letter is missing
			notice("--device " + spec + ": a bound device can be opened in every way that you may open it: " + permissions + " limits nothing")
		}
		nodes, err := nodesBelow(d, spec)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			if unix.Access(n.Source, unix.R_OK) != nil && unix.Access(n.Source, unix.W_OK) != nil {
				notice("--device " + n.Source + ": you may not open it, and neither may the container: ls -l " + n.Source + " shows who may")
			}
		}
		all = append(all, nodes...)
	}
	return all, nil
}

// parseDevice reads one --device. A path without a target is its own.
func parseDevice(spec string) (d stage.Device, permissions string, err error) {
	f := strings.Split(spec, ":")
	d = stage.Device{Source: filepath.Clean(f[0]), Target: filepath.Clean(f[0])}
	permissions = "rwm"
	switch {
	case len(f) == 2 && !filepath.IsAbs(f[1]):
		permissions = f[1]
	case len(f) == 2:
		d.Target = filepath.Clean(f[1])
	case len(f) == 3:
		d.Target, permissions = filepath.Clean(f[1]), f[2]
	}
	if len(f) > 3 || !filepath.IsAbs(d.Source) || !filepath.IsAbs(d.Target) || permissions == "" || strings.Trim(permissions, "rwm") != "" {
		return d, "", fmt.Errorf("--device %s: want SOURCE[:TARGET][:rwm]", spec)
	}
	return d, permissions, nil
}

// nodesBelow is d, or the nodes in it if it is a directory.
func nodesBelow(d stage.Device, spec string) (nodes []stage.Device, err error) {
	st, err := os.Stat(d.Source)
	if err != nil {
		return nil, fmt.Errorf("--device: %w", err)
	}
	if st.Mode()&os.ModeDevice != 0 {
		return []stage.Device{d}, nil
	}
	if st.IsDir() {
		err = filepath.WalkDir(d.Source, func(name string, e fs.DirEntry, err error) error {
			if err == nil && e.Type()&fs.ModeDevice != 0 {
				nodes = append(nodes, stage.Device{Source: name, Target: d.Target + strings.TrimPrefix(name, d.Source)})
			}
			return err
		})
	}
	if err == nil && len(nodes) == 0 {
		err = &adviceError{errors.New("not a device node"), "use -v for files and directories"}
	}
	if err != nil {
		return nil, fmt.Errorf("--device %s: %w", spec, err)
	}
	return nodes, nil
}

// capabilitiesOf are the names of what the container's program has by itself,
// and of the most that one in it can have; Podman's inspect shows both.
func capabilitiesOf(info container.Info) (effective, bounding []string) {
	p := info.Config.Plan.Process
	bounding = confine.CapabilityNames(p.Capabilities)
	user, _, _ := strings.Cut(p.User, ":")
	if user == "" || user == "0" || user == "root" {
		return bounding, bounding
	}
	return confine.CapabilityNames(p.Ambient), bounding
}
