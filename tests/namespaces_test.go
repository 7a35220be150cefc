package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNamespacesAreNew(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	kinds := []string{"user", "mnt", "pid", "uts", "ipc", "net", "cgroup"}
	for name, tc := range map[string]struct {
		flags  []string
		shared []string
	}{
		"by default":     {},
		"--network host": {flags: []string{"--network", "host"}, shared: []string{"net"}},
		"--time-offset":  {flags: []string{"--time-offset", "monotonic=60"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := b.sh("cd /proc/self/ns && for n in "+strings.Join(kinds, " ")+" time; do echo $n $(readlink $n); done", tc.flags...)
			if got.status != 0 {
				t.Fatal(got)
			}
			for line := range strings.Lines(got.stdout) {
				kind, id, _ := strings.Cut(strings.TrimSpace(line), " ")
				ours, err := os.Readlink("/proc/self/ns/" + kind)
				if err != nil {
					t.Fatal(err)
				}
				shares := slices.Contains(tc.shared, kind) || kind == "time" && name != "--time-offset"
				if (id == ours) != shares {
					t.Errorf("%s namespace %s, the host's is %s", kind, id, ours)
				}
			}
		})
	}
}

func TestProc(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct {
		script string
		want   want
	}{
		"shows only the container's processes": {"ls /proc | grep -E '^[0-9]+$' | sort -n | head -n 1; ls /proc | grep -cE '^[0-9]+$'", want{match: `^1\n[1-6]\n$`}},
		"PID 1 is the program":                 {"tr '\\0' ' ' </proc/1/cmdline | cut -c 1-5", want{stdout: "sh -c\n"}},
		"is a fresh proc":                      {"grep -c ' /proc proc ' /proc/mounts", want{stdout: "1\n"}},
		"settings of the host are read-only":   {"echo 1 2>/dev/null >/proc/sys/kernel/panic || echo refused", want{stdout: "refused\n"}},
		"sysrq is out of reach":                {"echo h 2>/dev/null >/proc/sysrq-trigger || echo refused", want{stdout: "refused\n"}},
		"kcore holds nothing":                  {"head -c 1 /proc/kcore 2>/dev/null | wc -c", want{stdout: "0\n"}},
		"sys is read-only":                     {"touch /sys/x 2>&1; grep ' /sys sysfs ' /proc/mounts | cut -d ' ' -f 4 | cut -d , -f 1", want{match: `Read-only file system\nro\n$`}},
		"parent of PID 1 is outside":           {"awk '{print $4}' /proc/1/stat", want{stdout: "0\n"}},
		"session of its own":                   {"awk '{print $6, $5}' /proc/1/stat", want{stdout: "1 1\n"}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(tc.script)) })
	}
}

func TestDev(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{match: `^console\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n$|^fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n$|^core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n$`}.check(t, b.sh("ls /dev"))
	for name, tc := range map[string]struct {
		script string
		want   want
	}{
		"null":                            {"echo x >/dev/null; wc -c </dev/null; stat -c '%F %a' /dev/null", want{stdout: "0\ncharacter special file 666\n"}},
		"zero":                            {"head -c 4 /dev/zero | od -An -tx1", want{match: `00 00 00 00`}},
		"full":                            {"echo x 2>&1 >/dev/full", want{status: 1, match: "No space left"}},
		"random":                          {"head -c 16 /dev/random | wc -c", want{stdout: "16\n"}},
		"urandom":                         {"head -c 16 /dev/urandom | wc -c", want{stdout: "16\n"}},
		"ptmx":                            {"stat -L -c %F /dev/ptmx; stat -f -c %T /dev/pts", want{match: `^character special file\ndevpts|^character special file\nUNKNOWN|^character special file\n`}},
		"shm":                             {"touch /dev/shm/x && stat -c %a /dev/shm", want{stdout: "1777\n"}},
		"mqueue":                          {"grep -c ' /dev/mqueue mqueue ' /proc/mounts", want{stdout: "1\n"}},
		"fd links":                        {"for l in fd stdin stdout stderr; do readlink /dev/$l; done", want{stdout: "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n"}},
		"by a user":                       {"su -s /bin/sh nobody -c 'echo x >/dev/null && head -c 1 /dev/zero | wc -c && touch /dev/shm/u'", want{stdout: "1\n"}},
		"no disks":                        {"ls /dev/sda /dev/vda /dev/kmsg /dev/mem 2>/dev/null | wc -l", want{stdout: "0\n"}},
		"nothing is made in it by a user": {"su -s /bin/sh nobody -c 'touch /dev/x' 2>&1 | grep -c denied", want{stdout: "1\n"}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(tc.script)) })
	}
}

// The host's tree is gone: no mount, link or descriptor leads to it.
func TestHostIsOutOfSight(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		"no path of the host":               {nil, "for p in " + b.root + " " + b.home + " " + run.dir + "; do ls -d $p; done 2>/dev/null; echo none", want{stdout: "none\n"}},
		"root is a mount of its own":        {nil, "grep -c ' / / ' /proc/self/mountinfo", want{stdout: "1\n"}},
		"no way up":                         {nil, "cd ../../../../..; pwd; ls -d etc", want{stdout: "/\netc\n"}},
		"--init holds none":                 {[]string{"--init"}, "for i in 1 2 3 4 5 6 7 8 9; do test $(ls /proc/1/fd | wc -l) -gt 3 || break; sleep 0.1; done; ls /proc/1/fd", want{stdout: "0\n1\n2\n"}},
		"no environment of the host":        {nil, "tr '\\0' '\\n' </proc/1/environ | grep -c RBOX", want{status: 1, stdout: "0\n"}},
		"PID 1's executable is the image's": {nil, "readlink /proc/1/exe", want{match: `^/bin/`}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(tc.script, tc.flags...)) })
	}
}

