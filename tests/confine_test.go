package tests

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// Sets of capabilities as /proc/PID/status shows them (capabilities(7)).
const (
	defaultCaps = "00000000a80425fb"
	noCaps      = "0000000000000000"
)

// caps prints the program's capabilities: effective, inheritable, ambient, and the bounding set.
const caps = `awk '/^Cap(Eff|Inh|Amb|Bnd)/ {print $2}' /proc/self/status | tr '\n' ' '`

// capLine is what caps prints.
func capLine(inheritable, effective, bounding, ambient string) want {
	return want{stdout: strings.Join([]string{inheritable, effective, bounding, ambient}, " ") + " "}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	all := strings.Fields(b.must("run", "--rm", "--privileged", "alpine", "grep", "CapBnd", "/proc/self/status"))[1]
	const admin, raw, chown, noRaw = "00000000a80435fb", "0000000000002000", "0000000000000001", "00000000a80405fb"
	for name, tc := range map[string]struct {
		flags []string
		want  want
	}{
		"Docker's set":                   {nil, capLine(noCaps, defaultCaps, defaultCaps, noCaps)},
		"a user's":                       {[]string{"-u", "1000"}, capLine(noCaps, noCaps, defaultCaps, noCaps)},
		"one more":                       {[]string{"--cap-add", "net_admin"}, capLine(noCaps, admin, admin, noCaps)},
		"with its prefix":                {[]string{"--cap-add=CAP_NET_ADMIN"}, capLine(noCaps, admin, admin, noCaps)},
		"one less":                       {[]string{"--cap-drop", "Net_Raw"}, capLine(noCaps, noRaw, noRaw, noCaps)},
		"none":                           {[]string{"--cap-drop", "ALL"}, capLine(noCaps, noCaps, noCaps, noCaps)},
		"none but one":                   {[]string{"--cap-drop", "all", "--cap-add", "chown"}, capLine(noCaps, chown, chown, noCaps)},
		"several in one word":            {[]string{"--cap-drop", "ALL", "--cap-add", "chown,net_raw"}, capLine(noCaps, "0000000000002001", "0000000000002001", noCaps)},
		"all":                            {[]string{"--cap-add", "ALL"}, capLine(noCaps, all, all, noCaps)},
		"all, privileged":                {[]string{"--privileged"}, capLine(noCaps, all, all, noCaps)},
		"privileged, a user":             {[]string{"--privileged", "-u", "1000"}, capLine(noCaps, noCaps, all, noCaps)},
		"a user's own":                   {[]string{"-u", "1000", "--cap-add", "NET_RAW"}, capLine(raw, raw, defaultCaps, raw)},
		"a user's own and no other":      {[]string{"-u", "1000", "--cap-drop", "ALL", "--cap-add", "NET_RAW"}, capLine(raw, raw, raw, raw)},
		"a user's own, with keep-id":     {[]string{"--userns", "keep-id", "--cap-add", "NET_RAW"}, capLine(raw, raw, defaultCaps, raw)},
		"a user's own, with --init":      {[]string{"--init", "-u", "1000", "--cap-add", "NET_RAW"}, capLine(raw, raw, defaultCaps, raw)},
		"one that is none":               {[]string{"--cap-add", "NETADMIN"}, want{status: 125, stderr: `(?s)--cap-add: .*NETADMIN.*hint: `}},
		"one that is none to drop":       {[]string{"--cap-drop", "NETADMIN"}, want{status: 125, stderr: `--cap-drop: .*NETADMIN`}},
		"privileged, less one asked for": {[]string{"--privileged", "--cap-drop", "ALL", "--cap-add", "chown"}, capLine(noCaps, all, all, noCaps)},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(caps, tc.flags...)) })
	}
}

