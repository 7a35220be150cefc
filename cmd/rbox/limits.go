package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/userns/container"
)

// signed is the text of a number that may be -1, which is a value here and no flag.
type signed string

// limitFlags limit what a container uses, and may be changed while it runs.
type limitFlags struct {
	Memory            signed   `group:"Limits" short:"m" help:"Memory, as 512m. A container that needs more is killed." placeholder:"SIZE"`
	MemorySwap        signed   `group:"Limits" help:"Memory and swap together; -1: as much swap as there is. Default: twice --memory." placeholder:"SIZE"`
	MemoryReservation string   `group:"Limits" help:"Memory that is taken away last, when the host runs short." placeholder:"SIZE"`
	MemoryLow         string   `group:"Limits" help:"The same, by its name in the kernel; it goes before --memory-reservation." placeholder:"SIZE"`
	Cpus              signed   `group:"Limits" help:"Processors' worth of time, as 1.5." placeholder:"NUMBER"`
	CpuQuota          signed   `group:"Limits" help:"Microseconds of processor time in each period; -1: no limit." placeholder:"MICROSECONDS"`
	CpuPeriod         string   `group:"Limits" help:"That period, 1000 to 1000000. Default: 100000." placeholder:"MICROSECONDS"`
	CpuShares         signed   `group:"Limits" short:"c" help:"Weight among containers that want more time than there is, 2 to 262144." placeholder:"NUMBER"`
	CpusetCpus        string   `group:"Limits" help:"Processors to run on, as 0-2,4." placeholder:"LIST"`
	CpusetMems        string   `group:"Limits" help:"Memory nodes to use, as 0,1." placeholder:"LIST"`
	PidsLimit         signed   `group:"Limits" help:"Processes and threads; -1: no limit." placeholder:"NUMBER"`
	BlkioWeight       string   `group:"Limits" help:"Weight among containers that want more of a disk than it gives, 10 to 1000." placeholder:"NUMBER"`
	DeviceReadBps     []string `group:"Limits" sep:"none" help:"Bytes a second to read from a disk." placeholder:"DEVICE:SIZE"`
	DeviceWriteBps    []string `group:"Limits" sep:"none" help:"Bytes a second to write to a disk." placeholder:"DEVICE:SIZE"`
	DeviceReadIops    []string `group:"Limits" sep:"none" help:"Reads a second from a disk." placeholder:"DEVICE:NUMBER"`
	DeviceWriteIops   []string `group:"Limits" sep:"none" help:"Writes a second to a disk." placeholder:"DEVICE:NUMBER"`
	CgroupConf        []string `group:"Limits" sep:"none" help:"Write to a file of the cgroup, as memory.high=1G." placeholder:"FILE=VALUE"`
}

// cgroupFlags say where the container's cgroup comes from.
type cgroupFlags struct {
	limitFlags
	OomScoreAdj   signed `group:"Limits" help:"Which processes the kernel kills first when the host has no memory left, -1000 to 1000." placeholder:"NUMBER"`
	CgroupManager string `group:"Limits" help:"Who makes the container's cgroup: systemd, cgroupfs, auto for the first that can, or disabled." enum:"auto,systemd,cgroupfs,disabled" default:"auto" placeholder:"MANAGER"`
	CgroupParent  string `group:"Limits" help:"Slice, or cgroup, to make it in." placeholder:"NAME"`
	Cgroups       string `group:"Limits" help:"Whether it gets a cgroup: enabled, disabled, or no-conmon, which is enabled." enum:"enabled,disabled,no-conmon" default:"enabled" placeholder:"MODE"`
}

