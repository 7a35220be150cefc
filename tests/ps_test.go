package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Containers in every condition, as ps lists them.
func TestPs(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("tag", "alpine", "other:v1")
	b.must("run", "--name", "done", "-l", "kind=job", "alpine", "true")
	b.rbox("run", "--name", "failed", "-l", "kind=job", "-l", "bad=yes", "alpine", "sh", "-c", "echo text >/file; exit 3")
	b.must("create", "--name", "made", "-v", "data:/data", "other:v1", "sleep", "7")
	b.must("run", "-d", "--name", "up", "--network", "host", "alpine", "sleep", "1000")
	for name, tc := range map[string]struct {
		args []string
		want want
	}{
		"running": {nil, want{match: `^CONTAINER ID   IMAGE     COMMAND        CREATED +STATUS +PORTS     NAMES\n[0-9a-f]{12}   alpine    "sleep 1000"   [^\n]+ ago +Up [^\n]+ +up\n$`}},
		"all": {[]string{"-a"}, want{match: `(?s)^CONTAINER ID.*"sleep 1000".* up\n[0-9a-f]{12}   other:v1   "sleep 7" .* Created +made\n` +
			`[0-9a-f]{12}   alpine +"sh -c 'echo text >/…" .* Exited \(3\) .* ago +failed\n[0-9a-f]{12}   alpine +"true" .* Exited \(0\) .* done\n$`}},
		"names":            {[]string{"-a", "--format", "{{.Names}}"}, want{stdout: "up\nmade\nfailed\ndone\n"}},
		"states":           {[]string{"-a", "--format", "{{.Names}} {{.State}} {{.Networks}}"}, want{stdout: "up running host\nmade created private\nfailed exited private\ndone exited private\n"}},
		"last":             {[]string{"-n", "2", "--format", "{{.Names}}"}, want{stdout: "up\nmade\n"}},
		"latest":           {[]string{"-l", "--format", "{{.Names}}"}, want{stdout: "up\n"}},
		"size":             {[]string{"-as", "--filter", "name=failed"}, want{match: `SIZE\n.*failed +5B \(virtual [0-9.]+[kM]B\)\n$`}},
		"size in a format": {[]string{"-a", "--filter", "name=failed", "--format", "{{.Size}}"}, want{match: `^5B \(virtual `}},
		"volume":           {[]string{"-a", "--filter", "volume=data", "--format", "{{.Names}} {{.LocalVolumes}} {{.Mounts}}"}, want{stdout: "made 1 data\n"}},
		"exited":           {[]string{"--filter", "exited=3", "--format", "{{.Names}}"}, want{stdout: "failed\n"}},
		"label":            {[]string{"-a", "--filter", "label=kind=job", "--format", "{{.Names}}"}, want{stdout: "failed\ndone\n"}},
		"labels":           {[]string{"-a", "--filter", "label=kind", "--filter", "label=bad=yes", "--format", "{{.Names}} {{.Label \"bad\"}}"}, want{stdout: "failed yes\n"}},
		"ancestor, by tag": {[]string{"-a", "--filter", "ancestor=other:v1", "--format", "{{.Names}}"}, want{stdout: "up\nmade\nfailed\ndone\n"}},
		"no ancestor":      {[]string{"-aq", "--filter", "ancestor=nosuch"}, want{match: "^$"}},
		"network":          {[]string{"-a", "--filter", "network=host", "--format", "{{.Names}}"}, want{stdout: "up\n"}},
		"since":            {[]string{"-a", "--filter", "since=failed", "--format", "{{.Names}}"}, want{stdout: "up\nmade\n"}},
		"before":           {[]string{"-a", "--filter", "before=failed", "--format", "{{.Names}}"}, want{stdout: "done\n"}},
		"no such filter":   {[]string{"--filter", "colour=red"}, want{status: 125, stderr: `(?s)colour=red.*hint: filters are name, id`}},
		"no such status":   {[]string{"--filter", "status=tired"}, want{status: 125, stderr: `status=tired.*invalid filter`}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.rbox(append([]string{"ps"}, tc.args...)...)) })
	}
	b.must("rename", "up", "renamed")
	want{stdout: "renamed\n"}.check(t, b.rbox("ps", "--format", "{{.Names}}"))
	b.must("rm", "-f", "renamed")
	want{match: "^$"}.check(t, b.rbox("ps", "-q"))
	b.must("rm", "-av")
	want{match: "^$"}.check(t, b.rbox("ps", "-aq"))
}