// A further program has the container's capabilities, or all; those of a user
// only who was given them. A restart changes nothing.
func TestCapabilitiesOfExec(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	const raw = "0000000000002000"
	b.must("run", "-d", "--name", "box", "-u", "1000", "--cap-drop", "ALL", "--cap-add", "NET_RAW", "alpine", "sleep", "1000")
	check := func() {
		t.Helper()
		for name, tc := range map[string]struct {
			flags []string
			want  want
		}{
			"its user":     {nil, capLine(raw, raw, raw, raw)},
			"root":         {[]string{"-u", "0"}, capLine(noCaps, raw, raw, noCaps)},
			"another user": {[]string{"-u", "1001"}, capLine(noCaps, noCaps, raw, noCaps)},
		} {
			if got := b.rbox(slices.Concat([]string{"exec"}, tc.flags, []string{"box", "sh", "-c", caps})...); got.stdout != tc.want.stdout {
				t.Errorf("%s: got %v, want %s", name, got, tc.want.stdout)
			}
		}
		full := b.must("exec", "--privileged", "-u", "0", "box", "awk", "/CapEff/ {print $2}", "/proc/self/status")
		if full == raw || full <= defaultCaps {
			t.Errorf("privileged: %s", full)
		}
	}
	check()
	b.must("restart", "-t", "0", "box")
	check()
}

func TestInspectCapabilities(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	type detail struct {
		EffectiveCaps, BoundingCaps []string
		HostConfig                  struct {
			CapAdd, CapDrop, MaskedPaths, ReadonlyPaths []string
			Privileged                                  bool
			Sysctls                                     map[string]string
		}
	}
	inspect := func(flags ...string) (d detail) {
		id := b.must(slices.Concat([]string{"create"}, flags, []string{"alpine", "true"})...)
		var list []detail
		if err := json.Unmarshal([]byte(b.must("inspect", id)), &list); err != nil || len(list) != 1 {
			t.Fatal(err, list)
		}
		return list[0]
	}
	d := inspect("--cap-add", "sys_time,net_admin", "--cap-drop", "all", "--sysctl", "net.core.somaxconn=7", "--sysctl", "kernel.domainname=here")
	if want := []string{"CAP_NET_ADMIN", "CAP_SYS_TIME"}; !slices.Equal(d.EffectiveCaps, want) || !slices.Equal(d.BoundingCaps, want) {
		t.Errorf("effective %v, bounding %v", d.EffectiveCaps, d.BoundingCaps)
	}
	h := d.HostConfig
	if !slices.Equal(h.CapAdd, []string{"CAP_SYS_TIME", "CAP_NET_ADMIN"}) || !slices.Equal(h.CapDrop, []string{"ALL"}) || h.Privileged {
		t.Errorf("%+v", h)
	}
	if h.Sysctls["net.core.somaxconn"] != "7" || h.Sysctls["kernel.domainname"] != "here" {
		t.Errorf("sysctls: %v", h.Sysctls)
	}
	if !slices.Contains(h.MaskedPaths, "/proc/interrupts") || !slices.Contains(h.ReadonlyPaths, "/proc/sys") {
		t.Errorf("paths: %v, %v", h.MaskedPaths, h.ReadonlyPaths)
	}
	d = inspect("-u", "1000")
	if len(d.EffectiveCaps) != 0 || len(d.BoundingCaps) != 14 {
		t.Errorf("of a user: effective %v, bounding %v", d.EffectiveCaps, d.BoundingCaps)
	}
	d = inspect("--privileged")
	if !d.HostConfig.Privileged || len(d.BoundingCaps) < 40 || len(d.HostConfig.MaskedPaths) != 0 || len(d.HostConfig.ReadonlyPaths) != 0 {
		t.Errorf("privileged: %+v", d)
	}
}

