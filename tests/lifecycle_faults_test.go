package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
	"rbox/tests/registry"
)

// called lists the processes of the box that rbox started under a name.
func (b *box) called(name string) (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if bytes.HasPrefix(line, []byte(name)) && mentions(string(line), b.dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// victims are whom a fault can hit while a command is at work.
var victims = map[string]func(b *box, p *process) []int{
	"the command": func(_ *box, p *process) []int { return []int{p.cmd.Process.Pid} },
	"the monitor": func(b *box, _ *process) []int { return b.called("rbox-monitor") },
	"the keeper":  func(b *box, _ *process) []int { return b.called("rbox-keeper") },
	"the remover": func(b *box, _ *process) []int { return b.called("rbox-remove") },
	"the container": func(b *box, _ *process) (pids []int) {
		for _, m := range b.called("rbox-monitor") {
			pids = append(pids, children(m)...)
		}
		return pids
	},
	"all of rbox": func(b *box, p *process) []int {
		return append(append([]int{p.cmd.Process.Pid}, b.called("rbox-")...), children(p.cmd.Process.Pid)...)
	},
}

// conditions are what can be seen of a command's progress. The box has one
// container, called box.
var conditions = map[string]func(b *box) bool{
	"a folder is begun":     func(b *box) bool { return b.has("containers/*/passing/.new-*") },
	"it has its lock":       func(b *box) bool { return b.has("containers/*/passing/.new-*/config.json") },
	"a folder is there":     func(b *box) bool { return b.has("containers/*/*/" + anID) },
	"the name is taken":     func(b *box) bool { return b.has("containers/*/names/box") },
	"the state is recorded": func(b *box) bool { return b.has("containers/*/*/" + anID + "/state.json") },
	"process 1 is there":    func(b *box) bool { return len(victims["the container"](b, nil)) > 0 },
	"the monitor listens":   func(b *box) bool { return b.has("containers/*/*/" + anID + "/control") },
	"it is being removed":   func(b *box) bool { return b.has("containers/*/passing/.old-*") },
	"the name is free":      func(b *box) bool { return !b.has("containers/*/names/box") },
	"a program was added":   func(b *box) bool { return len(victims["the container"](b, nil)) > 1 },
	"the container is gone": func(b *box) bool { return len(victims["the container"](b, nil)) == 0 },
}

var anID = strings.Repeat("[0-9a-f]", 64)

func (b *box) has(pattern string) bool {
	found, _ := filepath.Glob(filepath.Join(b.root, pattern))
	return len(found) > 0
}

// fault starts a command, kills the victim when the condition is met or the
// command is over, and checks that nothing is wrong then.
func (b *box) fault(args, condition, victim string, whose func(*box, *process) []int) {
	b.t.Helper()
	p := b.start(call{args: words(args), limit: 30 * time.Second})
	if now := conditions[condition]; now != nil {
		for end := time.Now().Add(2 * time.Second); !now(b) && alive(p.cmd.Process.Pid) && time.Now().Before(end); {
			time.Sleep(100 * time.Microsecond)
		}
	} else {
		delay, _ := time.ParseDuration(condition)
		time.Sleep(delay)
	}
	pids := whose(b, p)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if !eventually(10*time.Second, func() bool { return !anyAlive(pids) }) { // until then they hold their locks
		b.t.Errorf("SIGKILL does not end %v", pids)
	}
	b.t.Logf("drawn: %s; %s; killed %s: %d processes", args, condition, victim, len(pids))
	foreground := strings.HasPrefix(args, "run ") && !strings.Contains(args, " -d")
	if victim != "the command" && victim != "all of rbox" { // it goes on: to its end, or to a container that runs
		if !eventually(20*time.Second, func() bool {
			return !alive(p.cmd.Process.Pid) || foreground && conditions["the monitor listens"](b) || strings.HasPrefix(args, "exec ")
		}) {
			b.t.Errorf("rbox %s: %s; killed %s: it neither ends nor starts", args, condition, victim)
		}
	}
	b.consistent(func() string {
		var names []string
		for _, pid := range pids {
			names = append(names, strconv.Itoa(pid))
		}
		return fmt.Sprintf("rbox %s: %s; killed %s (%s)", args, condition, victim, strings.Join(names, " "))
	})
	if foreground && !eventually(5*time.Second, func() bool { return !alive(p.cmd.Process.Pid) }) {
		b.t.Errorf("rbox %s: %s; killed %s: it does not end with its container", args, condition, victim)
		p.cmd.Process.Kill()
	}
	p.wait()
}

// consistent checks that rbox tells the truth about the container called box
// and can get rid of it, and that the name is free then.
func (b *box) consistent(where func() string) {
	b.t.Helper()
	lies := ""
	if !eventually(5*time.Second, func() bool { lies = b.lies(); return lies == "" }) {
		b.t.Errorf("%s: %s", where(), lies)
	}
	for _, s := range []step{
		{"rm -f box", want{}},
		{"run --rm --name box alpine true", want{}},
		{"ps -aq", want{match: "^$"}},
	} {
		got := b.do(call{args: words(s.args), limit: 20 * time.Second})
		if got.status != 0 || s.want.match != "" && got.stdout != "" {
			b.t.Fatalf("%s: then rbox %s: %v", where(), s.args, got)
		}
	}
	// A child of the killed that had not come to its exec may have held a lock for a moment;
	// and what the last run was, its monitor deletes while rbox is gone already.
	var d []string
	clean := func() bool { d = b.debris(); return len(d) == 0 }
	if !eventually(time.Second, clean) && !eventually(10*time.Second, func() bool {
		b.rbox("run", "--rm", "alpine", "true")
		return eventually(2*time.Second, clean)
	}) {
		b.t.Errorf("%s: left behind: %s", where(), d)
	}
}

// lies tells what ps says that is not so.
func (b *box) lies() string {
	got := b.rbox("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}")
	if got.status != 0 || got.stderr != "" {
		return got.String()
	}
	for line := range strings.Lines(got.stdout) {
		id, state, _ := strings.Cut(strings.TrimSpace(line), " ")
		if state != "running" {
			continue
		}
		shown := b.rbox("inspect", "--format", "{{.State.Running}} {{.State.Pid}}", id)
		running, pid, _ := strings.Cut(strings.TrimSpace(shown.stdout), " ")
		if n, _ := strconv.Atoi(pid); running == "true" && !alive(n) {
			return fmt.Sprintf("%s is said to run, but process 1, %s, is dead", id, pid)
		}
	}
	return ""
}

// faultsAtATime is how many a test tries of all that it could: which, is left to
// chance, and -count=50 comes to all of them.
const faultsAtATime = 5

// faults strikes some victims at some conditions, and one at any moment. before
// makes what the command needs.
func (b *box) faults(args string, before []step, at, whom []string) {
	b.t.Helper()
	type choice struct{ condition, victim string }
	var all []choice
	for _, condition := range at {
		for _, victim := range whom {
			all = append(all, choice{condition, victim})
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = append(all[:min(len(all), faultsAtATime)], choice{(time.Duration(rand.IntN(50_000)) * time.Microsecond).String(), whom[rand.IntN(len(whom))]})
	for _, c := range all {
		b.steps(before)
		b.fault(args, c.condition, c.victim, victims[c.victim])
	}
}

const (
	sleeps = " --name box alpine sleep 1000"
)

// Whatever is killed while a container is made, the next command works.
func TestFaultsWhileMaking(t *testing.T) {
	t.Parallel()
	for name, args := range map[string]string{
		"create": "create", "run -d": "run -d", "run": "run", "run -d --rm": "run -d --rm -v /data", "run --rm": "run --rm -v /data", "run -u": "run -u 1000 --init",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, keeps)
			b.faults(args+sleeps, nil,
				[]string{"a folder is begun", "it has its lock", "a folder is there", "the name is taken", "process 1 is there", "the state is recorded", "the monitor listens"}[:map[bool]int{true: 4, false: 7}[args == "create"]],
				[]string{"the command", "the monitor", "the container", "the keeper", "all of rbox"})
			if strings.Contains(args, "--rm") {
				if left := b.must("volume", "ls", "-q"); left != "" {
					t.Errorf("volumes are left: %s", left)
				}
			}
		})
	}
}

// Whatever is killed while a container starts, stops or is removed, likewise.
func TestFaultsOfCommands(t *testing.T) {
	t.Parallel()
	running := []step{{"run -d" + sleeps, want{}}}
	for name, tc := range map[string]struct {
		args   string
		before []step
		at     []string
		whom   []string
	}{
		"start":      {"start box", []step{{"create" + sleeps, want{}}}, []string{"process 1 is there", "the state is recorded", "the monitor listens"}, []string{"the command", "the monitor", "the container", "the keeper", "all of rbox"}},
		"start --rm": {"start box", []step{{"create --rm -v /data" + sleeps, want{}}}, []string{"process 1 is there", "the state is recorded", "the monitor listens"}, []string{"the command", "the monitor", "the container", "the keeper", "all of rbox"}},
		"rm -f":      {"rm -f box", running, []string{"the container is gone", "it is being removed", "the name is free"}, []string{"the command", "the monitor", "the keeper", "the remover", "all of rbox"}},
		"rm":         {"rm box", []step{{"create" + sleeps, want{}}}, []string{"it is being removed", "the name is free"}, []string{"the command", "the remover", "the keeper", "all of rbox"}},
		"stop":       {"stop -t 0 box", running, []string{"the container is gone"}, []string{"the command", "the monitor", "the container", "the keeper", "all of rbox"}},
		"restart":    {"restart -t 0 box", running, []string{"the container is gone", "the monitor listens"}, []string{"the command", "the monitor", "the container", "the keeper", "all of rbox"}},
		"exec":       {"exec box sleep 1000", running, []string{"a program was added"}, []string{"the command", "the monitor", "the container", "the keeper", "all of rbox"}},
		"rename":     {"rename box other", running, nil, []string{"the command", "the monitor"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, keeps)
			if name == "rename" { // the name is one or the other, never both or none
				for range 4 {
					b.steps(tc.before)
					b.renameFault()
				}
				return
			}
			b.faults(tc.args, tc.before, tc.at, tc.whom)
		})
	}
}

