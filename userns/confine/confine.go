// Package confine holds what a container may not do: the capabilities it
// keeps, the paths hidden from it, the system calls answered in the kernel's place.
package confine

import (
	"os"
	"path"
	"strconv"
	"strings"
)

// MaskedPaths are what Docker hides (moby, oci/defaults.go): host facts that no
// container needs.
func MaskedPaths() []string {
	return append([]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}, throttles("/sys/devices/system/cpu")...)
}

// throttles are the directories below dir that count how often each processor
// was too hot, which tells of the work of others. Virtual machines have none,
// which the first processor shows.
func throttles(dir string) (paths []string) {
	name := func(n int) string { return dir + "/cpu" + strconv.Itoa(n) + "/thermal_throttle" }
	if _, err := os.Lstat(name(0)); err != nil {
		return nil
	}
	possible, _ := os.ReadFile(dir + "/possible")
	for _, n := range cpus(string(possible)) {
		if _, err := os.Lstat(name(n)); err == nil {
			paths = append(paths, name(n))
		}
	}
	return paths
}

// cpus reads a list as the kernel writes it, 0-3,8 (cpuset(7), "List format").
func cpus(list string) (all []int) {
	for span := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, several := strings.Cut(span, "-")
		if !several {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || to-from >= 1<<16 {
			return nil
		}
		for n := from; n <= to; n++ {
			all = append(all, n)
		}
	}
	return all
}

// ReadOnlyPaths are what Docker makes read-only.
func ReadOnlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

// Unmasked tells whether pattern, one of --security-opt unmask=, is for the
// path that is hidden or read-only: ALL, the path, or a pattern of the shell's.
func Unmasked(pattern, name string) bool {
	if pattern == "ALL" || pattern == "all" {
		return true
	}
	ok, err := path.Match(path.Clean(pattern), name)
	return err == nil && ok
}
