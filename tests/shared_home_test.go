package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
)

// elsewhere is what rbox says when it makes a place for layers.
const elsewhere = `(?m)^rbox: layers and what containers write lie in %s/rbox-\d+-[0-9a-f]{16} since FUSE at %s takes no files of subordinate ids: operation not permitted$`

// sharedHome is a box whose data directory lies on a file system that takes no
// files of other ids and no user xattrs, as the ones of servers do, and keeps
// deleted files that are open under other names, as NFS does: bindfs, run by
// the box's account. Places for layers are made in b.dir/local.
func sharedHome(t *testing.T, options ...boxOption) *box {
	t.Helper()
	return homeOf(t, []string{"--xattr-none"}, options...)
}

// homeOf is sharedHome with options of bindfs.
func homeOf(t *testing.T, how []string, options ...boxOption) *box {
	t.Helper()
	if _, err := exec.LookPath("bindfs"); err != nil {
		t.Skip(err)
	}
	b := newBox(t, append(options, noImage)...)
	real := b.own(filepath.Join(b.dir, "real"))
	b.own(b.root)
	b.env = append(b.env, "TMPDIR="+b.own(filepath.Join(b.dir, "local")))
	want{}.check(t, b.do(call{prog: "bindfs", args: append(how, "--no-allow-other", real, b.root)}))
	t.Cleanup(func() {
		want{}.check(t, b.do(call{prog: "fusermount3", args: []string{"-u", "-z", b.root}}))
		b.root = real // for close to look for debris
		if places, _ := filepath.Glob(filepath.Join(b.dir, "local/*/containers/*")); len(places) > 0 {
			t.Errorf("left behind: %v", places)
		}
		hidden, _ := filepath.Glob(filepath.Join(real, "*/.fuse_hidden*"))
		deeper, _ := filepath.Glob(filepath.Join(real, "*/*/*/.*"))
		if left := append(hidden, deeper...); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return b
}

// place is where layers lie by rbox info, which has to be below local.
func (b *box) place() string {
	b.t.Helper()
	dir := filepath.Dir(b.must("info", "--format", "{{.LayersDir}}"))
	if filepath.Dir(dir) != filepath.Join(b.dir, "local") {
		b.t.Fatalf("layers lie in %s", dir)
	}
	return dir
}

// finally is rbox for what needs the last container's monitor to be gone, which
// may be about to end.
func (b *box) finally(args ...string) (got result) {
	b.t.Helper()
	eventually(10*time.Second, func() bool {
		got = b.rbox(args...)
		return got.status == 0
	})
	return got
}

func TestSharedHome(t *testing.T) {
	t.Parallel()
	b := sharedHome(t)
	want{stderr: fmt.Sprintf(elsewhere, b.dir+"/local", b.root)}.check(t, b.rbox("import", run.alpine, "alpine"))
	place := b.place()
	if st, err := os.Lstat(place); err != nil || st.Mode() != os.ModeDir|0o700 {
		t.Errorf("%s: %v, %v", place, st.Mode(), err)
	}
	b.load("owners", alpineImage(t, v1.Config{Volumes: map[string]struct{}{"/vol": {}}},
		layer(t, images.Entry{Name: "a/gone", Data: "1"}, images.Entry{Name: "a/mine", Data: "2", UID: 33, GID: 44, Mode: 0o640}, images.Entry{Name: "vol/f", Data: "3", UID: 5}),
		layer(t, images.Entry{Name: "a/.wh.gone"})))
	const quiet = "^$"
	for _, step := range []struct {
		name string
		got  result
		want want
	}{
		{"owners", b.rbox("run", "--rm", "alpine", "sh", "-c", "touch /x; chown 12:34 /x; stat -c %u:%g /x /etc/shadow"), want{stdout: "12:34\n0:42\n", stderr: quiet}},
		{"whiteouts", b.rbox("run", "--rm", "owners", "sh", "-c", "ls /a; stat -c %u:%g:%a /a/mine"), want{stdout: "mine\n33:44:640\n"}},
		{"volume", b.rbox("run", "--rm", "owners", "stat", "-c", "%u", "/vol/f"), want{stdout: "0\n", stderr: "(?m)^rbox: the files of volume .* are all root's, since FUSE at "}},
		{"another user", b.rbox("run", "--rm", "--user", "1000:1000", "alpine", "id", "-u"), want{stdout: "1000\n", stderr: quiet}},
		{"keep-id", b.rbox("run", "--rm", "--userns", "keep-id", "alpine", "sh", "-c", "echo text >~/f 2>/dev/null || echo text >/tmp/f; id -u"), want{stdout: fmt.Sprintln(b.who.UID), stderr: quiet}},
		{"kept", b.rbox("run", "--name", "kept", "alpine", "sh", "-c", "echo text >/file; chown 7 /file"), want{stderr: quiet}},
		{"diff", b.rbox("diff", "kept"), want{stdout: "A /file\n"}},
		{"size", b.rbox("ps", "-as", "--format", "{{.Size}}"), want{match: `^5B \(virtual `}},
		{"export", b.rbox("cp", "kept:/file", "-"), want{match: "text\n"}},
		{"commit", b.rbox("commit", "kept", "second"), want{match: "^sha256:"}},
		{"committed", b.rbox("run", "--rm", "second", "sh", "-c", "cat /file; stat -c %u /file"), want{stdout: "text\n7\n"}},
		{"start", b.rbox("start", "-a", "kept"), want{stderr: quiet}},
		{"detached", b.rbox("run", "-d", "--name", "up", "alpine", "sleep", "1000"), want{match: "^[0-9a-f]{64}\n$"}},
		{"exec", b.rbox("exec", "up", "sh", "-c", "echo more >/more && cat /more"), want{stdout: "more\n"}},
		{"cp into it", b.do(call{args: []string{"cp", "-", "up:/"}, stdin: strings.NewReader("")}), want{}},
		{"listed", b.rbox("ps", "-a", "--format", "{{.Names}}"), want{stdout: "up\nkept\n"}},
		{"all is well", b.rbox("system", "check", "-q"), want{}},
		{"doctor", b.rbox("doctor"), want{match: `(?m)^ok +root file system +overlay$[^§]*^lower +layer store +` + place + `\n +not files of all ids: FUSE at `}},
		{"rm", b.rbox("rm", "-f", "up"), want{stdout: "up\n", stderr: quiet}},
		{"rm of what ended", b.rbox("rm", "kept"), want{stdout: "kept\n", stderr: quiet}},
		{"rmi", b.finally("rmi", "-a"), want{match: "Deleted: ", stderr: quiet}},
		{"prune", b.rbox("system", "prune", "-af"), want{stdout: "Total reclaimed space: 0B\n", stderr: quiet}},
	} {
		t.Run(step.name, func(t *testing.T) { step.want.check(t, step.got) })
	}
	if left, _ := os.ReadDir(filepath.Join(b.dir, "local")); len(left) > 0 {
		t.Errorf("prune leaves %v", left)
	}
}

// A place for layers is in a directory that gets cleaned, and gone after a reboot.
func TestPlaceOfLayersGone(t *testing.T) {
	t.Parallel()
	b := sharedHome(t)
	b.must("import", "-q", run.alpine, "alpine")
	b.must("run", "--name", "kept", "alpine", "touch", "/file")
	first := b.place()
	if err := os.RemoveAll(first); err != nil {
		t.Fatal(err)
	}
	lost := want{status: 125, stderr: `^rbox: container kept has lost its writable layer: ` + first + `/containers/[0-9a-f]{64}/upper is gone.*\nrbox: hint: rbox rm kept, and make it again`}
	for _, args := range []string{"start kept", "diff kept", "cp kept:/file -", "commit kept image", "export kept"} {
		t.Run(args, func(t *testing.T) { lost.checkFailed(t, b.rbox(strings.Fields(args)...)) })
	}
	want{stderr: fmt.Sprintf(elsewhere, b.dir+"/local", b.root)}.check(t, b.rbox("run", "--rm", "alpine", "true"))
	want{status: 1, match: `(?m)^container kept has lost its writable layer`}.check(t, b.rbox("system", "check"))
	second := b.place()

	// Whoever takes the name of the one that is gone gains nothing.
	if err := os.Symlink(b.home, first); err != nil {
		t.Fatal(err)
	}
	b.own(filepath.Join(b.home, "containers"))
	b.file("containers/mine", "", 0o600)
	lost.check(t, b.rbox("start", "kept"))
	b.must("rm", "kept")
	if _, err := os.Lstat(filepath.Join(b.home, "containers/mine")); err != nil {
		t.Error(err)
	}
	os.Remove(first)
	want{stdout: "mended: a place for layers that is gone: " + first + "\n"}.check(t, b.rbox("system", "check", "--repair"))

	// Of a layer that a cleaner has been at its lock, the oldest file, is missing.
	locks, _ := filepath.Glob(second + "/layers/*/*/lock")
	shadow, _ := filepath.Glob(second + "/layers/*/*/diff/etc/shadow")
	if len(locks) != 1 || len(shadow) != 1 {
		t.Fatalf("%v %v", locks, shadow)
	}
	os.Remove(locks[0])
	os.Remove(shadow[0])
	want{stdout: "0\n"}.check(t, b.rbox("run", "--rm", "alpine", "stat", "-c", "%u", "/etc/shadow"))
	want{}.check(t, b.finally("rmi", "alpine"))
}

// unshared runs a command, after settings of its environment, as the box's
// account, in a mount and UTS namespace where root has run the script set.
func (b *box) unshared(set string, command ...string) (string, error) {
	script := fmt.Sprintf(`set -e; %s; exec setpriv --reuid %d --regid %d --clear-groups env -i "$@"`, set, b.who.UID, b.who.GID)
	args := slices.Concat([]string{"-m", "-u", "--propagation", "private", "sh", "-c", script, "sh"}, b.env, command)
	cmd := exec.Command("unshare", args...)
	cmd.Dir = b.home
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Where no other file system is to be had, one id does, with owners in xattrs;
// without these nothing does.
func TestNoPlaceForLayers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs to be run by root, to make file systems read-only")
	}
	for name, tc := range map[string]struct {
		how    []string
		script string
		want   string // a regular expression
		fails  bool
	}{
		"without xattrs": {[]string{"--xattr-none"}, `$0 import -q $1 alpine`,
			`^rbox: no place for layers: FUSE at \S+ takes no files of subordinate ids: operation not permitted(; /\S+: (read-only file system|no such file or directory)){4}\nrbox: hint: export RBOX_LAYERS=`, true},
		"with xattrs": {nil, `$0 import -q $1 alpine >/dev/null && $0 run --name c alpine sh -c 'touch /f; chown 7:8 /f; stat -c %u /f' && $0 diff c && $0 run --rm alpine id -u && $0 rm c && $0 doctor | grep ^lower.*layer && $0 rmi alpine`,
			`^rbox: containers of images get your own id alone, and owners are kept in xattrs: no place for layers: .*\n(.*\n)*0\nA /f\n0\nc\nlower +layer store +the data directory, at a loss\nUntagged: alpine`, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := homeOf(t, tc.how)
			b.env = append(b.env, "TMPDIR=/none")
			deny := fmt.Sprintf(`mount --rbind /tmp /tmp; mount --rbind %[1]s %[1]s; mount -o remount,bind,ro /tmp; for d in /var/tmp /dev/shm; do mount -t tmpfs -o ro tmpfs $d; done`, b.dir)
			out, err := b.unshared(deny, "sh", "-c", tc.script, run.bin, run.alpine)
			if (err != nil) != tc.fails || !regexp.MustCompile(tc.want).MatchString(out) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Hosts that share a home have layers and containers of their own.
func TestSharedHomeOfTwoHosts(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs to be run by root, to be another host")
	}
	b := sharedHome(t)
	b.must("import", "-q", run.alpine, "alpine")
	runtime := b.own(filepath.Join(b.dir, "run2"))
	other := func(args ...string) string {
		t.Helper()
		out, err := b.unshared("hostname other", append([]string{"RBOX_RUNTIME=" + runtime, run.bin}, args...)...)
		if err != nil {
			t.Fatalf("on the other host: %v: %v\n%s", args, err, out)
		}
		return out
	}
	b.must("run", "-d", "--name", "here", "alpine", "sleep", "1000")
	if out := other("run", "-d", "--name", "here", "alpine", "sleep", "1000"); !strings.Contains(out, "lie in "+b.dir+"/local/rbox-") {
		t.Error(out)
	}
	if places, _ := filepath.Glob(filepath.Join(b.dir, "local/*/layers/*/*/diff/etc/shadow")); len(places) != 2 {
		t.Errorf("shadow is in %v", places)
	}
	want{stdout: "here\n"}.check(t, b.rbox("ps", "--format", "{{.Names}}"))
	other("exec", "here", "touch", "/file")
	want{status: 1}.check(t, b.rbox("exec", "here", "ls", "/file"))
	b.must("system", "prune", "-af")
	other("system", "prune", "-af")
	if out := other("exec", "here", "cat", "/file", "/etc/alpine-release"); strings.Contains(out, "No such") {
		t.Error(out)
	}
	want{status: 125, stderr: "container here is using its referenced image"}.check(t, b.rbox("rmi", "alpine"))
	b.must("rm", "-f", "here")
	other("rm", "-f", "here")
	want{}.check(t, b.finally("rmi", "alpine"))
	other("system", "prune", "-af")
	if left, _ := filepath.Glob(filepath.Join(b.dir, "local/*/layers")); len(left) != 1 {
		t.Errorf("after prune on one host there are %v", left)
	}
}

// Whatever is killed, nothing stays, in the home or beside it.
func TestSharedHomeAfterSIGKILL(t *testing.T) {
	t.Parallel()
	b := sharedHome(t)
	b.must("import", "-q", run.alpine, "alpine")
	for delay := range 12 {
		p := b.start(call{args: []string{"run", "--rm", "alpine", "sh", "-c", "echo text >/file; exec sleep 1000"}})
		time.Sleep(time.Duration(delay) * 4 * time.Millisecond)
		p.signal(syscall.SIGKILL)
		p.wait()
	}
	for range 3 { // monitors
		p := b.start(call{args: []string{"run", "--rm", "alpine", "sh", "-c", "echo up; exec sleep 1000"}})
		p.see("up\n")
		for _, pid := range children(p.cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		p.wait()
	}
	var left []string
	if !eventually(40*time.Second, func() bool { // what has no lock is taken for dead after ten seconds
		b.must("run", "--rm", "alpine", "true")
		left = nil
		for _, pattern := range []string{"local/*/containers/*", "real/containers/*/passing/*", "real/containers/*/passing/.[no]*"} {
			found, _ := filepath.Glob(filepath.Join(b.dir, pattern))
			left = append(left, found...)
		}
		return len(left) == 0
	}) {
		t.Errorf("left behind: %v", left)
	}
	// What a process asked of a server before it was killed may come to be after
	// all, and after what it was for: a name of no container, which hinders nobody.
	b.must("system", "check", "--repair")
	want{}.check(t, b.finally("rmi", "alpine"))
}

// RBOX_LAYERS puts layers where the user wants them, whatever the home.
func TestLayersWhereTheUserWants(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	fast := b.own(filepath.Join(b.dir, "fast"))
	env := []string{"RBOX_LAYERS=" + fast}
	want{stderr: "^rbox: layers and what containers write lie in " + fast + `/rbox-\d+-[0-9a-f]{16} \(RBOX_LAYERS\)\n$`}.check(t, b.do(call{args: []string{"run", "--name", "kept", "alpine", "touch", "/file"}, env: env}))
	want{stderr: "^$"}.check(t, b.do(call{args: []string{"run", "--rm", "alpine", "true"}, env: env}))
	if layers, _ := filepath.Glob(fast + "/*/layers/*/*/diff"); len(layers) != 1 {
		t.Errorf("layers: %v", layers)
	}
	want{stdout: "A /file\n"}.check(t, b.rbox("diff", "kept")) // without it
	b.must("start", "kept")
	b.must("wait", "kept")
	want{stderr: "^rbox: RBOX_LAYERS=/no/such: no such file or directory\n$"}.check(t, b.do(call{args: []string{"run", "--rm", "alpine", "true"}, env: []string{"RBOX_LAYERS=/no/such"}}))
	b.must("rm", "kept")
	b.must("system", "prune", "-f")
	if left, _ := os.ReadDir(fast); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// With one id, images lose nothing in a place that keeps xattrs.
func TestSharedHomeOfOneID(t *testing.T) {
	t.Parallel()
	b := sharedHome(t, as(single(t)))
	want{stderr: `(?m)^rbox: layers and what containers write lie in ` + b.dir + `/local/rbox-\S+ since FUSE at \S+ keeps no user xattrs: `}.check(t, b.rbox("import", run.alpine, "alpine"))
	b.must("run", "--name", "one", "alpine", "sh", "-c", "touch /file; chown 7:8 /file")
	want{stdout: "A /file\n"}.check(t, b.rbox("diff", "one"))
	b.must("rm", "one")
	want{}.check(t, b.finally("rmi", "alpine"))
}
