package tests

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A program that has the caller's terminal types nothing into it (TIOCSTI): the
// container's session is another. With a terminal of the container's own it
// types to itself.
func TestTypingIntoTheCallersTerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	probe := buildProbe(t, b)
	for name, flags := range map[string][]string{
		"input":      {"-i"},
		"output":     nil,
		"privileged": {"-i", "--privileged", "--cap-add", "ALL", "--pid", "host"},
	} {
		term := newTerminal(b)
		args := append(append([]string{"run", "--rm", "--network", "none", "-v", probe + ":/probe:ro"}, flags...), "alpine", "/probe", "type", "INJECTED")
		got := b.do(call{args: args, tty: term})
		if got.status != 0 || strings.Contains(got.stdout, "allowed") || strings.Contains(got.stdout, "INJECTED") {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// What an image says of itself types nothing on the user's terminal, and makes
// no lines of its own in tables; nor does what a container wrote.
func TestEscapeSequencesOfImages(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	const evil = "\x1b]0;OWNED\a\u009b31m\u202e\nforged-line"
	b.must("import", "--change", "LABEL evil="+strings.ReplaceAll(evil, "\n", ""), run.alpine, "evil")
	b.must("run", "-d", "--name", "evil", "--label", "mine="+evil, "--health-cmd", "printf '%s' '"+evil+"'", "--health-interval", "1s",
		"evil", "sh", "-c", "touch '/tmp/"+evil+"'; mkdir '/"+evil+"'; echo up; sleep 1000 # "+evil)
	b.seeLog("evil", "up")
	if !eventually(callLimit, func() bool { return b.must("inspect", "-f", "{{len .State.Health.Log}}", "evil") != "0" }) {
		t.Error("no health check is told of")
	}
	for _, args := range [][]string{
		{"ps", "-a"}, {"ps", "-a", "--no-trunc"}, {"inspect", "evil"}, {"image", "inspect", "evil"}, {"images"}, {"history", "evil"},
		{"ps", "--format", "table {{.Names}}\t{{.Labels}}\t{{.Command}}"}, {"run", "--rm", "evil", "/no/such" + evil}, {"exec", "evil", evil},
		{"run", "--rm", "-w", "/etc/passwd" + evil, "evil", "true"},
		{"top", "evil"}, {"stats", "--no-stream", "evil"}, {"events", "--since", "1h", "--until", "0s"}, {"doctor", "--security", "evil"},
		{"cp", "evil:/tmp/" + evil + "/x", "-"}, {"cp", "evil:/" + evil + "/.", "/no/such" + evil}, {"port", "evil"}, {"export", "-o", "/no/such" + evil, "evil"},
	} {
		got := b.rbox(args...)
		for _, raw := range []string{"\x1b", "\a", "\u009b", "\u202e"} {
			if strings.Contains(got.stdout+got.stderr, raw) {
				t.Errorf("rbox %s shows %q raw: %v", args[0], raw, got)
			}
		}
		if (args[0] == "events" || args[0] == "ps" && args[1] == "-a") && strings.Contains(got.stdout, "\nforged") {
			t.Errorf("rbox %s: a line is forged: %v", args[0], got)
		}
	}
	// On a terminal names of files are shown so, too, each on a line.
	term := newTerminal(b)
	if got := b.do(call{args: []string{"diff", "evil"}, tty: term}); got.status != 0 || strings.ContainsAny(got.stdout, "\x1b\a\u009b") || strings.Contains(got.stdout, "\nforged") {
		t.Errorf("diff on a terminal: %v", got)
	}
	// So are templates; to programs as they are.
	term = newTerminal(b)
	const format = "{{.Labels}}"
	if got := b.do(call{args: []string{"ps", "--format", format}, tty: term}); got.status != 0 || strings.Contains(got.stdout, "\x1b") {
		t.Errorf("on a terminal: %v", got)
	}
	if got := b.rbox("ps", "--format", format); !strings.Contains(got.stdout, "\x1b]0;OWNED") {
		t.Errorf("to a program: %v", got)
	}
	// So is what it wrote, but for colors.
	b.must("run", "-d", "--name", "says", "alpine", "printf", `\033[31mred\033[0m \033]0;OWNED\007 \033[6n\233 end\n`)
	b.seeLog("says", "\x1b]0;OWNED\a \x1b[6n\x9b end\n")
	term = newTerminal(b)
	got := b.do(call{args: []string{"logs", "says"}, tty: term})
	term.see(" end")
	if want := "\x1b[31mred\x1b[0m \\u001b]0;OWNED\\u0007 \\u001b[6n\\x9b end\r\n"; got.status != 0 || term.out.String() != want {
		t.Errorf("on a terminal: %q, want %q", term.out.String(), want)
	}
}

// A container that sees the host's processes and has all capabilities gets at
// none of them: not at its monitor, the keeper, rbox, nor another program of the
// same user, though all have the user's id on the host. It can signal them.
func TestPrivilegedAmongTheHostsProcesses(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	probe := buildProbe(t, b)
	host := b.start(call{prog: "sleep", args: []string{"1000"}})
	front := b.start(call{args: []string{"run", "--name", "front", "alpine", "sleep", "1000"}})
	var victims []string
	if !eventually(callLimit, func() bool {
		victims = []string{strconv.Itoa(host.cmd.Process.Pid), strconv.Itoa(front.cmd.Process.Pid)}
		keeper, monitor := false, false
		for _, pid := range processesOf(b.dir) {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			isKeeper, isMonitor := bytes.HasPrefix(line, []byte("rbox-keeper")), bytes.HasPrefix(line, []byte("rbox-monitor"))
			if isKeeper || isMonitor {
				victims = append(victims, strconv.Itoa(pid))
				keeper, monitor = keeper || isKeeper, monitor || isMonitor
			}
		}
		return keeper && monitor
	}) {
		t.Fatal("the victims do not run")
	}
	for name, flags := range map[string][]string{
		"privileged": {"--privileged"},
		"all by flags": {"--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined",
			"--network", "host", "--ipc", "host", "--uts", "host"},
		"as the user": {"--privileged", "--userns", "keep-id"},
	} {
		args := append(append([]string{"run", "--rm", "--pid", "host", "-v", probe + ":/probe:ro"}, flags...), "alpine", "/probe", "trespass", strings.Join(victims, ","))
		if got := b.rbox(args...); got.status != 0 || got.stdout != "EPERM\n" {
			t.Errorf("%s: %v", name, got)
		}
	}
	host.cmd.Process.Kill()
	b.must("kill", "front")
}

// A container forges its passwd and group: exec and cp take them for what they
// are, the container's, and neither hang nor read what is not in there.
func TestForgedAccounts(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	secret := b.file("passwd", "secret:x:4242:4242::/:/bin/sh\n", 0o600)
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	forge := func(script string) {
		t.Helper()
		b.must("exec", "-u", "0:0", "box", "sh", "-c", "cd /etc; rm -rf passwd group; "+script)
	}
	id := []string{"exec", "-u", "user", "box", "id", "-u"}
	for name, tc := range map[string]struct {
		script string
		want   want
	}{
		"a link to the host's":     {"ln -s " + secret + " passwd", want{status: 125, stderr: "unable to find user"}},
		"a link through proc":      {"ln -s /proc/1/root" + secret + " passwd", want{status: 125}},
		"a FIFO":                   {"mkfifo passwd", want{status: 125, stderr: "not a regular file"}},
		"a device":                 {"ln -s /dev/zero passwd", want{status: 125, stderr: "not a regular file"}},
		"a directory":              {"mkdir passwd", want{status: 125}},
		"a loop":                   {"ln -s passwd passwd", want{status: 125}},
		"far too large":            {"truncate -s 100000000 passwd", want{status: 125, stderr: "larger than"}},
		"a number that is none":    {"echo user:x:4294967295:0::/: >passwd", want{status: 125}},
		"a negative number":        {"echo user:x:-1:-1::/: >passwd", want{status: 125}},
		"a number with no id here": {"echo user:x:3000000000:0::/: >passwd", want{status: 125, stderr: "3000000000"}},
		"an endless line":          {"head -c 1000000 /dev/zero | tr '\\0' x >passwd; echo ::: >>passwd", want{status: 125, stderr: "unable to find user"}},
		"root by another name":     {"echo user:x:0:0::/: >passwd", want{stdout: "0\n"}}, // of the container, which its root is anyway
		"members without end": {"echo user:x:1000:1000::/: >passwd; { printf all:x:5:; yes user, | head -n 100000 | tr -d '\\n'; echo; } >group",
			want{stdout: "1000\n"}},
		"groups beyond what a process can have": {"echo user:x:1000:1000::/: >passwd; seq 1 70000 | sed 's/.*/g&:x:&:user/' >group", want{status: 125}},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			forge(tc.script)
			tc.want.check(t, b.rbox(id...))
		})
	}
	forge("echo root:x:0:0::/root:/bin/sh >passwd")
	// A home from the container is text for the environment, and nothing else.
	forge("printf 'user:x:0:0::/$(touch /tmp/x)\\033]0;x:/bin/sh\\n' >passwd")
	if got := b.rbox("exec", "-u", "user", "box", "sh", "-c", `ls /tmp; echo "$HOME" | wc -c`); got.status != 0 || strings.Contains(got.stdout, "x\n") {
		t.Errorf("a home: %v", got)
	}
}

