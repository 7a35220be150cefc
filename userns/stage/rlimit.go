package stage

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rlimits are the names that --ulimit takes (docker run(1)), by number.
var rlimits = [...]struct {
	name     string
	resource int
}{
	{"core", unix.RLIMIT_CORE}, {"cpu", unix.RLIMIT_CPU}, {"data", unix.RLIMIT_DATA},
	{"fsize", unix.RLIMIT_FSIZE}, {"locks", unix.RLIMIT_LOCKS}, {"memlock", unix.RLIMIT_MEMLOCK},
	{"msgqueue", unix.RLIMIT_MSGQUEUE}, {"nice", unix.RLIMIT_NICE}, {"nofile", unix.RLIMIT_NOFILE},
	{"nproc", unix.RLIMIT_NPROC}, {"rss", unix.RLIMIT_RSS}, {"rtprio", unix.RLIMIT_RTPRIO},
	{"rttime", unix.RLIMIT_RTTIME}, {"sigpending", unix.RLIMIT_SIGPENDING}, {"stack", unix.RLIMIT_STACK},
}

// RlimitName is the name of a resource as --ulimit takes it.
func RlimitName(resource int) string {
	for _, r := range rlimits {
		if r.resource == resource {
			return r.name
		}
	}
	return strconv.Itoa(resource)
}

// ParseRlimit reads NAME=SOFT[:HARD]; -1 or "unlimited" is no limit.
func ParseRlimit(s string) (Rlimit, error) {
	name, values, ok := strings.Cut(s, "=")
	if !ok {
		return Rlimit{}, fmt.Errorf("ulimit %q: want NAME=SOFT[:HARD]", s)
	}
	for _, r := range rlimits {
		if r.name != name {
			continue
		}
		soft, hard, two := strings.Cut(values, ":")
		if !two {
			hard = soft
		}
		l := Rlimit{Resource: r.resource}
		var err error
		if l.Soft, err = rlimitValue(soft); err == nil {
			l.Hard, err = rlimitValue(hard)
		}
		if err == nil && l.Soft > l.Hard {
			err = fmt.Errorf("the soft limit is above the hard one")
		}
		if err != nil {
			return Rlimit{}, fmt.Errorf("ulimit %q: %w", s, err)
		}
		return l, nil
	}
	return Rlimit{}, fmt.Errorf("ulimit %q: no resource is called %q", s, name)
}

func rlimitValue(s string) (uint64, error) {
	if s == "-1" || s == "unlimited" {
		return ^uint64(0), nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}
