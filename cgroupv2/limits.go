package cgroupv2

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits caps one container. A zero field is no limit: its file is left alone.
// Files, units and rounding are the kernel's
// (Documentation/admin-guide/cgroup-v2.rst); where Docker counts otherwise, the
// conversions are crun's, so that the same flags give the same files.
type Limits struct {
	Memory      int64 `json:",omitempty"` // memory.max, bytes; the kernel rounds down to whole pages
	MemorySwap  int64 `json:",omitempty"` // memory and swap together, bytes; -1: as much swap as there is
	Reservation int64 `json:",omitempty"` // memory.low, bytes: reclaimed last
	MemoryLow   int64 `json:",omitempty"` // memory.low too, and instead of Reservation

	CPUQuota  int64  `json:",omitempty"` // cpu.max, microseconds of each period; -1: no limit
	CPUPeriod int64  `json:",omitempty"` // cpu.max, microseconds; 0: 100000
	CPUShares int64  `json:",omitempty"` // 2 to 262144, becomes cpu.weight
	CPUs      string `json:",omitempty"` // cpuset.cpus, as "0-2,4"
	Mems      string `json:",omitempty"` // cpuset.mems, likewise

	Pids int64 `json:",omitempty"` // pids.max, tasks: threads count, not only processes; -1: no limit

	BlkioWeight int64       `json:",omitempty"` // 10 to 1000, becomes io.bfq.weight or io.weight
	Devices     []IOLimit   `json:",omitempty"` // io.max
	Conf        [][2]string `json:",omitempty"` // other files and what to write there
}

// IOLimit is a line of io.max, of one block device; a zero field is no limit.
type IOLimit struct {
	Major, Minor        uint32
	ReadBPS, WriteBPS   uint64 // bytes a second
	ReadIOPS, WriteIOPS uint64 // operations a second
}

// A Setting is a file of a cgroup and what to write there, or where this kernel
// has no such file, another and what it takes.
type Setting struct {
	File, Value string
	Else        *Setting
}

// DefaultPeriod is the kernel's period of cpu.max, microseconds.
const DefaultPeriod = 100000

// Settings are what l writes, in an order that the kernel takes.
func (l *Limits) Settings() (s []Setting) {
	add := func(file, format string, args ...any) {
		s = append(s, Setting{File: file, Value: fmt.Sprintf(format, args...)})
	}
	if l.Memory > 0 {
		add("memory.max", "%d", l.Memory)
	}
	if l.MemorySwap > 0 {
		add("memory.swap.max", "%d", l.MemorySwap-l.Memory) // the kernel counts swap alone
	} else if l.MemorySwap < 0 {
		add("memory.swap.max", "max")
	}
	if low := l.MemoryLow; low > 0 {
		add("memory.low", "%d", low)
	} else if l.Reservation > 0 {
		add("memory.low", "%d", l.Reservation)
	}
	if l.CPUShares > 0 {
		add("cpu.weight", "%d", Weight(l.CPUShares))
	}
	if l.CPUQuota != 0 || l.CPUPeriod != 0 {
		quota, period := "max", l.CPUPeriod
		if l.CPUQuota > 0 {
			quota = strconv.FormatInt(l.CPUQuota, 10)
		}
		if period == 0 {
			period = DefaultPeriod
		}
		add("cpu.max", "%s %d", quota, period)
	}
	if l.CPUs != "" {
		add("cpuset.cpus", "%s", l.CPUs)
	}
	if l.Mems != "" {
		add("cpuset.mems", "%s", l.Mems)
	}
	if l.Pids > 0 {
		add("pids.max", "%d", l.Pids)
	} else if l.Pids < 0 {
		add("pids.max", "max")
	}
	if l.BlkioWeight > 0 {
		// BFQ, where it is there, has a file of its own and Docker's range.
		add("io.bfq.weight", "%d", l.BlkioWeight)
		s[len(s)-1].Else = &Setting{File: "io.weight", Value: fmt.Sprintf("default %d", ioWeight(l.BlkioWeight))}
	}
	for _, d := range l.Devices {
		if line := d.line(); line != "" {
			add("io.max", "%d:%d%s", d.Major, d.Minor, line)
		}
	}
	for _, kv := range l.Conf {
		add(kv[0], "%s", kv[1])
	}
	return s
}

