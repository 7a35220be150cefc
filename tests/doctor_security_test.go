package tests

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// What rbox says of a container's confinement is what the kernel says.
func TestDoctorSecurity(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "-u", "1000", "--cap-add", "net_raw", "--read-only", "--network", "host",
		"--security-opt", "no-new-privileges", "--security-opt", "mask=/etc/motd", "alpine", "sleep", "1000")
	type trait struct {
		Name         string
		Asked, Found []string
	}
	report := func() (pid int, traits map[string]trait) {
		var r struct {
			Pid    int
			Traits []trait
		}
		if err := json.Unmarshal([]byte(b.must("doctor", "--security", "box", "--format", "json")), &r); err != nil {
			t.Fatal(err)
		}
		traits = map[string]trait{}
		for _, tr := range r.Traits {
			traits[tr.Name] = tr
		}
		return r.Pid, traits
	}
	pid, traits := report()
	if want := b.must("inspect", "-f", "{{.State.Pid}}", "box"); fmt.Sprint(pid) != want {
		t.Errorf("pid %d, want %s", pid, want)
	}
	raw := []string{"CAP_NET_RAW"}
	for name, want := range map[string]trait{
		"capabilities":           {Asked: raw, Found: raw},
		"capabilities of a user": {Asked: raw, Found: raw},
		"no new privileges":      {Asked: []string{"yes"}, Found: []string{"yes"}},
		"root file system":       {Asked: []string{"read-only"}, Found: []string{"read-only"}},
		"own namespaces":         {Asked: []string{"cgroup", "ipc", "mnt", "pid", "user", "uts"}, Found: []string{"cgroup", "ipc", "mnt", "pid", "user", "uts"}},
		"privileged":             {Asked: []string{"no"}},
	} {
		got := traits[name]
		if !slices.Equal(got.Asked, want.Asked) || !slices.Equal(got.Found, want.Found) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if got := traits["capabilities to be had"]; len(got.Found) != 14 || !slices.Equal(got.Asked, got.Found) {
		t.Errorf("bounding set: %v", got)
	}
	if got := traits["hidden paths"]; !slices.Contains(got.Found, "/proc/interrupts") || !slices.Contains(got.Found, "/etc/motd") {
		t.Errorf("hidden: %v", got)
	}
	if got := traits["read-only paths"]; !slices.Contains(got.Found, "/proc/sys") {
		t.Errorf("read-only: %v", got)
	}
	if got := traits["system calls"]; !slices.Equal(got.Found, []string{"filter"}) {
		t.Errorf("system calls: %v", got)
	}
	want{match: `(?m)^capabilities +asked  NET_RAW\n +found  NET_RAW$`}.check(t, b.rbox("doctor", "--security", "box"))
	if got := b.must("inspect", "-f", "{{.State.Confinement.Effective}} {{.State.Confinement.NoNewPrivs}}", "box"); got != "[CAP_NET_RAW] true" {
		t.Errorf("inspect: %s", got)
	}
	b.must("kill", "box")
	b.must("wait", "box")
	if pid, traits := report(); pid != 0 || traits["capabilities"].Found != nil || !slices.Equal(traits["capabilities"].Asked, raw) {
		t.Errorf("of one that has ended: pid %d, %v", pid, traits)
	}
	want{status: 125, stderr: "no-such"}.check(t, b.rbox("doctor", "--security", "no-such"))
}