// cgroup is what the flags ask for.
func (f *cgroupFlags) cgroup() (c container.Cgroup, err error) {
	c.Parent = f.CgroupParent
	if f.CgroupManager != "auto" {
		c.Manager = f.CgroupManager
	}
	if f.Cgroups == "disabled" {
		c.Manager = cgroupv2.Disabled
	}
	if c.Limits, err = f.limits(); err != nil {
		return c, err
	}
	if err := checkLimits(c.Limits); err != nil {
		return c, err
	}
	// A new cgroup has no limits to take away, and needs no controller for that.
	c.Limits.Pids, c.Limits.CPUQuota = max(c.Limits.Pids, 0), max(c.Limits.CPUQuota, 0)
	if c.Manager == cgroupv2.Disabled && !c.Limits.IsZero() {
		return c, &adviceError{errors.New("conflicting options: a limit, and no cgroup to set it on"), "leave out --cgroups disabled, or --cgroup-manager disabled"}
	}
	if f.OomScoreAdj != "" {
		n, err := strconv.Atoi(string(f.OomScoreAdj))
		if err != nil || n < -1000 || n > 1000 {
			return c, fmt.Errorf("--oom-score-adj %s: it goes from -1000 to 1000", f.OomScoreAdj)
		}
		c.OOMScore = &n
	}
	setCgroupUser(&c)
	return c, nil
}

// checkLimits refuses what cannot be on this machine.
func checkLimits(l cgroupv2.Limits) error {
	if err := l.Check(runtime.NumCPU()); err != nil {
		return err
	}
	for _, set := range []struct{ flag, text, online string }{
		{"cpuset-cpus", l.CPUs, "/sys/devices/system/cpu/online"},
		{"cpuset-mems", l.Mems, "/sys/devices/system/node/online"},
	} {
		if set.text == "" {
			continue
		}
		text, err := os.ReadFile(set.online)
		if err != nil { // a kernel for one node alone, for instance: it is asked
			continue
		}
		have := strings.TrimSpace(string(text))
		if !cgroupv2.Covers(have, set.text) {
			return fmt.Errorf("--%s %s: this machine has %s", set.flag, set.text, have)
		}
	}
	return nil
}

// limits reads the flags.
func (f *limitFlags) limits() (l cgroupv2.Limits, err error) {
	for _, s := range []struct {
		flag  string
		text  signed
		to    *int64
		parse func(string) (int64, error)
	}{
		{"memory", f.Memory, &l.Memory, parseSize},
		{"memory-swap", f.MemorySwap, &l.MemorySwap, parseSwap},
		{"memory-reservation", signed(f.MemoryReservation), &l.Reservation, parseSize},
		{"memory-low", signed(f.MemoryLow), &l.MemoryLow, parseSize},
		{"cpu-quota", f.CpuQuota, &l.CPUQuota, parseNumber},
		{"cpu-period", signed(f.CpuPeriod), &l.CPUPeriod, parseNumber},
		{"cpu-shares", f.CpuShares, &l.CPUShares, parseNumber},
		{"pids-limit", f.PidsLimit, &l.Pids, parsePids},
		{"blkio-weight", signed(f.BlkioWeight), &l.BlkioWeight, parseNumber},
	} {
		if s.text == "" {
			continue
		}
		if *s.to, err = s.parse(string(s.text)); err != nil {
			return l, fmt.Errorf("--%s %s: %w", s.flag, s.text, err)
		}
	}
	if l.Memory > 0 && l.MemorySwap == 0 && l.Memory <= math.MaxInt64/2 {
		l.MemorySwap = 2 * l.Memory // as Docker and Podman have it
	}
	if err := f.cpus(&l); err != nil {
		return l, err
	}
	l.CPUs, l.Mems = f.CpusetCpus, f.CpusetMems
	if err := f.devices(&l); err != nil {
		return l, err
	}
	for _, kv := range f.CgroupConf {
		file, value, ok := strings.Cut(kv, "=")
		if !ok {
			return l, fmt.Errorf("--cgroup-conf %s: want FILE=VALUE, as memory.high=1G", kv)
		}
		l.Conf = append(l.Conf, [2]string{file, value})
	}
	return l, nil
}

