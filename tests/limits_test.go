package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rbox/cgroupv2"
)

// needControllers skips a test where this account has no controllers delegated,
// as most machines that build rbox; the guest of tests/vm has them.
func needControllers(t *testing.T) {
	t.Helper()
	file := fmt.Sprintf("/sys/fs/cgroup/user.slice/user-%d.slice/user@%d.service/cgroup.controllers", run.plain.UID, run.plain.UID)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("no controllers are delegated to %s: %v", run.plain.Name, err)
	}
	for _, c := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !strings.Contains(string(text), c) {
			t.Skipf("%s: no %s", file, c)
		}
	}
}

// TestControlGroups needs a host that delegates: all of it shares one box, since
// the guest takes its time to make one.
func TestControlGroups(t *testing.T) {
	needControllers(t)
	b := newBox(t, keeps, withEnv(fmt.Sprintf("XDG_RUNTIME_DIR=/run/user/%d", run.plain.UID)))
	for _, part := range []struct {
		name string
		test func(*testing.T, *box)
	}{
		{"limits", limitFiles},
		{"as podman and crun", asOthersSetThem},
		{"out of memory", outOfMemory},
		{"pids", pidsLimit},
		{"half a processor", halfAProcessor},
		{"freeze", freezes},
		{"update", updates},
		{"SIGKILL", cgroupsAfterSIGKILL},
		{"not delegated", notDelegated}, // after "limits", which has left our cgroup to its children
	} {
		t.Run(part.name, func(t *testing.T) {
			b := b.in(t)
			part.test(t, b)
			b.clear()
		})
	}
}

