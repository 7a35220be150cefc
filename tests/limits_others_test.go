package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
)

// sameLimits are limits as rbox and podman take them, and as crun does
// (config-linux.md of the OCI runtime specification).
var sameLimits = map[string]struct {
	flags  string // of both
	rbox   string
	podman string
	crun   string // linux.resources; DISK is the disk's numbers
}{
	"all": {
		flags: "-m 64m --memory-swap 96m --memory-reservation 32m --cpu-shares 512 --cpu-quota 50000 --cpu-period 200000 --cpuset-cpus 0 --cpuset-mems 0 " +
			"--pids-limit 64 --blkio-weight 300 --device-read-bps /dev/vda:1mb --device-write-bps /dev/vda:2mb " +
			"--device-read-iops /dev/vda:100 --device-write-iops /dev/vda:200 --cgroup-conf memory.high=60000000",
		crun: `{"memory": {"limit": 67108864, "swap": 100663296, "reservation": 33554432},
			"cpu": {"shares": 512, "quota": 50000, "period": 200000, "cpus": "0", "mems": "0"}, "pids": {"limit": 64},
			"blockIO": {"weight": 300,
				"throttleReadBpsDevice": [{DISK, "rate": 1048576}],
				"throttleWriteBpsDevice": [{DISK, "rate": 2097152}],
				"throttleReadIOPSDevice": [{DISK, "rate": 100}],
				"throttleWriteIOPSDevice": [{DISK, "rate": 200}]},
			"unified": {"memory.high": "60000000"}}`,
	},
	"otherwise": {
		flags: "-m 64m --memory-swap -1 --cpus 0.5 --cpu-shares 262144 --blkio-weight 1000 --pids-limit -1", rbox: "--memory-low 16m", podman: "--cgroup-conf memory.low=16777216",
		crun: `{"memory": {"limit": 67108864, "swap": -1}, "cpu": {"shares": 262144, "quota": 50000, "period": 100000},
			"blockIO": {"weight": 1000}, "unified": {"memory.low": "16777216"}}`,
	},
}

// limitNames are the files of a cgroup that limit it. memory.oom.group is not
// among them: the others let a container live on without those of its processes
// that were killed.
var limitNames = []string{
	"memory.max", "memory.min", "memory.low", "memory.high", "memory.swap.max", "memory.swap.high",
	"cpu.max", "cpu.max.burst", "cpu.weight", "cpu.idle", "cpuset.cpus", "cpuset.mems", "cpuset.cpus.partition", "pids.max", "io.max", "io.weight", "io.bfq.weight",
}

// crun and podman give the same limits the same files as rbox, whoever makes the cgroup.
func asOthersSetThem(t *testing.T, b *box) {
	bundle := b.bundle()
	rootfs := filepath.Join(bundle, "rootfs")
	var disk unix.Stat_t
	if err := unix.Stat("/dev/vda", &disk); err != nil {
		t.Fatal(err)
	}
	for name, tc := range sameLimits {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			numbers := fmt.Sprintf(`"major": %d, "minor": %d`, unix.Major(disk.Rdev), unix.Minor(disk.Rdev))
			resources := strings.ReplaceAll(tc.crun, "DISK", numbers)
			flags := words(tc.flags + " " + tc.rbox)
			byCrun := b.limitsByCrun(bundle, resources, "")
			t.Logf("%q", byCrun)
			for _, other := range []struct {
				who    string
				limits map[string]string
			}{
				{"rbox by systemd", b.limitsByRbox(cgroupv2.Systemd, flags)},
				{"rbox by cgroupfs", b.limitsByRbox(cgroupv2.Cgroupfs, flags)},
				{"crun by cgroupfs", b.limitsByCrun(bundle, resources, ownCgroup()+"/crun")}, // which rbox has left to its children
				{"podman", b.limitsByPodman(rootfs, words(tc.flags+" "+tc.podman))},
			} {
				for _, file := range limitNames {
					if other.limits[file] != byCrun[file] {
						t.Errorf("%s: %q by %s, and %q by crun", file, other.limits[file], other.who, byCrun[file])
					}
				}
			}
		})
	}
}

