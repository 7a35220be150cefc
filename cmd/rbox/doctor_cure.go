//go:build !front

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/idmap"
	"rbox/rootfs"
)

// fault is a rung that failed with err, and what cures that.
func (p *patient) fault(rung string, err error) Fault {
	return Fault{rung, err.Error(), curesOf(err, p.exe)}
}

// curesOf finds what would cure err: the hint that the error carries, and a
// script where it is more than the hint's own command.
func curesOf(err error, exe string) []Cure {
	var hinter interface{ Hint() string }
	if !errors.As(err, &hinter) || hinter.Hint() == "" {
		return nil
	}
	c := Cure{Do: hinter.Hint()}
	if cmd, ok := strings.CutPrefix(c.Do, "as root: "); ok {
		c.Admin, c.Do = true, cmd
	}
	var users *idmap.NoUserNSError
	var subids *idmap.NoSubIDsError
	var helper *idmap.HelperError
	var driver *rootfs.DriverError
	switch {
	case errors.As(err, &users):
		c.Script = userNSScript(users.Cause, exe)
		c.Admin = c.Admin || users.Cause == idmap.CauseKernel
	case errors.As(err, &subids) && c.Admin:
		c.Script = subIDsScript(subids.User, subids.Free)
	case errors.As(err, &helper) && helper.Path == "":
		c.Script = installScript("newuidmap", "uidmap", "shadow-utils", "shadow-uidmap")
	case errors.As(err, &helper) && c.Admin:
		c.Script = c.Do
	case errors.As(err, &driver):
		c.Script = driverScript(c.Do)
	}
	return []Cure{c}
}

func userNSScript(cause, exe string) string {
	switch cause {
	case idmap.CauseCount:
		return sysctlScript("user.max_user_namespaces", "28633")
	case idmap.CauseDebian:
		return sysctlScript("kernel.unprivileged_userns_clone", "1")
	case idmap.CauseAppArmor:
		return "cat >/etc/apparmor.d/rbox <<'END'\n" + idmap.AppArmorProfile(exe) + "END\napparmor_parser -r /etc/apparmor.d/rbox"
	}
	return ""
}

// sysctlScript sets a sysctl now and at every boot.
func sysctlScript(name, value string) string {
	return fmt.Sprintf("echo '%s = %s' >/etc/sysctl.d/60-rbox-%s.conf\nsysctl -w %s=%s", name, value, strings.ReplaceAll(name, ".", "-"), name, value)
}

func subIDsScript(user string, first uint32) string {
	var lines []string
	for _, file := range []string{"/etc/subuid", "/etc/subgid"} {
		lines = append(lines, fmt.Sprintf("grep -qs %s %s || echo %s >>%s",
			shellQuote("^"+user+":"), file, shellQuote(fmt.Sprintf("%s:%d:65536", user, first)), file))
	}
	return strings.Join(lines, "\n")
}

// installScript installs a program by the package manager at hand: Debian's
// package, Fedora's, which others share, or Alpine's.
func installScript(program, debian, fedora, alpine string) string {
	return fmt.Sprintf(`command -v %s >/dev/null || if command -v apt-get >/dev/null; then apt-get install -y %s
elif command -v dnf >/dev/null; then dnf install -y %s
elif command -v apk >/dev/null; then apk add %s
elif command -v zypper >/dev/null; then zypper install -y %s
elif command -v pacman >/dev/null; then pacman -S --noconfirm %[5]s
else echo "install %[1]s by hand" >&2; fi`, program, debian, fedora, alpine, strings.TrimSuffix(fedora, "-utils"))
}

func driverScript(do string) string {
	switch {
	case strings.HasPrefix(do, "modprobe overlay"):
		return moduleScript("overlay")
	case strings.HasPrefix(do, "modprobe fuse"):
		return moduleScript("fuse")
	case strings.HasPrefix(do, "chmod 666 /dev/fuse"):
		return deviceScript("fuse", "/dev/fuse")
	case strings.Contains(do, "install fuse-overlayfs"):
		return installScript("fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs", "fuse-overlayfs")
	}
	return ""
}

// moduleScript loads a kernel module now and at every boot.
func moduleScript(name string) string {
	return "echo " + name + " >/etc/modules-load.d/rbox-" + name + ".conf\nmodprobe " + name
}

// deviceScript opens a device to everybody now and at every boot, as udev's own
// rules do on most systems.
func deviceScript(name, path string) string {
	return fmt.Sprintf("echo 'KERNEL==\"%s\", MODE=\"0666\"' >/etc/udev/rules.d/60-rbox-%[1]s.rules\nchmod 666 %s", name, path)
}

// linger keeps a systemd, and with it a runtime directory, for the user who
// is not logged in.
func (p *patient) linger() Cure {
	return Cure{Admin: true, Do: "loginctl enable-linger " + p.user, Script: "loginctl enable-linger " + shellQuote(p.user)}
}