func (d IOLimit) line() (line string) {
	for _, f := range []struct {
		name  string
		value uint64
	}{{"rbps", d.ReadBPS}, {"wbps", d.WriteBPS}, {"riops", d.ReadIOPS}, {"wiops", d.WriteIOPS}} {
		if f.value > 0 {
			line += fmt.Sprintf(" %s=%d", f.name, f.value)
		}
	}
	return line
}

// with is d with what other sets in place of its own: io.max keeps what a line
// does not name.
func (d IOLimit) with(other IOLimit) IOLimit {
	for _, f := range []struct{ to, from *uint64 }{
		{&d.ReadBPS, &other.ReadBPS}, {&d.WriteBPS, &other.WriteBPS}, {&d.ReadIOPS, &other.ReadIOPS}, {&d.WriteIOPS, &other.WriteIOPS},
	} {
		if *f.from != 0 {
			*f.to = *f.from
		}
	}
	return d
}

// Weight is the cpu.weight, 1 to 10000, of Docker's shares, 2 to 262144: the
// same part of the range.
func Weight(shares int64) int64 { return 1 + (shares-2)*9999/262142 }

// ioWeight is the io.weight, 1 to 10000, of Docker's weight, 10 to 1000, likewise.
func ioWeight(weight int64) int64 { return 1 + (weight-10)*9999/990 }

// With is l with what other sets in place of its own.
func (l Limits) With(other Limits) Limits {
	for _, f := range []struct{ to, from *int64 }{
		{&l.Memory, &other.Memory}, {&l.MemorySwap, &other.MemorySwap}, {&l.Reservation, &other.Reservation}, {&l.MemoryLow, &other.MemoryLow},
		{&l.CPUQuota, &other.CPUQuota}, {&l.CPUPeriod, &other.CPUPeriod}, {&l.CPUShares, &other.CPUShares},
		{&l.Pids, &other.Pids}, {&l.BlkioWeight, &other.BlkioWeight},
	} {
		if *f.from != 0 {
			*f.to = *f.from
		}
	}
	if other.CPUs != "" {
		l.CPUs = other.CPUs
	}
	if other.Mems != "" {
		l.Mems = other.Mems
	}
	l.Devices = slices.Clone(l.Devices)
	for _, d := range other.Devices {
		same := func(old IOLimit) bool { return old.Major == d.Major && old.Minor == d.Minor }
		if i := slices.IndexFunc(l.Devices, same); i >= 0 {
			l.Devices[i] = l.Devices[i].with(d)
		} else {
			l.Devices = append(l.Devices, d)
		}
	}
	l.Conf = append(slices.Clone(l.Conf), other.Conf...) // the last of a file wins
	return l
}

// Completed is l, a change of old, with what one of its files holds beside what l
// sets: memory.swap.max is counted from the memory, and cpu.max has both numbers.
func (l Limits) Completed(old Limits) Limits {
	if l.MemorySwap != 0 && l.Memory == 0 {
		l.Memory = old.Memory
	}
	if l.CPUQuota != 0 && l.CPUPeriod == 0 {
		l.CPUPeriod = old.CPUPeriod
	}
	if l.CPUPeriod != 0 && l.CPUQuota == 0 {
		l.CPUQuota = old.CPUQuota
	}
	return l
}

// IsZero tells whether nothing is limited.
func (l *Limits) IsZero() bool { return len(l.Settings()) == 0 }

// Controllers are those that l needs, each once.
func (l *Limits) Controllers() (list []string) {
	seen := map[string]bool{"cgroup": true} // the files of every cgroup
	for _, s := range l.Settings() {
		c, _, _ := strings.Cut(s.File, ".")
		if !seen[c] {
			seen[c] = true
			list = append(list, c)
		}
	}
	return list
}

// Bounds of what the kernel takes: Documentation/scheduler/sched-bwc.rst.
const (
	minQuota, minPeriod, maxPeriod = 1000, 1000, 1000000
	minMemory                      = 512 << 10 // no program starts in less
)

