package tests

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// onTerminal starts `rbox run --rm -it FLAGS alpine sh -c SCRIPT` on a new terminal.
func (b *box) onTerminal(script string, flags ...string) (*terminal, *process) {
	b.t.Helper()
	term := newTerminal(b)
	args := append(append([]string{"run", "--rm", "-it"}, flags...), "alpine", "sh", "-c", script)
	return term, b.start(call{args: args, tty: term})
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct {
		script string
		want   string
	}{
		"is one":                 {"test -t 0 && test -t 1 && test -t 2 && echo y''es", "yes"},
		"has a name in the box":  {"tty", "/dev/pts/0"},
		"is the console":         {"echo writ''ten >/dev/console", "written"},
		"is the controlling one": {"echo wr''itten >/dev/tty", "written"},
		"has the caller's size":  {"stty size", "24 80"},
		"has TERM":               {"echo TERM is $TERM", "TERM is xterm"},
		"is the user's":          {"echo ow''ner $(stat -c %u $(tty))", "owner 0"},
	} {
		t.Run(name, func(t *testing.T) {
			term, p := b.onTerminal(tc.script)
			got := p.wait()
			if !eventually(5*time.Second, func() bool { return strings.Contains(term.out.String(), tc.want+"\r\n") }) || got.status != 0 {
				t.Errorf("status %d, the terminal shows %q, want %q", got.status, term.out.String(), tc.want)
			}
		})
	}
}

func TestTerminalExitStatus(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	_, p := b.onTerminal("exit 7")
	if got := p.wait(); got.status != 7 {
		t.Errorf("got %v", got)
	}
}

func TestTerminalIsRawAndThenAsBefore(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, end := range map[string]func(*terminal, *process){
		"when the program ends":  func(term *terminal, _ *process) { term.write("\n") },
		"when rbox gets SIGTERM": func(_ *terminal, p *process) { p.signal(syscall.SIGTERM) },
		"when rbox gets SIGHUP":  func(_ *terminal, p *process) { p.signal(syscall.SIGHUP) },
		"when what is below rbox is killed": func(_ *terminal, p *process) {
			for _, pid := range children(p.cmd.Process.Pid) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		},
		"when one process below rbox is killed": func(_ *terminal, p *process) {
			if all := children(p.cmd.Process.Pid); len(all) > 0 {
				syscall.Kill(all[0], syscall.SIGKILL)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			term := newTerminal(b)
			before := term.modes()
			p := b.start(call{args: []string{"run", "--rm", "-it", "alpine", "sh", "-c", "trap 'exit 0' TERM HUP; echo up; read x"}, tty: term})
			term.see("up\r\n")
			if !term.isRaw() {
				t.Error("the caller's terminal is not raw while the container has it")
			}
			end(term, p)
			p.wait()
			if got := term.modes(); got != before {
				t.Errorf("terminal modes %+v, before %+v", got, before)
			}
		})
	}
}

func TestTerminalResize(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	term, p := b.onTerminal("trap 'stty size' WINCH; echo up; while :; do read x && break; done")
	term.see("up\r\n")
	term.resize(40, 132)
	term.see("40 132\r\n")
	term.write("\n")
	p.wait()
}

func TestTerminalCtrlCGoesToTheContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	term, p := b.onTerminal("trap 'echo int; n=$((n+1))' INT; echo up; read x; read x; echo n=$n")
	term.see("up\r\n")
	term.write("\x03")
	term.see("int\r\n")
	term.write("\n\n")
	term.see("n=1\r\n")
	if got := p.wait(); got.status != 0 {
		t.Errorf("got %v", got)
	}
}

func TestTerminalJobControl(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	term := newTerminal(b)
	p := b.start(call{args: []string{"run", "--rm", "-it", "alpine", "sh", "-i"}, tty: term})
	term.see("# ")
	term.write("sleep 1000\n")
	term.see("sleep 1000\r\n")
	// ^Z may be typed before sleep has the terminal: then the shell ignores it.
	if !eventually(10*time.Second, func() bool {
		term.write("\x1a")
		return term.out.waitFor("Stopped", 300*time.Millisecond)
	}) {
		t.Fatalf("^Z stops nothing: %q", term.out)
	}
	term.write("fg\n")
	term.see("sleep 1000\r\n")
	// ^C may likewise come too early.
	if !eventually(10*time.Second, func() bool {
		term.write("\x03exit 3\n")
		return eventually(300*time.Millisecond, func() bool { return !alive(p.cmd.Process.Pid) })
	}) {
		t.Fatalf("^C ends nothing: %q", term.out)
	}
	if got := p.wait(); got.status != 3 {
		t.Errorf("got status %d, terminal %q", got.status, term.out)
	}
}

func TestTerminalEndOfFile(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	term, p := b.onTerminal("echo up; cat; echo en''d")
	term.see("up\r\n")
	term.write("line\n\x04")
	term.see("end\r\n")
	if got := p.wait(); got.status != 0 {
		t.Errorf("got %v", got)
	}
}

// All that was printed arrives, though the program is gone by then.
func TestTerminalLosesNoOutput(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	term, p := b.onTerminal("seq 1 20000; echo en''d")
	term.see("\r\n20000\r\nend\r\n")
	if got := p.wait(); got.status != 0 {
		t.Errorf("got status %d", got.status)
	}
}

func TestTerminalThatHangsUpEndsTheContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	term, p := b.onTerminal("echo up; while :; do sleep 1; done")
	term.see("up\r\n")
	below := children(p.cmd.Process.Pid)
	term.master.Close()
	term.slave.Close()
	p.signal(syscall.SIGHUP) // as the kernel, or sshd's end, has it
	p.wait()
	if !eventually(10*time.Second, func() bool { return !anyAlive(below) }) {
		t.Errorf("still alive after the terminal is gone: %v", below)
	}
}

func anyAlive(pids []int) bool {
	for _, pid := range pids {
		if alive(pid) {
			return true
		}
	}
	return false
}

func TestTerminalAskedForWithoutOne(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	// As Podman does: the container has a terminal although the caller has none.
	got := b.do(call{args: []string{"run", "--rm", "-t", "alpine", "sh", "-c", "test -t 1 && echo a terminal"}})
	if got.status != 0 || got.stdout != "a terminal\r\n" {
		t.Errorf("got %v", got)
	}
}

func TestTerminalOfAUser(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	term, p := b.onTerminal("id -u; echo o''k >/dev/tty; echo o''k2 >/dev/stderr; stat -c %u $(tty)", "-u", "1000")
	term.see("1000\r\nok\r\nok2\r\n1000\r\n")
	if got := p.wait(); got.status != 0 {
		t.Errorf("got %v", got)
	}
}

// A terminal that no process has for a moment is there again when one opens it.
func TestTerminalThatIsLetGo(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	const script = `name=$(tty); echo one; exec <&- >&- 2>&-; sleep 0.2; exec <>$name >&0 2>&0; echo two; read x; echo got $x`
	term, p := b.onTerminal(script)
	term.see("one\r\ntwo\r\n")
	term.write("word\r")
	term.see("got word\r\n")
	want{}.check(t, p.wait())
	b.must("run", "-dt", "--name", "box", "alpine", "sleep", "1000")
	term = newTerminal(b)
	p = b.start(call{tty: term, args: []string{"exec", "-it", "box", "sh", "-c", script}})
	term.see("one\r\ntwo\r\n")
	term.write("word\r")
	term.see("got word\r\n")
	want{}.check(t, p.wait())
}
