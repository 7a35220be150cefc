package tests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// ended runs a script in the background and waits for its end.
func (b *box) ended(name, script string, flags ...string) {
	b.t.Helper()
	args := append([]string{"run", "-d", "--name", name}, flags...)
	b.must(append(args, "alpine", "sh", "-c", script)...)
	b.must("wait", name)
	b.t.Cleanup(func() { b.rbox("rm", "-f", name) })
}

func TestLogs(t *testing.T) {
	b := newBox(t)
	b.ended("web", `echo one; sleep .1; echo two >&2; sleep .1; printf 'thr'; sleep .2; echo ee; echo four`)
	for name, tc := range map[string]struct {
		args           []string
		stdout, stderr string
	}{
		"all":           {nil, "one\nthree\nfour\n", "two\n"},
		"tail":          {[]string{"-n", "2"}, "three\nfour\n", ""},
		"tail of three": {[]string{"--tail=3"}, "three\nfour\n", "two\n"},
		"tail 0":        {[]string{"--tail", "0"}, "", ""},
		"tail all":      {[]string{"-n", "all"}, "one\nthree\nfour\n", "two\n"},
		"tail -1":       {[]string{"--tail=-1"}, "one\nthree\nfour\n", "two\n"},
		"since":         {[]string{"--since", "1h"}, "one\nthree\nfour\n", "two\n"},
		"since now":     {[]string{"--since", "0s"}, "", ""},
		"since a date":  {[]string{"--since", "2001-01-01"}, "one\nthree\nfour\n", "two\n"},
		"until a date":  {[]string{"--until", "2001-01-01T10:00Z"}, "", ""},
		"until seconds": {[]string{"--until", "1000.5"}, "", ""},
		"follow":        {[]string{"-f"}, "one\nthree\nfour\n", "two\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := b.rbox(append(append([]string{"logs"}, tc.args...), "web")...)
			if got.status != 0 || got.stdout != tc.stdout || got.stderr != tc.stderr {
				t.Errorf("%v\nwant %q and %q", got, tc.stdout, tc.stderr)
			}
		})
	}
	stamped := b.must("logs", "-t", "web")
	if !regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (one|three|four)(\n|$)){3}$`).MatchString(stamped) {
		t.Errorf("with times: %q", stamped)
	}
	third, _, _ := strings.Cut(strings.Split(stamped, "\n")[1], " ")
	if got := b.must("logs", "--since", third, "web"); got != "three\nfour" {
		t.Errorf("since %s: %q", third, got)
	}
}

func TestLogsRefuses(t *testing.T) {
	b := newBox(t)
	b.ended("mute", "echo x", "--log-driver", "none")
	b.must("run", "--name", "front", "alpine", "true")
	t.Cleanup(func() { b.rbox("rm", "front") })
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no container": {[]string{"nosuch"}, "no such container: nosuch"},
		"none":         {[]string{"mute"}, "configured logging driver does not support reading"},
		"passthrough":  {[]string{"front"}, "--log-driver file"},
		"a bad tail":   {[]string{"-n", "x", "mute"}, "--tail x"},
		"a bad time":   {[]string{"--since", "tomorrow", "mute"}, "--since tomorrow"},
	} {
		got := b.rbox(append([]string{"logs"}, tc.args...)...)
		if got.status != 125 || got.stdout != "" || !strings.Contains(got.stderr, tc.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestLogsAreWhatWasWritten takes bytes that are no text, through rotations.
func TestLogsAreWhatWasWritten(t *testing.T) {
	b := newBox(t)
	var data bytes.Buffer
	for i := range 200000 {
		data.WriteByte(byte(i*i/7 ^ i>>3))
	}
	path := b.file("data", data.String(), 0o644)
	b.ended("bytes", "cat /data; cat /data >&2", "-v", path+":/data:ro", "--log-opt", "max-size=50k", "--log-opt", "max-file=100")
	got := b.rbox("logs", "bytes")
	if got.stdout != data.String() || got.stderr != data.String() {
		t.Errorf("%d and %d bytes came back, not the %d that were written", len(got.stdout), len(got.stderr), data.Len())
	}
	files, _ := filepath.Glob(filepath.Join(b.root, "containers/*/kept/*/log*"))
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 50<<10 {
			t.Errorf("%s: %v, %v", f, st, err)
		}
	}
	if len(files) < 8 {
		t.Errorf("there are %d files", len(files))
	}
}

func TestLogsFollow(t *testing.T) {
	b := newBox(t)
	b.must("run", "-d", "--rm", "--name", "slow", "-v", b.home+":/home", "alpine", "sh", "-c",
		`echo first; until [ -e /home/go ]; do sleep .05; done; seq 1 20000; echo last >&2`)
	p := b.start(call{args: []string{"logs", "-f", "slow"}})
	p.see("first\n")
	b.file("go", "", 0o644)
	got := p.wait()
	want := "first\n"
	for i := range 20000 {
		want += fmt.Sprintln(i + 1)
	}
	if got.status != 0 || got.stdout != want || got.stderr != "last\n" {
		t.Errorf("status %d, %d bytes, want %d; %q", got.status, len(got.stdout), len(want), got.stderr)
	}
}

func TestLogsFollowRestarts(t *testing.T) {
	b := newBox(t)
	b.must("run", "-d", "--name", "again", "--restart", "on-failure:2", "alpine", "sh", "-c", "echo once; exit 1")
	t.Cleanup(func() { b.rbox("rm", "-f", "again") })
	got := b.do(call{args: []string{"logs", "-f", "again"}, limit: 30 * time.Second})
	if got.status != 0 || got.stdout != "once\nonce\nonce\n" {
		t.Error(got)
	}
}

func TestLogsOfASilentContainer(t *testing.T) {
	b := newBox(t)
	b.ended("silent", "true")
	if got := b.rbox("logs", "-f", "silent"); got.status != 0 || got.stdout+got.stderr != "" {
		t.Error(got)
	}
	if files, _ := filepath.Glob(filepath.Join(b.root, "containers/*/kept/*/log*")); len(files) != 0 {
		t.Errorf("there is %v", files)
	}
}