// bundle makes a folder with alpine's files, for crun.
func (b *box) bundle() string {
	b.t.Helper()
	rootfs := b.own(filepath.Join(b.home, "bundle", "rootfs"))
	want{}.check(b.t, b.do(call{prog: "tar", args: []string{"-C", rootfs, "-xzf", run.alpine, "--no-same-owner"}}))
	return filepath.Dir(rootfs)
}

// limitsByRbox runs a container with flags.
func (b *box) limitsByRbox(manager string, flags []string) map[string]string {
	b.t.Helper()
	b.must(slices.Concat([]string{"run", "-d", "--name", "box", "--cgroup-manager", manager}, flags, []string{"alpine", "sleep", "1000"})...)
	defer b.must("rm", "-f", "box")
	return limitsIn(b.cgroupOf("box"))
}

// limitsIn is what the files of the cgroup dir have, those that there are.
func limitsIn(dir string) map[string]string {
	limits := map[string]string{}
	for _, name := range limitNames {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			limits[name] = strings.TrimSpace(string(text))
		}
	}
	return limits
}

// limitsOf is limitsIn of the process whose number is in a file.
func (b *box) limitsOf(pidFile string) map[string]string {
	b.t.Helper()
	_, path, found := strings.Cut(fileText("/proc/"+fileText(pidFile)+"/cgroup"), "0::")
	if !found {
		b.t.Fatalf("%s names no process: %q", pidFile, fileText(pidFile))
	}
	return limitsIn("/sys/fs/cgroup" + path)
}

// other runs a program that has to succeed, and whose child may keep its output.
func (b *box) other(prog string, args ...string) {
	b.t.Helper()
	out := filepath.Join(b.home, "output")
	script := []string{"-c", `"$@" >` + out + " 2>&1", "sh", prog}
	got := b.do(call{prog: "sh", args: append(script, args...), limit: 2 * time.Minute})
	if got.status != 0 {
		b.t.Fatalf("%s %s: %v\n%s", prog, strings.Join(args, " "), got, fileText(out))
	}
}

// limitsByCrun has crun run a container with resources: in the cgroup path, or if
// that is "", in a scope that the user's systemd makes.
func (b *box) limitsByCrun(bundle, resources, path string) map[string]string {
	b.t.Helper()
	b.writeSpec(bundle, resources, path)
	manager, root := "--cgroup-manager=cgroupfs", "--root="+filepath.Join(b.home, "crun")
	if path == "" {
		manager = "--cgroup-manager=systemd"
	}
	pidFile := filepath.Join(b.home, "crun.pid")
	b.other("crun", manager, root, "run", "--detach", "--bundle", bundle, "--pid-file", pidFile, "box")
	defer b.other("crun", manager, root, "delete", "--force", "box")
	return b.limitsOf(pidFile)
}

// writeSpec makes crun's own example a program that sleeps, with resources.
func (b *box) writeSpec(bundle, resources, path string) {
	b.t.Helper()
	file := filepath.Join(bundle, "config.json")
	os.Remove(file)
	want{}.check(b.t, b.do(call{prog: "crun", args: []string{"spec", "--rootless"}, dir: bundle}))
	var spec, limits map[string]any
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &spec)
	}
	if err == nil {
		err = json.Unmarshal([]byte(resources), &limits)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	process, linux := spec["process"].(map[string]any), spec["linux"].(map[string]any)
	process["args"], process["terminal"] = []string{"sleep", "1000"}, false
	linux["resources"] = limits
	if path != "" {
		linux["cgroupsPath"] = path
	}
	if text, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(file, text, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// limitsByPodman has podman run a container with flags.
func (b *box) limitsByPodman(rootfs string, flags []string) map[string]string {
	b.t.Helper()
	pidFile := filepath.Join(b.home, "podman.pid")
	b.other("podman", slices.Concat([]string{"run", "-d", "--name", "box", "--network", "none", "--pidfile", pidFile}, flags, []string{"--rootfs", rootfs, "sleep", "1000"})...)
	defer func() {
		b.other("podman", "rm", "-f", "-t", "0", "box")
		// The process that keeps podman's namespace stays.
		if pid, err := strconv.Atoi(fileText(fmt.Sprintf("/run/user/%d/libpod/tmp/pause.pid", run.plain.UID))); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	return b.limitsOf(pidFile)
}
