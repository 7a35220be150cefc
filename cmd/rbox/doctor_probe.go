//go:build !front

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"rbox/idmap"
	"rbox/rootfs"
)

// probeName is the name under which rbox runs itself as one of the doctor's
// probes: main calls probeMain if it is called so. The arguments are
//
//	wait MORE...      until a byte comes on descriptor 3; then be root and go on with MORE
//	all [SCRATCH]     run every probe in a process of its own, print the faults found
//	one NAME SCRATCH  run one probe, print its fault
//	nothing           end well
const probeName = "rbox-doctor-probe"

// probeMain is the life of a probe; it returns the exit status.
func probeMain(args []string) int {
	runtime.LockOSThread() // what it starts dies with the thread
	var err error
	switch {
	case len(args) > 1 && args[0] == "wait":
		err = becomeRoot(args[1:])
	case len(args) == 2 && args[0] == "all":
		err = json.NewEncoder(os.Stdout).Encode(probeAll(args[1]))
	case len(args) == 3 && args[0] == "one":
		err = json.NewEncoder(os.Stdout).Encode(probeOne(args[1], args[2]))
	case len(args) == 1 && args[0] == "nothing":
	default:
		err = errors.New("this is a part of rbox doctor")
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		fmt.Fprint(os.Stderr, err)
		return statusRefused
	case err != nil:
		fmt.Fprint(os.Stderr, err)
		return 1
	}
	return 0
}

// statusRefused is the exit status of a probe that was denied something.
const statusRefused = 2

// probe is one trial as root of the user namespace.
type probe struct {
	name    string
	clone   uintptr // namespaces of its own
	unshare uintptr // those that clone(2) cannot make
	needs   string  // their name, where they are not what it tries
	data    bool    // it needs a scratch directory
	try     func(scratch string) error
}

func probes() []probe {
	nothing := func(string) error { return nil }
	driver := func(d rootfs.Driver) func(string) error {
		return func(scratch string) error { return rootfs.TryDriver(d, scratch) }
	}
	return []probe{
		{"mount", unix.CLONE_NEWNS, 0, "", false, nothing},
		{"pid", unix.CLONE_NEWPID, 0, "", false, nothing},
		{"ipc", unix.CLONE_NEWIPC, 0, "", false, nothing},
		{"uts", unix.CLONE_NEWUTS, 0, "", false, nothing},
		{"network", unix.CLONE_NEWNET, 0, "", false, nothing},
		{"cgroup", unix.CLONE_NEWCGROUP, 0, "", false, nothing},
		{"time", 0, unix.CLONE_NEWTIME, "", false, nothing},
		{"overlay", unix.CLONE_NEWNS, 0, "mount namespace", true, driver(rootfs.Overlay)},
		{"fuse-overlayfs", unix.CLONE_NEWNS, 0, "mount namespace", true, driver(rootfs.Fuse)},
		{"copy by reflink", 0, 0, "", true, rootfs.Reflink},
		{"files of all ids", 0, 0, "", true, rootfs.TakesLayers},
		{"fresh proc", unix.CLONE_NEWNS | unix.CLONE_NEWPID, 0, "PID namespace", false, mountProc},
		{"fresh sysfs", unix.CLONE_NEWNS | unix.CLONE_NEWNET, 0, "network namespace", false, mountSysfs},
		{"sealed memfd", 0, 0, "", false, runMemfd},
		{byTap, unix.CLONE_NEWNET, 0, "network namespace", false, openTun},
		{byVeth, unix.CLONE_NEWNET, 0, "network namespace", false, tryVeth},
		{bySlirp4netns, unix.CLONE_NEWNET, 0, "network namespace", false, tryProgram("slirp4netns")},
		{byPasta, unix.CLONE_NEWNET, 0, "network namespace", false, tryProgram("pasta")},
		{"/dev/fuse", 0, 0, "", false, openFuse},
	}
}

// mapIDs walks the ladder of ids with user namespaces that end at once.
func mapIDs() mapped {
	host := idmap.CurrentHost()
	maps, err := idmap.Plan(host)
	if err != nil {
		return mapped{err: err}
	}
	_, err = runInside(maps, "nothing")
	var helper *idmap.HelperError
	if !maps.Single && errors.As(err, &helper) {
		maps = idmap.SingleMaps(host, append(maps.Skipped, err))
		_, err = runInside(maps, "nothing")
	}
	if err != nil {
		return mapped{skipped: maps.Skipped, err: idmap.ExplainUserNS(err)}
	}
	return mapped{maps: maps, skipped: maps.Skipped}
}

// tryInside runs all probes and returns the faults of those that failed, by
// name. Those that need scratch are left out if it is "".
func tryInside(maps idmap.Maps, scratch string) (map[string]*Fault, error) {
	out, err := runInside(maps, "all", scratch)
	if err != nil {
		return nil, idmap.ExplainUserNS(err)
	}
	faults := map[string]*Fault{}
	if err := json.Unmarshal(out, &faults); err != nil {
		return nil, fmt.Errorf("what the probes found: %w", err)
	}
	return faults, nil
}