func TestSysctls(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	show := func(names ...string) string { return "cd /proc/sys && cat " + strings.Join(names, " ") }
	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		"net":                    {[]string{"--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "net/core/somaxconn=77"}, show("net/ipv4/ip_forward", "net/core/somaxconn"), want{stdout: "1\n77\n"}},
		"net, without a network": {[]string{"--network", "none", "--sysctl", "net.ipv4.ip_forward=1"}, show("net/ipv4/ip_forward"), want{stdout: "1\n"}},
		"domain name":            {[]string{"--sysctl", "kernel.domainname=example.org"}, show("kernel/domainname"), want{stdout: "example.org\n"}},
		"host name":              {[]string{"--sysctl", "kernel.hostname=by-sysctl"}, "hostname; cat /etc/hostname", want{stdout: "by-sysctl\nby-sysctl\n"}},
		"both host names":        {[]string{"--sysctl", "kernel.hostname=a", "-h", "b"}, "hostname", want{status: 125, stderr: "--hostname b"}},
		"of the host":            {[]string{"--sysctl", "kernel.core_pattern=x"}, "true", want{status: 125, stderr: `(?s)kernel.core_pattern.*whole host.*hint: `}},
		"net, of the host":       {[]string{"--network", "host", "--sysctl", "net.ipv4.ip_forward=1"}, "true", want{status: 125, stderr: `(?s)net.ipv4.ip_forward: .*no net namespace.*hint: .*--network`}},
		"ipc, of the host":       {[]string{"--ipc", "host", "--sysctl", "kernel.shmmax=4096"}, "true", want{status: 125, stderr: `--ipc`}},
		"one that is not there":  {[]string{"--sysctl", "net.ipv4.no_such=1"}, "true", want{status: 125, stderr: `(?s)net.ipv4.no_such: there is no such setting.*hint: `}},
		"a value that is none":   {[]string{"--sysctl", "net.ipv4.ip_forward=maybe"}, "true", want{status: 125, stderr: `net.ipv4.ip_forward: the kernel does not take this value`}},
		"no value":               {[]string{"--sysctl", "net.ipv4.ip_forward"}, "true", want{status: 125, stderr: `NAME=VALUE`}},
		"a way out":              {[]string{"--sysctl", "net.//.kernel.core_pattern=x"}, "true", want{status: 125, stderr: `not the name`}},
		// Read-only as Docker has it, but for whom is given the power over the namespace.
		"writable by whom has the capability": {[]string{"--cap-add", "NET_ADMIN"}, "echo 1 >/proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward; echo x 2>/dev/null >/proc/sys/kernel/core_pattern || echo refused", want{stdout: "1\nrefused\n"}},
		"else not":                            {nil, "echo 1 2>&1 >/proc/sys/net/ipv4/ip_forward", want{status: 1, match: ""}},
		"nor in the host's network":           {[]string{"--cap-add", "NET_ADMIN", "--network", "host"}, "echo 1 2>&1 >/proc/sys/net/ipv4/ip_forward", want{status: 1}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(tc.script, tc.flags...)) })
	}
}

