package confine

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func set(numbers ...int) (s uint64) {
	for _, n := range numbers {
		s |= 1 << n
	}
	return s
}

func TestTweak(t *testing.T) {
	for name, tc := range map[string]struct {
		add, drop []string
		want      uint64
	}{
		"nothing":               {nil, nil, DefaultCapabilities},
		"add":                   {[]string{"NET_ADMIN"}, nil, DefaultCapabilities | 1<<unix.CAP_NET_ADMIN},
		"add one it has":        {[]string{"CAP_CHOWN"}, nil, DefaultCapabilities},
		"drop":                  {nil, []string{"cap_mknod", "net_raw"}, DefaultCapabilities &^ set(unix.CAP_MKNOD, unix.CAP_NET_RAW)},
		"drop one it has not":   {nil, []string{"SYS_ADMIN"}, DefaultCapabilities},
		"drop all":              {nil, []string{"ALL"}, 0},
		"drop all but one":      {[]string{"Chown"}, []string{"all"}, 1 << unix.CAP_CHOWN},
		"add all":               {[]string{"ALL"}, nil, AllCapabilities},
		"add all but one":       {[]string{"all"}, []string{"SYS_ADMIN"}, AllCapabilities &^ set(unix.CAP_SYS_ADMIN)},
		"all on both sides":     {[]string{"ALL"}, []string{"ALL"}, AllCapabilities},
		"the same on both":      {[]string{"KILL"}, []string{"KILL"}, DefaultCapabilities},
		"the youngest":          {[]string{"CHECKPOINT_RESTORE"}, []string{"ALL"}, 1 << unix.CAP_CHECKPOINT_RESTORE},
		"all by another's name": {[]string{"CAP_ALL"}, nil, AllCapabilities},
	} {
		if got, err := Tweak(tc.add, tc.drop); err != nil || got != tc.want {
			t.Errorf("%s: got %#x, %v; want %#x", name, got, err, tc.want)
		}
	}
	for _, bad := range []string{"", "NETADMIN", "CAP_", "CAP_CAP_CHOWN", "chown "} {
		if _, err := Tweak([]string{bad}, nil); !errors.As(err, new(*NoCapabilityError)) {
			t.Errorf("add %q: %v", bad, err)
		}
		if _, err := Tweak(nil, []string{bad}); !errors.As(err, new(*NoCapabilityError)) {
			t.Errorf("drop %q: %v", bad, err)
		}
	}
}

// The names are the kernel's, by their numbers.
func TestCapabilityNumbers(t *testing.T) {
	for name, n := range map[string]int{
		"CHOWN": unix.CAP_CHOWN, "SETPCAP": unix.CAP_SETPCAP, "NET_RAW": unix.CAP_NET_RAW, "SYS_MODULE": unix.CAP_SYS_MODULE,
		"SYS_ADMIN": unix.CAP_SYS_ADMIN, "MKNOD": unix.CAP_MKNOD, "SETFCAP": unix.CAP_SETFCAP, "SYSLOG": unix.CAP_SYSLOG,
		"AUDIT_READ": unix.CAP_AUDIT_READ, "BPF": unix.CAP_BPF, "CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got, err := Capability(name); err != nil || got != 1<<n {
			t.Errorf("%s: got %#x, %v; want %#x", name, got, err, uint64(1)<<n)
		}
	}
	if len(capabilities) != unix.CAP_LAST_CAP+1 {
		t.Errorf("there are %d names of %d capabilities", len(capabilities), unix.CAP_LAST_CAP+1)
	}
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if last, _ := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && last >= len(capabilities) {
		t.Errorf("this kernel has capability %d, which has no name", last)
	}
}

