package tests

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echoer prints what it reads, and how it ends.
const echoer = "trap 'echo usr1' USR1; trap 'exit 6' TERM; echo up; while :; do read x && echo read $x || sleep 0.05; done"

func TestAttach(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "-i", "--name", "box", "alpine", "sh", "-c", `echo up; while read x; do echo "out $x"; echo "err $x" >&2; done; exit 4`)
	b.seeLog("box", "up\n")
	in := newPipe(t)
	typing := b.start(call{args: []string{"attach", "box"}, stdin: in.r})
	looking := b.start(call{args: []string{"attach", "--no-stdin", "box"}, stdin: strings.NewReader("not this\n")})
	started := b.start(call{args: []string{"start", "-a", "box"}, stdin: strings.NewReader("nor this\n")})
	// Nothing tells when they are connected but what they show.
	for i := 0; !strings.Contains(looking.stdout.String(), "out") || !strings.Contains(started.stdout.String(), "out"); i++ {
		in.write(t, fmt.Sprintln(i))
		time.Sleep(20 * time.Millisecond)
		if i > 500 {
			t.Fatal("those attached are not shown what the program writes")
		}
	}
	in.write(t, "all\n")
	for _, p := range []*process{typing, looking, started} {
		p.see("out all\n")
	}
	// One that is killed takes nothing with it.
	started.signal(syscall.SIGKILL)
	started.wait()
	in.write(t, "two\n")
	looking.see("out two\n")
	want{stdout: "still\n"}.check(t, b.rbox("exec", "box", "echo", "still"))
	b.must("stop", "-t", "0", "box")
	for _, p := range []*process{typing, looking} {
		got := p.wait()
		want{status: 137, stderr: "err all\nerr two\n"}.check(t, got)
		if strings.Contains(got.stdout, "this") || strings.Contains(got.stdout, "err") {
			t.Errorf("got %v", got)
		}
	}
}

func TestAttachRefuses(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.steps([]step{
		{`create --name made alpine true`, want{}},
		{`attach made`, want{status: 125, stderr: `container made is not running`}},
		{`attach nosuch`, want{status: 125, stderr: `no such container: nosuch`}},
		{`attach`, want{status: 125}},
		{`attach --detach-keys ctrl-1 made`, want{status: 125, stderr: `--detach-keys`}},
	})
	p := b.start(call{args: []string{"run", "--name", "front", "alpine", "sh", "-c", "echo up; read x; exec sleep 1000"}})
	p.see("up\n")
	want{status: 125, stderr: `cannot attach.*\nrbox: hint: .*-d`}.check(t, b.rbox("attach", "front"))
	want{status: 125, stderr: `cannot attach`}.check(t, b.rbox("start", "-a", "front"))
}

// What a program writes before it ends arrives, and its exit status.
func TestAttachUntilTheEnd(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "-i", "--name", "box", "alpine", "sh", "-c", "read x; seq 1 50000; echo end >&2; exit 9")
	all := []*process{
		b.start(call{args: []string{"attach", "box"}, stdin: blockedReader(t)}), b.start(call{args: []string{"attach", "--no-stdin", "box"}}),
	}
	if !eventually(10*time.Second, func() bool {
		return strings.Count(b.rbox("events", "--since", "1h", "--until", "0s", "-f", "event=attach").stdout, "\n") >= 2
	}) {
		t.Fatal("no events of attaching")
	}
	b.do(call{args: []string{"attach", "box"}, stdin: strings.NewReader("go\n")})
	for _, p := range all {
		got := p.wait()
		if got.status != 9 || !strings.HasSuffix(got.stdout, "\n49999\n50000\n") || got.stderr != "end\n" {
			t.Errorf("status %d, %d bytes, stderr %q", got.status, len(got.stdout), got.stderr)
		}
	}
}

// The end of the first one's stdin is the program's, as of any pipe.
func TestStdinOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for name, args := range map[string]string{
		"run":              "run -i alpine cat",
		"run, with a log":  "run -i --log-driver file alpine cat",
		"run, without one": "run -i --log-driver none alpine cat",
	} {
		want{stdout: "text\n"}.check(t, b.do(call{args: words(args), stdin: strings.NewReader("text\n"), limit: 20 * time.Second}))
		_ = name
	}
	b.must("create", "-i", "--name", "made", "alpine", "cat")
	for range 2 {
		want{stdout: "text\n"}.check(t, b.do(call{args: words("start -ai made"), stdin: strings.NewReader("text\n"), limit: 20 * time.Second}))
	}
	// In the background it stays open for the next.
	b.must("run", "-d", "-i", "--name", "cat", "alpine", "cat")
	for range 2 {
		p := b.start(call{args: words("attach cat"), stdin: strings.NewReader("more\n")})
		p.see("more\n")
		p.signal(syscall.SIGKILL)
		p.wait()
	}
	want{stdout: "running\n"}.check(t, b.rbox("inspect", "--format", "{{.State.Status}}", "cat"))
}

