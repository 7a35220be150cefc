package cgroupv2

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what the processes of a cgroup use, and have used. What its
// controllers do not tell is 0.
type Usage struct {
	CPU         time.Duration // cpu.stat, usage_usec
	Memory      int64         // memory.current without the file cache that can go at any time, bytes
	MemoryLimit int64         // memory.max; 0: none
	MemoryPeak  int64         // memory.peak (Linux 5.19)
	OOMKills    int64         // memory.events, oom_kill
	Pids        int64         // pids.current
	Read        int64         // io.stat, bytes of all devices
	Written     int64

	Counted map[string]bool // controllers that tell: memory, pids, io
}

// Read returns the usage of the cgroup dir. It fails only if that is gone.
func Read(dir string) (u Usage, err error) {
	cpu, err := read(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return u, err
	}
	u.CPU = time.Duration(number(flat(cpu)["usage_usec"])) * time.Microsecond
	u.Counted = map[string]bool{}
	file := func(name string) string {
		text, err := read(filepath.Join(dir, name))
		if controller, _, _ := strings.Cut(name, "."); err == nil {
			u.Counted[controller] = true
		}
		return strings.TrimSpace(text)
	}
	u.Memory = number(file("memory.current"))
	if u.Memory > 0 {
		u.Memory = max(0, u.Memory-number(flat(file("memory.stat"))["inactive_file"]))
	}
	u.MemoryLimit = number(file("memory.max"))
	u.MemoryPeak = number(file("memory.peak"))
	u.OOMKills = number(flat(file("memory.events"))["oom_kill"])
	u.Pids = number(file("pids.current"))
	u.Read, u.Written = ioBytes(file("io.stat"))
	return u, nil
}

// number is a decimal number; "max", and what is none, is 0.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// ioBytes adds up the lines of io.stat.
func ioBytes(text string) (read, written int64) {
	for word := range strings.FieldsSeq(text) {
		if n, ok := strings.CutPrefix(word, "rbytes="); ok {
			read += number(n)
		} else if n, ok := strings.CutPrefix(word, "wbytes="); ok {
			written += number(n)
		}
	}
	return read, written
}
