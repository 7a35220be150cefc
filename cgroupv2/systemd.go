package cgroupv2

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// startScope has the user's systemd make a scope, a unit of processes that
// others started, with this process and r's others in it, and hand the scope's
// cgroup to us. It returns that cgroup's path.
func startScope(r Request, unit string) (path string, err error) {
	patience := busPatience
	if r.optional() {
		patience = shortPatience
	}
	b, err := dialManager(r.Runtime+"/systemd/private", r.UID, patience)
	if err != nil {
		return "", err
	}
	defer b.close()
	call, err := b.managerCall("StartTransientUnit", "ssa(sv)a(sa(sv))", scopeCall(unit, r))
	if err != nil {
		return "", err
	}
	ended := map[string]string{} // results of jobs
	note := func(m busMessage) {
		if m.member == "JobRemoved" {
			job, result := jobRemoved(m.body)
			ended[job] = result
		}
	}
	answer, err := b.await(call, note)
	if err != nil {
		return "", fmt.Errorf("make the scope %s: %w", unit, err)
	}
	u := unmarshal{b: answer.body}
	job := u.string()
	for ended[job] == "" {
		m, err := b.receive()
		if err != nil {
			return "", fmt.Errorf("make the scope %s: %w", unit, err)
		}
		note(m)
	}
	if ended[job] != "done" {
		return "", fmt.Errorf("make the scope %s: its job ended as %q", unit, ended[job])
	}
	path, err = ownPath()
	if err == nil && !strings.HasSuffix(path, "/"+unit) {
		err = fmt.Errorf("systemd made the scope %s, but we are in %s", unit, path)
	}
	return path, err
}

// scopeCall is the body of StartTransientUnit: name, mode, properties and no
// further units (org.freedesktop.systemd1(5)).
func scopeCall(unit string, r Request) []byte {
	var m marshal
	m.string(unit)
	m.string("fail")
	m.array(8, func() {
		m.property("Description", "s", func() { m.string("rbox container " + r.ID) })
		m.property("PIDs", "au", func() { m.array(4, func() { m.pids(r.Pids) }) })
		m.property("Delegate", "b", func() { m.uint32(1) })
		// What --pids-limit does not limit is not to meet DefaultTasksMax=.
		m.property("TasksMax", "t", func() { m.uint64(math.MaxUint64) })
		grace := uint64(math.MaxUint64)
		if r.Grace >= 0 {
			grace = uint64(r.Grace) * 1e6
		}
		m.property("TimeoutStopUSec", "t", func() { m.uint64(grace) })
		// Without it a scope whose processes were killed stays, as failed.
		m.property("CollectMode", "s", func() { m.string("inactive-or-failed") })
		if r.Parent != "" {
			m.property("Slice", "s", func() { m.string(r.Parent) })
		}
	})
	m.array(8, func() {})
	return m.b
}

func (m *marshal) pids(pids []int) {
	for _, pid := range pids {
		m.uint32(uint32(pid))
	}
}

// jobRemoved reads that signal: id, job, unit, result.
func jobRemoved(body []byte) (job, result string) {
	u := unmarshal{b: body}
	u.uint32()
	job = u.string()
	u.string()
	return job, u.string()
}

// ownPath is the "0::" line of /proc/self/cgroup.
func ownPath() (string, error) {
	text, err := read("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	path, _ := parseCgroup(text)
	if path == "" {
		return "", errors.New("/proc/self/cgroup has no line of version 2")
	}
	return path, nil
}
