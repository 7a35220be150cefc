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
		{"fork bomb", forkBomb},
		{"half a processor", halfAProcessor},
		{"freeze", freezes},
		{"update", updates},
		{"parents", parents},
		{"SIGKILL", cgroupsAfterSIGKILL},
		{"monitor out of memory", monitorOutOfMemory},
		{"manager that hangs", hangingManager},
		{"not delegated", notDelegated}, // after "limits", which has left our cgroup to its children
		{"withdrawn", withdrawn},
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
	files := map[string]string{
		"memory.max": "67108864", "memory.swap.max": "67108864", "memory.low": "33554432", "memory.high": "59998208", "memory.oom.group": "1",
		"cpu.max": "50000 100000", "cpu.weight": "20", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "64",
		"io.max": "254:0 rbps=1048576 wbps=max riops=max wiops=100",
	}
	for _, manager := range []string{cgroupv2.Systemd, cgroupv2.Cgroupfs} {
		t.Run(manager, func(t *testing.T) {
			b := b.in(t)
			b.must(words("run -d --name " + manager + " --cgroup-manager " + manager + " " + all + " alpine sleep 1000")...)
			dir := b.cgroupOf(manager)
			for file, value := range files {
				text, err := os.ReadFile(filepath.Join(dir, file))
				if got := strings.TrimSpace(string(text)); err != nil || got != value {
					t.Errorf("%s: %q, %v, want %q", file, got, err, value)
				}
			}
			inside := b.must("exec", manager, "sh", "-c", "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max")
			if inside != "0::/\n67108864" {
				t.Errorf("the container sees %q", inside)
			}
			pressure := b.must("inspect", "-f", "{{range $name, $p := .State.Pressure}}{{$name}} {{$p.Some.Avg10}} {{end}}", manager)
			if !regexp.MustCompile(`^cpu [0-9.]+ io [0-9.]+ memory [0-9.]+ $`).MatchString(pressure) {
				t.Errorf("its pressure is %q", pressure)
			}
			if manager == cgroupv2.Systemd {
				scopeAround(t, dir)
				user := fmt.Sprintf(`user-%d.slice/user@%[1]d.service`, run.plain.UID)
				want{match: `ok +cgroup +systemd user scope in /sys/fs/cgroup/user.slice/` + user + ` with cpuset, cpu, io, memory, pids`}.check(t, b.rbox("doctor"))
			}
			b.must("rm", "-f", manager)
			b.gone(dir)
		})
	}
}