// runInside runs a probe's process as root of a new user namespace with maps
// and returns what it wrote to its standard output.
func runInside(maps idmap.Maps, args ...string) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ready, release, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer release.Close()
	cmd := probeCommand(context.Background(), append([]string{"wait"}, args...)...)
	cmd.ExtraFiles = []*os.File{ready}
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
	// An exec without a mapped id loses all capabilities but these.
	// All of them, since under no_new_privs none comes back.
	cmd.SysProcAttr.AmbientCaps = allCaps()
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err = cmd.Start()
	ready.Close()
	if err != nil {
		return nil, withoutPath(err)
	}
	if err := maps.Write(cmd.Process.Pid); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	release.Write([]byte{0}) // if nobody reads, Wait tells why
	err = cmd.Wait()
	switch {
	case err != nil && cmd.ProcessState.ExitCode() == statusRefused:
		return nil, fmt.Errorf("%s (%w)", words.String(), unix.EPERM)
	case err != nil:
		return nil, fmt.Errorf("%s (%w)", words.String(), err)
	}
	return out.Bytes(), nil
}

// withoutPath is err without "fork/exec /proc/self/exe", which tells nobody
// anything.
func withoutPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) && path.Op == "fork/exec" {
		return path.Err
	}
	return err
}

// allCaps are the capabilities that this kernel knows.
func allCaps() []uintptr {
	last := uintptr(unix.CAP_LAST_CAP)
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 6); err == nil {
			last = uintptr(n)
		}
	}
	var caps []uintptr
	for c := uintptr(0); c <= last; c++ {
		caps = append(caps, c)
	}
	return caps
}

// probeCommand is rbox itself as a probe, which dies with the calling thread.
func probeCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{probeName}, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// becomeRoot waits until the maps are written, takes the namespace's root for
// its ids, and starts over with args and all capabilities.
func becomeRoot(args []string) error {
	if _, err := io.ReadFull(os.NewFile(3, "ready"), make([]byte, 1)); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil && !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return fmt.Errorf("setresgid: %w", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("setresuid: %w", err)
	}
	return syscall.Exec("/proc/self/exe", append([]string{probeName}, args...), os.Environ())
}

// probeAll runs every probe in a process of its own, so that none can spoil
// another, and returns the faults by name.
func probeAll(scratch string) map[string]*Fault {
	faults := map[string]*Fault{}
	for _, p := range probes() {
		if p.data && scratch == "" {
			continue
		}
		if f := p.run(scratch); f != nil {
			faults[p.name] = f
		}
	}
	return faults
}

// run runs p in a process with namespaces of its own.
func (p probe) run(scratch string) *Fault {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := probeCommand(ctx, "one", p.name, scratch)
	cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.Unshareflags = p.clone, p.unshare
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return &Fault{Rung: p.name, Why: "no answer within 20 seconds"}
	case errors.As(err, &exit):
		return &Fault{Rung: p.name, Why: fmt.Sprintf("the probe failed: %s (%v)", bytes.TrimSpace(exit.Stderr), err)}
	case err != nil && p.needs != "":
		return &Fault{Rung: p.name, Why: fmt.Sprintf("no %s of its own: %v", p.needs, withoutPath(err))}
	case err != nil:
		return p.fault(withoutPath(err))
	}
	var f *Fault
	if err := json.Unmarshal(out, &f); err != nil {
		return &Fault{Rung: p.name, Why: fmt.Sprintf("the probe said %q: %v", out, err)}
	}
	return f
}

// fault is what err says about p.
func (p probe) fault(err error) *Fault {
	if p.name == "mount" && errors.Is(err, os.ErrPermission) {
		err = idmap.ExplainUserNS(err)
	}
	exe, _ := idmap.Executable()
	cures := curesOf(err, exe)
	if cures == nil {
		cures = cureOf(p.name, err)
	}
	why := err.Error()
	var driver *rootfs.DriverError
	if errors.As(err, &driver) {
		why = driver.Err.Error() // its name is the rung's
	}
	return &Fault{Rung: p.name, Why: why, Cures: cures}
}

// probeOne runs the probe called name in this process.
func probeOne(name, scratch string) *Fault {
	for _, p := range probes() {
		if p.name != name {
			continue
		}
		if err := p.try(scratch); err != nil {
			return p.fault(err)
		}
		return nil
	}
	return &Fault{Rung: name, Why: "there is no such probe"}
}

// mountProc mounts a fresh proc, which the kernel allows only where another is
// in sight that nothing covers in part.
func mountProc(string) error {
	covers := mountsBelow("/proc")
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) && len(covers) > 0 {
		return fmt.Errorf("%w: parts of /proc are covered (%s)", err, strings.Join(covers, ", "))
	}
	return err
}

// mountsBelow lists the mounts below dir, but not those on directories that
// the kernel keeps empty for them.
func mountsBelow(dir string) []string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") && f[4] != "/proc/sys/fs/binfmt_misc" {
			found = append(found, f[4])
		}
	}
	if len(found) > 3 {
		found = append(found[:3], "...")
	}
	return found
}

func mountSysfs(string) error {
	return unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
}

// runMemfd runs a copy of this program from a memory file that nobody can
// change any more.
func runMemfd(string) error {
	// Before Linux 6.3 all memory files are executable, and the flag is unknown.
	fd, err := unix.MemfdCreate("rbox-doctor", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("rbox-doctor", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	}
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "memfd")
	defer mem.Close()
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer exe.Close()
	if _, err := io.Copy(mem, exe); err != nil {
		return err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	cmd := probeCommand(context.Background(), "nothing")
	cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{mem}
	return cmd.Run()
}

// openTun makes a network device in a network namespace of ours.
func openTun(string) error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	req, err := unix.NewIfreq("rbox0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	return nil
}

// openFuse opens the device by which programs serve file systems.
func openFuse(string) error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
