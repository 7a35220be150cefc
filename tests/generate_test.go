package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A service is a unit as systemd reads it, run by hand.
type service struct {
	b    *box
	env  []string
	keys map[string][]string
}

// service reads the text of a unit.
func (b *box) service(text string) *service {
	b.t.Helper()
	s := &service{b: b, keys: map[string][]string{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line[0] == '[':
		case !ok:
			b.t.Errorf("a line that is none: %q", line)
		case key == "Environment":
			s.env = append(s.env, unitWords(b.t, value)...)
		default:
			s.keys[key] = append(s.keys[key], value)
		}
	}
	return s
}

// one is the only value of key, "" if there is none.
func (s *service) one(key string) string {
	s.b.t.Helper()
	if n := len(s.keys[key]); n > 1 {
		s.b.t.Errorf("%d lines of %s", n, key)
	}
	return strings.Join(s.keys[key], "")
}

// call is a command line of the unit, in the environment that it has there.
func (s *service) call(key string) call {
	s.b.t.Helper()
	words := unitWords(s.b.t, s.one(key))
	for i, w := range words[1:] {
		if strings.Contains(strings.ReplaceAll(w, "$$", ""), "$") {
			s.b.t.Errorf("%s has a variable: %q", key, w)
		}
		words[1+i] = strings.ReplaceAll(w, "$$", "$")
	}
	// As systemd has it: nothing of what the user has set.
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.b.home}
	for _, e := range s.b.env { // but for what ends the keeper with the test
		if strings.HasPrefix(e, "RBOX_KEEPER_IDLE=") {
			env = append(env, e)
		}
	}
	c := call{prog: "/usr/bin/env", args: append(append(append([]string{"-i"}, env...), s.env...), words...)}
	if dir := strings.TrimPrefix(s.one("WorkingDirectory"), "-"); dir != "" {
		c.dir = strings.ReplaceAll(dir, "%%", "%")
	}
	return c
}

// unitWords takes a line apart as systemd does (systemd.syntax(7)), but for
// escapes that rbox does not write.
func unitWords(t testing.TB, line string) (words []string) {
	t.Helper()
	var word strings.Builder
	quoted, begun := false, false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '"' && !quoted && !begun:
			quoted, begun = true, true
		case c == '"' && quoted:
			quoted = false
			if i+1 < len(line) && line[i+1] != ' ' {
				t.Errorf("%s: text follows a quote", line)
			}
		case c == '\\' && i+1 < len(line):
			i++
			switch line[i] {
			case '\\', '"':
				word.WriteByte(line[i])
			case 'x':
				n, err := strconv.ParseUint(line[i+1:i+3], 16, 8)
				if err != nil {
					t.Errorf("%s: %v", line, err)
				}
				word.WriteByte(byte(n))
				i += 2
			default:
				t.Errorf(`%s: \%c`, line, line[i])
			}
		case c == '%':
			if i++; i == len(line) || line[i] != '%' {
				t.Errorf("%s: a specifier", line)
			}
			word.WriteByte('%')
		case c == ' ' && !quoted:
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		case !quoted && (c == '\'' || c == ';' || c == '"'):
			t.Errorf("%s: %c outside quotes", line, c)
		default:
			begun = true
			word.WriteByte(c)
		}
	}
	if quoted {
		t.Errorf("%s: a quote stays open", line)
	}
	if begun {
		words = append(words, word.String())
	}
	return words
}

// verify asks systemd itself about a unit, where it is installed.
func (b *box) verify(name, text string) {
	b.t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		b.t.Log("systemd-analyze is not here: the unit is not verified")
		return
	}
	path := b.file("units/"+name, text, 0o644)
	got := b.do(call{prog: analyze, args: []string{"verify", "--user", path}, env: []string{"XDG_RUNTIME_DIR=" + b.runtime}})
	if got.status != 0 || strings.Contains(got.stderr, name) {
		b.t.Errorf("systemd-analyze verify: %v\n%s", got, text)
	}
}

// What the shell in a container says of its words, and how it ends.
const tellAndWait = `trap 'exit 7' TERM; for w; do echo "[$w]"; done; echo "{$HERE}"; while :; do sleep 0.1; done`