func TestMountsArePrivate(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	got := b.sh("grep -cE ' (shared|master):' /proc/self/mountinfo", "-v", b.home+":/home")
	if got.stdout != "0\n" {
		t.Errorf("mounts that propagate: %v", got)
	}
}

func TestEtcFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{match: `(?m)^127\.0\.0\.1\s+localhost`}.check(t, b.sh("cat /etc/hosts"))
	want{match: `(?m)^::1\s+.*localhost`}.check(t, b.sh("cat /etc/hosts"))
	want{stdout: "ok\n"}.check(t, b.sh("echo 10.1.1.1 mine >>/etc/hosts && echo x >/etc/hostname && echo nameserver 10.1.1.2 >>/etc/resolv.conf && echo ok"))
	want{match: `(?m)^nameserver 10\.0\.\d+\.3$`}.check(t, b.sh("cat /etc/resolv.conf"))
	host := b.sh("cat /etc/resolv.conf", "--network", "host")
	ours, err := os.ReadFile("/etc/resolv.conf")
	if err == nil && host.stdout != string(ours) && !strings.Contains(host.stdout, firstNameserver(string(ours))) {
		t.Errorf("with the host's network resolv.conf is %q, the host's %q", host.stdout, ours)
	}
}

func firstNameserver(conf string) string {
	for line := range strings.Lines(conf) {
		if strings.HasPrefix(line, "nameserver") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func TestNetworkHost(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	entries, err := filepath.Glob("/sys/class/net/*")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, filepath.Base(e))
	}
	slices.Sort(names)
	got := b.sh("ls /sys/class/net | sort; touch /sys/x 2>/dev/null || echo read-only; cat /proc/net/dev | wc -l", "--network", "host")
	if !strings.HasPrefix(got.stdout, strings.Join(names, "\n")+"\nread-only\n") {
		t.Errorf("want the interfaces %v, got %v", names, got)
	}
}

// A /proc that something covers in part forbids a fresh one: rbox takes the
// next best, and says which mount is in the way.
func TestCoveredProc(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	script := `mount --bind /dev/null /proc/uptime && exec setpriv --reuid %d --regid %d --clear-groups "$RBOX" run --rm alpine sh -c 'ls /proc | grep -cE "^[0-9]+$"; echo $$; test -d /proc/self/ && echo ok'`
	if os.Geteuid() != 0 {
		t.Skip("needs to be run by root, to cover a file of /proc")
	}
	r := newBox(t, as(root(t)), noImage)
	r.env = append(slices.Clone(b.env), "RBOX="+run.bin)
	got := r.do(call{
		prog: "unshare", dir: b.home,
		args: []string{"-m", "--propagation", "private", "sh", "-c", fmt.Sprintf(script, b.who.UID, b.who.GID)},
	})
	if got.status != 0 || !strings.HasSuffix(got.stdout, "ok\n") || !strings.Contains(got.stderr, "/proc/uptime") {
		t.Errorf("got %v", got)
	}
}

func TestTimeOffsets(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	// /proc/uptime is the boot clock.
	want{stdout: "1\n"}.check(t, b.sh("awk '{print ($1 >= 1000000)}' /proc/uptime", "--time-offset", "boottime=1000000", "--time-offset", "monotonic=500"))
	want{match: `(?m)^monotonic\s+500\s+0\nboottime\s+1000000\s+0$`}.check(t, b.sh("cat /proc/self/timens_offsets", "--time-offset", "boottime=1000000", "--time-offset", "monotonic=500"))
	want{status: 125, stderr: `boottime.*-99999999999`}.check(t, b.sh("true", "--time-offset", "boottime=-99999999999"))
}

func TestUnshare(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{stdout: "0\n"}.check(t, b.rbox("unshare", "id", "-u"))
	want{status: 7}.check(t, b.rbox("unshare", "sh", "-c", "exit 7"))
	want{status: 127, stderr: `no-such-command`}.check(t, b.rbox("unshare", "no-such-command"))
	// What a container leaves under a subordinate id, its owner can mend.
	b.own(filepath.Join(b.home, "data"))
	want{}.check(t, b.sh("chmod 777 /data; mkdir /data/d && touch /data/d/f && chown -R 1000:1000 /data/d && chmod 700 /data/d", "-v", "./data:/data"))
	if b.do(call{prog: "rm", args: []string{"-rf", "data/d"}}).status == 0 && len(b.who.SubUIDs) > 0 {
		t.Error("the account can delete another id's files by itself: the test tests nothing")
	}
	want{stdout: "1000 1000\n"}.check(t, b.rbox("unshare", "stat", "-c", "%u %g", "data/d/f"))
	want{}.check(t, b.rbox("unshare", "chown", "-R", "0:0", "data/d"))
	want{}.check(t, b.do(call{prog: "rm", args: []string{"-rf", "data/d"}}))
}