// What a container's root makes setuid belongs to the user on the host: no other
// account may reach it, whatever the modes above rbox's folder.
func TestSetuidFilesSeenFromTheHost(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	if os.Geteuid() != 0 {
		t.Skip("needs another account to be")
	}
	b.must("run", "-d", "--name", "box", "alpine", "sh", "-c", "cp /bin/busybox /suid && chmod 6755 /suid && sleep 1000")
	var found []string
	if !eventually(callLimit, func() bool {
		filepath.Walk(b.root, func(path string, info os.FileInfo, err error) error {
			if err == nil && filepath.Base(path) == "suid" && info.Mode()&os.ModeSetuid != 0 {
				found = append(found, path)
			}
			return nil
		})
		return len(found) > 0
	}) {
		t.Fatal("the file is not there")
	}
	for _, dir := range []string{b.dir, b.home} { // as home directories often are
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range found {
		for _, args := range [][]string{{"stat", path}, {path, "true"}, {"ls", b.root + "/containers"}, {"ls", b.root + "/layers"}} {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			if out, err := cmd.CombinedOutput(); err == nil {
				t.Errorf("another account may: %v: %s", args, out)
			}
		}
	}
}

// While one container swaps a directory of a volume for a link to the host, again
// and again, another that mounts there makes nothing on the host.
func TestMountRaces(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	canary := b.own(filepath.Join(b.home, "canary"))
	b.file("data/file", "x\n", 0o644)
	b.must("run", "-d", "--name", "swap", "-v", "shared:/v", "-v", buildProbe(t, b)+":/probe:ro", "alpine", "sh", "-c",
		fmt.Sprintf("mkdir /v/d; ln -s %s /v/l; exec /probe swap /v/d,/v/l", canary))
	b.seeLog("swap", "up")
	ran := 0
	for i := range 30 {
		inside := fmt.Sprintf("/v/d/new%d", i)
		got := b.rbox("run", "--rm", "-v", "shared:/v", "-v", "./data:"+inside, "--tmpfs", inside+"t", "alpine", "true")
		if got.status == 0 {
			ran++
		}
		if left, _ := os.ReadDir(canary); len(left) > 0 {
			t.Fatalf("the host has %v: %v", left, got)
		}
	}
	if ran == 0 {
		t.Error("no container ran")
	}
}

// A root file system whose /proc and /sys lead elsewhere, and change while the
// container starts, gives it no /proc that shows more.
func TestRootWithForgedProc(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	dir := b.own(filepath.Join(b.home, "rootfs"))
	if got := b.do(call{prog: "tar", args: []string{"-xzf", run.alpine, "-C", dir, "--no-same-owner"}}); got.status != 0 {
		t.Fatal(got)
	}
	const look = "for f in /proc/interrupts /elsewhere/interrupts /etc/interrupts; do test -s $f || head -c 1 $f; done 2>/dev/null | wc -c; " +
		"for d in /proc /elsewhere /etc; do echo 1 2>/dev/null >$d/sys/kernel/panic && echo written; done; true"
	for name, script := range map[string]string{
		"a link inside":      "rm -rf proc elsewhere; mkdir elsewhere; ln -s elsewhere proc",
		"a link out":         "rm -rf proc elsewhere; ln -s /etc proc",
		"a link to the host": "rm -rf proc; ln -s ../../../../../../../../proc proc",
	} {
		if got := b.do(call{prog: "sh", args: []string{"-ec", script}, dir: dir}); got.status != 0 {
			t.Fatal(name, got)
		}
		got := b.rbox("run", "--rm", "--network", "none", "--rootfs", dir, "sh", "-c", look)
		if got.status == 0 && got.stdout != "0\n" {
			t.Errorf("%s: %v", name, got)
		}
	}
	// One container swaps what the next is started on.
	if got := b.do(call{prog: "sh", args: []string{"-ec", "rm -rf proc elsewhere; mkdir proc elsewhere; ln -s elsewhere l"}, dir: dir}); got.status != 0 {
		t.Fatal(got)
	}
	b.must("run", "-d", "--name", "swap", "-v", dir+":/r", "alpine", "sh", "-c", `cd /r; echo up; while :; do mv -T proc spare; mv -T l proc; mv -T proc l; mv -T spare proc; done`)
	b.seeLog("swap", "up")
	for range 30 {
		got := b.rbox("run", "--rm", "--network", "none", "--rootfs", dir, "sh", "-c", look)
		if got.status == 0 && got.stdout != "0\n" {
			t.Fatal(got)
		}
	}
}

// A registry that announces, or sends, what no image has.
func TestImmenseImages(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("x")))
	layer := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":1}`, digest)
	manifest := func(configSize string, layers int) string {
		return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` +
			digest + `","size":` + configSize + `},"layers":[` + strings.TrimSuffix(strings.Repeat(layer+",", layers), ",") + `]}`
	}
	for name, tc := range map[string]struct {
		manifest string
		want     string
	}{
		"a configuration of 1 GiB":     {manifest("1073741824", 1), "configuration is announced with 1073741824 bytes"},
		"one that is not as announced": {manifest("100", 1), "."},
		"a million layers":             {manifest("100", 1_000_000), "larger than"},
		"many layers":                  {manifest("100", 20_000), "layers"},
	} {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, "/manifests/"):
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					io.WriteString(w, tc.manifest)
				case strings.Contains(r.URL.Path, "/blobs/"):
					io.Copy(w, io.LimitReader(zeros{}, 1<<30))
				}
			}))
			defer server.Close()
			ref := strings.TrimPrefix(server.URL, "http://") + "/evil:latest"
			want{status: 125, stderr: tc.want}.checkFailed(t, b.rbox("pull", "--tls-verify=false", ref))
		})
	}
	t.Run("an archive with a configuration of 1 GiB", func(t *testing.T) {
		r, w := io.Pipe()
		go func() {
			archive := tar.NewWriter(w)
			list := `[{"Config":"config.json","RepoTags":["evil:latest"],"Layers":["layer.tar"]}]`
			archive.WriteHeader(&tar.Header{Name: "config.json", Size: 1 << 30, Mode: 0o644})
			io.Copy(archive, io.LimitReader(zeros{}, 1<<30))
			archive.WriteHeader(&tar.Header{Name: "manifest.json", Size: int64(len(list)), Mode: 0o644})
			io.WriteString(archive, list)
			w.CloseWithError(archive.Close())
		}()
		defer r.Close()
		want{status: 125, stderr: "more than"}.checkFailed(t, b.in(t).do(call{args: []string{"load"}, stdin: r}))
	})
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// docs/security.md names no test that is not there.
func TestAttacksAreTried(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(run.top, "docs/security.md"))
	if err != nil {
		t.Fatal(err)
	}
	var code bytes.Buffer
	err = filepath.WalkDir(run.top, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			text, readErr := os.ReadFile(path)
			code.Write(text)
			err = readErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(string(page), -1)
	if len(names) == 0 {
		t.Error("it names no tests")
	}
	for _, name := range names {
		if !bytes.Contains(code.Bytes(), []byte("func "+name[1]+"(t *testing.T)")) {
			t.Errorf("there is no %s", name[1])
		}
	}
}
