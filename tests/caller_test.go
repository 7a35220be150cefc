package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"rbox/tests/registry"
)

// A container does not depend on the state its caller happens to be in.
func TestCallersState(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct {
		script string // of the caller; $RBOX is rbox
		want   want
	}{
		"umask":                     {`umask 077; "$RBOX" run --rm alpine sh -c 'umask; touch /f; stat -c %a /f /etc/hosts'`, want{stdout: "0022\n644\n644\n"}},
		"umask, a new directory":    {`umask 077; "$RBOX" run --rm -w /new/dir -u 1000 alpine pwd`, want{stdout: "/new/dir\n"}},
		"a folder that is gone":     {`mkdir gone && cd gone && rmdir ../gone && "$RBOX" run --rm alpine pwd`, want{stdout: "/\n"}},
		"no home":                   {`unset HOME; "$RBOX" run --rm alpine sh -c 'echo $HOME'`, want{stdout: "/root\n"}},
		"no environment":            {`exec env -i RBOX_ROOT="$RBOX_ROOT" RBOX_RUNTIME="$RBOX_RUNTIME" RBOX_KEEPER_IDLE=500ms "$RBOX" run --rm alpine echo ok`, want{stdout: "ok\n"}},
		"few descriptors allowed":   {`ulimit -n 64; "$RBOX" run --rm alpine sh -c 'ulimit -n'`, want{stdout: "64\n"}},
		"no core dumps":             {`ulimit -c 0; "$RBOX" run --rm alpine sh -c 'ulimit -c'`, want{stdout: "0\n"}},
		"nohup":                     {`nohup "$RBOX" run --rm alpine echo ok 2>/dev/null`, want{stdout: "ok\n"}},
		"a session of its own":      {`setsid -w "$RBOX" run --rm alpine echo ok`, want{stdout: "ok\n"}},
		"in the background":         {`"$RBOX" run --rm alpine echo ok & wait $!`, want{stdout: "ok\n"}},
		"niceness":                  {`nice -n 5 "$RBOX" run --rm alpine awk '{print $19}' /proc/self/stat`, want{stdout: "5\n"}},
		"open descriptors":          {`exec 3</etc/passwd 7</etc/group 9</etc/hosts; "$RBOX" run --rm alpine sh -c 'ls /proc/self/fd | wc -l'`, want{stdout: "4\n"}},
		"no new privileges":         {`setpriv --no-new-privs "$RBOX" run --rm alpine echo ok`, want{}},
		"a pipe that is never read": {`"$RBOX" run --rm alpine true | sleep 0.2`, want{}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.check(t, b.do(call{prog: "/bin/sh", args: []string{"-c", tc.script}, env: []string{"RBOX=" + run.bin}}))
		})
	}
}

func TestManyContainersAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	var all []*process
	for i := range 40 {
		all = append(all, b.start(call{args: []string{"run", "--rm", "alpine", "sh", "-c", fmt.Sprint("exit ", i)}}))
	}
	for i, p := range all {
		want{status: i}.check(t, p.wait())
	}
}

func TestUsernsHostDefault(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{stdout: "0\n"}.check(t, b.sh("id -u", "--userns", "host-default"))
	want{status: 125, stderr: `no-such-mode`}.check(t, b.sh("true", "--userns", "no-such-mode"))
}

// Ctrl-C during a pull ends it at once, and what has arrived is kept.
func TestPullInterrupted(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	push(t, r, "hello", hello(t))
	stalled := newStall(t, r)
	b := newBox(t, noImage)
	for _, args := range [][]string{{"pull", "-q"}, {"run", "--rm", "-q"}} {
		p := b.start(call{args: append(args, stalled.addr+"/hello"), limit: 20 * time.Second})
		stalled.wait(t)
		p.signal(syscall.SIGINT)
		got := p.wait()
		if got.status != 130 && got.status != 125 || got.took > 15*time.Second {
			t.Errorf("%v: %v", args, got)
		}
	}
	want{stdout: ""}.check(t, b.rbox("images", "-q"))
	want{match: "^sha256:"}.check(t, b.rbox("pull", "-q", r.Ref("hello")))
	var left []string // beside the keeper, which takes longer to end
	if !eventually(10*time.Second, func() bool {
		left = nil
		for _, pid := range processesOf(b.dir) {
			if what := describe(pid); !strings.Contains(what, "rbox-keeper") {
				left = append(left, what)
			}
		}
		return len(left) == 0
	}) {
		t.Errorf("still there: %s", left)
	}
}

// A password is asked for without an echo.
func TestLoginAsks(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{User: "kim", Password: "s3cret"})
	b := newBox(t, noImage)
	term := newTerminal(b)
	before := term.modes()
	p := b.start(call{args: []string{"login", r.Addr}, tty: term})
	term.see("sername")
	term.write("kim\n")
	term.see("assword")
	if !eventually(5*time.Second, func() bool { return term.modes() != before }) {
		t.Error("the terminal still echoes")
	}
	term.write("s3cret\n")
	got := p.wait()
	if got.status != 0 || strings.Contains(term.out.String(), "s3cret") {
		t.Errorf("status %d, the terminal shows %q", got.status, term.out)
	}
	if term.modes() != before {
		t.Error("the terminal's modes are not as before")
	}
}
