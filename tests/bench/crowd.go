package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxIdle is what rbox promises to keep in memory at most for a container that
// does nothing, bytes.
const maxIdle = 3 << 20

// crowd measures many containers at one time: how long they take to start, to
// list and to remove, and what rbox keeps in memory for each.
func (b *bench) crowd(rounds, n int) error {
	// The keeper, and what the first container reads from the disk, are there before.
	if _, err := b.run(b.rbox, "run", "--rm", "--network", "none", "alpine", "true"); err != nil {
		return err
	}
	before, err := settled()
	if err != nil {
		return err
	}
	program := []string{"sleep", strconv.Itoa(100000 + os.Getpid())} // ours alone
	command := append([]string{"run", "-d", "--network", "none", "alpine"}, program...)
	start := time.Now()
	errs := inParallel(n, func() error { return b.silent("", b.rbox, command...) })
	r := crowdResult{n: n, started: time.Since(start)}
	after, err := settled()
	if err != nil {
		return err
	}
	m := b.weigh(program)
	r.share, r.fall = m.rbox, before-after-m.programs
	if rounds > 0 {
		all := []*contestant{b.listerOf(n, "", []string{"ps"}), b.lister(fewListed, command, "ps")}
		measure(rounds, all)
		listingTable(fmt.Sprintf("list %d running containers", n), all)
	}
	start = time.Now()
	_, removed := b.run(b.rbox, "rm", "-f", "-a")
	r.removed = time.Since(start)
	r.failures = append(errs, b.missed(n, m, removed)...)
	r.print()
	return nil
}

// crowdResult is what was measured of n containers.
type crowdResult struct {
	n                int
	started, removed time.Duration
	share, fall      int64 // bytes: rbox's processes; MemAvailable without the programs
	failures         []error
}

func (r crowdResult) print() {
	n := int64(r.n)
	row := func(name, all, each string) { fmt.Printf("  %-42s %16s %10s\n", name, all, each) }
	fmt.Printf("%-44s %16s %10s\n", fmt.Sprintf("%d containers that sleep", n), "in all", "each")
	row(fmt.Sprintf("rbox run -d, %d at a time", atOnce()), format(r.started), format(r.started/time.Duration(n)))
	row("rbox rm -f -a", format(r.removed), format(r.removed/time.Duration(n)))
	row("proportional share of rbox's processes", mebibytes(r.share), mebibytes(r.share/n))
	row("fall of MemAvailable less the programs'", mebibytes(r.fall), mebibytes(r.fall/n))
	fmt.Printf("  %-42s %s (%d)\n", "no failure", met(len(r.failures) == 0), len(r.failures))
	if len(r.failures) > 0 {
		reason, _, _ := strings.Cut(r.failures[0].Error(), "\n")
		fmt.Printf("    the first: %s\n", reason)
	}
	verdict := func(way string, bytes int64) {
		part := float64(bytes) / float64(n) / maxIdle
		fmt.Printf("  %-42s %s (%.3f)\n", "at most 3 MiB for each, by "+way, met(part <= 1), part)
	}
	verdict("share", r.share)
	verdict("MemAvailable", r.fall)
	fmt.Println()
}

// missed tells what is not as it should be of n containers that were started,
// weighed, and removed with the error removed.
func (b *bench) missed(n int, m memory, removed error) (errs []error) {
	if m.running != n || m.monitors < n {
		errs = append(errs, fmt.Errorf("%d programs run and %d processes of rbox, for %d containers", m.running, m.monitors, n))
	}
	if removed != nil {
		errs = append(errs, removed)
	}
	if left, err := b.run(b.rbox, "ps", "-a", "-q"); err != nil || left != "" {
		errs = append(errs, errors.Join(err, fmt.Errorf("%d containers are left", len(strings.Fields(left)))))
	}
	return errs
}

// memory is the proportional set size of processes, bytes: what several share
// counts in parts, so that sums are right.
type memory struct {
	rbox     int64 // all of the bench's rbox: monitors, keeper
	programs int64 // the containers' own
	monitors int   // number of the former
	running  int   // number of the latter
}

// weigh looks at all processes; the containers' are program.
func (b *bench) weigh(program []string) (m memory) {
	lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		dir := filepath.Dir(list)
		args := strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00")
		exe, _ := os.Readlink(dir + "/exe")
		switch {
		case strings.HasPrefix(exe, b.Dir+"/") || exe == b.rbox:
			m.rbox += share(dir)
			m.monitors++
		case slices.Equal(args, program):
			m.programs += share(dir)
			m.running++
		}
	}
	return m
}

// share is the Pss of the process in the folder dir of /proc, bytes.
func share(dir string) int64 {
	data, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return 0
	}
	return kilobytes(string(data), "Pss:") << 10
}

// available is MemAvailable, bytes.
func available() (int64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	return kilobytes(string(data), "MemAvailable:") << 10, err
}

// kilobytes is the number on the line of text that begins with label.
func kilobytes(text, label string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == label {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// settled is MemAvailable once it rests: for a second it has changed by less
// than 2 MiB, or 15 seconds are over.
func settled() (int64, error) {
	now, err := available()
	for range 15 {
		time.Sleep(time.Second)
		last := now
		if now, err = available(); err != nil || max(now-last, last-now) < 2<<20 {
			break
		}
	}
	return now, err
}

func mebibytes(n int64) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }

// atOnce is how many commands inParallel runs at one time.
func atOnce() int { return 4 * runtime.NumCPU() }

// inParallel calls f n times and returns the failures.
func inParallel(n int, f func() error) (errs []error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce())
	for range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if err := f(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errs
}
