package tests

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var updateSecurity = flag.Bool("update", false, "write what docs/security.md has of the probes")

// looser lists what rbox allows and podman forbids, with the reason.
var looser = map[string]string{
	"NET_RAW: open a raw socket":    "Docker's set has NET_RAW, and images use it for ping; it reaches the container's own network alone",
	"NET_RAW: open a packet socket": "as above",
	"MKNOD: hold it":                "Docker's set has MKNOD; in a user namespace the kernel lets nobody make a device node with it",
	"AUDIT_WRITE: hold it":          "Docker's set has AUDIT_WRITE; the kernel asks for it in the host's user namespace, where the container has none",
	"fchmodat2(2)":                  "podman's libseccomp is older than the call: chmod(2) by another name, which Docker's profile allows",
}

// fewestProbes is how many things are tried at least.
const fewestProbes = 60

// A verdict is what one probe said.
type verdict struct{ group, name, said string }

func (v verdict) allowed() bool { return v.said == "allowed" }

// TestBesidePodman tries the same things from inside of a container of podman's
// and of one of rbox's. What podman forbids by default, rbox does too, unless
// there is a reason.
func TestBesidePodman(t *testing.T) {
	b := newBox(t)
	probe := buildProbe(t, b)
	ours := b.must("run", "--rm", "--network", "none", "-v", probe+":/probe:ro", "alpine", "/probe")
	rbox := verdicts(t, ours)
	if len(rbox) < fewestProbes {
		t.Fatalf("only %d probes: %s", len(rbox), ours)
	}
	podman := map[string]string{}
	theirs, version, err := podmanRun(b, probe)
	if err != nil {
		t.Logf("podman takes no part, docs/security.md is held against rbox alone: %v", err)
	}
	for _, v := range verdicts(t, theirs) {
		podman[v.name] = v.said
	}
	for _, v := range rbox {
		if said, ok := podman[v.name]; ok && v.allowed() && said != "allowed" && looser[v.name] == "" {
			t.Errorf("%s: rbox allows it, podman does not (%s)", v.name, said)
		}
	}
	for name := range looser {
		if !slices.ContainsFunc(rbox, func(v verdict) bool { return v.name == name && v.allowed() }) {
			t.Errorf("%s is excused, but rbox does not allow it", name)
		}
	}
	checkTable(t, rbox, podman, version)
}

// buildProbe compiles tests/probe to where the box's account can read it.
func buildProbe(t *testing.T, b *box) string {
	t.Helper()
	path := filepath.Join(b.dir, "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./tests/probe")
	cmd.Dir = run.top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	return path
}

// verdicts reads what the probe wrote.
func verdicts(t *testing.T, text string) (all []verdict) {
	t.Helper()
	group := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if title, ok := strings.CutPrefix(line, "# "); ok {
			group = title
			continue
		}
		name, said, ok := strings.Cut(line, "\t")
		if !ok {
			t.Errorf("the probe says %q", line)
			continue
		}
		all = append(all, verdict{group, name, said})
	}
	return all
}

// podmanRun runs the probe in a container of podman's, by the same account and
// with podman's own defaults.
func podmanRun(b *box, probe string) (out, version string, err error) {
	if _, err := exec.LookPath("podman"); err != nil {
		return "", "", err
	}
	podman := func(args ...string) (string, error) {
		args = append([]string{"--cgroup-manager=cgroupfs", "--events-backend=file", "--log-level=error"}, args...)
		cmd := underCgroup2(b, "podman", args...)
		cmd.Env, cmd.Dir = append(slices.Clone(b.env), "XDG_RUNTIME_DIR="+b.runtime), b.home
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("podman %s: %w: %s", args[3], err, stderr.String())
		}
		return string(out), err
	}
	defer podman("system", "migrate") // ends the process that holds its user namespace
	if _, err := podman("import", run.alpine, "localhost/probe"); err != nil {
		return "", "", err
	}
	if version, err = podman("version", "--format", "{{.Client.Version}}"); err != nil {
		return "", "", err
	}
	out, err = podman("run", "--rm", "--network", "none", "--pull=never", "-v", probe+":/probe:ro", "localhost/probe", "/probe")
	return out, strings.TrimSpace(version), err
}

// underCgroup2 runs prog as the box's account where /sys/fs/cgroup is cgroup v2
// alone: on a hybrid crun refuses to start. Only root can make it so.
func underCgroup2(b *box, prog string, args ...string) *exec.Cmd {
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil || fs.Type == unix.CGROUP2_SUPER_MAGIC || os.Geteuid() != 0 {
		cmd := exec.Command(prog, args...)
		cmd.SysProcAttr = b.who.Become(nil)
		return cmd
	}
	uid, gid := strconv.Itoa(int(b.who.UID)), strconv.Itoa(int(b.who.GID))
	const script = `mount --make-rprivate / && mount -t cgroup2 none /sys/fs/cgroup && uid=$1 && gid=$2 && shift 2 &&
		exec setpriv --reuid "$uid" --regid "$gid" --clear-groups -- "$@"`
	return exec.Command("unshare", slices.Concat([]string{"-m", "sh", "-c", script, "sh", uid, gid, prog}, args)...)
}

// The table in docs/security.md lies between these lines.
const (
	tableBegin = "<!-- Made by `make docs-security`: -->"
	tableEnd   = "<!-- End of what it makes. -->"
)

// checkTable holds what docs/security.md says of rbox against what was found, or
// writes it. What is absent on one kernel is there on another.
func checkTable(t *testing.T, rbox []verdict, podman map[string]string, version string) {
	t.Helper()
	path := filepath.Join(run.top, "docs/security.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(page), tableBegin)
	table, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	if *updateSecurity {
		if len(podman) == 0 {
			t.Fatal("podman is needed to write the table")
		}
		text := before + tableBegin + "\n\n" + tableOf(rbox, podman, version) + "\n" + tableEnd + after
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	written := map[string]string{}
	for line := range strings.Lines(table) {
		if f := strings.Split(line, "|"); len(f) > 4 {
			written[strings.TrimSpace(f[1])] = strings.TrimSpace(f[3])
		}
	}
	for _, v := range rbox {
		was, ok := written[v.name]
		switch {
		case !ok:
			t.Errorf("docs/security.md has no line for %q: make docs-security", v.name)
		case was != mark(v.said) && v.said != "absent" && was != mark("absent"):
			t.Errorf("docs/security.md says %q of %q, but it is %q (%s): make docs-security", was, v.name, mark(v.said), v.said)
		}
	}
}

// mark is how the table shows what a probe said.
func mark(said string) string {
	switch said {
	case "allowed":
		return "yes"
	case "absent", "":
		return "absent"
	}
	return "no"
}

// tableOf is the table as Markdown.
func tableOf(rbox []verdict, podman map[string]string, version string) string {
	var b strings.Builder
	group := ""
	for _, v := range rbox {
		if v.group != group {
			group = v.group
			fmt.Fprintf(&b, "### %s\n\n| tried | podman %s | rbox | why rbox allows more |\n|---|---|---|---|\n", group, version)
		}
		why := ""
		if v.allowed() && podman[v.name] != "allowed" {
			why = looser[v.name]
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", v.name, mark(podman[v.name]), mark(v.said), why)
	}
	return strings.ReplaceAll(b.String(), "\n### ", "\n\n### ")
}
