package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
)

// masked tells what hides /proc/interrupts, and if /proc/sys can be written.
const masked = "stat -c %t:%T /proc/interrupts; (echo 1 >/proc/sys/kernel/panic) 2>/tmp/said || echo refused"

// What hides paths is not the container's /dev/null, and what a terminal is
// bound to not its /dev/console, whatever an image or a volume has there
// (CVE-2025-31133, -52565).
func TestForgedDevices(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for name, entries := range map[string][]images.Entry{
		"nodes":    {{Name: "dev/null", Link: "/proc/uptime"}, {Name: "dev/console", Link: "/proc/sys/kernel/panic"}, {Name: "dev/ptmx", Link: "/etc/passwd"}},
		"a folder": {{Name: "dev/pts", Link: "/proc/sys"}, {Name: "dev/mqueue", Link: "/proc"}, {Name: "dev/shm", Link: "/proc"}},
		"all":      {{Name: "dev", Link: "/proc/self"}},
	} {
		b.load("forged", alpineImage(t, v1.Config{}, layer(t, entries...)))
		for _, flags := range [][]string{nil, {"-t"}} {
			got := b.rbox(append(append([]string{"run", "--rm", "--network", "none"}, flags...), "forged", "sh", "-c", masked)...)
			if got.stdout = strings.ReplaceAll(got.stdout, "\r", ""); got.stdout != "1:3\nrefused\n" && got.status != 125 {
				t.Errorf("%s, %v: %v", name, flags, got)
			}
		}
	}
	// A container swaps them while another one starts with the same /dev.
	b.must("run", "-d", "--name", "swap", "-v", "shared:/v", "alpine", "sh", "-c", `cd /v; ln -s /proc/uptime null.l; ln -s /proc/sys/kernel/panic console.l
		ln -s /proc pts.l; ln -s /proc mqueue.l; touch null console; mkdir pts mqueue; echo up
		while :; do for f in null console pts mqueue; do mv -T $f $f.d; mv -T $f.l $f; mv -T $f $f.l; mv -T $f.d $f; done; done`)
	b.seeLog("swap", "up")
	ran := 0
	for i := range 30 {
		args := []string{"run", "--rm", "--network", "none", "-v", "shared:/dev", "alpine", "sh", "-c", masked}
		if i%3 == 0 {
			args = append([]string{"run", "-t"}, args[1:]...)
		}
		got := b.rbox(args...)
		if got.stdout = strings.ReplaceAll(got.stdout, "\r", ""); got.status != 125 && got.stdout != "1:3\nrefused\n" {
			t.Fatal(got)
		}
		if got.status == 0 {
			ran++
		}
	}
	if ran == 0 {
		t.Error("no container ran")
	}
}

// Settings are written where the kernel has them, whatever a volume makes of
// /proc (CVE-2025-52881).
func TestSettingsWithForgedProc(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.file("canary", "untouched\n", 0o666)
	links := []string{"sys/kernel/domainname", "sys/net/ipv4/ip_forward", "sys/net/ipv4/ping_group_range", "self/oom_score_adj", "self/attr/exec", "1/uid_map"}
	for _, name := range links {
		b.own(filepath.Join(b.home, "fake", filepath.Dir(name)))
		if err := os.Symlink("/canary", filepath.Join(b.home, "fake", name)); err != nil {
			t.Fatal(err)
		}
	}
	settings := []string{"--sysctl", "kernel.domainname=EVIL", "--sysctl", "net.ipv4.ip_forward=1", "--oom-score-adj", "900", "-v", "./canary:/canary"}
	start := func(flags ...string) result {
		t.Helper()
		got := b.rbox(append(append(append([]string{"run", "--rm"}, settings...), flags...), "alpine", "true")...)
		if text := b.read("canary"); text != "untouched\n" {
			t.Fatalf("%v: the canary holds %q: %v", flags, text, got)
		}
		if got.status != 0 && got.status != 125 {
			t.Errorf("%v: %v", flags, got)
		}
		return got
	}
	for _, flags := range [][]string{
		{"-v", "./fake:/proc"}, {"-v", "./fake/sys:/proc/sys"}, {"-v", "./fake/self:/proc/self"}, {"-v", "./canary:/proc/sys/kernel/domainname"},
		{"--tmpfs", "/proc"}, {"--security-opt", "unmask=ALL", "-v", "./fake:/proc"}, {"--privileged", "-v", "./fake:/proc"},
	} {
		start(flags...)
	}
	// Also while it changes.
	b.must("run", "-d", "--name", "swap", "-v", "shared:/v", "-v", "./fake:/fake:ro", "alpine", "sh", "-c", `cp -a /fake/. /v; cd /v; mkdir d; ln -s /canary l; mkdir e; echo up
		while :; do mv -T sys s; mv -T e sys; mv -T sys e; mv -T s sys; done`)
	b.seeLog("swap", "up")
	for range 10 {
		start("-v", "shared:/proc")
	}
	if got := start(); got.status != 0 {
		t.Error(got)
	}
}

// What copies out of a container, and into it, loads none of its libraries, nor
// what says which (CVE-2019-14271).
func TestCpLoadsNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	traps := []string{"/etc/nsswitch.conf", "/etc/ld.so.preload", "/etc/ld.so.cache", "/lib/libnss_files.so.2", "/usr/lib/libnss_files.so.2",
		"/lib/x86_64-linux-gnu/libnss_files.so.2", "/lib64/libnss_files.so.2", "/etc/localtime", "/usr/lib/locale/locale-archive"}
	b.must("run", "-d", "--name", "box", "alpine", "sh", "-c", fmt.Sprintf(`traps=; mkdir /data; echo x >/data/f
		for f in %s /control; do mkdir -p ${f%%/*}; echo trap >$f; traps="$traps $f:ar"; done; echo up; exec inotifyd - $traps`, strings.Join(traps, " ")))
	b.seeLog("box", "up")
	dir := b.fresh("echo y >g")
	if !eventually(callLimit, func() bool { // that it looks by now
		b.must("exec", "box", "cat", "/control")
		return strings.Contains(b.must("logs", "box"), "/control")
	}) {
		t.Fatal("what is opened is not seen")
	}
	for _, args := range [][]string{
		{"cp", "box:/data", dir}, {"cp", "-a", "box:/data/f", dir}, {"cp", dir + "/g", "box:/data"}, {"cp", "-a", dir, "box:/data"},
		{"cp", "box:/data", "-"},
	} {
		b.must(args...)
	}
	before := strings.Count(b.must("logs", "box"), "/control")
	b.must("exec", "box", "cat", "/control") // the last thing that it tells
	if !eventually(callLimit, func() bool { return strings.Count(b.must("logs", "box"), "/control") > before }) {
		t.Fatal("what is opened is no longer seen")
	}
	for _, f := range traps {
		if log := b.must("logs", "box"); strings.Contains(log, f) {
			t.Errorf("%s was opened: %s", f, log)
		}
	}
}
