package cgroupv2

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// cgroupDir is a directory with the files of a cgroup.
func cgroupDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	all := map[string]bool{"memory": true, "pids": true, "io": true}
	for name, tc := range map[string]struct {
		files map[string]string
		want  Usage
	}{
		"all": {
			map[string]string{
				"cpu.stat": "usage_usec 1500000\nuser_usec 1000000\n", "memory.current": "5000\n", "memory.stat": "anon 1\ninactive_file 1000\n",
				"memory.max": "8192\n", "memory.peak": "6000\n", "memory.events": "oom 1\noom_kill 2\n", "pids.current": "3\n",
				"io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
			},
			Usage{CPU: 1500 * time.Millisecond, Memory: 4000, MemoryLimit: 8192, MemoryPeak: 6000, OOMKills: 2, Pids: 3, Read: 11, Written: 22, Counted: all},
		},
		"no limit": {
			map[string]string{"cpu.stat": "", "memory.current": "10", "memory.max": "max\n"},
			Usage{Memory: 10, Counted: map[string]bool{"memory": true}},
		},
		"no controllers": {map[string]string{"cpu.stat": "usage_usec 7\n"}, Usage{CPU: 7 * time.Microsecond, Counted: map[string]bool{}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(cgroupDir(t, tc.files))
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tc.want)
			}
		})
	}
	if _, err := Read(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a cgroup that is gone: %v", err)
	}
}

func TestReadPressure(t *testing.T) {
	dir := cgroupDir(t, map[string]string{"cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=2000\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=7\n"})
	want := map[string]Pressure{"cpu": {
		Some: Stall{Avg10: 1.5, Avg60: 0.25, Total: 2 * time.Millisecond}, Full: Stall{Avg300: 0.01, Total: 7 * time.Microsecond},
	}}
	if got := ReadPressure(dir); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWith(t *testing.T) {
	old := Limits{Memory: 1, Pids: 5, CPUs: "0", Devices: []IOLimit{{Major: 8, ReadBPS: 1}, {Major: 9, ReadBPS: 2}}, Conf: [][2]string{{"memory.high", "1"}}}
	got := old.With(Limits{Memory: 2, CPUQuota: -1, CPUs: "1", Devices: []IOLimit{{Major: 8, WriteBPS: 3}}, Conf: [][2]string{{"memory.high", "2"}}})
	want := Limits{Memory: 2, Pids: 5, CPUQuota: -1, CPUs: "1", Devices: []IOLimit{{Major: 8, ReadBPS: 1, WriteBPS: 3}, {Major: 9, ReadBPS: 2}},
		Conf: [][2]string{{"memory.high", "1"}, {"memory.high", "2"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if old.Memory != 1 || len(old.Devices) != 2 || old.Devices[0].ReadBPS != 1 {
		t.Errorf("it changed what it began with: %+v", old)
	}
}

// Apply writes nothing if a controller is missing.
func TestLimitWithoutController(t *testing.T) {
	dir := cgroupDir(t, map[string]string{"cgroup.controllers": "memory\n", "memory.max": "max\n", "memory.swap.max": "max\n"})
	g := &Group{Dir: dir}
	err := g.Limit(&Limits{Memory: 4096, Pids: 1})
	var missing *NotDelegatedError
	if !errors.As(err, &missing) || !reflect.DeepEqual(missing.Missing, []string{"pids"}) {
		t.Errorf("got %v", err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "memory.max")); string(text) != "max\n" {
		t.Errorf("memory.max is %q", text)
	}
}

// What a kernel does not have is done otherwise, done without, or named.
func TestFilesOfOtherKernels(t *testing.T) {
	swap, weight := &Limits{Memory: 4096, MemorySwap: 8192}, &Limits{BlkioWeight: 100}
	for name, tc := range map[string]struct {
		limits *Limits
		files  []string
		want   map[string]string
		err    string
	}{
		"all":                 {swap, []string{"memory.max", "memory.swap.max"}, map[string]string{"memory.max": "4096", "memory.swap.max": "4096"}, ""},
		"swap is not counted": {swap, []string{"memory.max"}, map[string]string{"memory.max": "4096"}, ""},
		"BFQ":                 {weight, []string{"io.bfq.weight", "io.weight"}, map[string]string{"io.bfq.weight": "100", "io.weight": ""}, ""},
		"another scheduler":   {weight, []string{"io.weight"}, map[string]string{"io.weight": "default 910"}, ""},
		"no weights":          {weight, nil, nil, "this kernel's cgroups have no io.bfq.weight nor io.weight"},
		"no such file":        {&Limits{Conf: [][2]string{{"io.nosuch", "1"}}}, nil, nil, "this kernel's cgroups have no io.nosuch"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := cgroupDir(t, map[string]string{"cgroup.controllers": "memory io\n"})
			for _, f := range tc.files {
				if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err := (&Group{Dir: dir}).Limit(tc.limits)
			if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			for f, want := range tc.want {
				if text, err := os.ReadFile(filepath.Join(dir, f)); err != nil || string(text) != want {
					t.Errorf("%s: %q, %v, want %q", f, text, err, want)
				}
			}
		})
	}
}
