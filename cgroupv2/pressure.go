package cgroupv2

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Pressure is how much time processes have lost for want of a resource: some of
// them, or all at once (Documentation/accounting/psi.rst).
type Pressure struct {
	Some Stall
	Full Stall
}

// Stall is the part of the last 10, 60 and 300 seconds, in percent, and the
// time in all.
type Stall struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// ReadPressure reads the pressure on cpu, memory and io of the cgroup dir, of
// those that the kernel tells.
func ReadPressure(dir string) map[string]Pressure {
	all := map[string]Pressure{}
	for _, resource := range []string{"cpu", "memory", "io"} {
		if text, err := read(filepath.Join(dir, resource+".pressure")); err == nil {
			all[resource] = parsePressure(text)
		}
	}
	return all
}

// parsePressure reads lines as "some avg10=0.12 avg60=0.05 avg300=0.00 total=123",
// whose total is in microseconds.
func parsePressure(text string) (p Pressure) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		s := &p.Some
		if f[0] == "full" {
			s = &p.Full
		}
		for _, word := range f[1:] {
			key, value, _ := strings.Cut(word, "=")
			n, _ := strconv.ParseFloat(value, 64)
			switch key {
			case "avg10":
				s.Avg10 = n
			case "avg60":
				s.Avg60 = n
			case "avg300":
				s.Avg300 = n
			case "total":
				s.Total = time.Duration(n) * time.Microsecond
			}
		}
	}
	return p
}
