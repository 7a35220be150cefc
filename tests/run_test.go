package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRunExitStatus(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, tc := range map[string]struct {
		args []string
		want want
	}{
		"success":       {[]string{"alpine", "true"}, want{}},
		"the program's": {[]string{"alpine", "sh", "-c", "echo hi; exit 7"}, want{status: 7, stdout: "hi\n"}},
		"largest":       {[]string{"alpine", "sh", "-c", "exit 255"}, want{status: 255}},
		"by SIGTERM":    {[]string{"alpine", "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"}, want{status: 143}},
		"init by a signal": {
			[]string{"--init", "alpine", "sh", "-c", "kill -KILL $$"}, want{status: 137}},
		"with --init": {[]string{"--init", "alpine", "sh", "-c", "exit 7"}, want{status: 7}},

		"no such command": {
			[]string{"alpine", "no-such-command"}, want{status: 127, stderr: `^rbox: .*no-such-command`}},
		"no such path": {
			[]string{"alpine", "/no/such/command"}, want{status: 127, stderr: `^rbox: .*/no/such/command`}},
		"not executable": {
			[]string{"alpine", "/etc/passwd"}, want{status: 126, stderr: `^rbox: .*/etc/passwd`}},
		"a folder": {
			[]string{"alpine", "/etc"}, want{status: 126, stderr: `^rbox: .*/etc`}},
		"no such command with --init": {
			[]string{"--init", "alpine", "no-such-command"}, want{status: 127, stderr: `no-such-command`}},
		"no such interpreter": {
			[]string{"-v", "./broken:/broken", "alpine", "/broken"}, want{status: 127, stderr: `/broken`}},
		"no format that is known": {
			[]string{"-v", "./text:/text", "alpine", "/text"}, want{status: 126, stderr: `/text`}},

		"no such image": {
			[]string{"--pull", "never", "no-such-image", "true"}, want{status: 125, stderr: `^rbox: .*no-such-image`}},
		"no such flag": {
			[]string{"--no-such-flag", "alpine", "true"}, want{status: 125, stderr: `^rbox: .*--no-such-flag`}},
		"no image": {nil, want{status: 125, stderr: `^rbox: `}},
		"an image name that cannot be": {
			[]string{"Upper:case", "true"}, want{status: 125, stderr: `^rbox: .*Upper`}},
		"no command anywhere": {
			[]string{"--entrypoint", "", "alpine"}, want{status: 125, stderr: `^rbox: `}},
		"no such user": {
			[]string{"-u", "nobody-here", "alpine", "true"}, want{status: 125, stderr: `nobody-here`}},
		"no such group": {
			[]string{"-u", "0:no-group-here", "alpine", "true"}, want{status: 125, stderr: `no-group-here`}},
		"no such volume source": {
			[]string{"-v", "/no/such/source:/x:ro", "alpine", "true"}, want{status: 125, stderr: `/no/such/source`}},
		"no such root file system": {
			[]string{"--rootfs", "/no/such/rootfs", "true"}, want{status: 125, stderr: `/no/such/rootfs`}},
		"no such environment file": {
			[]string{"--env-file", "/no/such/env", "alpine", "true"}, want{status: 125, stderr: `/no/such/env`}},
		"a limit that is none": {
			[]string{"--ulimit", "nofile=many", "alpine", "true"}, want{status: 125, stderr: `nofile`}},
		"a network that is none": {
			[]string{"--network", "no-such-network", "alpine", "true"}, want{status: 125, stderr: `no-such-network`}},
		"a pull policy that is none": {
			[]string{"--pull", "sometimes", "alpine", "true"}, want{status: 125, stderr: `sometimes`}},
	} {
		b.file("broken", "#!/no/such/interpreter\n", 0o755)
		b.file("text", "\x00just text\n", 0o755)
		t.Run(name, func(t *testing.T) {
			tc.want.check(t, b.rbox(append([]string{"run", "--rm"}, tc.args...)...))
		})
	}
}

func TestErrorsAreOneLineAndAHint(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	got := b.rbox("run", "--rm", "--pull", "never", "no-such-image", "true")
	lines := strings.Split(strings.TrimSuffix(got.stderr, "\n"), "\n")
	if got.status != 125 || got.stdout != "" || len(lines) != 2 ||
		!strings.HasPrefix(lines[0], "rbox: ") || !strings.HasPrefix(lines[1], "rbox: hint: ") {
		t.Errorf("want one line of error and one of hint, got %v", got)
	}
}

func TestRunKeepsTheStreamsApart(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	got := b.sh("echo out; echo err >&2")
	if got.stdout != "out\n" || got.stderr != "err\n" || got.status != 0 {
		t.Errorf("got %v", got)
	}
}