// scopeAround looks at the scope in which the cgroup dir is a container's: with the
// monitor is the network process, which is not to end with the caller's session,
// and systemd's default does not limit what has no --pids-limit.
func scopeAround(t *testing.T, dir string) {
	t.Helper()
	scope := filepath.Dir(dir)
	var programs []string
	for pid := range strings.FieldsSeq(fileText(scope + "/monitor/cgroup.procs")) {
		program, _, _ := strings.Cut(fileText("/proc/"+pid+"/cmdline"), "\x00")
		programs = append(programs, filepath.Base(program))
	}
	if !slices.Contains(programs, "rbox-network") || len(programs) != 2 {
		t.Errorf("with the monitor are %q", programs)
	}
	if most := fileText(scope + "/pids.max"); most != "max" {
		t.Errorf("the scope has pids.max %s", most)
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

// A container dies whole when it is out of memory, and is said to have; its
// neighbors do not notice.
func outOfMemory(t *testing.T, b *box) {
	const hog = "sleep 1000 & x=a; while :; do x=$x$x; done"
	b.must("run", "-d", "--name", "neighbor", "alpine", "sleep", "1000")
	for _, manager := range []string{cgroupv2.Systemd, cgroupv2.Cgroupfs} {
		got := b.rbox("run", "--name", manager, "--cgroup-manager", manager, "-m", "64m", "alpine", "sh", "-c", hog)
		if got.status != 137 {
			t.Errorf("%s: %v", manager, got)
		}
		if killed := b.state(manager, "OOMKilled"); killed != "true" {
			t.Errorf("%s: OOMKilled is %s", manager, killed)
		}
		if peak, _ := strconv.Atoi(b.state(manager, "MemoryPeak")); peak < 32<<20 || peak > 65<<20 {
			t.Errorf("%s: its peak was %d bytes", manager, peak)
		}
	}
	if n := strings.Count(b.must("events", "--since", "1h", "--until", "0s", "--filter", "event=oom"), " oom "); n != 2 {
		t.Errorf("%d events of it", n)
	}
	want{}.check(t, b.rbox("exec", "neighbor", "true"))
}

// A fork bomb comes to its limit, while others start what they like, and dies at
// once, however many there are of it.
func forkBomb(t *testing.T, b *box) {
	b.must("run", "-d", "--name", "neighbor", "alpine", "sleep", "1000")
	b.must("run", "-d", "--pids-limit", "64", "--name", "bomb", "alpine", "sh", "-c", "f() { f | f & }; f; while :; do :; done")
	dir, beside := b.cgroupOf("bomb"), b.cgroupOf("neighbor")
	if !eventually(20*time.Second, func() bool {
		return regexp.MustCompile(`max [1-9]`).MatchString(fileText(dir + "/pids.events"))
	}) {
		t.Error("the bomb did not come to its limit")
	}
	if n, err := strconv.Atoi(fileText(dir + "/pids.current")); err != nil || n > 64 {
		t.Errorf("there are %d of it (%v)", n, err)
	}
	want{}.check(t, b.rbox("exec", "neighbor", "true"))
	begun := time.Now()
	want{match: `^[0-9a-f]+\n[0-9a-f]+\n$`}.check(t, b.rbox("kill", "--all"))
	b.gone(dir)
	t.Logf("gone after %v", time.Since(begun).Round(time.Millisecond))
	b.gone(beside)
	if status := b.state("bomb", "ExitCode"); status != "137" {
		t.Errorf("its status is %s", status)
	}
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
		"-m 64m --cgroup-parent /no/such":          `(cannot limit memory: no cgroup to be had: .*|--cgroup-parent /no/such: there is no such cgroup)\nrbox: hint: `,
		"--pids-limit 9 --cgroup-manager disabled": `conflicting options`,
		"--pids-limit 9 --cgroups disabled":        `conflicting options`,
		"-m 1k":                                    `--memory 1024: the least is`,
		"-m lots":                                  `--memory lots: "lots" is not a size`,
		"-m 64x":                                   `--memory 64x: "64x" is not a size`,
		"-m 99999999999t":                          `--memory 99999999999t: "99999999999t" is not a size`,
		"-m -5":                                    `--memory -5: "-5" is not a size`,
		"--memory-swap 1g":                         `--memory-swap needs --memory`,
		"--memory-reservation=-1":                  `--memory-reservation -1: "-1" is not a size`,
		"-m 64m --memory-reservation 128m":         `--memory-reservation 134217728: more than --memory 67108864`,
		"--memory-low x":                           `--memory-low x: "x" is not a size`,
		"--cpus 0.001":                             `--cpus 0.001: the least is 0.01`,
		"--cpus NaN":                               `--cpus NaN: want a number of processors`,
		"--cpu-quota 999":                          `--cpu-quota 999: the least is 1000`,
		"--cpu-quota -2":                           `--cpu-quota -2: the least is 1000`,
		"--cpu-quota 1s":                           `--cpu-quota 1s: "1s" is not a number`,
		"--cpu-period 999":                         `--cpu-period 999: it goes from 1000 to 1000000`,
		"--cpu-period 1000001":                     `--cpu-period 1000001: it goes from 1000 to 1000000`,
		"--cpu-shares 1":                           `--cpu-shares 1: it goes from 2 to 262144`,
		"--cpu-shares 262145":                      `--cpu-shares 262145: it goes`,
		"--cpu-shares -1":                          `--cpu-shares -1: it goes`,
		"--cpuset-cpus 8191":                       `--cpuset-cpus 8191: this machine has 0`,
		"--cpuset-cpus=-1":                         `--cpuset-cpus -1: want numbers and ranges`,
		"--cpuset-mems 1000":                       `--cpuset-mems 1000: this machine has 0`,
		"--pids-limit -2":                          `--pids-limit -2: -1 is no limit`,
		"--pids-limit 99999999999999999999":        `--pids-limit 99999999999999999999: "99999999999999999999" is not a number`,
		"--blkio-weight 9":                         `--blkio-weight 9: it goes from 10 to 1000`,
		"--blkio-weight 1001":                      `--blkio-weight 1001: it goes`,
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
		"--device-read-bps /dev/null:0":            `--device-read-bps /dev/null:0: it must be more than 0`,
		"--device-write-bps /dev/null:-1":          `--device-write-bps /dev/null:-1: "-1" is not a size`,
		"--device-read-iops /dev/null:1k":          `--device-read-iops /dev/null:1k: "1k" is not a number`,
		"--device-write-iops /dev/null:0":          `--device-write-iops /dev/null:0: it must be more than 0`,
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
	// As with Docker, 0 is no limit, and neither is -1 where it may stand: no controller is needed.
	none := "--cgroups no-conmon -m 0 --memory-reservation 0 --cpus 0 --cpu-shares 0 --cpu-quota 0 --cpu-period 0 --blkio-weight 0 --pids-limit 0"
	want{stdout: "ok\n"}.check(t, b.rbox(words("run --rm "+none+" alpine echo ok")...))
	want{stdout: "ok\n"}.check(t, b.rbox(words("run --rm --pids-limit -1 --cpu-quota -1 alpine echo ok")...))
}

// New limits hold at once, and after a restart; stats shows them.
func updates(t *testing.T, b *box) {
	b.must(words("run -d --name box -m 64m --restart on-failure alpine sleep 1000")...)
	dir := b.cgroupOf("box")
	read := func(file string) string { return fileText(filepath.Join(dir, file)) }
	b.steps([]step{
		{`update --pids-limit 50 --cpus 1.5 box`, want{stdout: "box\n"}},
		{`update --cpu-quota 120000 box`, want{stdout: "box\n"}},
		{`update --memory-swap 256m box`, want{stdout: "box\n"}},
		{`update --memory-swap 32m box`, want{status: 125, stderr: `less than --memory`}},
		{`update -m 1g --memory-swap -1 --device-read-bps /dev/vda:1m box`, want{stdout: "box\n"}},
		{`update -m 128m --device-write-iops /dev/vda:100 box`, want{stdout: "box\n"}},
		{`update box`, want{status: 125, stderr: `nothing to change is given`}},
		{`update -m 1k box`, want{status: 125, stderr: `the least is`}},
		{`update -m 1g nosuch`, want{status: 125, stderr: `no such container`}},
		{`inspect -f {{.HostConfig.Memory}} box`, want{stdout: "134217728\n"}},
	})
	for file, want := range map[string]string{"memory.max": "134217728", "memory.swap.max": "134217728", "pids.max": "50", "cpu.max": "120000 100000"} {
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
	if pids, memory, io := read("pids.max"), read("memory.max"), read("io.max"); pids != "60" || memory != "134217728" || io != "254:0 rbps=1048576 wbps=max riops=max wiops=100" {
		t.Errorf("after a restart: pids.max %s, memory.max %s, io.max %s", pids, memory, io)
	}
	b.must("update", "--pids-limit", "0", "box")
	if pids := read("pids.max"); pids != "max" {
		t.Errorf("0 is not no limit: pids.max %s", pids)
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
	b.must("kill", "hog")
	b.must("wait", "hog")
	if took, err := strconv.ParseFloat(b.state("hog", "CPUSeconds"), 64); err != nil || took < 2.4 {
		t.Errorf("it is said to have taken %v s (%v)", took, err)
	}
}

// ownCgroup is this process's cgroup, or the one that it has been moved out of.
func ownCgroup() string {
	_, own, _ := strings.Cut(fileText("/proc/self/cgroup"), "0::")
	return strings.TrimSuffix(own, "/rbox.callers")
}

// subtree makes part/inner in our own cgroup, where inner has only some controllers.
// It returns the path of inner, and takes both away at the test's end.
func subtree(t *testing.T, controllers string) string {
	t.Helper()
	part := ownCgroup() + "/part"
	inner := part + "/inner"
	for _, path := range []string{part, inner} {
		t.Cleanup(func() { os.Remove("/sys/fs/cgroup" + path) })
	}
	setControllers := func() error {
		return os.WriteFile("/sys/fs/cgroup"+part+"/cgroup.subtree_control", []byte(controllers), 0)
	}
	if err := errors.Join(os.Mkdir("/sys/fs/cgroup"+part, 0o755), setControllers(), os.Mkdir("/sys/fs/cgroup"+inner, 0o755)); err != nil {
		t.Fatal(err)
	}
	return inner
}

// A controller that is missing is named, with what an administrator does about
// it; the processors can be had without.
func notDelegated(t *testing.T, b *box) {
	in := "run --rm --cgroup-manager cgroupfs --cgroup-parent " + subtree(t, "+memory") + " "
	b.steps([]step{
		{in + `--pids-limit 5 alpine true`, want{status: 125, stderr: `the controller pids is not delegated to .*/part/inner\nrbox: hint: as root: .*delegate.conf`}},
		{in + `--cpuset-cpus 0 --cpuset-mems 0 alpine true`, want{status: 125, stderr: `the controller cpuset is not delegated`}},
		{in + `--cpuset-cpus 0 alpine grep Cpus_allowed_list /proc/self/status`, want{match: `:\s0\n`, stderr: `binds the program's threads only`}},
		{in + `-m 64m alpine cat /sys/fs/cgroup/memory.max`, want{stdout: "67108864\n"}},
		{in + `alpine cat /proc/self/cgroup`, want{stdout: "0::/\n"}},
	})

	// By default systemd delegates no cpuset.
	systemctl := func(args ...string) {
		b.other("env", slices.Concat([]string{fmt.Sprintf("XDG_RUNTIME_DIR=/run/user/%d", run.plain.UID), "systemctl", "--user"}, args)...)
	}
	slice := fmt.Sprintf("/run/user/%d/systemd/user/rboxless.slice", run.plain.UID)
	defer systemctl("daemon-reload")
	defer os.Remove(slice)
	if err := errors.Join(os.MkdirAll(filepath.Dir(slice), 0o755), os.WriteFile(slice, []byte("[Slice]\nDisableControllers=cpuset\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	systemctl("daemon-reload")
	in = "run --rm --cgroup-parent rboxless.slice -m 64m "
	b.steps([]step{
		{in + `--cpuset-cpus 0 alpine sh -c 'grep Cpus_allowed_list /proc/self/status; cat /sys/fs/cgroup/memory.max'`,
			want{match: `:\s0\n67108864\n$`, stderr: `binds the program's threads only`}},
		{in + `--cpuset-mems 0 alpine true`, want{status: 125, stderr: `the controller cpuset is not delegated to .*/rboxless.slice/rbox-`}},
	})
}

// A container whose controller is taken away runs on, without what it counted;
// what needs it from then on is an error that names it.
func withdrawn(t *testing.T, b *box) {
	inner := subtree(t, "+memory +pids")
	in := " --cgroup-manager cgroupfs --cgroup-parent " + inner + " -m 64m alpine "
	b.steps([]step{
		{"run -d --name folder" + in + "sleep 1000", want{}},
		{"run -d --name scope --cgroup-manager systemd -m 64m --pids-limit 50 alpine sleep 1000", want{}},
	})
	folder, scope := b.cgroupOf("folder"), b.cgroupOf("scope")
	for _, dir := range []string{filepath.Dir(folder), filepath.Dir(filepath.Dir(folder)), filepath.Dir(scope)} {
		if err := os.WriteFile(dir+"/cgroup.subtree_control", []byte("-memory"), 0); err != nil {
			t.Fatal(err)
		}
	}
	const missing = `the controller memory is not delegated to /sys/fs/cgroup/.*\nrbox: hint: as root: .*delegate.conf`
	for _, name := range []string{"folder", "scope"} {
		b.steps([]step{
			{"exec " + name + " true", want{}},
			{"update -m 128m " + name, want{status: 125, stderr: missing}},
			{"update --pids-limit 40 " + name, want{stdout: name + "\n"}},
			{"stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' " + name, want{stdout: "-- / -- 1\n"}},
			{"inspect -f {{.HostConfig.Memory}} " + name, want{stdout: "67108864\n"}},
		})
	}
	b.steps([]step{
		{"run --rm" + in + "true", want{status: 125, stderr: missing}},
		{"stop -t 0 folder scope", want{}},
		{"start folder", want{status: 125, stderr: missing}},
		{"start scope", want{}}, // systemd has the controller, and makes another one
	})
	b.gone(folder)
	b.gone(scope)
}

// A parent is a slice of systemd's or a cgroup, which may be gone.
func parents(t *testing.T, b *box) {
	b.must(words("run -d --name sliced --cgroup-parent rboxtest.slice alpine sleep 1000")...)
	dir := b.cgroupOf("sliced")
	if !strings.Contains(dir, "/rboxtest.slice/rbox-") {
		t.Errorf("it is in %s", dir)
	}
	b.must("rm", "-f", "sliced")
	b.gone(dir)

	const parent = "/part"
	if err := os.Mkdir("/sys/fs/cgroup"+ownCgroup()+parent, 0o755); err != nil {
		t.Fatal(err)
	}
	name := ownCgroup() + parent
	gone := want{status: 125, stderr: `--cgroup-parent ` + name + `: there is no such cgroup\nrbox: hint: mkdir /sys/fs/cgroup` + name}
	b.steps([]step{
		{"run --rm -m 64m --cgroup-manager systemd --cgroup-parent " + name + " alpine true", want{status: 125, stderr: `the user's systemd knows slices`}},
		{"run -d --name box --cgroup-parent " + name + " alpine sleep 1000", want{}},
	})
	if dir := b.cgroupOf("box"); filepath.Dir(dir) != "/sys/fs/cgroup"+name {
		t.Errorf("it is in %s", dir)
	}
	b.must("stop", "-t", "0", "box")
	if err := os.Remove("/sys/fs/cgroup" + name); err != nil {
		t.Fatal(err)
	}
	b.steps([]step{
		{"start box", gone},
		{"run --rm --cgroup-parent " + name + " alpine true", gone},
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

// A monitor that the kernel kills for want of memory takes its container with it,
// and leaves nothing.
func monitorOutOfMemory(t *testing.T, b *box) {
	b.must("run", "-d", "--name", "box", "-m", "64m", "alpine", "sleep", "1000")
	dir := b.cgroupOf("box")
	// Where the controller is handed on, it counts the monitor, too, and nothing limits that.
	if err := os.WriteFile(filepath.Dir(dir)+"/monitor/memory.max", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	if !eventually(20*time.Second, func() bool { return b.state("box", "Status") == "exited" }) {
		t.Errorf("it is %s", b.state("box", "Status"))
	}
	if status := b.state("box", "ExitCode"); status != "137" {
		t.Errorf("its status is %s", status)
	}
	b.gone(dir)
	b.steps([]step{
		{`start box`, want{}},
		{`exec box true`, want{}},
	})
}

// A systemd that does not answer holds up no container that can do without.
func hangingManager(t *testing.T, b *box) {
	pid := managerPid(t)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	want{stdout: "ok\n"}.check(t, b.rbox("run", "--rm", "alpine", "echo", "ok"))
	want{stdout: "67108864\n"}.check(t, b.rbox("run", "--rm", "-m", "64m", "--cgroup-manager", "cgroupfs", "alpine", "cat", "/sys/fs/cgroup/memory.max"))
}

// managerPid is the process of the account's systemd.
func managerPid(t *testing.T) int {
	t.Helper()
	procs := fileText(fmt.Sprintf("/sys/fs/cgroup/user.slice/user-%d.slice/user@%[1]d.service/init.scope/cgroup.procs", run.plain.UID))
	for pid := range strings.FieldsSeq(procs) {
		if fileText("/proc/"+pid+"/comm") == "systemd" {
			n, _ := strconv.Atoi(pid)
			return n
		}
	}
	t.Fatalf("none of %q is systemd", procs)
	return 0
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

// One process looks at all containers, however many there are, again and again.
func TestStatsOfMany(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	const many = 100
	var all []*process
	for range many {
		all = append(all, b.start(call{args: words("run -d --network none alpine sleep 1000")}))
	}
	for _, p := range all {
		want{}.check(t, p.wait())
	}
	p := b.start(call{args: words("stats --format {{.ID}}")})
	if !eventually(callLimit, func() bool { return strings.Count(p.stdout.String(), "\n") >= 2*many }) {
		t.Errorf("it shows %d lines", strings.Count(p.stdout.String(), "\n"))
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid))
	if err != nil || len(lists) == 0 {
		t.Fatalf("it has no threads: %v", err)
	}
	for _, list := range lists {
		if children := fileText(list); children != "" {
			t.Errorf("it has children: %s", children)
		}
	}
	p.signal(syscall.SIGKILL)
	p.wait()
	ids := strings.Fields(b.must("stats", "--no-stream", "--format", "{{.ID}}"))
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) != many {
		t.Errorf("it shows %d containers", len(ids))
	}
}