// fileText is what is in a file, without the last newline; "" if it cannot be read.
func fileText(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// cgroupOf is the directory of the cgroup of a container that runs.
func (b *box) cgroupOf(name string) string {
	b.t.Helper()
	_, path, found := strings.Cut(fileText("/proc/"+b.must("inspect", "-f", "{{.State.Pid}}", name)+"/cgroup"), "0::")
	if !found {
		b.t.Fatalf("%s has no cgroup", name)
	}
	return "/sys/fs/cgroup" + path
}

// Each flag gives the kernel's files their values, on both rungs.
func limitFiles(t *testing.T, b *box) {
	all := "-m 64m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 64 " +
		"--blkio-weight 300 --device-read-bps /dev/vda:1m --device-write-iops /dev/vda:100 --cgroup-conf memory.high=60000000"
	want := map[string]string{
		"memory.max": "67108864", "memory.swap.max": "67108864", "memory.low": "33554432", "memory.high": "59998208", "memory.oom.group": "1",
		"cpu.max": "50000 100000", "cpu.weight": "20", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "64",
		"io.max": "254:0 rbps=1048576 wbps=max riops=max wiops=100",
	}
	for _, manager := range []string{cgroupv2.Systemd, cgroupv2.Cgroupfs} {
		t.Run(manager, func(t *testing.T) {
			b := b.in(t)
			b.must(words("run -d --name " + manager + " --cgroup-manager " + manager + " " + all + " alpine sleep 1000")...)
			dir := b.cgroupOf(manager)
			for file, value := range want {
				text, err := os.ReadFile(filepath.Join(dir, file))
				if got := strings.TrimSpace(string(text)); err != nil || got != value {
					t.Errorf("%s: %q, %v, want %q", file, got, err, value)
				}
			}
			inside := b.must("exec", manager, "sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max")
			if inside != "0::/\n67108864" {
				t.Errorf("the container sees %q", inside)
			}
			b.must("rm", "-f", manager)
			b.gone(dir)
		})
	}
}

// gone waits until a cgroup is no more, with what systemd made around it.
func (b *box) gone(dir string) {
	b.t.Helper()
	if filepath.Base(dir) == "container" {
		dir = filepath.Dir(dir)
	}
	if !eventually(10*time.Second, func() bool { _, err := os.Stat(dir); return os.IsNotExist(err) }) {
		b.t.Errorf("left behind: %s", dir)
	}
}

// A container dies whole when it is out of memory, and is said to have.
func outOfMemory(t *testing.T, b *box) {
	const hog = "sleep 1000 & x=a; while :; do x=$x$x; done"
	for _, manager := range []string{cgroupv2.Systemd, cgroupv2.Cgroupfs} {
		got := b.rbox("run", "--name", manager, "--cgroup-manager", manager, "-m", "16m", "alpine", "sh", "-c", hog)
		if got.status != 137 {
			t.Errorf("%s: %v", manager, got)
		}
		if killed := b.state(manager, "OOMKilled"); killed != "true" {
			t.Errorf("%s: OOMKilled is %s", manager, killed)
		}
		if peak, _ := strconv.Atoi(b.must("inspect", "-f", "{{.State.MemoryPeak}}", manager)); peak < 8<<20 || peak > 17<<20 {
			t.Errorf("%s: its peak was %d bytes", manager, peak)
		}
	}
	if n := strings.Count(b.must("events", "--since", "1h", "--until", "0s", "--filter", "event=oom"), " oom "); n != 2 {
		t.Errorf("%d events of it", n)
	}
}

// A fork bomb comes to its limit, and dies at once.
func pidsLimit(t *testing.T, b *box) {
	b.must("run", "-d", "--pids-limit", "32", "--name", "box", "alpine", "sh", "-c", "f() { f | f & }; f; while :; do :; done")
	dir := b.cgroupOf("box")
	if !eventually(20*time.Second, func() bool {
		text, _ := os.ReadFile(filepath.Join(dir, "pids.events"))
		return regexp.MustCompile(`max [1-9]`).Match(text)
	}) {
		t.Error("the bomb did not come to its limit")
	}
	b.must("kill", "box")
	b.gone(dir)
}

// A container that is paused uses no processor, and starts nothing.
func freezes(t *testing.T, b *box) {
	b.must("run", "-d", "--name", "box", "alpine", "sh", "-c", "while :; do date +%N >/tick; sleep 0.01; done")
	file := "/proc/" + b.must("inspect", "-f", "{{.State.Pid}}", "box") + "/stat"
	used := func() string {
		text, _ := os.ReadFile(file)
		return string(text)
	}
	b.steps([]step{
		{`pause box`, want{stdout: "box\n"}},
		{`pause box`, want{status: 125, stderr: "already paused"}},
		{`ps --format {{.State}}`, want{stdout: "paused\n"}},
		{`exec box true`, want{status: 125, stderr: "is paused"}},
	})
	before := used()
	time.Sleep(200 * time.Millisecond) // nothing may happen meanwhile
	if used() != before {
		t.Error("it runs on")
	}
	b.steps([]step{
		{`unpause box`, want{stdout: "box\n"}},
		{`unpause box`, want{status: 125, stderr: "not paused"}},
		{`exec box true`, want{}},
		{`pause box`, want{}},
		{`stop -t 0 box`, want{}},
		{`start box`, want{}},
		{`pause -a`, want{}},
		{`rm -f box`, want{}},
	})
}

// A limit that cannot be kept is an error that says why, and leaves nothing;
// without limits a container does without a cgroup.
func TestLimitsThatCannotBe(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for flags, stderr := range map[string]string{
		"-m 64m --cgroup-parent /no/such":          `cannot limit memory: no cgroup to be had: .*\nrbox: hint: `,
		"--pids-limit 9 --cgroup-manager disabled": `conflicting options`,
		"--pids-limit 9 --cgroups disabled":        `conflicting options`,
		"-m 1k":                                    `--memory 1024: the least is`,
		"-m lots":                                  `--memory lots: "lots" is not a size`,
		"-m -5":                                    `--memory`,
		"-m 64m --memory-swap -2":                  `--memory-swap -2`,
		"-m 64m --memory-swap 1m":                  `--memory-swap 1048576: it is the sum`,
		"--cpus 100000":                            `--cpus 100000: this machine has`,
		"--cpus -1":                                `--cpus -1`,
		"--cpus 1 --cpu-quota 1000":                `conflicting options`,
		"--cpuset-cpus 3-1":                        `--cpuset-cpus 3-1`,
		"--pids-limit x":                           `--pids-limit x: "x" is not a number`,
		"--device-read-bps /dev/null:1m":           `--device-read-bps /dev/null:1m: it is not a disk`,
		"--device-read-bps /dev/nosuch:1m":         `--device-read-bps /dev/nosuch:1m: no such file`,
		"--device-read-bps 1m":                     `want DEVICE:LIMIT`,
		"--cgroup-conf memory.high":                `want FILE=VALUE`,
		"--cgroup-conf ../../memory.high=1":        `want the name of a cgroup's file`,
		"--oom-score-adj 1001":                     `it goes from -1000 to 1000`,
		"--oom-score-adj -999":                     `lower than rbox has it itself`,
	} {
		args := append([]string{"run", "--rm"}, append(strings.Fields(flags), "alpine", "true")...)
		want{status: 125, stderr: stderr}.check(t, b.rbox(args...))
	}
	want{stdout: ""}.check(t, b.rbox("ps", "-aq"))
	want{stdout: "500\n"}.check(t, b.rbox("run", "--rm", "--oom-score-adj", "500", "alpine", "cat", "/proc/self/oom_score_adj"))
	want{stdout: "ok\n"}.check(t, b.rbox("run", "--rm", "--cgroups", "no-conmon", "alpine", "echo", "ok"))
}

// New limits hold at once, and after a restart; stats shows them.
func updates(t *testing.T, b *box) {
	b.must(words("run -d --name box -m 64m --restart on-failure alpine sleep 1000")...)
	dir := b.cgroupOf("box")
	read := func(file string) string { return fileText(filepath.Join(dir, file)) }
	b.steps([]step{
		{`update --pids-limit 50 --cpus 1.5 box`, want{stdout: "box\n"}},
		{`update -m 128m box`, want{stdout: "box\n"}},
		{`update box`, want{status: 125, stderr: `nothing to change is given`}},
		{`update -m 1k box`, want{status: 125, stderr: `the least is`}},
		{`update -m 1g nosuch`, want{status: 125, stderr: `no such container`}},
		{`inspect -f {{.HostConfig.Memory}} box`, want{stdout: "134217728\n"}},
	})
	for file, want := range map[string]string{"memory.max": "134217728", "memory.swap.max": "134217728", "pids.max": "50", "cpu.max": "150000 100000"} {
		if got := read(file); got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
	}
	b.steps([]step{
		{`stop -t 0 box`, want{}},
		{`update --pids-limit 60 box`, want{stdout: "box\n"}},
		{`start box`, want{}},
	})
	dir = b.cgroupOf("box")
	if pids, memory := read("pids.max"), read("memory.max"); pids != "60" || memory != "134217728" {
		t.Errorf("after a restart: pids.max %s, memory.max %s", pids, memory)
	}
	want{match: `(?m)^CONTAINER ID +NAME +CPU % .*\n[0-9a-f]{12} +box +[0-9.]+% +[0-9.]+[KM]iB / 128MiB +[0-9.]+% +[0-9.]+k?B / [0-9.]+k?B +[0-9.]+.?B / [0-9.]+.?B +1$`}.
		check(t, b.rbox("stats", "--no-stream"))
	want{stdout: "box 1\n"}.check(t, b.rbox("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "box"))
}

// A processor hog gets half of one, however long it runs.
func halfAProcessor(t *testing.T, b *box) {
	b.must("run", "-d", "--name", "hog", "--cpus", "0.5", "alpine", "sh", "-c", "while :; do :; done")
	dir := b.cgroupOf("hog")
	used := func() time.Duration {
		u, err := cgroupv2.Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		return u.CPU
	}
	if !eventually(10*time.Second, func() bool { return used() > 500*time.Millisecond }) {
		t.Fatal("it does not run")
	}
	begun, before := time.Now(), used()
	time.Sleep(5 * time.Second) // the time is what is measured
	share := float64(used()-before) / float64(time.Since(begun))
	if share < 0.475 || share > 0.525 {
		t.Errorf("it got %.3f of a processor", share)
	}
}

// A controller that is missing is named, with what an administrator does about
// it; the processors can be had without.
func notDelegated(t *testing.T, b *box) {
	_, own, _ := strings.Cut(fileText("/proc/self/cgroup"), "0::")
	own = strings.TrimSuffix(own, "/rbox.callers")
	part := "/sys/fs/cgroup" + own + "/part"
	inner := filepath.Join(part, "inner")
	defer os.Remove(part)
	defer os.Remove(inner)
	if err := errors.Join(os.Mkdir(part, 0o755), os.WriteFile(part+"/cgroup.subtree_control", []byte("+memory"), 0), os.Mkdir(inner, 0o755)); err != nil {
		t.Fatal(err)
	}
	in := "run --rm --cgroup-manager cgroupfs --cgroup-parent " + own + "/part/inner "
	b.steps([]step{
		{in + `--pids-limit 5 alpine true`, want{status: 125, stderr: `the controller pids is not delegated to .*/part/inner\nrbox: hint: as root: .*delegate.conf`}},
		{in + `--cpuset-cpus 0 --cpuset-mems 0 alpine true`, want{status: 125, stderr: `the controller cpuset is not delegated`}},
		{in + `--cpuset-cpus 0 alpine grep Cpus_allowed_list /proc/self/status`, want{match: `:\s0\n`, stderr: `binds the program's threads only`}},
		{in + `-m 64m alpine cat /sys/fs/cgroup/memory.max`, want{stdout: "67108864\n"}},
		{in + `alpine cat /proc/self/cgroup`, want{stdout: "0::/\n"}},
	})
}

// Whatever is killed, no cgroup stays behind.
func cgroupsAfterSIGKILL(t *testing.T, b *box) {
	for _, manager := range []string{cgroupv2.Systemd, cgroupv2.Cgroupfs} {
		for _, victim := range []string{"Pid", "monitor"} {
			name := manager + victim
			b.must("run", "-d", "--name", name, "--cgroup-manager", manager, "-m", "64m", "alpine", "sh", "-c", "sleep 1000 & sleep 1000")
			dir := b.cgroupOf(name)
			pid := b.pid(name)
			if victim == "monitor" {
				pid = monitorOf(t, strconv.Itoa(pid))
			}
			syscall.Kill(pid, syscall.SIGKILL)
			if !eventually(20*time.Second, func() bool { return b.state(name, "Status") == "exited" }) {
				t.Errorf("%s: it is %s", name, b.state(name, "Status"))
			}
			// The next container there removes what a killed monitor has left.
			b.must("run", "--rm", "--cgroup-manager", manager, "alpine", "true")
			b.gone(dir)
		}
	}
}

// crun and podman give the same limits the same files.
func asOthersSetThem(t *testing.T, b *box) {
	const flags = "-m 64m --memory-reservation 32m --cpu-shares 512 --cpu-quota 50000 --cpuset-cpus 0 --pids-limit 64 --blkio-weight 300 --device-read-bps /dev/vda:1mb"
	b.must(words("run -d --name box " + flags + " alpine sleep 1000")...)
	ours := b.cgroupOf("box")

	rootfs := b.own(filepath.Join(b.home, "rootfs"))
	want{}.check(t, b.do(call{prog: "tar", args: []string{"-C", rootfs, "-xzf", run.alpine, "--no-same-owner"}}))
	podman := func(args ...string) {
		t.Helper()
		if got := b.do(call{prog: "podman", args: args, limit: 2 * time.Minute}); got.status != 0 {
			t.Fatalf("podman %v: %v", args, got)
		}
	}
	pidFile := filepath.Join(b.home, "pid")
	podman(slices.Concat([]string{"run", "-d", "--name", "box", "--network", "none", "--pidfile", pidFile}, words(flags), []string{"--rootfs", rootfs, "sleep", "1000"})...)
	defer func() {
		podman("rm", "-f", "-t", "0", "box")
		// The process that keeps podman's namespace stays.
		if pid, err := strconv.Atoi(fileText(fmt.Sprintf("/run/user/%d/libpod/tmp/pause.pid", run.plain.UID))); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	_, path, _ := strings.Cut(fileText("/proc/"+fileText(pidFile)+"/cgroup"), "0::")
	theirs := "/sys/fs/cgroup" + path
	for _, file := range []string{
		"memory.max", "memory.swap.max", "memory.low", "memory.high", "cpu.weight", "cpu.max", "cpuset.cpus", "pids.max", "io.max", "io.weight", "io.bfq.weight",
	} {
		a, errA := os.ReadFile(filepath.Join(ours, file))
		b, errB := os.ReadFile(filepath.Join(theirs, file))
		if string(a) != string(b) || (errA == nil) != (errB == nil) {
			t.Errorf("%s: %q (%v), and by podman with crun %q (%v)", file, a, errA, b, errB)
		}
	}
}

// On a terminal stats draws its table in place; keys change the order and end it.
// What no cgroup counts is "--".
func TestStatsOnATerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--cgroups", "disabled", "--name", "box", "alpine", "sleep", "1000")
	want{match: `box +-- +-- / -- +-- +[0-9.]+k?B / [0-9.]+k?B +-- +--\n`}.check(t, b.rbox("stats", "--no-stream"))
	want{match: `^\{.*"Name":"box".*\}\n$`}.check(t, b.rbox("stats", "--no-stream", "--format", "json"))
	term := newTerminal(b)
	before := term.modes()
	p := b.start(call{args: []string{"stats"}, tty: term})
	term.see("by name")
	term.write("s")
	term.see("by CPU")
	term.write("q")
	if got := p.wait(); got.status != 0 || term.modes() != before {
		t.Errorf("it ended with %d, the terminal as before: %v", got.status, term.modes() == before)
	}
	if text := term.out.String(); strings.Contains(text, "\x1b[2J") {
		t.Errorf("it clears the screen, which flickers: %q", text)
	}
	want{status: 125, stderr: "no such container: nosuch"}.check(t, b.rbox("stats", "nosuch"))
}
