package cgroupv2

import (
	"reflect"
	"strings"
	"testing"
)

func TestSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		in   Limits
		want string // file value, in order
	}{
		"nothing":              {Limits{}, ""},
		"memory":               {Limits{Memory: 1 << 20}, "memory.max 1048576"},
		"swap is beside":       {Limits{Memory: 100, MemorySwap: 150}, "memory.max 100|memory.swap.max 50"},
		"no swap":              {Limits{Memory: 100, MemorySwap: 100}, "memory.max 100|memory.swap.max 0"},
		"all swap":             {Limits{Memory: 100, MemorySwap: -1}, "memory.max 100|memory.swap.max max"},
		"reservation":          {Limits{Reservation: 5}, "memory.low 5"},
		"low wins":             {Limits{Reservation: 5, MemoryLow: 7}, "memory.low 7"},
		"quota":                {Limits{CPUQuota: 50000}, "cpu.max 50000 100000"},
		"quota and period":     {Limits{CPUQuota: 5000, CPUPeriod: 20000}, "cpu.max 5000 20000"},
		"period alone":         {Limits{CPUPeriod: 20000}, "cpu.max max 20000"},
		"quota taken away":     {Limits{CPUQuota: -1}, "cpu.max max 100000"},
		"least shares":         {Limits{CPUShares: 2}, "cpu.weight 1"},
		"Docker's shares":      {Limits{CPUShares: 1024}, "cpu.weight 39"},
		"most shares":          {Limits{CPUShares: 262144}, "cpu.weight 10000"},
		"cpuset":               {Limits{CPUs: "0-1", Mems: "0"}, "cpuset.cpus 0-1|cpuset.mems 0"},
		"pids":                 {Limits{Pids: 64}, "pids.max 64"},
		"pids taken away":      {Limits{Pids: -1}, "pids.max max"},
		"least weight":         {Limits{BlkioWeight: 10}, "io.bfq.weight 10, else io.weight default 1"},
		"most weight":          {Limits{BlkioWeight: 1000}, "io.bfq.weight 1000, else io.weight default 10000"},
		"disk":                 {Limits{Devices: []IOLimit{{Major: 8, Minor: 1, ReadBPS: 10, WriteIOPS: 5}}}, "io.max 8:1 rbps=10 wiops=5"},
		"disk without a limit": {Limits{Devices: []IOLimit{{Major: 8}}}, ""},
		"a file":               {Limits{Conf: [][2]string{{"memory.high", "1G"}}}, "memory.high 1G"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, s := range tc.in.Settings() {
				line := s.File + " " + s.Value
				if s.Else != nil {
					line += ", else " + s.Else.File + " " + s.Else.Value
				}
				got = append(got, line)
			}
			if strings.Join(got, "|") != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if tc.in.IsZero() != (tc.want == "") {
				t.Errorf("IsZero: %v", tc.in.IsZero())
			}
		})
	}
}

// A change leaves what it does not name, in each file and in the limits as a whole.
func TestChange(t *testing.T) {
	old := Limits{
		Memory: 1 << 20, MemorySwap: 2 << 20, CPUQuota: 5000, CPUPeriod: 20000, Pids: 5, CPUs: "0",
		Devices: []IOLimit{{Major: 8, ReadBPS: 10}, {Major: 9, WriteBPS: 20}}, Conf: [][2]string{{"memory.high", "1"}},
	}
	for name, tc := range map[string]struct {
		change, completed, whole Limits
	}{
		"nothing":    {Limits{}, Limits{}, old},
		"swap alone": {Limits{MemorySwap: 3 << 20}, Limits{Memory: 1 << 20, MemorySwap: 3 << 20}, changed(old, func(l *Limits) { l.MemorySwap = 3 << 20 })},
		"a quota":    {Limits{CPUQuota: 10000}, Limits{CPUQuota: 10000, CPUPeriod: 20000}, changed(old, func(l *Limits) { l.CPUQuota = 10000 })},
		"a period":   {Limits{CPUPeriod: 50000}, Limits{CPUQuota: 5000, CPUPeriod: 50000}, changed(old, func(l *Limits) { l.CPUPeriod = 50000 })},
		"no quota":   {Limits{CPUQuota: -1}, Limits{CPUQuota: -1, CPUPeriod: 20000}, changed(old, func(l *Limits) { l.CPUQuota = -1 })},
		"pids":       {Limits{Pids: 7}, Limits{Pids: 7}, changed(old, func(l *Limits) { l.Pids = 7 })},
		"a disk's other limit": {
			Limits{Devices: []IOLimit{{Major: 8, WriteIOPS: 30}}}, Limits{Devices: []IOLimit{{Major: 8, WriteIOPS: 30}}},
			changed(old, func(l *Limits) {
				l.Devices = []IOLimit{{Major: 8, ReadBPS: 10, WriteIOPS: 30}, {Major: 9, WriteBPS: 20}}
			}),
		},
		"another disk": {
			Limits{Devices: []IOLimit{{Major: 1, ReadBPS: 30}}}, Limits{Devices: []IOLimit{{Major: 1, ReadBPS: 30}}},
			changed(old, func(l *Limits) { l.Devices = append(l.Devices[:2:2], IOLimit{Major: 1, ReadBPS: 30}) }),
		},
	} {
		t.Run(name, func(t *testing.T) {
			completed := tc.change.Completed(old)
			if !reflect.DeepEqual(completed, tc.completed) {
				t.Errorf("completed: %+v, want %+v", completed, tc.completed)
			}
			if whole := old.With(completed); !reflect.DeepEqual(whole, tc.whole) {
				t.Errorf("whole: %+v, want %+v", whole, tc.whole)
			}
		})
	}
}