func TestSigProxy(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for name, tc := range map[string]struct {
		args    string
		forward bool
	}{
		"run":                        {"run -i --name NAME alpine sh -c", true},
		"run --sig-proxy=false":      {"run -i --sig-proxy=false --log-driver file --name NAME alpine sh -c", false},
		"attach":                     {"attach --no-stdin NAME", true},
		"attach --sig-proxy=false":   {"attach --no-stdin --sig-proxy=false NAME", false},
		"attach --no-sig-proxy":      {"attach --no-stdin --no-sig-proxy NAME", false},
		"start -a":                   {"start -a NAME", true},
		"start -a --sig-proxy=false": {"start -a --sig-proxy=false NAME", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			box := strings.NewReplacer(" ", "", "=", "-").Replace(name)
			args := words(strings.ReplaceAll(tc.args, "NAME", box))
			switch args[0] {
			case "run":
				args = append(args, echoer)
			case "attach":
				b.must("run", "-d", "-i", "--name", box, "alpine", "sh", "-c", echoer)
			default:
				b.must("create", "-i", "--name", box, "alpine", "sh", "-c", echoer)
			}
			p := b.start(call{args: args, stdin: blockedReader(t)})
			if args[0] == "attach" {
				if !eventually(10*time.Second, func() bool {
					return strings.Contains(b.rbox("events", "--since", "1h", "--until", "0s", "-f", "event=attach", "-f", "container="+box).stdout, "attach")
				}) {
					t.Fatal("does not attach")
				}
				time.Sleep(20 * time.Millisecond) // rbox learns of it a little later
			} else {
				p.see("up\n")
			}
			if !tc.forward {
				p.signal(unix.SIGTERM)
				if got := p.wait(); got.status != 143 {
					t.Errorf("rbox got SIGTERM itself: %v", got)
				}
				if state := b.state(box, "Status"); args[0] == "attach" && state != "running" {
					t.Errorf("the container is %s", state)
				}
				return
			}
			p.signal(unix.SIGUSR1)
			p.see("usr1\n")
			p.signal(unix.SIGTERM)
			want{status: 6}.check(t, p.wait())
		})
	}
}

func TestDetach(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for name, tc := range map[string]struct{ flags, keys string }{
		"ctrl-p ctrl-q":      {"", "\x10\x11"},
		"ctrl-p twice":       {"", "\x10\x10\x11"},
		"other keys":         {"--detach-keys ctrl-x,ctrl-y", "\x18\x19"},
		"one key":            {"--detach-keys ctrl-]", "\x1d"},
		"letters":            {"--detach-keys a,b,a,c", "abac"},
		"letters, over them": {"--detach-keys a,b,a,c", "ababac"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			box := strings.NewReplacer(" ", "", ",", "").Replace(name)
			term := newTerminal(b)
			before := term.modes()
			p := b.start(call{tty: term, args: append(words("run -it --name "+box+" "+tc.flags), "alpine", "sh", "-c", "echo up; while read x; do echo got $x; done")})
			term.see("up\r\n")
			term.write("one\r")
			term.see("got one\r\n")
			for i := range tc.keys { // as a person types
				term.write(tc.keys[i : i+1])
				time.Sleep(5 * time.Millisecond)
			}
			if got := p.wait(); got.status != 0 {
				t.Errorf("status %d after a detach", got.status)
			}
			if term.modes() != before {
				t.Error("the terminal is not as it was before")
			}
			want{stdout: "running\n"}.check(t, b.rbox("inspect", "--format", "{{.State.Status}}", box))
			again := newTerminal(b)
			p = b.start(call{tty: again, args: []string{"attach", box}})
			again.resize(33, 99)
			if !eventually(10*time.Second, func() bool {
				again.write("two\r")
				return again.out.waitFor("got two\r\n", 200*time.Millisecond) || strings.Contains(again.out.String(), "two\r\n")
			}) {
				t.Fatalf("attached again: %q", again.out)
			}
			want{match: "33 99"}.check(t, b.rbox("exec", box, "sh", "-c", "stty size </dev/pts/0"))
			if strings.Contains(again.out.String(), "got one") {
				t.Errorf("attach shows what was before: %q", again.out)
			}
			p.signal(syscall.SIGKILL)
			p.wait()
			if !eventually(5*time.Second, func() bool { return !again.isRaw() }) {
				t.Error("a killed attach leaves the terminal raw")
			}
			want{stdout: "running\n"}.check(t, b.rbox("inspect", "--format", "{{.State.Status}}", box))
			want{match: "got one"}.check(t, b.rbox("logs", box))
			b.must("stop", "-t", "0", box)
		})
	}
}