func TestRunStandardInput(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	every := make([]byte, 256*1024)
	for i := range every {
		every[i] = byte(i ^ i>>8)
	}
	for name, tc := range map[string]struct {
		flags []string
		in    string
		want  string
	}{
		"with -i, byte for byte": {[]string{"-i"}, string(every), string(every)},
		"with -i, empty":         {[]string{"-i"}, "", ""},
		"without -i":             {nil, "not for the container", ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(append([]string{"run", "--rm"}, tc.flags...), "alpine", "cat")
			got := b.do(call{args: args, stdin: strings.NewReader(tc.in)})
			if got.status != 0 || got.stdout != tc.want || got.stderr != "" {
				t.Errorf("status %d, %d bytes of %d, stderr: %s", got.status, len(got.stdout), len(tc.want), got.stderr)
			}
		})
	}
}

// The account's own shell makes the pipes, as a user's would.
func TestRunStreamsAtPipeSpeed(t *testing.T) {
	b := newBox(t)
	const size = "512M"
	measure := func(filter string) (string, time.Duration) {
		script := "head -c " + size + " /dev/zero | tr '\\0' '\\377' | " + filter + " | sha256sum"
		got := b.do(call{prog: "/bin/sh", args: []string{"-c", script}, env: []string{"RBOX=" + run.bin}})
		if got.status != 0 || got.stderr != "" {
			t.Fatalf("%s: %v", script, got)
		}
		return got.stdout, got.took
	}
	var plain, rbox time.Duration
	for range 3 {
		want, took := measure("cat")
		if plain == 0 || took < plain {
			plain = took
		}
		got, took := measure("$RBOX run --rm -i alpine cat")
		if rbox == 0 || took < rbox {
			rbox = took
		}
		if got != want {
			t.Fatalf("sha256 %s, want %s", got, want)
		}
	}
	t.Logf("%s: %v through a container, %v through a plain pipe", size, rbox, plain)
	if rbox > 2*plain {
		t.Errorf("%v through a container, %v through a plain pipe: more than twice", rbox, plain)
	}
}

func TestRunWithClosedStreams(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for name, script := range map[string]string{
		"stdin":  `"$RBOX" run --rm alpine sh -c 'echo out' <&-`,
		"stdout": `"$RBOX" run --rm alpine sh -c 'echo out' >&- ; echo out`,
		"stderr": `"$RBOX" run --rm alpine sh -c 'echo out' 2>&-`,
	} {
		t.Run(name, func(t *testing.T) {
			got := b.do(call{prog: "/bin/sh", args: []string{"-c", script}, env: []string{"RBOX=" + run.bin}})
			if got.status != 0 || !strings.HasPrefix(got.stdout, "out\n") {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestRunReaderThatLeaves(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	// yes is killed by SIGPIPE; rbox reports it and does not hang.
	script := `{ "$RBOX" run --rm alpine yes; echo $? >&2; } | head -n 1`
	got := b.do(call{prog: "/bin/sh", args: []string{"-c", script}, env: []string{"RBOX=" + run.bin}})
	if got.stdout != "y\n" || got.stderr != "141\n" && !strings.HasSuffix(got.stderr, "\n1\n") {
		t.Errorf("got %v", got)
	}
}

func TestRunStreamsToAFileOfTheUser(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	script := `"$RBOX" run --rm alpine sh -c 'echo one; echo two >/dev/stdout; echo three >/dev/stderr' >out 2>&1`
	got := b.do(call{prog: "/bin/sh", args: []string{"-c", script}, env: []string{"RBOX=" + run.bin}})
	data, err := os.ReadFile(filepath.Join(b.home, "out"))
	if err != nil || got.status != 0 {
		t.Fatalf("%v: %v", err, got)
	}
	if !strings.Contains(string(data), "three\n") {
		t.Errorf("the file holds %q", data)
	}
}

// A name holds for as long as its container is there, and no longer.
func TestRunName(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	p := b.start(call{args: []string{"run", "--rm", "--init", "-i", "--name", "two", "alpine", "sh", "-c", "echo up; cat"}, stdin: blockedReader(t)})
	p.see("up\n")
	want{status: 125, stderr: `two`}.check(t, b.rbox("run", "--rm", "--name", "two", "alpine", "true"))
	p.signal(15)
	p.wait()
	want{}.check(t, b.rbox("run", "--rm", "--name", "two", "alpine", "true"))
	want{status: 125, stderr: `no/name`}.check(t, b.rbox("run", "--rm", "--name", "no/name", "alpine", "true"))
}

// blockedReader is a stdin on which nothing arrives until the test ends.
func blockedReader(t testing.TB) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r
}