// cpus takes --cpus as a quota.
func (f *limitFlags) cpus(l *cgroupv2.Limits) error {
	if f.Cpus == "" {
		return nil
	}
	n, err := strconv.ParseFloat(string(f.Cpus), 64)
	switch {
	case err != nil || math.IsNaN(n) || n < 0:
		return fmt.Errorf("--cpus %s: want a number of processors, as 1.5", f.Cpus)
	case l.CPUQuota != 0 || l.CPUPeriod != 0:
		return errors.New("conflicting options: --cpus, and --cpu-quota or --cpu-period")
	case n > float64(runtime.NumCPU()):
		return fmt.Errorf("--cpus %s: this machine has %d", f.Cpus, runtime.NumCPU())
	case n > 0 && n < 0.01:
		return fmt.Errorf("--cpus %s: the least is 0.01", f.Cpus)
	}
	l.CPUQuota = int64(math.Round(n * cgroupv2.DefaultPeriod))
	if l.CPUQuota > 0 {
		l.CPUPeriod = cgroupv2.DefaultPeriod
	}
	return nil
}

// devices reads the limits of disks, each disk's in one line.
func (f *limitFlags) devices(l *cgroupv2.Limits) error {
	for _, list := range []struct {
		flag  string
		words []string
		parse func(string) (int64, error)
		field func(*cgroupv2.IOLimit) *uint64
	}{
		{"device-read-bps", f.DeviceReadBps, parseSize, func(d *cgroupv2.IOLimit) *uint64 { return &d.ReadBPS }},
		{"device-write-bps", f.DeviceWriteBps, parseSize, func(d *cgroupv2.IOLimit) *uint64 { return &d.WriteBPS }},
		{"device-read-iops", f.DeviceReadIops, parseNumber, func(d *cgroupv2.IOLimit) *uint64 { return &d.ReadIOPS }},
		{"device-write-iops", f.DeviceWriteIops, parseNumber, func(d *cgroupv2.IOLimit) *uint64 { return &d.WriteIOPS }},
	} {
		for _, word := range list.words {
			i := strings.LastIndexByte(word, ':')
			if i < 0 {
				return fmt.Errorf("--%s %s: want DEVICE:LIMIT", list.flag, word)
			}
			n, err := list.parse(word[i+1:])
			if err == nil && n <= 0 {
				err = errors.New("it must be more than 0")
			}
			if err != nil {
				return fmt.Errorf("--%s %s: %w", list.flag, word, err)
			}
			d, err := diskOf(l, word[:i])
			if err != nil {
				return fmt.Errorf("--%s %s: %w", list.flag, word, err)
			}
			*list.field(d) = uint64(n)
		}
	}
	return nil
}

// diskOf finds the limits of the block device at path, or adds them.
func diskOf(l *cgroupv2.Limits, path string) (*cgroupv2.IOLimit, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, errors.New("it is not a disk")
	}
	major, minor := unix.Major(st.Rdev), unix.Minor(st.Rdev)
	for i := range l.Devices {
		if d := &l.Devices[i]; d.Major == major && d.Minor == minor {
			return d, nil
		}
	}
	l.Devices = append(l.Devices, cgroupv2.IOLimit{Major: major, Minor: minor})
	return &l.Devices[len(l.Devices)-1], nil
}

func parseSwap(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	return parseSize(s)
}

// parsePids takes 0, too, as no limit, as Docker does.
func parsePids(s string) (int64, error) {
	n, err := parseNumber(s)
	if err == nil && n == 0 {
		n = -1
	}
	return n, err
}

func parseNumber(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}

// setCgroupUser notes whose systemd is to be asked, as the host knows them now.
func setCgroupUser(c *container.Cgroup) {
	c.UID = os.Getuid()
	c.Runtime = os.Getenv("XDG_RUNTIME_DIR")
	if c.Runtime == "" { // after su, for instance
		c.Runtime = "/run/user/" + strconv.Itoa(c.UID)
	}
}
