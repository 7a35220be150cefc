package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
)

// A host is what an attack may not change: files, settings and mounts.
type host map[string]string

// hostOf notes the host as it is, with all files below dirs.
func hostOf(t testing.TB, dirs ...string) host {
	t.Helper()
	h := host{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			st := info.Sys().(*syscall.Stat_t)
			text, _ := os.Readlink(path)
			if e.Type().IsRegular() {
				content, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				text = string(content)
			}
			h[path] = fmt.Sprint(info.Mode(), st.Uid, st.Gid, st.Nlink, st.Mtim, text)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"core_pattern", "panic", "domainname", "hostname"} {
		text, err := os.ReadFile("/proc/sys/kernel/" + name)
		if err != nil {
			t.Fatal(err)
		}
		h[name] = string(text)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		for _, dir := range dirs {
			if strings.Contains(line, dir) {
				h["mounts"] += line
			}
		}
	}
	return h
}

// unchanged fails the test if the host is not what it was.
func (h host) unchanged(t testing.TB, dirs ...string) {
	t.Helper()
	now := hostOf(t, dirs...)
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if now[name] != h[name] {
			t.Errorf("%s was %q, is %q", name, h[name], now[name])
		}
	}
	for name := range h {
		if _, ok := now[name]; !ok {
			t.Errorf("%s is gone", name)
		}
	}
}

// underAttack returns a box with the image forged, whose devices lead elsewhere,
// and a directory shared in which a container of another box swaps d for a link
// to the host's directory canary, again and again.
func underAttack(t *testing.T) (b *box, canary string) {
	t.Helper()
	b = newBox(t, keeps)
	attacker := newBox(t, keeps) // ends before the other, whose directories it names
	canary = b.own(filepath.Join(b.home, "canary"))
	b.file("canary/file", "untouched\n", 0o666)
	b.own(filepath.Join(b.home, "canary/d"))
	b.file("data/file", "mine\n", 0o644)
	shared := b.own(filepath.Join(b.home, "shared"))
	b.load("forged", alpineImage(t, v1.Config{}, layer(t, images.Entry{Name: "dev/null", Link: canary + "/file"},
		images.Entry{Name: "dev/console", Link: canary + "/file"}, images.Entry{Name: "dev/mqueue", Link: canary}, images.Entry{Name: "work", Link: canary})))
	attacker.must("run", "-d", "--name", "swap", "-v", shared+":/v", "-v", buildProbe(t, attacker)+":/probe:ro", "alpine", "sh", "-c",
		fmt.Sprintf("cd /v; mkdir d; ln -s %s l; exec /probe swap d,l", canary))
	attacker.seeLog("swap", "up")
	return b, canary
}

// Each of rbox's processes is killed at each step of a container's start, while
// another container swaps what it mounts on and works in: the host stays as it
// is, and nothing stays behind.
func TestFaultsUnderAttack(t *testing.T) {
	t.Parallel()
	b, canary := underAttack(t)
	before := hostOf(t, canary)
	const start = "run --rm --network none --sysctl kernel.domainname=evil -v ./shared:/v -v ./data:/v/d/new --tmpfs /v/d/t -w /work/%s --name box forged sleep 1000"
	at := []string{"a folder is begun", "it has its lock", "a folder is there", "the name is taken", "process 1 is there", "the state is recorded", "the monitor listens"}
	for i, condition := range at {
		for _, victim := range []string{"the command", "the monitor", "the container", "the keeper", "all of rbox"} {
			b.fault(fmt.Sprintf(start, fmt.Sprint("d", i)), condition, victim, victims[victim])
			before.unchanged(t, canary)
			if t.Failed() {
				t.Fatalf("at %q, killed %s", condition, victim)
			}
		}
	}
}

// Likewise while rbox reads hostile archives, and copies out of and into what a
// container changes: the command, and what works for it, are killed.
func TestFaultsOfCopiesUnderAttack(t *testing.T) {
	t.Parallel()
	b, canary := underAttack(t)
	var all []images.Entry
	for _, name := range []string{"through an absolute symlink", "a hard link through a symlink", "a whiteout through a symlink", "a folder through a symlink", "modes through a symlink"} {
		all = append(all, hostileEntries(b, canary+"/file")[name]...)
	}
	for i := range 2000 { // so that there is time to kill it
		all = append(all, images.Entry{Name: fmt.Sprintf("out/d/%d", i), Data: "x"})
	}
	data, err := images.Tar(all...)
	if err != nil {
		t.Fatal(err)
	}
	l, err := images.Layer(data, images.Gzip)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(b.home, "hostile.tar")
	if err := errors.Join(images.SaveDocker(file, "hostile:latest", alpineImage(t, v1.Config{}, l)), os.Chmod(file, 0o644)); err != nil {
		t.Fatal(err)
	}
	b.must("run", "-d", "--name", "reads", "-v", "./shared:/v", "alpine", "sleep", "1000")
	out := b.own(filepath.Join(b.home, "out"))
	before := hostOf(t, canary)
	for name, args := range map[string][]string{
		"load":    {"load", "-q", "-i", file},
		"import":  {"import", file, "hostile"},
		"cp out":  {"cp", "reads:/v/.", out},
		"cp in":   {"cp", "-", "reads:/v/d"},
		"cp of d": {"cp", "-L", "reads:/v/d", out},
	} {
		for _, victim := range []string{"the command", "its helper", "both"} {
			for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
				p := b.start(call{args: args, stdin: bytes.NewReader(data)})
				eventually(time.Second, func() bool { return len(children(p.cmd.Process.Pid)) > 0 || !alive(p.cmd.Process.Pid) })
				time.Sleep(delay)
				pids := children(p.cmd.Process.Pid)
				if victim == "the command" {
					pids = nil
				}
				if victim != "its helper" {
					pids = append(pids, p.cmd.Process.Pid)
				}
				for _, pid := range pids {
					syscall.Kill(pid, syscall.SIGKILL)
				}
				p.wait()
				before.unchanged(t, canary)
				if got := b.rbox("images", "-q"); got.status != 0 || got.stderr != "" {
					t.Errorf("then rbox images: %v", got)
				}
				b.rbox("rmi", "-f", "hostile")
				if t.Failed() {
					t.Fatalf("%s, killed %s after %v", name, victim, delay)
				}
			}
		}
	}
	want{stdout: "in\n"}.check(t, b.rbox("exec", "reads", "echo", "in"))
	b.must("import", run.alpine, "next") // it clears away what the killed ones had not ended
	if left, _ := filepath.Glob(canary + "/d/*"); len(left) > 0 {
		t.Errorf("the host has %v", left)
	}
}
