package cgroupv2

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Who makes a cgroup has it, however many others remove at the time what nobody uses.
func TestCreateWhileOthersSweep(t *testing.T) {
	parent := t.TempDir()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 200 {
				dir := filepath.Join(parent, fmt.Sprintf("%s%d-%d", prefix, i, n))
				g, err := create(dir)
				if err != nil {
					t.Error(err)
					return
				}
				sweep(parent)
				if _, err := os.Stat(dir); err != nil {
					t.Error(err)
				}
				g.fd.Close()
			}
		})
	}
	all.Wait()
	sweep(parent)
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("%d are left (%v)", len(left), err)
	}
}

func TestWithin(t *testing.T) {
	for path, want := range map[string]string{
		"/user.slice/a.scope":           "/user.slice/a.scope",
		"/user.slice/a.scope/monitor":   "/user.slice/a.scope",
		"/user.slice/aa.scope/monitor":  "",
		"/user.slice/a.scope2":          "",
		"/a.scope":                      "/a.scope",
		"/user.slice/session-1.scope":   "",
		"/user.slice/b/a.scope/x/y.tmp": "/user.slice/b/a.scope",
	} {
		if got := within(path, "a.scope"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// What limits cannot be had for is named, and what cures it.
func TestUnavailable(t *testing.T) {
	for name, tc := range map[string]struct {
		err        UnavailableError
		text, hint string
	}{
		"hybrid":    {UnavailableError{Mode: Hybrid, Needs: []string{"memory"}}, "cannot limit memory: no cgroup to be had: this host has the controllers in version 1 (hybrid), which users cannot have", "systemd.unified_cgroup_hierarchy=1"},
		"version 1": {UnavailableError{Mode: Legacy, Needs: []string{"cpu", "pids"}}, "cannot limit cpu, pids: no cgroup to be had: this host has the controllers in version 1 (v1), which users cannot have", "systemd.unified_cgroup_hierarchy=1"},
		"none":      {UnavailableError{Mode: None}, "no cgroup to be had: this host shows no cgroups", "mount cgroup2 on /sys/fs/cgroup"},
		"no manager": {
			UnavailableError{Mode: Unified, Needs: []string{"io"}, UID: 7, Why: []error{errors.New("no systemd"), errors.New("not ours")}},
			"cannot limit io: no cgroup to be had: no systemd: not ours", "loginctl enable-linger 7",
		},
	} {
		if got := tc.err.Error(); got != tc.text {
			t.Errorf("%s: %q, want %q", name, got, tc.text)
		}
		if got := tc.err.Hint(); !strings.Contains(got, tc.hint) {
			t.Errorf("%s: hint %q, want %q", name, got, tc.hint)
		}
	}
}