// Masked paths show nothing and cannot be uncovered.
func TestMaskedPaths(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		"files are /dev/null": {nil, "for f in interrupts kcore keys timer_list latency_stats sched_debug; do test -e /proc/$f || continue; stat -c '%F %t %T' /proc/$f; done | sort -u", want{stdout: "character special file 1 3\n"}},
		"directories are empty, and read-only": {nil, "for d in /proc/acpi /proc/asound /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do test -e $d || continue; ls -A $d; mkdir $d/x 2>/dev/null && echo made; done; true",
			want{match: "^$"}},
		"what is hidden stays so":          {nil, "umount /proc/interrupts 2>/dev/null || umount -l /sys/firmware 2>/dev/null || echo refused", want{stdout: "refused\n"}},
		"in a user namespace, too":         {nil, "unshare -Urm sh -c 'umount /proc/interrupts 2>/dev/null; stat -c %t:%T /proc/interrupts' 2>/dev/null || echo refused", want{match: `^(1:3|refused)\n`}},
		"none if privileged":               {[]string{"--privileged"}, "stat -c %F /proc/interrupts; grep -c ' /proc/' /proc/mounts", want{status: 1, match: "^regular.* file\n0\n"}},
		"sys is writable if privileged":    {[]string{"--privileged"}, "grep ' /sys sysfs ' /proc/mounts | cut -d ' ' -f 4 | cut -d , -f 1", want{stdout: "rw\n"}},
		"devices if privileged":            {[]string{"--privileged"}, "test -c /dev/fuse && ls /dev | grep -c '^tty[0-9]'", want{status: 1, stdout: "0\n"}},
		"in the host's processes' sight":   {[]string{"--pid", "host"}, "stat -c %t:%T /proc/interrupts; echo 1 2>/dev/null >/proc/sys/kernel/panic || echo refused", want{stdout: "1:3\nrefused\n"}},
		"in the host's network":            {[]string{"--network", "host"}, "ls -A /sys/firmware; grep -c ' /proc/interrupts ' /proc/mounts", want{stdout: "1\n"}},
		"another path":                     {[]string{"--security-opt", "mask=/etc/passwd:/var"}, "cat /etc/passwd; ls -A /var; mkdir /var/x 2>/dev/null || echo refused", want{stdout: "refused\n"}},
		"a path behind a link":             {[]string{"--security-opt", "mask=/var/run"}, "ls -A /run; touch /run/x 2>/dev/null || echo refused", want{stdout: "refused\n"}},
		"a path that is not there":         {[]string{"--security-opt", "mask=/no/such:/proc/no-such"}, "echo up", want{stdout: "up\n"}},
		"a path of the kernel's":           {[]string{"--security-opt", "mask=/proc/uptime"}, "cat /proc/uptime", want{match: "^$"}},
		"one is shown":                     {[]string{"--security-opt", "unmask=/proc/interrupts"}, "test -s /proc/interrupts || head -c 1 /proc/interrupts | wc -c; head -c 1 /proc/keys | wc -c", want{stdout: "1\n0\n"}},
		"by a pattern":                     {[]string{"--security-opt", "unmask=/proc/i*"}, "head -c 1 /proc/interrupts | wc -c; grep -c ' /proc/irq ' /proc/mounts", want{status: 1, stdout: "1\n0\n"}},
		"all are shown":                    {[]string{"--security-opt", "unmask=ALL"}, "head -c 1 /proc/interrupts | wc -c; grep -c ' /proc/' /proc/mounts", want{status: 1, stdout: "1\n0\n"}},
		"all are shown, in Docker's words": {[]string{"--security-opt", "systempaths=unconfined"}, "grep -c ' /proc/' /proc/mounts", want{status: 1, stdout: "0\n"}},
		"all are shown but one":            {[]string{"--privileged", "--security-opt", "mask=/proc/interrupts"}, "head -c 1 /proc/interrupts | wc -c", want{stdout: "0\n"}},
		"the root cannot be hidden":        {[]string{"--security-opt", "mask=/"}, "true", want{status: 125, stderr: "mask=/"}},
		"labels are not rbox's":            {[]string{"--security-opt", "label=disable", "--security-opt", "apparmor=unconfined"}, "echo up", want{stdout: "up\n"}},
		"a label cannot be given":          {[]string{"--security-opt", "label=type:x"}, "true", want{status: 125, stderr: "(?s)label=type:x.*hint: "}},
		"a profile of AppArmor neither":    {[]string{"--security-opt", "apparmor=x"}, "true", want{status: 125, stderr: "(?s)apparmor=x.*hint: "}},
		"proc of a container's own at all": {[]string{"--privileged", "--pid", "host"}, "grep -c ' /proc proc ' /proc/mounts", want{match: `^[1-9]`}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(tc.script, tc.flags...)) })
	}
}

// A device's permissions are those of its node; what cannot be kept is said.
func TestDevices(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		"with a target and all permissions":  {[]string{"--device", "/dev/fuse:/dev/f:rwm"}, "test -c /dev/f && echo yes", want{stdout: "yes\n", stderr: "^$"}},
		"permissions that a bind cannot set": {[]string{"--device", "/dev/zero:/dev/z:r"}, "echo x >/dev/z && echo yes", want{stdout: "yes\n", stderr: "limits nothing"}},
		"a directory":                        {[]string{"--device", "/dev/net:/dev/n"}, "test -c /dev/n/tun && echo yes", want{stdout: "yes\n"}},
		"a directory without any":            {[]string{"--device", "/etc/default"}, "true", want{status: 125, stderr: "not a device node"}},
		"a file":                             {[]string{"--device", "/etc/passwd"}, "true", want{status: 125, stderr: "(?s)not a device node.*hint: use -v"}},
		"letters that are none":              {[]string{"--device", "/dev/zero:/dev/z:x"}, "true", want{status: 125, stderr: "SOURCE"}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(tc.script, tc.flags...)) })
	}
}