// changed is l after f.
func changed(l Limits, f func(*Limits)) Limits {
	f(&l)
	return l
}

func TestControllers(t *testing.T) {
	l := Limits{Memory: 1, MemorySwap: 2, Pids: 1, CPUs: "0", Conf: [][2]string{{"cgroup.max.depth", "1"}, {"memory.high", "1"}}}
	if got, want := l.Controllers(), []string{"memory", "cpuset", "pids"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		in   Limits
		want string // of the error; "": none
	}{
		"nothing":                {Limits{}, ""},
		"all":                    {Limits{Memory: 1 << 30, MemorySwap: -1, Reservation: 1 << 20, CPUQuota: 150000, CPUShares: 2, Pids: -1, CPUs: "0-1", BlkioWeight: 10}, ""},
		"more than this machine": {Limits{Memory: 1 << 60}, ""}, // the kernel takes it, as Docker does
		"too little memory":      {Limits{Memory: 1024}, "--memory 1024: the least is 524288"},
		"negative memory":        {Limits{Memory: -5}, "--memory -5"},
		"swap alone":             {Limits{MemorySwap: 1 << 30}, "--memory-swap needs --memory"},
		"swap of less":           {Limits{Memory: 1 << 30, MemorySwap: 1 << 20}, "--memory-swap 1048576: it is the sum"},
		"negative swap":          {Limits{Memory: 1 << 30, MemorySwap: -2}, "--memory-swap -2"},
		"more reserved":          {Limits{Memory: 1 << 20, Reservation: 1 << 21}, "--memory-reservation 2097152: more than"},
		"too many processors":    {Limits{CPUQuota: 250000}, "--cpus 2.50: this machine has 2"},
		"quota too small":        {Limits{CPUQuota: 500}, "--cpu-quota 500"},
		"period too small":       {Limits{CPUPeriod: 10}, "--cpu-period 10: it goes from 1000 to 1000000"},
		"period too long":        {Limits{CPUPeriod: 2000000}, "--cpu-period 2000000"},
		"shares":                 {Limits{CPUShares: 1}, "--cpu-shares 1: it goes from 2 to 262144"},
		"pids":                   {Limits{Pids: -2}, "--pids-limit -2"},
		"weight":                 {Limits{BlkioWeight: 1001}, "--blkio-weight 1001"},
		"cpuset":                 {Limits{CPUs: "1-0"}, "--cpuset-cpus 1-0: want numbers"},
		"mems":                   {Limits{Mems: "x"}, "--cpuset-mems x: want numbers"},
		"a path":                 {Limits{Conf: [][2]string{{"../memory.max", "1"}}}, "--cgroup-conf ../memory.max: want the name"},
		"not a file of limits":   {Limits{Conf: [][2]string{{"cgroup.procs", "1"}}}, "--cgroup-conf cgroup.procs: this file is rbox's own"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.in.Check(2)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzParseSet(f *testing.F) {
	for _, seed := range []string{"", "0", "0-2,4", "7-7", "3-1", "-1", "0-99999", "1,,2", "a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseSet(s)
		if err != nil {
			return
		}
		for _, n := range list {
			if n < 0 || n >= maxSet {
				t.Errorf("%q has %d", s, n)
			}
		}
		if (len(list) == 0) != (s == "") {
			t.Errorf("%q has %v", s, list)
		}
	})
}

func TestOutside(t *testing.T) {
	for path, want := range map[string]bool{
		"/user.slice/user-1000.slice/session-2.scope":                       false,
		"/user.slice/user-1000.slice/user@1000.service/app.slice/a.service": false,
		"/system.slice/slurmstepd.scope/job_7/step_0/user/task_0":           true,
		"/": true,
	} {
		if got := outside(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