// delegationCures is how an administrator lets users limit what they run
// (systemd.io/CGROUP_DELEGATION).
func (p *patient) delegationCures(c cgroups) []Cure {
	switch {
	case !p.systemd():
		return []Cure{{Admin: true, Do: "mount cgroup version 2 alone and give " + p.user + " a cgroup of their own, with its cgroup.procs and cgroup.subtree_control, to start rbox in"}}
	case c.err != nil || c.own.Mode != cgroupv2.Unified:
		return []Cure{{Admin: true, Do: "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line, for cgroup version 2"}}
	case c.manager == "":
		return []Cure{p.linger()}
	}
	return []Cure{{
		Admin: true,
		Do:    "let systemd delegate: Delegate=cpu cpuset io memory pids in /etc/systemd/system/user@.service.d/delegate.conf",
		Script: "mkdir -p /etc/systemd/system/user@.service.d\n" +
			"printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' >/etc/systemd/system/user@.service.d/delegate.conf\n" +
			"systemctl daemon-reload",
	}}
}

// cureOf finds what cures the failure of a probe whose error carries no hint.
func cureOf(probe string, err error) []Cure {
	switch {
	case errors.Is(err, unix.ENOSPC) && namespaceSysctl(probe) != "":
		name := namespaceSysctl(probe)
		return []Cure{{Admin: true, Do: "sysctl -w " + name + "=28633", Script: sysctlScript(name, "28633")}}
	case probe == byTap && errors.Is(err, os.ErrPermission):
		return []Cure{{Admin: true, Do: "chmod 666 /dev/net/tun (in an outer container: --device /dev/net/tun)", Script: deviceScript("tun", "/dev/net/tun")}}
	case probe == byTap:
		return []Cure{{Admin: true, Do: "modprobe tun (in an outer container: --device /dev/net/tun)", Script: moduleScript("tun")}}
	case probe == byVeth && errors.Is(err, unix.EOPNOTSUPP):
		return []Cure{{Admin: true, Do: "modprobe veth", Script: moduleScript("veth")}}
	case probe == byVeth && errors.Is(err, unix.EAFNOSUPPORT):
		return []Cure{{Admin: true, Do: "modprobe af_packet", Script: moduleScript("af_packet")}}
	case (probe == bySlirp4netns || probe == byPasta) && !errors.As(err, new(unix.Errno)):
		return []Cure{{Admin: true, Do: "install the package that has it: " + map[string]string{bySlirp4netns: "slirp4netns", byPasta: "passt"}[probe]}}
	case probe == "/dev/fuse" && errors.Is(err, os.ErrPermission):
		return []Cure{{Admin: true, Do: "chmod 666 /dev/fuse (in an outer container: --device /dev/fuse)", Script: deviceScript("fuse", "/dev/fuse")}}
	case probe == "/dev/fuse":
		return []Cure{{Admin: true, Do: "modprobe fuse (in an outer container: --device /dev/fuse)", Script: moduleScript("fuse")}}
	case probe == "sealed memfd" && errors.Is(err, os.ErrPermission):
		return []Cure{{Admin: true, Do: "sysctl -w vm.memfd_noexec=1", Script: sysctlScript("vm.memfd_noexec", "1")}}
	case probe == "files of all ids":
		return []Cure{{Do: "export RBOX_ROOT=/a/directory/on/a/local/disk (ext4, XFS, btrfs), or RBOX_LAYERS for layers and what containers write"}}
	case probe == "fresh proc":
		return []Cure{{Do: "start the outer container with --security-opt unmask=ALL (Podman) or --security-opt systempaths=unconfined (Docker)"}}
	}
	return nil
}

// namespaceSysctl is the sysctl that counts namespaces of a kind.
func namespaceSysctl(kind string) string {
	switch kind {
	case "mount":
		return "user.max_mnt_namespaces"
	case "network":
		return "user.max_net_namespaces"
	case "pid", "ipc", "uts", "cgroup", "time":
		return "user.max_" + kind + "_namespaces"
	}
	return ""
}

// fixScript is the administrator's part of d as a shell script. Steps without
// a command stand in it as comments.
func fixScript(d Diagnosis) string {
	var b strings.Builder
	fmt.Fprintf(&b, `#!/bin/sh
# Made by rbox doctor --fix-script for %s (uid %d). Read it, then run it as root.
# It can be run again without harm.
set -eu
[ "$(id -u)" = 0 ] || { echo "$0: run this as root" >&2; exit 1; }
`, oneLine(d.Host.User), d.Host.UID)
	done := map[string]bool{}
	for _, n := range d.Needs {
		for _, f := range n.Skipped {
			for _, c := range f.Cures {
				if !c.Admin || done[c.Do] {
					continue
				}
				done[c.Do] = true
				fmt.Fprintf(&b, "\n# %s: %s\n", n.Name, oneLine(f.Why))
				if c.Script == "" {
					fmt.Fprintf(&b, "# by hand: %s\n", oneLine(c.Do))
				} else {
					b.WriteString(c.Script + "\n")
				}
			}
		}
	}
	if len(done) == 0 {
		b.WriteString("\n# There is nothing to do.\n")
	}
	return b.String()
}

// oneLine keeps a comment from becoming a command.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, s)
}

// shellQuote protects s from the shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