// Nothing is said to run that a kill of its monitor has ended.
func TestPsAfterAKill(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "-d", "--name", "up", "alpine", "sleep", "1000")
	var list []struct{ State struct{ Pid int } }
	if err := json.Unmarshal([]byte(b.must("inspect", "up")), &list); err != nil {
		t.Fatal(err)
	}
	monitor, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", list[0].State.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("kill", "-9", strings.Fields(string(monitor))[3]).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !eventually(10*time.Second, func() bool { return b.must("ps", "-q") == "" }) {
		t.Error("ps shows what is dead")
	}
	want{stdout: "Exited (137)\n"}.check(t, b.rbox("ps", "-a", "--format", "{{.Status}}"))
	want{stdout: "exited 137 false\n"}.check(t, b.rbox("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}", "up"))
	b.must("rm", "up")
}

// A thousand containers are listed as ten are.
func TestPsOfAThousand(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "--name", "first", "alpine", "true")
	found, err := filepath.Glob(filepath.Join(b.root, "containers/*/kept/*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	config, err := os.ReadFile(filepath.Join(found[0], "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(filepath.Join(found[0], "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	id := filepath.Base(found[0])
	for i := range 999 {
		other := fmt.Sprintf("%064x", i+1)
		text := strings.ReplaceAll(strings.ReplaceAll(string(config), id, other), `"first"`, fmt.Sprintf(`"copy%d"`, i))
		dir := b.own(filepath.Join(filepath.Dir(found[0]), other))
		for name, text := range map[string]string{"config.json": text, "state.json": string(state)} {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Lchown(file, int(b.who.UID), int(b.who.GID)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if lines := strings.Split(b.must("ps", "-a"), "\n"); len(lines) != 1001 || !strings.Contains(lines[500], "Exited (0)") {
		t.Errorf("%d lines: %q", len(lines), lines[:2])
	}
	if ids := strings.Fields(b.must("ps", "-aq", "--no-trunc", "--filter", "exited=0")); len(ids) != 1000 {
		t.Errorf("%d ids", len(ids))
	}
	want{match: "^$"}.check(t, b.rbox("ps", "-q"))
	if gone := strings.Fields(b.must("rm", "-a")); len(gone) != 1000 {
		t.Errorf("%d are removed", len(gone))
	}
	want{match: "^$"}.check(t, b.rbox("ps", "-aq"))
}

func TestRm(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "--name", "one", "-v", "/anonymous", "-v", "named:/named", "alpine", "true")
	b.must("run", "--name", "two", "--cidfile", b.home+"/two", "alpine", "true")
	b.must("run", "-d", "--name", "up", "alpine", "sleep", "1000")
	for _, step := range []struct {
		args string
		want want
	}{
		{"rm", want{status: 125, stderr: "CONTAINER is missing"}},
		{"rm nosuch", want{status: 125, stderr: "no such container: nosuch"}},
		{"rm -f nosuch", want{}},
		{"rm -i nosuch", want{}},
		{"rm up", want{status: 125, stderr: `cannot remove container "up": container is running: stop the container before removing or force remove\nrbox: hint: rbox rm -f up`}},
		{"rm -v one nosuch", want{status: 125, stdout: "one\n", stderr: "nosuch"}},
		{"volume ls -q", want{stdout: "named\n"}},
		{"rm --cidfile two", want{match: `^[0-9a-f]{64}\n$`}},
		{"rm -a one", want{status: 125, stderr: "exclude"}},
		{"rm -f up", want{stdout: "up\n"}},
		{"ps -aq", want{match: "^$"}},
		{"rm -a", want{}},
		{"volume rm named", want{stdout: "named\n"}},
	} {
		got := b.rbox(strings.Fields(step.args)...)
		t.Run(step.args, func(t *testing.T) { step.want.check(t, got) })
	}
}

func TestTop(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "-d", "--name", "up", "alpine", "sh", "-c", "sleep 1001 & exec sleep 1000")
	b.must("exec", "-d", "up", "sleep", "1002")
	if !eventually(10*time.Second, func() bool { return strings.Count(b.must("top", "up"), "sleep 100") == 3 }) {
		t.Errorf("top shows\n%s", b.must("top", "up"))
	}
	want{match: `^UID +PID +PPID +C +STIME +TTY +TIME +CMD\n`}.check(t, b.rbox("top", "up"))
	want{match: `(?s)^PID +COMMAND\n[0-9]+ +sleep 100`}.check(t, b.rbox("container", "top", "up", "-o", "pid,args"))
	want{status: 125, stderr: "PID field"}.check(t, b.rbox("top", "up", "-eo", "args"))
	b.must("rm", "-f", "up")
	want{status: 125, stderr: "no such container"}.check(t, b.rbox("top", "up"))
}
