package stage

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseRlimit(t *testing.T) {
	const none = ^uint64(0)
	for in, tc := range map[string]struct {
		want    Rlimit
		wantErr string
	}{
		"nofile=1024":           {want: Rlimit{unix.RLIMIT_NOFILE, 1024, 1024}},
		"nofile=1024:2048":      {want: Rlimit{unix.RLIMIT_NOFILE, 1024, 2048}},
		"core=0":                {want: Rlimit{unix.RLIMIT_CORE, 0, 0}},
		"memlock=-1":            {want: Rlimit{unix.RLIMIT_MEMLOCK, none, none}},
		"stack=8192:unlimited":  {want: Rlimit{unix.RLIMIT_STACK, 8192, none}},
		"nproc=-1:-1":           {want: Rlimit{unix.RLIMIT_NPROC, none, none}},
		"nofile":                {wantErr: `ulimit "nofile": want NAME=SOFT[:HARD]`},
		"files=1":               {wantErr: `ulimit "files=1": no resource is called "files"`},
		"nofile=":               {wantErr: `ulimit "nofile=": "" is not a number`},
		"nofile=1:":             {wantErr: `ulimit "nofile=1:": "" is not a number`},
		"nofile=many":           {wantErr: `ulimit "nofile=many": "many" is not a number`},
		"nofile=-2":             {wantErr: `ulimit "nofile=-2": "-2" is not a number`},
		"nofile=2:1":            {wantErr: `ulimit "nofile=2:1": the soft limit is above the hard one`},
		"nofile=unlimited:1024": {wantErr: `ulimit "nofile=unlimited:1024": the soft limit is above the hard one`},
		"nofile=1:2:3":          {wantErr: `ulimit "nofile=1:2:3": "2:3" is not a number`},
	} {
		got, err := ParseRlimit(in)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if got != tc.want || text != tc.wantErr {
			t.Errorf("%s: got %v, %q; want %v, %q", in, got, text, tc.want, tc.wantErr)
		}
	}
}

func TestRlimitNames(t *testing.T) {
	for _, r := range rlimits {
		if l, err := ParseRlimit(RlimitName(r.resource) + "=1"); err != nil || l.Resource != r.resource {
			t.Errorf("%s: %v, %v", r.name, l, err)
		}
	}
	if got := RlimitName(99); got != "99" {
		t.Errorf("an unknown resource is called %q", got)
	}
}