// The beginning of the keys, followed by something else, is the program's.
func TestDetachKeysThatWereNone(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for name, tc := range map[string]struct{ flags, typed, want string }{
		"ctrl-p x":        {"", "\x10x", "020   x"},
		"ctrl-q":          {"", "\x11y", "021   y"},
		"ctrl-p ctrl-p x": {"", "\x10\x10x", "020 020   x"},
		"no keys":         {"--detach-keys ''", "\x10\x11", "020 021"},
		"a b of a,b,c":    {"--detach-keys a,b,c", "abx", "a   b   x"},
		"a b a of a,b,c":  {"--detach-keys a,b,c", "ababx", "a   b   a   b   x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			term := newTerminal(b)
			args := append(words("run --rm -it "+tc.flags), "alpine", "sh", "-c", fmt.Sprintf("stty raw -echo; echo up; head -c %d | od -An -c", len(tc.typed)))
			p := b.start(call{tty: term, args: args})
			term.see("up")
			term.write(tc.typed)
			term.see(tc.want)
			want{}.check(t, p.wait())
		})
	}
}

// A container with --rm that was left goes on, and is removed at its end.
func TestDetachWithRm(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	for _, driver := range []string{"none", "file"} {
		term := newTerminal(b)
		p := b.start(call{tty: term, args: []string{"run", "--rm", "-it", "--name", "box", "--log-driver", driver, "alpine", "sh", "-c", "echo up; while :; do echo more; sleep 0.01; done"}})
		term.see("up\r\n")
		term.write("\x10\x11")
		want{}.check(t, p.wait())
		first := b.pid("box")
		term.master.Close()
		term.slave.Close()
		time.Sleep(100 * time.Millisecond) // it writes more than a terminal holds
		if !alive(first) {
			t.Error("it ended with the rbox that detached from it")
		}
		b.must("stop", "-t", "0", "box")
		if left := b.must("ps", "-aq"); left != "" {
			t.Errorf("left: %s", left)
		}
	}
}

func TestStartInteractive(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("create", "-it", "--name", "tty", "alpine", "sh", "-c", "stty size; read x; echo got $x; exit 3")
	for range 2 {
		term := newTerminal(b)
		term.resize(20, 70)
		p := b.start(call{tty: term, args: []string{"start", "-ai", "tty"}})
		term.see("20 70\r\n")
		term.write("word\r")
		term.see("got word\r\n")
		want{status: 3}.check(t, p.wait())
		if term.isRaw() {
			t.Error("the terminal stays raw")
		}
	}
	// Detached from, it goes on; start -a of one that runs is attach.
	b.must("create", "-it", "--name", "box", "alpine", "sh", "-c", "echo up; while read x; do echo got $x; done")
	term := newTerminal(b)
	p := b.start(call{tty: term, args: []string{"start", "-i", "--detach-keys", "ctrl-a", "box"}})
	term.see("up\r\n")
	term.write("\x01")
	want{}.check(t, p.wait())
	want{stdout: "running\n"}.check(t, b.rbox("inspect", "--format", "{{.State.Status}}", "box"))
	p = b.start(call{tty: term, args: []string{"start", "-a", "-i", "--detach-keys", "ctrl-a", "box"}})
	if !eventually(10*time.Second, func() bool {
		term.write("two\r")
		return term.out.waitFor("got two\r\n", 200*time.Millisecond)
	}) {
		t.Fatalf("the terminal shows %q", term.out)
	}
	term.write("\x04")
	want{}.check(t, p.wait())
	// Its foreground killed, the container goes.
	p = b.start(call{tty: term, args: []string{"start", "-ai", "box"}})
	term.see("up\r\n")
	p.signal(syscall.SIGKILL)
	p.wait()
	if !eventually(10*time.Second, func() bool { return b.state("box", "Status") == "exited" && !term.isRaw() }) {
		t.Errorf("%s, raw %v after its rbox was killed", b.state("box", "Status"), term.isRaw())
	}
}

// A pipeEnd is what a test writes to a call's stdin.
type pipeEnd struct{ r, w *os.File }

func newPipe(t testing.TB) *pipeEnd {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return &pipeEnd{r, w}
}

func (p *pipeEnd) write(t testing.TB, text string) {
	t.Helper()
	if _, err := p.w.WriteString(text); err != nil {
		t.Fatal(err)
	}
}
