package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func (b *box) restarts(name string) string {
	b.t.Helper()
	return b.must("inspect", "--format", "{{.RestartCount}}", name)
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	// Each run adds a line; the fourth ends well.
	script := "echo x >>/runs; n=$(wc -l </runs); echo run $n; test $n -ge 4 && exit 0; exit 3"
	for name, tc := range map[string]struct{ flags, runs, status, restarts string }{
		"no":           {"--restart no", "1", "3", "0"},
		"none":         {"", "1", "3", "0"},
		"on-failure":   {"--restart on-failure", "4", "0", "3"},
		"on-failure:2": {"--restart on-failure:2", "3", "3", "2"},
		"on-failure:9": {"--restart=on-failure:9", "4", "0", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			box := strings.ReplaceAll(name, ":", "-")
			b.must(append(words("run -d --name "+box+" "+tc.flags), "alpine", "sh", "-c", script)...)
			if !eventually(15*time.Second, func() bool { return b.state(box, "Status") == "exited" }) {
				t.Fatalf("it is %s", b.state(box, "Status"))
			}
			if got := b.state(box, "ExitCode"); got != tc.status {
				t.Errorf("exit status %s, want %s", got, tc.status)
			}
			if got := b.restarts(box); got != tc.restarts {
				t.Errorf("%s restarts, want %s", got, tc.restarts)
			}
			if got := b.must("logs", box); strings.Count(got, "run ") != len(tc.runs) && !strings.HasSuffix(got, "run "+tc.runs) {
				t.Errorf("the log is %q, want %s runs", got, tc.runs)
			}
		})
	}
	for _, bad := range []string{"sometimes", "always:3", "on-failure:x", "on-failure:-1", "unless-stopped:1", "no:1"} {
		want{status: 125, stderr: "--restart"}.check(t, b.rbox("create", "--restart", bad, "alpine", "true"))
	}
	want{status: 125, stderr: "[Cc]onflicting options"}.check(t, b.rbox("run", "--rm", "--restart", "always", "alpine", "true"))
}

// What ends by itself or is killed from outside comes back; what the user
// stops or kills does not.
func TestRestartAlways(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for _, policy := range []string{"always", "unless-stopped"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			b.background(policy, sleeper, "--restart", policy)
			first := b.pid(policy)
			syscall.Kill(first, syscall.SIGKILL)
			again := func(before int) bool {
				return eventually(10*time.Second, func() bool {
					pid := b.pid(policy)
					return pid != 0 && pid != before && alive(pid)
				})
			}
			if !again(first) {
				t.Fatalf("it does not come back: %s", b.must("ps", "-a"))
			}
			if got := b.restarts(policy); got != "1" {
				t.Errorf("%s restarts, want 1", got)
			}
			want{stdout: "in\n"}.check(t, b.rbox("exec", policy, "echo", "in"))
			second := b.pid(policy)
			b.must("exec", policy, "kill", "-USR2", "1") // it exits by itself
			if !again(second) {
				t.Fatal("it does not come back after its own end")
			}
			for _, how := range []string{"stop", "kill", "stop -t 0"} {
				b.must(append(words(how), policy)...)
				want{match: "^[0-9]+\n$"}.check(t, b.rbox("wait", policy))
				time.Sleep(300 * time.Millisecond) // longer than the first pause
				if got := b.state(policy, "Status"); got != "exited" {
					t.Errorf("it is %s after %s", got, how)
				}
				b.must("start", policy)
				if got := b.restarts(policy); got != "0" {
					t.Errorf("%s restarts after start, want 0", got)
				}
			}
			b.must("kill", "-s", "USR1", policy)
			if got := b.state(policy, "Status"); got != "running" {
				t.Errorf("it is %s", got)
			}
			b.must("rm", "-f", policy)
		})
	}
}

