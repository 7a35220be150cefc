// Bench is what `make bench` runs: rbox beside crun, bubblewrap and podman on
// this machine, as an unprivileged account, in rounds that take turns so that
// each meets the same noise. It prints medians, ratios, and whether the bars
// that rbox sets itself are met.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rbox/tests/account"
	"rbox/tests/images"
)

func main() {
	rounds := flag.Int("rounds", 50, "containers that each program starts")
	pulls := flag.Int("pulls", 5, "times that each program pulls the image")
	megabytes := flag.Int("size", 200, "size of the image to pull, MB")
	logs := flag.Int("log", 500, "what a container writes to its log, MB")
	transfers := flag.Int("transfers", 3, "times that each program moves data through a network")
	crowd := flag.Int("containers", 1000, "containers that are listed, and that run at one time")
	watched := flag.Int("stats", 100, "containers whose use is shown")
	only := flag.String("only", "", "measure only this: startup, commands, cgroups, stats, logs, listing, crowd, network or pull")
	if len(os.Args) == 5 && os.Args[1] == clientWord {
		if err := clientMain(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if err := enterMountNamespace(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if err := run(*only, sizes{*rounds, *pulls, *megabytes, *logs, *transfers, *crowd, *watched}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what the measurements share.
type bench struct {
	*account.Desk
	rbox   string // the copy of rbox to measure
	client string // a copy of this program, for containers
	alpine string // root file system, tar.gz

	cgroup *os.File // where commands are started; nil: where this program is

	alone    bool  // podman takes no part in what was asked for
	noPodman error // why podman takes no part
}

// alone are the parts in which podman takes no part.
var alone = []string{"cgroups", "stats", "listing", "crowd"}

// sizes say how much is measured.
type sizes struct{ rounds, pulls, megabytes, logs, transfers, crowd, watched int }

func run(only string, n sizes) error {
	who, err := account.Ensure(account.Plain)
	if err != nil {
		return err
	}
	top, err := filepath.Abs(".")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "rbench-")
	if err != nil {
		return err
	}
	defer removeAll(dir, top)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b := &bench{alone: slices.Contains(alone, only)}
	if b.rbox, err = account.CopyBinary(top, dir); err != nil {
		return err
	}
	if b.client, err = copySelf(dir); err != nil {
		return err
	}
	if b.alpine, _, err = images.Alpine(top, dir); err != nil {
		return err
	}
	if b.Desk, err = account.NewDesk(filepath.Join(dir, "1"), who); err != nil {
		return err
	}
	// The benchmark outlasts the tests' short idle time; podman wants a runtime directory.
	b.Env = append(b.Env, "RBOX_KEEPER_IDLE=5s", "XDG_RUNTIME_DIR="+b.Run)

	end := func() {
		b.endRbox()
		b.endPodman()
	}
	defer end()
	defer onInterrupt(func() {
		end()
		removeAll(dir, top)
	})()

	fmt.Printf("%s, %d CPUs, as %s with %d ids\n\n", kernel(), runtime.NumCPU(), who.Name, mapped(who))
	if err := b.load(); err != nil {
		return err
	}
	begun := false
	for _, part := range []struct {
		name    string
		size    int
		measure func() error
	}{
		{"startup", n.rounds, func() error { return b.startup(n.rounds) }},
		{"commands", n.rounds, func() error { return b.commands(n.rounds) }},
		{"cgroups", n.rounds, func() error { return b.cgroups(n.rounds) }},
		{"stats", min(n.rounds, n.watched), func() error { return b.stats(n.rounds, n.watched) }},
		{"logs", n.logs, func() error { return b.logs(n.logs) }},
		{"listing", min(n.rounds, n.crowd), func() error { return b.listing(n.rounds, n.crowd) }},
		{"crowd", n.crowd, func() error { return b.crowd(n.rounds, n.crowd) }},
		{"network", n.transfers, func() error { return b.network(n.transfers) }},
		{"pull", n.pulls, func() error { return b.pull(dir, n.pulls, n.megabytes) }},
	} {
		if part.size <= 0 || only != "" && only != part.name {
			continue
		}
		begun = true
		if partErr := part.measure(); partErr != nil {
			fmt.Printf("  not measured: %v\n\n", partErr)
			err = errors.Join(err, partErr)
		}
	}
	if !begun {
		return errors.New("there is nothing to measure")
	}
	return err
}

// copySelf copies this program into dir, where the account can reach it.
func copySelf(dir string) (path string, err error) {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "bench")
	return path, os.WriteFile(path, data, 0o755)
}

// onInterrupt has clean called, and this program end, by Ctrl-C or SIGTERM
// until the function it returns is called: containers in the background would
// outlive it.
func onInterrupt(clean func()) (over func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	go func() {
		if _, ok := <-signals; ok {
			clean()
			os.Exit(130)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// load makes the image alpine for rbox and for podman.
func (b *bench) load() error {
	if _, err := b.run(b.rbox, "import", b.alpine, "alpine"); err != nil {
		return err
	}
	if b.alone {
		b.noPodman = errors.New("not needed")
		return nil
	}
	if b.noPodman = b.lookPath("podman"); b.noPodman == nil {
		_, b.noPodman = b.run("podman", b.podman("import", b.alpine, podmanImage)...)
	}
	return nil
}

// podmanImage is the name by which podman has the image alpine.
const podmanImage = "localhost/bench/alpine"

// endRbox removes the containers that are there, in all stores.
func (b *bench) endRbox() {
	roots, _ := filepath.Glob(filepath.Join(b.Home, "*", "root"))
	for _, root := range append(roots, b.Root) {
		if err := b.silent("RBOX_ROOT="+root, b.rbox, "rm", "-f", "-a"); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

// endPodman does so, and ends the process that holds podman's user namespace.
func (b *bench) endPodman() {
	if !b.alone && b.lookPath("podman") == nil {
		b.run("podman", b.podman("rm", "-f", "-a", "-t", "0")...)
		b.run("podman", b.podman("system", "migrate")...)
	}
}

// podman is a command line of podman's that works on this desk alone.
func (b *bench) podman(args ...string) []string {
	return append([]string{"--cgroup-manager=cgroupfs", "--events-backend=file", "--log-level=error"}, args...)
}

// removeAll deletes dir: where the caller is not root, files of its subordinate
// ids need rbox.
func removeAll(dir, top string) {
	if os.Geteuid() != 0 {
		exec.Command(filepath.Join(top, "bin", "rbox"), "unshare", "rm", "-rf", dir).Run()
	}
	os.RemoveAll(dir)
}

// enterMountNamespace starts this program over in a mount namespace where
// /sys/fs/cgroup is cgroup v2 alone: on a v1/v2 hybrid crun refuses to start.
// Only root can, and only a hybrid needs it.
func enterMountNamespace() error {
	const mark = "RBOX_BENCH_NAMESPACE"
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil || fs.Type == unix.CGROUP2_SUPER_MAGIC || os.Geteuid() != 0 {
		return nil
	}
	if os.Getenv(mark) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), mark+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
		err := cmd.Start()
		if err == nil {
			go func() {
				for s := range signals {
					cmd.Process.Signal(s) // it cleans up
				}
			}()
			err = cmd.Wait()
		}
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			os.Exit(1)
		}
		if err == nil {
			os.Exit(0)
		}
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("none", "/sys/fs/cgroup", "cgroup2", 0, "")
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "Linux"
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}

func mapped(a account.Account) uint32 {
	n := uint32(1)
	for _, r := range a.SubUIDs {
		n += r.Count
	}
	return n
}

// lookPath is exec.LookPath in the account's PATH.
func (b *bench) lookPath(name string) error {
	for _, v := range b.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			for _, dir := range filepath.SplitList(path) {
				if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode()&0o111 != 0 {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("%s is not installed", name)
}

// run runs a command as the account and returns its stdout.
func (b *bench) run(prog string, args ...string) (string, error) {
	cmd := b.Command(prog, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(prog), verb(args), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// verb is the first of args that is no flag.
func verb(args []string) string {
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
	}
	return ""
}