// Check refuses what cannot be, on a machine with so many processors, before
// anything is made.
func (l *Limits) Check(processors int) error {
	for _, c := range []struct {
		name     string
		value    int64
		min, max int64
	}{
		{"memory", l.Memory, minMemory, 0},
		{"memory-reservation", l.Reservation, 1, 0},
		{"memory-low", l.MemoryLow, 1, 0},
		{"cpu-period", l.CPUPeriod, minPeriod, maxPeriod},
		{"cpu-shares", l.CPUShares, 2, 262144},
		{"blkio-weight", l.BlkioWeight, 10, 1000},
	} {
		switch {
		case c.value == 0 || c.value >= c.min && (c.max == 0 || c.value <= c.max):
		case c.max == 0:
			return fmt.Errorf("--%s %d: the least is %d", c.name, c.value, c.min)
		default:
			return fmt.Errorf("--%s %d: it goes from %d to %d", c.name, c.value, c.min, c.max)
		}
	}
	switch {
	case l.MemorySwap != 0 && l.Memory == 0:
		return errors.New("--memory-swap needs --memory: it is the sum of both")
	case l.MemorySwap < -1:
		return fmt.Errorf("--memory-swap %d: -1 is no limit", l.MemorySwap)
	case l.MemorySwap > 0 && l.MemorySwap < l.Memory:
		return fmt.Errorf("--memory-swap %d: it is the sum of memory and swap, and less than --memory %d", l.MemorySwap, l.Memory)
	case l.Reservation > 0 && l.Memory > 0 && l.Reservation > l.Memory:
		return fmt.Errorf("--memory-reservation %d: more than --memory %d", l.Reservation, l.Memory)
	case l.CPUQuota < -1 || l.CPUQuota > 0 && l.CPUQuota < minQuota:
		return fmt.Errorf("--cpu-quota %d: the least is %d, and -1 is no limit", l.CPUQuota, minQuota)
	case l.Pids < -1:
		return fmt.Errorf("--pids-limit %d: -1 is no limit", l.Pids)
	}
	if period := max(l.CPUPeriod, 0); l.CPUQuota > 0 {
		if period == 0 {
			period = DefaultPeriod
		}
		if l.CPUQuota > period*int64(processors) {
			return fmt.Errorf("--cpus %.2f: this machine has %d", float64(l.CPUQuota)/float64(period), processors)
		}
	}
	for _, set := range [][2]string{{"cpuset-cpus", l.CPUs}, {"cpuset-mems", l.Mems}} {
		if _, err := ParseSet(set[1]); err != nil {
			return fmt.Errorf("--%s %s: %w", set[0], set[1], err)
		}
	}
	for _, kv := range l.Conf {
		if err := checkConf(kv[0]); err != nil {
			return fmt.Errorf("--cgroup-conf %s: %w", kv[0], err)
		}
	}
	return nil
}

// checkConf refuses what is no file of a controller: a path, or a file that
// moves processes or hands controllers on.
func checkConf(file string) error {
	if !strings.Contains(file, ".") || strings.ContainsAny(file, "/\x00") || strings.HasPrefix(file, ".") {
		return errors.New("want the name of a cgroup's file, as memory.high")
	}
	if strings.HasPrefix(file, "cgroup.") && !strings.HasPrefix(file, "cgroup.max.") {
		return errors.New("this file is rbox's own")
	}
	return nil
}

// maxSet bounds the numbers of a set: more processors than any kernel counts.
const maxSet = 1 << 13

// ParseSet reads a list of processors or memory nodes, as "0-2,4"
// (cpuset(7), "List format").
func ParseSet(s string) (list []int, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err1 := strconv.ParseUint(from, 10, 16)
		b := a
		var err2 error
		if isRange {
			b, err2 = strconv.ParseUint(to, 10, 16)
		}
		if err1 != nil || err2 != nil || b < a || b >= maxSet {
			return nil, errors.New("want numbers and ranges, as 0-2,4")
		}
		for n := a; n <= b; n++ {
			list = append(list, int(n))
		}
	}
	return list, nil
}

// Covers tells whether all that is in the set part is in the set all.
func Covers(all, part string) bool {
	have, err1 := ParseSet(all)
	want, err2 := ParseSet(part)
	return err1 == nil && err2 == nil && !slices.ContainsFunc(want, func(n int) bool { return !slices.Contains(have, n) })
}