// Words that mean something to systemd, or to shells.
var oddWords = []string{"a b", "", "$HOME", "${HOME}", "$$", "50%n%%", `back\slash\`, `"double"`, "it's", ";", "#", "line\nline\ttab", "größe", "-x"}

// seenWords is what tellAndWait makes of oddWords.
func seenWords(here string) string {
	return "[" + strings.Join(oddWords, "]\n[") + "]\n{" + here + "}\n"
}

func TestGenerateSystemd(t *testing.T) {
	b := newBox(t, keeps)
	b.own(filepath.Join(b.home, "50% $x/here"))
	for name, tc := range map[string]struct {
		create []string // flags
		flags  []string
		kept   bool
	}{
		"start":         {create: []string{"--restart", "always"}, flags: nil, kept: true},
		"start by name": {create: []string{"-it", "-e", "HERE=%h $x"}, flags: []string{"-n"}, kept: true},
		"new":           {create: []string{"-e", "HERE", "--restart", "on-failure:2", "-v", "./here:/here"}, flags: []string{"--new", "-n"}},
		"new of --rm":   {create: []string{"--rm", "-ite", "HERE=a"}, flags: []string{"--new"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &box{t: t, who: b.who, dir: b.dir, env: b.env, root: b.root, runtime: b.runtime, home: b.home}
			who := strings.ReplaceAll(name, " ", "-")
			args := append([]string{"create", "--name", who}, tc.create...)
			args = append(append(args, "alpine", "sh", "-c", tellAndWait, "sh"), oddWords...)
			made := b.do(call{args: args, env: []string{"HERE=%h $x"}, dir: filepath.Join(b.home, "50% $x")})
			if made.status != 0 {
				t.Fatal(made)
			}
			text := b.must(append(append([]string{"generate", "systemd"}, tc.flags...), who)...) + "\n"
			b.verify("container-"+who+".service", text)
			s := b.service(text)
			for range 2 { // it starts as often as systemd wants
				run := b.start(s.call("ExecStart"))
				here := "%h $x"
				switch name {
				case "start":
					here = ""
				case "new of --rm":
					here = "a"
				}
				want := seenWords(here)
				if strings.Contains(strings.Join(tc.create, " "), "-it") { // a terminal ends lines by two characters
					want = strings.ReplaceAll(want, "\n", "\r\n")
				}
				run.see(want)
				if got := b.must("ps", "-q", "-f", "name="+who, "-f", "status=running"); got == "" {
					t.Error("it does not run")
				}
				if stopped := b.do(s.call("ExecStop")); stopped.status != 0 {
					t.Errorf("ExecStop: %v", stopped)
				}
				if got := run.wait(); got.status != 7 {
					t.Errorf("ExecStart: %v", got)
				}
			}
			if stopped := b.do(s.call("ExecStop")); stopped.status != 0 { // systemd does this, too
				t.Errorf("ExecStop after the end: %v", stopped)
			}
			if got := b.must("ps", "-aq", "-f", "name="+who) != ""; got != tc.kept {
				t.Errorf("the container is still there: %v", got)
			}
		})
	}
}

// Under systemd the container's own restart policy rests, and the container
// does not outlive its rbox.
func TestGenerateSystemdSupervises(t *testing.T) {
	b := newBox(t, keeps)
	b.must("create", "--name", "job", "--restart", "always", "alpine", "sh", "-c", "echo up; sleep 0.2; exit 5")
	text := b.must("generate", "systemd", "-n", "job")
	s := b.service(text)
	want{status: 5, stdout: "up\n"}.check(t, b.do(s.call("ExecStart")))
	if got := b.must("inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}", "job"); got != "exited 0 always" {
		t.Errorf("after the end: %s", got)
	}
	for key, want := range map[string]string{"Restart": "always", "StartLimitIntervalSec": "0", "KillMode": "mixed", "TimeoutStopSec": "70", "WantedBy": "default.target"} {
		if got := s.one(key); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}

	b.must("create", "--name", "web", "alpine", "sh", "-c", "echo up; sleep 1000")
	run := b.start(b.service(b.must("generate", "systemd", "-n", "web")).call("ExecStart"))
	run.see("up\n")
	run.signal(syscall.SIGKILL)
	run.wait()
	if !eventually(10*time.Second, func() bool { return b.must("ps", "-q") == "" }) {
		t.Error("the container outlives its rbox")
	}
	if got := b.must("inspect", "-f", "{{.State.ExitCode}}", "web"); got != "137" {
		t.Errorf("exit code %s", got)
	}
}

// start --restart puts another policy in the place of the container's own.
func TestStartRestart(t *testing.T) {
	b := newBox(t, keeps)
	b.must("create", "--name", "job", "--restart", "always", "alpine", "sh", "-c", "exit 5")
	want{status: 5}.check(t, b.rbox("start", "-a", "--restart", "on-failure:1", "job"))
	want{stdout: "1\n"}.check(t, b.rbox("inspect", "-f", "{{.RestartCount}}", "job"))
	want{status: 5}.check(t, b.rbox("start", "-a", "--restart=no", "job"))
	want{stdout: "0\n"}.check(t, b.rbox("inspect", "-f", "{{.RestartCount}}", "job"))
	want{status: 125, stderr: "--restart sometimes"}.check(t, b.rbox("start", "--restart", "sometimes", "job"))
}

func TestGenerateSystemdFlags(t *testing.T) {
	b := newBox(t, keeps)
	b.must("create", "--name", "web", "--stop-timeout", "20", "--stop-signal", "INT", "alpine", "true")
	b.must("create", "--name", "once", "--rm", "alpine", "true")
	id := b.must("inspect", "-f", "{{.Id}}", "web")
	dir := b.own(filepath.Join(b.home, "units"))
	b.must("run", "-d", "--name", "peer", "alpine", "sleep", "1000")
	b.must("create", "--name", "friend", "--pid", "container:peer", "--ipc", "container:peer", "alpine", "true")
	unit := func(lines string) want { return want{match: "(?m)" + lines} }
	for name, tc := range map[string]struct {
		args string
		want want
	}{
		"header":             {"web", unit(`\A# container-` + id + `\.service\n# made by rbox `)},
		"no header":          {"--no-header -n web", unit(`\A\[Unit\]\nDescription=rbox container-web\.service$`)},
		"prefix":             {"-n --container-prefix box --separator _ web", unit(`^Description=rbox box_web\.service$`)},
		"no prefix":          {"-n --container-prefix= web", unit(`^Description=rbox web\.service$`)},
		"the time":           {"web", unit(`stop --ignore --time=20 ` + id + `$[^\x00]*^SuccessExitStatus=143 130\nTimeoutStopSec=80$`)},
		"another time":       {"-t 3 web", unit(`stop --ignore --time=3 ` + id + `$[^\x00]*^TimeoutStopSec=63$`)},
		"a time by its name": {"--stop-timeout -2 web", want{status: 125}},
		"no end":             {"--stop-timeout -1 web", unit(`--time=-1 ` + id + `$[^\x00]*^TimeoutStopSec=infinity$`)},
		"a policy":           {"--restart-policy on-abort --restart-sec 9 web", unit(`^Restart=on-abort\nRestartSec=9$`)},
		"no policy":          {"web", unit(`^Restart=on-failure\nSuccess`)},
		"others":             {"--after a.service --after b.service --wants c.target --requires d.socket web", unit(`^After=a.service b.service\nWants=c.target\nRequires=d.socket$`)},
		"a peer":             {"-n --wants c.target friend", unit(`^After=container-peer.service\nWants=c.target container-peer.service$`)},
		"files":              {"-f -n web", want{stdout: dir + "/container-web.service\n", stderr: "systemctl --user enable --now container-web.service"}},
		"advice":             {"-n web", want{match: "", stderr: "systemctl --user enable --now container-web.service"}},

		"no container":    {"nosuch", want{status: 125, stderr: "nosuch"}},
		"nothing":         {"", want{status: 125, stderr: "CONTAINER"}},
		"removed":         {"once", want{status: 125, stderr: "(?s)removed when it ends.*hint: rbox generate systemd --new once"}},
		"a wrong policy":  {"--restart-policy sometimes web", want{status: 125, stderr: "sometimes.*on-failure"}},
		"a wrong prefix":  {"--container-prefix a/b web", want{status: 125, stderr: "container-prefix"}},
		"a wrong unit":    {"--after= web", want{status: 125, stderr: "not the name of a unit"}},
		"a negative time": {"--restart-sec=-1 web", want{status: 125, stderr: "restart-sec"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.want.check(t, b.do(call{args: append([]string{"generate", "systemd"}, strings.Fields(tc.args)...), dir: dir}))
		})
	}
	text, err := os.ReadFile(filepath.Join(dir, "container-web.service"))
	if err != nil || !strings.Contains(string(text), "\nExecStart=") {
		t.Errorf("%q, %v", text, err)
	}
	want{status: 125, stderr: "a command is missing"}.check(t, b.rbox("generate"))
}
