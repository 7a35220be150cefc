package tests

import (
	"regexp"
	"strings"
	"testing"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	top := b.rbox("--help")
	want{match: `(?m)^Usage: rbox`}.check(t, top)
	commands := []string{"run", "pull", "images", "rmi", "tag", "import", "load", "save", "image", "history", "login", "logout", "unshare", "doctor"}
	for _, c := range commands {
		if !regexp.MustCompile(`(?m)^\s+` + c + `\b`).MatchString(top.stdout) {
			t.Errorf("rbox --help does not name %s", c)
		}
		args := []string{c, "--help"}
		if c == "image" {
			args = []string{c, "inspect", "--help"}
		}
		want{match: `(?m)^Usage: rbox ` + c}.check(t, b.rbox(args...))
	}
	want{match: `Usage: rbox`}.check(t, b.rbox("help"))
}

func TestVersion(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	want{match: `^rbox (version )?\S+`}.check(t, b.rbox("--version"))
	want{match: `\S`}.check(t, b.rbox("version"))
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	for name, tc := range map[string]struct {
		args   []string
		stderr string
	}{
		"no such command":        {[]string{"no-such-command"}, `^rbox: .*no-such-command`},
		"no such flag":           {[]string{"--no-such-flag"}, `^rbox: .*no-such-flag`},
		"a flag without a value": {[]string{"run", "--name"}, `^rbox: .*name`},
		"too many arguments":     {[]string{"tag", "a", "b", "c"}, `^rbox: .*c`},
		"too few arguments":      {[]string{"tag", "a"}, `^rbox: `},
		"no command":             {nil, ``},
	} {
		t.Run(name, func(t *testing.T) {
			got := b.rbox(tc.args...)
			if tc.args == nil && got.status == 0 {
				return // help is a fine answer too
			}
			want{status: 125, stderr: tc.stderr}.checkFailed(t, got)
			if got.stdout != "" {
				t.Errorf("an error on stdout: %q", got.stdout)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	for _, shell := range []string{"bash", "zsh", "fish"} {
		want{match: `rbox`}.check(t, b.rbox("completion", shell))
	}
	want{}.check(t, b.do(call{prog: "bash", args: []string{"-n"}, stdin: strings.NewReader(b.must("completion", "bash"))}))
	want{status: 125}.checkFailed(t, b.rbox("completion", "no-such-shell"))
}

func TestStdoutCarriesResultsOnly(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	want{stdout: "x\n"}.check(t, b.sh("echo x"))
	got := b.rbox("images", "-q", "no-such-image")
	if got.stdout != "" || got.status != 0 {
		t.Errorf("got %v", got)
	}
	if got := b.do(call{args: []string{"run", "--rm", "--pull", "never", "nothing"}, env: []string{"NO_COLOR=1"}}); strings.Contains(got.stderr, "\x1b") {
		t.Errorf("colours in spite of NO_COLOR: %q", got.stderr)
	}
}