// Between two runs.
func TestRestartBackOff(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for name, how := range map[string]string{"stop": "stop", "stop0": "stop -t 0", "kill": "kill", "rm": "rm -f", "restart": "restart -t 0", "wait": "wait"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			b.must("run", "-d", "--name", name, "--restart", "always", "alpine", "sh", "-c", "exit 7")
			if !eventually(15*time.Second, func() bool { return strings.Contains(b.must("ps", "-a", "-f", "name="+name), "Restarting (7)") }) {
				t.Fatalf("never restarting: %s", b.must("ps", "-a"))
			}
			if how == "wait" { // for the end of a run
				want{stdout: "7\n"}.check(t, b.rbox("wait", "--condition", "next-exit", name))
				return
			}
			want{status: 125, stderr: "not running|restarting"}.check(t, b.rbox("exec", name, "true"))
			got := b.rbox(append(words(how), name)...)
			if name == "kill" { // as Docker: there is nothing to kill, or there was
				return
			}
			want{stdout: name + "\n"}.check(t, got)
			switch name {
			case "rm":
				want{status: 125, stderr: "no such"}.check(t, b.rbox("inspect", name))
			case "restart":
				if !eventually(10*time.Second, func() bool { return strings.Contains(b.must("ps", "-a", "-f", "name="+name), "(7)") }) {
					t.Error(b.must("ps", "-a"))
				}
			default:
				// A run that was about to begin when it was stopped is killed.
				if got := b.state(name, "Status") + b.state(name, "ExitCode"); got != "exited7" && got != "exited137" {
					t.Errorf("it is %s", got)
				}
			}
		})
	}
}

// In the foreground all runs are shown, and the last one's status is rbox's.
func TestRestartInTheForeground(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	got := b.rbox("run", "--restart", "on-failure:2", "alpine", "sh", "-c", "echo run; echo err >&2; exit 4")
	want{status: 4, stdout: "run\nrun\nrun\n", stderr: "err\nerr\nerr\n"}.check(t, got)
	p := b.start(call{args: []string{"run", "--name", "box", "--restart", "always", "alpine", "sh", "-c", sleeper}})
	p.see("up\n")
	syscall.Kill(b.pid("box"), syscall.SIGKILL)
	p.see("up\nup\n")
	p.signal(syscall.SIGUSR1)
	p.see("usr1\n")
	b.must("stop", "box")
	want{status: 5}.check(t, p.wait())
	// A terminal, likewise.
	term := newTerminal(b)
	p = b.start(call{tty: term, args: []string{"run", "-it", "--name", "tty", "--restart", "on-failure:1", "alpine", "sh", "-c", "tty; stty size; sleep 0.2; exit 4"}})
	for range 2 {
		term.see("/dev/pts/0\r\n24 80\r\n")
	}
	want{status: 4}.check(t, p.wait())
	if term.isRaw() {
		t.Error("the terminal stays raw")
	}
}

// What is typed while no run is there is for the next one.
func TestTypedBetweenTwoRuns(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	term := newTerminal(b)
	const script = "echo >> /runs; [ $(wc -l < /runs) -le 5 ] && exit 7; read x; echo got $x; read x"
	p := b.start(call{tty: term, args: append(words("run -it --name box --restart always alpine sh -c"), script)})
	if !eventually(30*time.Second, func() bool {
		return b.rbox("inspect", "-f", "{{.RestartCount}} {{.State.Restarting}}", "box").stdout == "4 true\n"
	}) {
		t.Fatalf("never between runs: %s", b.must("ps", "-a"))
	}
	term.write("word\r")
	term.see("got word\r\n")
	b.must("stop", "-t", "0", "box")
	want{status: 137}.check(t, p.wait())
	b.must("rm", "box")
}