func TestCapabilityNames(t *testing.T) {
	got := CapabilityNames(set(unix.CAP_SETUID, unix.CAP_CHOWN, unix.CAP_AUDIT_WRITE, 60))
	if want := []string{"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_SETUID"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := CapabilityNames(0); got == nil || len(got) != 0 {
		t.Errorf("of none: %#v", got)
	}
	if got := CapabilityNames(AllCapabilities); len(got) != len(capabilities) {
		t.Errorf("of all: %d", len(got))
	}
}

func TestDefaults(t *testing.T) {
	for _, c := range []int{unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE, unix.CAP_NET_ADMIN, unix.CAP_SYS_MODULE, unix.CAP_DAC_READ_SEARCH, unix.CAP_BPF} {
		if DefaultCapabilities&(1<<c) != 0 {
			t.Errorf("capability %d is kept", c)
		}
	}
	for _, p := range append(MaskedPaths(), ReadOnlyPaths()...) {
		if !strings.HasPrefix(p, "/proc/") && !strings.HasPrefix(p, "/sys/") {
			t.Errorf("%q is not the kernel's", p)
		}
	}
}

func TestThrottles(t *testing.T) {
	dir := t.TempDir()
	if got := throttles(dir); got != nil {
		t.Errorf("of a virtual machine: %v", got)
	}
	for _, d := range []string{"cpu0", "cpu1", "cpu3"} {
		if err := os.MkdirAll(dir+"/"+d+"/thermal_throttle", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/possible", []byte("0-7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := []string{dir + "/cpu0/thermal_throttle", dir + "/cpu1/thermal_throttle", dir + "/cpu3/thermal_throttle"}
	if got := throttles(dir); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCPUs(t *testing.T) {
	for list, want := range map[string][]int{
		"0\n": {0}, "0-3\n": {0, 1, 2, 3}, "0,2-3,8\n": {0, 2, 3, 8}, "": nil, "\n": nil, "x": nil, "0-99999999": nil, "3-1": nil, "-1": nil,
	} {
		if got := cpus(list); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, want %v", list, got, want)
		}
	}
}

func TestUnmasked(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"ALL", "/proc/kcore", true}, {"/proc/kcore", "/proc/kcore", true}, {"/proc/kcore/", "/proc/kcore", true},
		{"/proc/*", "/proc/kcore", true}, {"/proc/*", "/sys/firmware", false}, {"/proc", "/proc/kcore", false}, {"/proc/[", "/proc/[", false},
	} {
		if got := Unmasked(tc.pattern, tc.name); got != tc.want {
			t.Errorf("%s of %s: %v", tc.pattern, tc.name, got)
		}
	}
}

func TestParseSysctl(t *testing.T) {
	for spec, want := range map[string][3]string{
		"net.ipv4.ip_forward=1":                   {"net.ipv4.ip_forward", "1", "net"},
		"net/ipv4/ip_forward=1":                   {"net.ipv4.ip_forward", "1", "net"},
		"net/ipv4/conf/eth0.100/forwarding=1":     {"net.ipv4.conf.eth0/100.forwarding", "1", "net"},
		"kernel.shmmax=4096":                      {"kernel.shmmax", "4096", "ipc"},
		"kernel.sem=250 32000 32 128":             {"kernel.sem", "250 32000 32 128", "ipc"},
		"fs.mqueue.msg_max=20":                    {"fs.mqueue.msg_max", "20", "ipc"},
		"kernel.domainname=example.org":           {"kernel.domainname", "example.org", "uts"},
		"net.core.somaxconn=a=b":                  {"net.core.somaxconn", "a=b", "net"},
		"net.ipv4.conf.eth0/100.forwarding=0":     {"net.ipv4.conf.eth0/100.forwarding", "0", "net"},
		"net.ipv4.conf.all.forwarding=0":          {"net.ipv4.conf.all.forwarding", "0", "net"},
		"kernel.shm_rmid_forced=1":                {"kernel.shm_rmid_forced", "1", "ipc"},
		"net.ipv4.ip_unprivileged_port_start=0\n": {"net.ipv4.ip_unprivileged_port_start", "0\n", "net"},
	} {
		name, value, kind, err := ParseSysctl(spec)
		if got := [3]string{name, value, kind}; err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", spec, got, err, want)
		}
	}
	for _, bad := range []string{
		"", "net.ipv4.ip_forward", "net.ipv4.ip_forward=", "kernel.core_pattern=x", "kernel.pid_max=1", "vm.swappiness=1", "fs.file-max=1",
		"net.//.kernel.core_pattern=x", "net/../kernel/core_pattern=x", "net..ipv4.ip_forward=1", "net.=1", "user.max_user_namespaces=1", "=1",
		"kernel.msgmax.x=1", "net./.x=1",
	} {
		if name, _, _, err := ParseSysctl(bad); err == nil {
			t.Errorf("%q is taken for %q", bad, name)
		}
	}
}

func TestSysctlFile(t *testing.T) {
	if got, want := SysctlFile("net.ipv4.conf.eth0/100.forwarding"), "/proc/sys/net/ipv4/conf/eth0.100/forwarding"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
