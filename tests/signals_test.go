package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// trapAll prints the number of each signal it gets: 60 ends it. (32 to 34 are the
// C library's own, and Go's.)
const trapAll = `for s in 1 2 3 4 5 6 7 8 10 11 12 14 15 16 18 20 21 22 24 25 26 27 28 29 30 31 35 63; do
	trap "echo got $s" $s
done
trap "echo end; exit 0" 60
echo up
while :; do sleep 0.05; done`

func TestSignalsAreForwarded(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, flags := range map[string][]string{"to the program": nil, "through --init": {"--init"}} {
		t.Run(name, func(t *testing.T) {
			args := append(append([]string{"run", "--rm"}, flags...), "alpine", "sh", "-c", trapAll)
			p := b.start(call{args: args})
			p.see("up\n")
			for _, s := range []syscall.Signal{
				unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM,
				unix.SIGTERM, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGXCPU,
				unix.SIGWINCH, unix.SIGIO, unix.SIGPWR, unix.SIGSYS, 35, 63,
			} {
				p.signal(s)
				if !p.stdout.waitFor(fmt.Sprintf("got %d\n", s), 10*time.Second) {
					t.Errorf("signal %d (%v) does not arrive", s, s)
				}
			}
			p.signal(60)
			got := p.wait()
			if got.status != 0 || !strings.HasSuffix(got.stdout, "end\n") {
				t.Errorf("got %v", got)
			}
			for line, n := range countLines(got.stdout) {
				if n > 1 {
					t.Errorf("%q %d times", line, n)
				}
			}
		})
	}
}

func countLines(text string) map[string]int {
	count := map[string]int{}
	for line := range strings.Lines(text) {
		count[strings.TrimSuffix(line, "\n")]++
	}
	return count
}

func TestSignalEndsTheProgram(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct {
		args   []string
		signal syscall.Signal
		status int
	}{
		// A PID 1 without a handler gets no signal but SIGKILL: hence --init.
		"SIGTERM":              {[]string{"--init", "alpine", "sh", "-c", "echo up; exec sleep 1000"}, unix.SIGTERM, 143},
		"SIGINT":               {[]string{"--init", "alpine", "sh", "-c", "echo up; exec sleep 1000"}, unix.SIGINT, 130},
		"SIGHUP":               {[]string{"--init", "alpine", "sh", "-c", "echo up; exec sleep 1000"}, unix.SIGHUP, 129},
		"SIGQUIT":              {[]string{"--init", "--ulimit", "core=0", "alpine", "sh", "-c", "echo up; exec sleep 1000"}, unix.SIGQUIT, 131},
		"SIGTERM, a handler":   {[]string{"alpine", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"}, unix.SIGTERM, 9},
		"SIGTERM, with a user": {[]string{"--init", "-u", "1000", "alpine", "sh", "-c", "echo up; exec sleep 1000"}, unix.SIGTERM, 143},
	} {
		t.Run(name, func(t *testing.T) {
			p := b.start(call{args: append([]string{"run", "--rm"}, tc.args...)})
			p.see("up\n")
			p.signal(tc.signal)
			if got := p.wait(); got.status != tc.status {
				t.Errorf("want status %d, got %v", tc.status, got)
			}
		})
	}
}

// Ctrl-C goes to the terminal's foreground group. Without -t the container is
// in a session of its own, and gets it from rbox alone.
func TestCtrlCWithoutATerminalArrivesOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	term := newTerminal(b)
	p := b.start(call{
		args: []string{"run", "--rm", "-i", "alpine", "sh", "-c", "trap 'echo int' INT; trap 'echo end; exit 0' USR1; echo up; while :; do sleep 0.05; done"},
		tty:  term,
	})
	term.see("up\r\n")
	term.write("\x03")
	term.see("int\r\n")
	p.signal(unix.SIGUSR1)
	term.see("end\r\n")
	p.wait()
	if n := strings.Count(term.out.String(), "int\r\n"); n != 1 {
		t.Errorf("Ctrl-C arrived %d times: %q", n, term.out)
	}
}

func TestSignalsBeforeTheProgramStarts(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for _, delay := range []time.Duration{0, 2, 5, 10, 15, 20, 30} {
		p := b.start(call{args: []string{"run", "--rm", "--init", "alpine", "sleep", "1000"}, limit: 15 * time.Second})
		time.Sleep(delay * time.Millisecond)
		p.signal(unix.SIGTERM)
		if got := p.wait(); got.status != 143 {
			t.Errorf("after %d ms: want status 143, got %v", delay, got)
		}
	}
	// One that came while the container's folder was being made has left that to
	// whoever runs rbox next.
	b.must("run", "--rm", "alpine", "true")
}

// A shell that starts rbox may have set signals to be ignored: the program
// starts with the defaults but for those nohup sets.
func TestSignalDispositions(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	script := `trap '' PIPE; exec "$RBOX" run --rm alpine grep -E 'Sig(Ign|Blk)' /proc/self/status`
	got := b.do(call{prog: "/bin/sh", args: []string{"-c", script}, env: []string{"RBOX=" + run.bin}})
	if got.stdout != "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n" {
		t.Errorf("got %v", got)
	}
}

func TestStoppedAndContinued(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	p := b.start(call{args: []string{"run", "--rm", "alpine", "sh", "-c", "echo up; sleep 0.3; echo still here"}})
	p.see("up\n")
	p.signal(unix.SIGSTOP)
	p.signal(unix.SIGCONT)
	if got := p.wait(); got.status != 0 || got.stdout != "up\nstill here\n" {
		t.Errorf("got %v", got)
	}
}