func (b *box) renameFault() {
	b.t.Helper()
	id := b.must("ps", "-q", "--no-trunc")
	p := b.start(call{args: []string{"rename", "box", "other"}})
	time.Sleep(time.Duration(rand.IntN(8000)) * time.Microsecond)
	p.cmd.Process.Kill()
	p.wait()
	shown, named := "", ""
	if !eventually(5*time.Second, func() bool { // the monitor may be at it still
		shown = b.must("ps", "--format", "{{.Names}}")
		named = strings.TrimSpace(b.rbox("inspect", "--format", "{{.Id}}", shown).stdout)
		return named == id && (shown == "box" || shown == "other")
	}) {
		b.t.Errorf("after a rename that was killed it is called %q, and that is %q, want %q", shown, named, id)
	}
	b.must("rm", "-f", id)
	for _, name := range []string{"box", "other"} {
		b.must("run", "--rm", "--name", name, "alpine", "true")
	}
}

// Any process of a container in the background is killed: what remains is told
// rightly, and it starts again.
func TestFaultsOfARunningContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for _, tc := range []struct {
		victim, flags string
		lives         bool
	}{
		{"the monitor", "", false}, {"the container", "", false}, {"the keeper", "", true}, {"all of rbox", "", false},
		{"the monitor", "--restart always", false}, {"the container", "--restart always", true}, {"the monitor", "-t", false},
		{"the container", "--init -u 1000", false}, {"the monitor", "--init", false},
	} {
		b.must(append(words("run -d "+tc.flags), words(sleeps)...)...)
		first := b.pid("box")
		here := b.start(call{prog: "/bin/true"})
		for _, pid := range victims[tc.victim](b, here) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		here.wait()
		if !eventually(10*time.Second, func() bool {
			state := b.rbox("inspect", "--format", "{{.State.Status}} {{.State.Pid}}", "box").stdout
			if !tc.lives {
				return state == "exited 0\n" && !alive(first)
			}
			return strings.HasPrefix(state, "running") && b.rbox("exec", "box", "true").status == 0
		}) {
			b.t.Errorf("killed %s of %q: %s", tc.victim, tc.flags, b.must("ps", "-a"))
		}
		if !tc.lives {
			want{stdout: "137\n"}.check(t, b.rbox("wait", "box"))
			want{status: 125, stderr: "not running"}.check(t, b.rbox("exec", "box", "true"))
			want{}.check(t, b.rbox("start", "box"))
			want{stdout: "again\n"}.check(t, b.rbox("exec", "box", "echo", "again"))
		}
		b.consistent(func() string { return "killed " + tc.victim + " of " + tc.flags })
	}
}

