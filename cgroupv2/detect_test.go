package cgroupv2

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	unifiedMount = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	hybridMounts = "40 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
		"41 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	userScope = "/user.slice/user-1000.slice/user@1000.service/app.slice/a b.scope"
)

func TestDetect(t *testing.T) {
	for name, tc := range map[string]struct {
		mounts, cgroup string
		controllers    string // of our cgroup; "-" if it has no such file
		denied         string // file that cannot be written
		want           Report
	}{
		"delegated": {
			mounts: unifiedMount, cgroup: "0::" + userScope + "\n", controllers: "cpu memory pids\n",
			want: Report{Mode: Unified, Mount: "/sys/fs/cgroup", Path: userScope, Dir: "/sys/fs/cgroup" + userScope,
				Controllers: []string{"cpu", "memory", "pids"}},
		},
		"not ours": {
			mounts: unifiedMount, cgroup: "0::/user.slice/session-1.scope\n", controllers: "memory\n", denied: "session-1.scope",
			want: Report{Mode: Unified, Mount: "/sys/fs/cgroup", Path: "/user.slice/session-1.scope", Dir: "/sys/fs/cgroup/user.slice/session-1.scope",
				Controllers: []string{"memory"}, Blocked: "/sys/fs/cgroup/user.slice/session-1.scope: permission denied"},
		},
		"half delegated": {
			mounts: unifiedMount, cgroup: "0::/s\n", controllers: "memory\n", denied: "cgroup.subtree_control",
			want: Report{Mode: Unified, Mount: "/sys/fs/cgroup", Path: "/s", Dir: "/sys/fs/cgroup/s",
				Controllers: []string{"memory"}, Blocked: "/sys/fs/cgroup/s/cgroup.subtree_control: permission denied"},
		},
		"hybrid": {
			mounts: hybridMounts, cgroup: "9:name=systemd:/\n8:pids:/x\n1:cpu,cpuacct:/\n0::/\n", controllers: "",
			want: Report{Mode: Hybrid, Mount: "/sys/fs/cgroup/unified", Path: "/", Dir: "/sys/fs/cgroup/unified", V1: []string{"cpu", "cpuacct", "pids"}, Controllers: []string{}},
		},
		"version 1": {
			mounts: "40 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n", cgroup: "8:pids:/x\n",
			want: Report{Mode: Legacy, V1: []string{"pids"}, Blocked: "cgroup version 2 is not mounted"},
		},
		"none": {
			cgroup: "0::/\n",
			want:   Report{Mode: None, Path: "/", Blocked: "cgroup version 2 is not mounted"},
		},
		"a container without a cgroup namespace": {
			mounts: "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", cgroup: "0::/docker/abc\n", controllers: "pids\n", denied: "/sys/fs/cgroup",
			want: Report{Mode: Unified, Mount: "/sys/fs/cgroup", Path: "/docker/abc", Dir: "/sys/fs/cgroup",
				Controllers: []string{"pids"}, Blocked: "/sys/fs/cgroup: permission denied"},
		},
		"outside of the cgroup namespace": {
			mounts: unifiedMount, cgroup: "0::/../other\n",
			want: Report{Mode: Unified, Mount: "/sys/fs/cgroup", Path: "/../other", Blocked: "our cgroup /../other does not lie below /, which is mounted"},
		},
		"gone": {
			mounts: unifiedMount, cgroup: "0::/x (deleted)\n", controllers: "-",
			want: Report{Mode: Unified, Mount: "/sys/fs/cgroup", Path: "/x (deleted)", Dir: "/sys/fs/cgroup/x (deleted)",
				Blocked: "open /sys/fs/cgroup/x (deleted)/cgroup.controllers: no such file or directory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(name string) ([]byte, error) {
				switch {
				case name == "/proc/self/mountinfo":
					return []byte(tc.mounts), nil
				case name == "/proc/self/cgroup":
					return []byte(tc.cgroup), nil
				case strings.HasSuffix(name, "cgroup.controllers") && tc.controllers != "-":
					return []byte(tc.controllers), nil
				}
				return nil, &os.PathError{Op: "open", Path: name, Err: unix.ENOENT}
			}
			writable := func(name string) error {
				if tc.denied != "" && strings.HasSuffix(name, tc.denied) {
					return unix.EACCES
				}
				return nil
			}
			got, err := detect(read, writable)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
			if got.Delegated() != (name == "delegated") {
				t.Errorf("Delegated() = %v", got.Delegated())
			}
		})
	}
}

func TestMissing(t *testing.T) {
	r := Report{Controllers: []string{"memory", "pids"}}
	if got := r.Missing("cpu", "memory", "io"); !reflect.DeepEqual(got, []string{"cpu", "io"}) {
		t.Errorf("got %v", got)
	}
}

func TestDetectHere(t *testing.T) {
	r, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if r.Mode != None && r.Dir != "" {
		if _, err := os.Stat(r.Dir); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	t.Logf("%+v", r)
}