// What is typed in the foreground goes to the run that there is.
func TestTypedAfterARestart(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	const script = "stty size; while read x; do echo got $x; [ $x = end ] && exit 4; done"
	for name, make := range map[string]string{"run": "run -it --name box --restart always alpine sh -c", "start": "start -ai box"} {
		t.Run(name, func(t *testing.T) {
			term := newTerminal(b)
			args := words(make)
			if name == "start" {
				b.must("create", "-it", "--name", "box", "--restart", "always", "alpine", "sh", "-c", script)
			} else {
				args = append(args, script)
			}
			p := b.start(call{tty: term, args: args})
			for i := range 3 {
				term.see("24 80\r\n")
				term.write(fmt.Sprint("word", i, "\r"))
				term.see(fmt.Sprint("got word", i, "\r\n"))
				term.write("end\r")
				term.see("got end\r\n")
			}
			term.see("24 80\r\n")
			b.must("stop", "-t", "0", "box")
			want{status: 137}.check(t, p.wait())
			if term.isRaw() {
				t.Error("the terminal stays raw")
			}
			b.must("rm", "box")
		})
	}
	in := newPipe(t)
	p := b.start(call{stdin: in.r, args: append(words("run -i --name pipe --restart on-failure:1 alpine sh -c"), "read x; echo got $x; exit 4")})
	in.write(t, "one\n")
	if !eventually(10*time.Second, func() bool { return b.rbox("inspect", "pipe").status == 0 }) {
		t.Fatal("there is no container")
	}
	if !eventually(10*time.Second, func() bool { return b.restarts("pipe") == "1" }) {
		t.Fatal("it is not started again")
	}
	in.write(t, "two\n")
	in.w.Close()
	want{stdout: "got one\ngot two\n", status: 4}.check(t, p.wait())
}

// A policy that is given later holds from the next end on, for running
// containers and for others.
func TestUpdateOfTheRestartPolicy(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must(words("run -d --name running alpine sleep 1000")...)
	b.must(words("create --name later --restart always alpine false")...)
	b.must(words("run -d --rm --name gone alpine sleep 1000")...)
	b.must(words("run --name waits -d --restart always alpine false")...)
	direct := b.start(call{args: words("run --name direct alpine sleep 1000")})
	b.steps([]step{
		{`update --restart sometimes running`, want{status: 125, stderr: `--restart sometimes: there are no, `}},
		{`update --restart always gone`, want{status: 125, stderr: `conflicting options: --restart, and container gone was made with --rm`}},
		{`update --restart no gone`, want{stdout: "gone\n"}},
		{`update --restart on-failure:2 running later`, want{stdout: "running\nlater\n"}},
		{`inspect -f {{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}} running later`, want{stdout: "on-failure:2\non-failure:2\n"}},
		{`update --restart no waits`, want{stdout: "waits\n"}},
		{`start later`, want{stdout: "later\n"}},
	})
	if !eventually(15*time.Second, func() bool { return b.state("direct", "Status") == "running" }) {
		t.Fatal("the container in the foreground does not run")
	}
	want{status: 125, stderr: `cannot be started again by itself.*\nrbox: hint: `}.check(t, b.rbox("update", "--restart", "always", "direct"))
	b.must("stop", "-t", "0", "direct")
	direct.wait()
	want{stdout: "direct\n"}.check(t, b.rbox("update", "--restart", "always", "direct"))

	syscall.Kill(b.pid("running"), syscall.SIGKILL)
	for _, name := range []string{"running", "later"} {
		restarts := map[string]string{"running": "1", "later": "2"}[name]
		if !eventually(15*time.Second, func() bool { return b.restarts(name) == restarts }) {
			t.Errorf("%s: %s restarts, want %s", name, b.restarts(name), restarts)
		}
	}
	for _, name := range []string{"later", "waits"} {
		if !eventually(15*time.Second, func() bool { return b.state(name, "Status") == "exited" }) {
			t.Errorf("%s is %s", name, b.state(name, "Status"))
		}
	}
	// The policy is the container's own now, which start changes for once.
	b.must("stop", "-t", "0", "running")
	b.must("start", "--restart", "no", "running")
	syscall.Kill(b.pid("running"), syscall.SIGKILL)
	if !eventually(15*time.Second, func() bool { return b.state("running", "Status") == "exited" }) {
		t.Errorf("started with --restart no it is %s", b.state("running", "Status"))
	}
	want{stdout: "on-failure:2\n"}.check(t, b.rbox("inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}", "running"))
}