// After a reboot what ran has ended, and starts again.
func TestFaultsReboot(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`run -d --name plain alpine sh -c 'echo x >>/f; exec sleep 1000'`, want{}},
		{`run -d --name restarting --restart always alpine sleep 1000`, want{}},
		{`run -d --name tty -t alpine sleep 1000`, want{}},
		{`run -d --rm --name passing -v /data alpine sleep 1000`, want{}},
		{`create --name made alpine sleep 1000`, want{}},
	})
	killed := b.called("rbox-")
	for _, pid := range killed {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	if !eventually(10*time.Second, func() bool { return !anyAlive(killed) }) { // until then they hold their locks
		t.Fatalf("SIGKILL does not end %v", killed)
	}
	leftovers(b.dir, 5*time.Second)
	states, _ := filepath.Glob(filepath.Join(b.root, "containers/*/*/*/state.json"))
	if len(states) != 4 {
		t.Fatalf("%d containers have a state", len(states))
	}
	for i, file := range states { // as another boot left it, whose pids are others' now
		text, err := os.ReadFile(file)
		var state map[string]any
		if err == nil {
			err = json.Unmarshal(text, &state)
		}
		if err != nil {
			t.Fatal(err)
		}
		state["BootID"] = "00000000-0000-0000-0000-000000000000"
		state["Pid"], state["Monitor"] = os.Getpid(), os.Getppid()
		if i%2 == 0 {
			state["Restarting"] = true
		}
		if text, err = json.Marshal(state); err == nil {
			err = os.WriteFile(file, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	os.RemoveAll(b.runtime) // a tmpfs
	b.own(b.runtime)
	b.steps([]step{
		{`ps -q`, want{match: `^$`}},
		{namesNow, want{stdout: "made created\ntty exited\nrestarting exited\nplain exited\n"}},
		{`inspect --format '{{.State.Running}} {{.State.Pid}} {{.State.ExitCode}}' plain`, want{stdout: "false 0 137\n"}},
		{`exec plain true`, want{status: 125, stderr: "not running"}},
		{`stop plain`, want{stdout: "plain\n"}},
		{`kill plain`, want{status: 125, stderr: "not running"}},
		{`wait plain`, want{stdout: "137\n"}},
		{`start plain restarting tty made`, want{}},
		{`exec plain wc -l /f`, want{match: `^[12] /f`}},
		{`run --rm --name passing alpine true`, want{}},
		{`volume ls -q`, want{match: `^$`}},
	})
}

// The runtime directory is deleted while containers run, as a logout does.
func TestFaultsNoRuntimeFolder(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.background("box", sleeper)
	b.background("user", sleeper, "-u", "1000")
	b.must("run", "-d", "--rm", "--name", "passing", "alpine", "sleep", "1000")
	if err := os.RemoveAll(b.runtime); err != nil {
		t.Fatal(err)
	}
	b.steps([]step{
		{`ps --format '{{.Names}} {{.State}}'`, want{stdout: "passing running\nuser running\nbox running\n"}},
		{`logs box`, want{stdout: "up\n"}},
		{`exec box echo in`, want{stdout: "in\n"}},
		{`exec -u 1000 box id -u`, want{stdout: "1000\n"}},
		{`stop box`, want{stdout: "box\n"}},
		{`inspect --format '{{.State.ExitCode}}' box`, want{stdout: "5\n"}},
		{`start box`, want{stdout: "box\n"}},
		{`rm -f box user passing`, want{stdout: "box\nuser\npassing\n"}},
		{namesNow, want{match: "^$"}},
		{`run --rm --name box alpine echo works`, want{stdout: "works\n"}},
	})
}

// Files of a running container are deleted: it is seen, stopped and removed all
// the same.
func TestFaultsDeletedFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for _, name := range []string{"config.json", "state.json", "control", "log"} {
		for _, flags := range []string{"", "--rm"} {
			if name == "log" && flags == "--rm" {
				continue
			}
			b.must(append(words("run -d "+flags+" --name box"), "alpine", "sh", "-c", sleeper)...)
			if !eventually(10*time.Second, func() bool { return b.has("containers/*/*/" + anID + "/control") }) {
				t.Fatal("its monitor does not listen")
			}
			first := b.pid("box")
			var found []string
			if !eventually(10*time.Second, func() bool { // the log, once it says something
				found, _ = filepath.Glob(filepath.Join(b.root, "containers/*/*/"+anID, name))
				return len(found) == 1
			}) {
				t.Fatalf("%s: %q", name, found)
			}
			if err := os.RemoveAll(found[0]); err != nil {
				t.Fatal(err)
			}
			t.Logf("deleted %s of run -d %s", name, flags)
			want{stdout: "box running\n"}.check(t, b.rbox(words(namesNow)...))
			want{stdout: fmt.Sprint("running ", first, "\n")}.check(t, b.rbox("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "box"))
			if name != "control" {
				want{stdout: "in\n"}.check(t, b.rbox("exec", "box", "echo", "in"))
			}
			switch {
			case name == "control":
			case flags == "--rm" && name == "config.json":
				want{stdout: "box\n"}.check(t, b.rbox("stop", "box"))
			default:
				want{stdout: "box\n"}.check(t, b.rbox("stop", "-t", "0", "box"))
			}
			want{}.check(t, b.rbox("rm", "-f", "box"))
			if !eventually(5*time.Second, func() bool { return !alive(first) }) {
				t.Errorf("without %s %s: it is alive after rm -f", name, flags)
			}
			b.consistent(func() string { return "without " + name + " " + flags })
		}
	}
}

// Where the kernel does not end a container's processes with its first one, what
// a killed monitor leaves of them ends with the next command that can.
func TestFaultsSharedPids(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for _, next := range []string{"start box", "rm box", "run --rm alpine true"} {
		flags := "-d --pid host --name box"
		if strings.HasPrefix(next, "run") {
			flags += " --rm"
		}
		b.must(append(words("run "+flags+" alpine sh -c"), "setsid sleep 1000 & echo $!; exec sleep 1000")...)
		if !eventually(10*time.Second, func() bool { return b.rbox("logs", "box").stdout != "" }) {
			t.Fatal("it says nothing")
		}
		first, stray := b.pid("box"), 0
		fmt.Sscan(b.must("logs", "box"), &stray)
		if !alive(stray) {
			t.Fatalf("%d does not run", stray)
		}
		monitor := b.monitor("box")
		syscall.Kill(monitor, syscall.SIGKILL)
		if !eventually(10*time.Second, func() bool { return !alive(first) }) {
			t.Error("process 1 outlives the monitor")
		}
		// Who names the container waits for the monitor's last thread; a sweep leaves it to the next.
		if strings.HasPrefix(next, "run") && !eventually(10*time.Second, func() bool { return !alive(monitor) }) {
			t.Error("SIGKILL does not end the monitor")
		}
		want{}.check(t, b.rbox(words(next)...))
		if !eventually(5*time.Second, func() bool { return !alive(stray) }) { // it is killed, but may not be gone yet
			t.Errorf("a process is left after %s", next)
			syscall.Kill(stray, syscall.SIGKILL)
		}
		b.rbox("rm", "-f", "box")
	}
}

// What has ended, and how is not known any more, is no new container.
func TestFaultsDeletedState(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("create", "--name", "made", "alpine", "true")
	b.must("run", "--name", "silent", "alpine", "true")
	b.must("run", "-d", "--name", "killed", "alpine", "sleep", "1000")
	syscall.Kill(b.monitor("killed"), syscall.SIGKILL)
	want{stdout: "137\n"}.check(t, b.rbox("wait", "killed"))
	states, _ := filepath.Glob(filepath.Join(b.root, "containers/*/kept/*/state.json"))
	if len(states) != 2 {
		t.Fatalf("states: %v", states)
	}
	for i, file := range states {
		err := os.Remove(file)
		if i == 0 && err == nil {
			err = os.WriteFile(file, nil, 0o600) // as a power cut leaves it
			os.Lchown(file, int(b.who.UID), int(b.who.GID))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.steps([]step{
		{namesNow, want{stdout: "killed exited\nsilent exited\nmade created\n"}},
		{`inspect -f '{{.State.Status}} {{.State.ExitCode}}' made silent killed`, want{stdout: "created 0\nexited 137\nexited 137\n"}},
		{`wait killed`, want{stdout: "137\n"}},
		{`start -a silent`, want{}},
		{`start killed made`, want{}},
		{`exec killed echo in`, want{stdout: "in\n"}},
		{`rm -f killed silent made`, want{}},
	})
}

// Two hosts share the home directory: each sees its own containers, both see
// the images.
func TestFaultsTwoHosts(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	elsewhere := func(args ...string) result {
		b.t.Helper()
		// No process sees the other host's, and both have a container called box.
		return b.do(call{prog: "unshare", args: append([]string{"--user", "--map-current-user", "--uts", "sh", "-c", `echo far >/proc/sys/kernel/hostname; exec "$@"`, "sh", run.bin}, args...), env: []string{"RBOX_RUNTIME=" + b.own(filepath.Join(b.home, "far"))}})
	}
	if os.Geteuid() == 0 {
		r := newBox(t, as(root(t)), noImage)
		elsewhere = func(args ...string) result {
			b.t.Helper()
			become := []string{"--uts", "sh", "-c", fmt.Sprintf(`hostname far; exec setpriv --reuid %d --regid %d --init-groups "$@"`, b.who.UID, b.who.GID), "sh", run.bin}
			return r.do(call{prog: "unshare", args: append(become, args...), env: append(append([]string{}, b.env...), "RBOX_RUNTIME="+b.own(filepath.Join(b.home, "far")))})
		}
	}
	b.must("run", "-d", "--name", "box", "alpine", "sleep", "1000")
	want{match: isID}.check(t, elsewhere("run", "-d", "--name", "box", "alpine", "sleep", "1000"))
	here, there := b.must("ps", "-aq"), strings.TrimSpace(elsewhere("ps", "-aq").stdout)
	if here == there || strings.Contains(here, "\n") || len(there) != 12 {
		t.Errorf("here are %q, there %q", here, there)
	}
	want{stdout: b.must("images", "-q") + "\n"}.check(t, elsewhere("images", "-q"))
	want{status: 125, stderr: "no such container"}.check(t, elsewhere("stop", here))
	want{status: 125, stderr: "no such container"}.check(t, b.rbox("stop", there))
	want{stdout: "far\n"}.check(t, elsewhere("run", "--rm", "--network", "host", "--uts", "host", "alpine", "hostname"))
	// An image in use there stays here.
	if got := b.rbox("rmi", "alpine"); got.status == 0 {
		t.Errorf("rmi removes an image that containers use: %v", got)
	}
	want{stdout: "in\n"}.check(t, elsewhere("exec", "box", "echo", "in"))
	want{}.check(t, elsewhere("rm", "-f", "box"))
	want{stdout: "in\n"}.check(t, b.rbox("exec", "box", "echo", "in"))
}

// The disk fills up under containers: what cannot be written fails and says so,
// what was written stays, and room makes all well.
func TestFaultsFullDisk(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	got := b.onTmpfs("size=80m", `mkdir rt; rbox() { "$RBOX" "$@"; }
		rbox import "$ALPINE" alpine >/dev/null
		rbox run -d --name box alpine sh -c "echo before; trap \"exit 3\" TERM; while :; do sleep 0.05; done" >/dev/null
		until rbox logs box | grep -q before; do sleep 0.02; done
		dd if=/dev/zero of=fill bs=1M 2>/dev/null; dd if=/dev/zero of=fill2 bs=1 2>/dev/null
		echo running $(rbox ps -q | wc -l); rbox exec box echo in; rbox logs box
		second=$(rbox run -d --name second alpine sleep 1000 2>&1); echo "second $?: $second"
		third=$(rbox run --rm alpine echo third 2>&1); echo "third $?: $third"
		rbox exec box sh -c "echo x >/x" 2>/dev/null || echo no room
		rbox stop box; echo running $(rbox ps -q | wc -l); rbox rm -f second >/dev/null 2>&1
		rm fill fill2
		rbox ps -a --format "{{.Names}} {{.State}}"; rbox inspect --format "{{.State.ExitCode}}" box; rbox logs box
		rbox start box; rbox exec box echo again; rbox rm -f box; rbox run --rm --name second alpine echo works; rbox ps -aq | wc -l; ls r/containers/*/passing -A; sleep 0.7`)
	for _, want := range []string{"running 1\nin\nbefore\n", "no room\n", "second 125: rbox: ", "third 125: rbox: ", "box\nrunning 0\n", "box exited\n3\nbefore\n", "again\nbox\nworks\n0\n"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("no %q in %v", want, got)
		}
	}
}

// 200 commands of all kinds at once: none fails that should not, none hangs,
// and nothing is left.
func TestManyLifecyclesAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	r := newRegistry(t, registry.Options{})
	for i := range 5 { // they share a layer
		push(t, r, fmt.Sprint("pulled", i), alpineImage(t, v1.Config{}, layer(t, images.Entry{Name: "number", Data: strconv.Itoa(i)})))
	}
	b.must("run", "-d", "--name", "steady", "alpine", "sh", "-c", "while :; do echo line; sleep 0.1; done")
	monitor := b.monitor("steady")
	var all []*process
	for i := range 200 {
		name := fmt.Sprint("box", i/10)
		line := []string{
			"run --rm alpine echo works", "run -d --name " + name + " alpine sleep 1000", "exec steady echo works", "ps -a",
			"logs -n 5 steady", "run -d --rm alpine sleep 0.2", "pull -q " + r.Ref("pulled"+strconv.Itoa(i/10%5)), "rm -f " + name,
			"run --rm " + r.Ref("pulled"+strconv.Itoa(i/10%5)) + " cat /number", "import " + run.alpine + " copy" + strconv.Itoa(i%3),
		}[i%10]
		all = append(all, b.start(call{args: words(line), limit: 2 * time.Minute}))
	}
	for _, p := range all {
		if got := p.wait(); got.status != 0 {
			t.Errorf("%s: %v", p.name, got)
		}
	}
	if lie := b.lies(); lie != "" {
		t.Error(lie)
	}
	for _, pid := range append(b.called("rbox-keeper"), monitor) {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		for _, list := range lists {
			data, _ := os.ReadFile(list)
			for _, child := range strings.Fields(string(data)) {
				if stat, err := os.ReadFile("/proc/" + child + "/stat"); err == nil && ended(stat) {
					t.Errorf("%s has a zombie, %s", describe(pid), stat)
				}
			}
		}
	}
}
