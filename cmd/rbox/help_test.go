package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// model is the whole command line, as `rbox --help` sees it.
func model(t *testing.T) *kong.Node {
	t.Helper()
	k, err := kong.New(new(grammar), kong.Name("rbox"), kong.NoDefaultHelp(), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	return k.Model.Node
}

// child finds a command by its name.
func child(t *testing.T, n *kong.Node, name string) *kong.Node {
	t.Helper()
	for _, c := range n.Children {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("%s has no command %s", n.Name, name)
	return nil
}

func TestUsageLine(t *testing.T) {
	root := model(t)
	for name, want := range map[string]string{
		"run":     "rbox run [flags] IMAGE [COMMAND [ARG...]]",
		"rm":      "rbox rm [flags] [CONTAINER...]",
		"unshare": "rbox unshare [COMMAND [ARG...]]",
		"version": "rbox version [flags]",
	} {
		if got := usageLine(child(t, root, name)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

// TestHelpFits also holds every command and flag to having a text.
func TestHelpFits(t *testing.T) {
	const width = 80
	var visit func(n *kong.Node)
	visit = func(n *kong.Node) {
		for line := range strings.Lines(helpText(n, width)) {
			if line = strings.TrimSuffix(line, "\n"); len([]rune(line)) > width {
				t.Errorf("%s: %d columns: %s", commandPath(n), len([]rune(line)), line)
			}
		}
		for _, f := range n.Flags {
			if f.Help == "" {
				t.Errorf("%s --%s has no help", commandPath(n), f.Name)
			}
		}
		for _, c := range n.Children {
			if c.Help == "" {
				t.Errorf("%s has no help", commandPath(c))
			}
			if n.Parent == nil && c.Group == nil && !c.Hidden {
				t.Errorf("%s has no group", commandPath(c))
			}
			visit(c)
		}
	}
	visit(model(t))
}

// TestRunFlagsAreGrouped keeps the longest help in sections.
func TestRunFlagsAreGrouped(t *testing.T) {
	for _, f := range child(t, model(t), "run").Flags {
		if f.Group == nil {
			t.Errorf("--%s has no group", f.Name)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for name, tc := range map[string]struct{ line, wantErr, wantHint string }{
		"command":          {"pulll x", `rbox has no command "pulll", did you mean "pull"?`, "rbox --help"},
		"command, no idea": {"frobnicate", `rbox has no command "frobnicate"`, "rbox --help"},
		"flag":             {"pull --quite x", `unknown flag --quite, did you mean "--quiet"?`, "rbox pull --help"},
		"flag of run":      {"run --rmm x", `unknown flag --rmm, did you mean "--rm"?`, "rbox run --help"},
		"letter":           {"run -Z x", "unknown flag -Z", "rbox run --help"},
		"no image":         {"run", "run: IMAGE is missing", "rbox run --help"},
		"no container":     {"rm", "rm: CONTAINER is missing", "name one that rbox ps -a lists, or give --all"},
		"alias":            {"list x", "ps: one argument too many: x", "rbox ps --help"},
		"no value":         {"run --name", "--name: a value is missing", "rbox run --help"},
		"bad value":        {"run --pull=x y", `--pull "x": choose one of always, missing, never, newer`, "rbox run --help"},
		"bad argument":     {"completion tcsh", `shell "tcsh": choose one of bash, zsh, fish`, "rbox completion --help"},
		"before a command": {"-x", "unknown flag -x", "rbox --help"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(&App{Root: t.TempDir(), Stdout: &stdout, Stderr: &stderr}, strings.Fields(tc.line))
			want := "rbox: " + tc.wantErr + "\nrbox: hint: " + tc.wantHint + "\n"
			if got := stderr.String(); got != want || status != 125 || stdout.Len() > 0 {
				t.Errorf("status %d, stdout %q, stderr:\n%swant status 125:\n%s", status, &stdout, got, want)
			}
		})
	}
}
