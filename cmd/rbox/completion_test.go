package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// script is what `rbox completion SHELL` prints.
func script(t *testing.T, shell string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(&App{Root: t.TempDir(), Stdout: &stdout, Stderr: &stderr}, []string{"completion", shell}); status != 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	return stdout.String()
}

// asBash makes bash do what readline does at Tab: take the line apart, call
// the function that complete(1) knows, and print what it offers. $break takes
// words apart as COMP_WORDBREAKS does.
const asBash = `
compopt() { echo "<$*>"; }
. "$1"
shopt -u extglob
[[ $(complete -p rbox) == *"-F _rbox rbox" ]] || echo "not registered"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=() word=
for ((n = 0; n < ${#COMP_LINE}; n++)); do
    c=${COMP_LINE:n:1}
    case $c in
    ' ') [[ -z $word ]] || COMP_WORDS+=("$word"); word= ;;
    : | =) [[ -z $word ]] || COMP_WORDS+=("$word"); COMP_WORDS+=("$c"); word= ;;
    *) word+=$c ;;
    esac
done
[[ $COMP_LINE == *[:=] ]] || COMP_WORDS+=("$word")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_rbox rbox
printf '%s\n' "${COMPREPLY[@]}"
`

// fakeRbox lists images and containers in the place of rbox.
const fakeRbox = `#!/bin/sh
case "$*" in
"images --format {{.Repository}}:{{.Tag}}") printf '%s\n' alpine:latest alpine:3.20 localhost:5000/tool:v1 '<none>:<none>' ;;
images*) printf '%s\n' alpine alpine:3.20 localhost:5000/tool:v1 '<none>' ;;
'volume ls -q') printf '%s\n' data database ;;
'network ls --format {{.Name}}') printf '%s\n' web ;;
"ps -a --format {{.Names}}") printf '%s\n' calm_gull_1 web ;;
"ps -a --format {{.Names}}:") printf '%s\n' calm_gull_1: web: ;;
esac
`

func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "completion.bash")
	for path, text := range map[string]string{file: script(t, "bash"), filepath.Join(dir, "rbox"): fakeRbox} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct{ line, want string }{
		"command":               {"rbox pu", "pull"},
		"of a group":            {"rbox image in", "inspect"},
		"alias leads on":        {"rbox list --no-t", "--no-trunc"},
		"flag":                  {"rbox run --read", "--read-only"},
		"flag of a flag's word": {"rbox run -it --vol", "--volume"},
		"choices":               {"rbox run --pull ", "always missing never newer"},
		"choices after =":       {"rbox run --pull=n", "never newer"},
		"nothing typed after =": {"rbox run --network=", "private none host web"},
		"a network":             {"rbox network rm w", "web"},
		"two networks":          {"rbox run --network web --network pri", "private"},
		"image":                 {"rbox run --rm al", "alpine alpine:3.20"},
		"host":                  {"rbox run ho", "host"},
		"not host":              {"rbox rmi ho", ""},
		"image after a value":   {"rbox run --name al al", "alpine alpine:3.20"},
		"image after letters":   {"rbox run -ite A=b al", "alpine alpine:3.20"},
		"letters with a value":  {"rbox run -eA=b al", "alpine alpine:3.20"},
		"tag":                   {"rbox run alpine:3", "3.20"},
		"port and tag":          {"rbox run localhost:5000/to", "5000/tool:v1"},
		"several images":        {"rbox rmi alpine:3.20 loc", "localhost:5000/tool:v1"},
		"container":             {"rbox rm w", "web"},
		"another container":     {"rbox rm web ca", "calm_gull_1"},
		"container of exec":     {"rbox exec -it w", "web"},
		"exec's command":        {"rbox exec web w", "<-o default>"},
		"by a newer name":       {"rbox container stop w", "web"},
		"host for create":       {"rbox create ho", "host"},
		"a volume":              {"rbox volume rm data da", "data database"},
		"anything":              {"rbox inspect da", "data database"},
		"anything, a container": {"rbox inspect web ca", "calm_gull_1"},
		"copy":                  {"rbox cp w", "<-o default -o nospace> web:"},
		"copy to":               {"rbox cp ./a web:/e", ""},
		"file":                  {"rbox run --env-file ", "<-o default>"},
		"volume":                {"rbox run -v ./da", "<-o default>"},
		"volume's target":       {"rbox run -v ./data:/m", ""},
		"no value known":        {"rbox run --name ", ""},
		"its own command":       {"rbox run alpine --pull", "<-o default>"},
		"program":               {"rbox unshare ech", "echo"},
		"argument of choices":   {"rbox completion ", "bash zsh fish"},
		"archive, then name":    {"rbox import root.tar al", "alpine alpine:3.20"},
		"after --":              {"rbox run -- al", "alpine alpine:3.20"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(bash, "--norc", "-c", asBash, "bash", file, tc.line)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if got := strings.Join(slices.Compact(strings.Fields(string(out))), " "); err != nil || got != tc.want {
				t.Errorf("%q offers %q (%v), want %q", tc.line, got, err, tc.want)
			}
		})
	}
}

// TestCompletionScriptsParse has each shell that is here read its script.
func TestCompletionScriptsParse(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		text := script(t, shell)
		path, err := exec.LookPath(shell)
		if err != nil {
			continue // bash is always here, and the others have the same source
		}
		cmd := exec.Command(path, "-n")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", shell, err, out)
		}
	}
}

// TestCompletionsKnowEverything compares with the grammar's own idea of itself.
func TestCompletionsKnowEverything(t *testing.T) {
	root := model(t)
	all := completions(root)
	for _, leaf := range root.Leaves(true) {
		i := slices.IndexFunc(all, func(c completion) bool { return c.path == commandPath(leaf) })
		if i < 0 {
			t.Errorf("no completion of %s", commandPath(leaf))
			continue
		}
		if got, want := len(all[i].flags), len(shownFlags(leaf)); got != want {
			t.Errorf("%s: %d flags, want %d", all[i].path, got, want)
		}
	}
}
