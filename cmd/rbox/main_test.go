package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"rbox/userns/container"
)

// parse reads a command line with a grammar and returns the command's path and
// what was read into it.
func parse(t *testing.T, grammar any, args []string) (string, any, error) {
	t.Helper()
	k, err := kong.New(grammar, kong.Name("rbox"), kong.NoDefaultHelp(), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := k.Parse(args)
	if err != nil {
		return "", nil, err
	}
	return ctx.Command(), ctx.Selected().Target.Interface(), nil
}

// A command parses alone as it does in the whole grammar, by each of its names.
func TestGrammarFor(t *testing.T) {
	lines := map[string]string{
		"run":       "-it --rm -e A=1,2 --env B -v /a:/b,c --name x -w /w --entrypoint= --ulimit nofile=1:2 img sh -c --rm -it",
		"ps":        "-aq --no-trunc",
		"inspect":   "-f x one two",
		"rm":        "-f one two",
		"pull":      "-q alpine",
		"images":    "-q",
		"create":    "--name x alpine sh -c x",
		"start":     "-a one",
		"stop":      "-t 3 one two",
		"restart":   "one",
		"kill":      "-s TERM one",
		"pause":     "one",
		"unpause":   "one",
		"update":    "-m 1g one",
		"stats":     "--no-stream one",
		"exec":      "-it one sh -c x",
		"attach":    "--no-stdin one",
		"wait":      "one two",
		"events":    "-f type=image --since 10m --format json",
		"logs":      "-ft -n 5 --since 10m one",
		"rename":    "one two",
		"cp":        "-a one:/x -",
		"diff":      "one",
		"export":    "-o file one",
		"commit":    "-c ENV=1 one name:tag",
		"rmi":       "one two",
		"tag":       "one two",
		"import":    "- name:tag",
		"load":      "-i file",
		"save":      "-o file one",
		"history":   "alpine",
		"image":     "ls",
		"login":     "-u kim registry",
		"logout":    "registry",
		"volume":    "ls",
		"network":   "ls",
		"port":      "one 80/tcp",
		"unshare":   "sh -c x",
		"doctor":    "--format json",
		"version":   "",
		"top":       "one -o pid,cmd",
		"container": "ls -a",
		"system":    "df -v",
		"info":      "-f json",
		"generate":  "systemd -n one",
	}
	all := reflect.TypeFor[grammar]()
	for f := range all.Fields() {
		if _, ok := f.Tag.Lookup("cmd"); !ok {
			continue
		}
		name := strings.ToLower(f.Name)
		names := []string{name}
		if aliases := f.Tag.Get("aliases"); aliases != "" {
			names = append(names, strings.Split(aliases, ",")...)
		}
		line, known := lines[name]
		if !known && name != "completion" {
			t.Errorf("no line for %s", name)
		}
		if name == "completion" {
			line = "bash"
		}
		for _, word := range names {
			alone := grammarFor(word)
			if _, whole := alone.(*grammar); whole {
				t.Errorf("%s has no grammar of its own", word)
			}
			args := append([]string{word}, strings.Fields(line)...)
			wantPath, want, wantErr := parse(t, new(grammar), args)
			path, got, err := parse(t, alone, args)
			if wantErr != nil || err != nil || path != wantPath || !reflect.DeepEqual(got, want) {
				t.Errorf("%q:\nalone %s %+v, %v\nwhole %s %+v, %v", args, path, got, err, wantPath, want, wantErr)
			}
		}
	}
	for _, word := range []string{"--help", "frobnicate", "Run", "cmd", "help"} {
		if _, whole := grammarFor(word).(*grammar); !whole {
			t.Errorf("%q is taken for a command", word)
		}
	}
}

// What follows the image is the command's, whatever it looks like.
func TestRunWords(t *testing.T) {
	for line, want := range map[string]string{
		"run --rm img":                    "img",
		"run img --rm -it -- x":           "img|--rm|-it|--|x",
		"run -it img sh -c a":             "img|sh|-c|a",
		"run -eA=-b --name x img":         "img",
		"run --net none -h box img ls -h": "img|ls|-h",
	} {
		_, got, err := parse(t, grammarFor("run"), strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if words := strings.Join(got.(RunCmd).Words, "|"); words != want {
			t.Errorf("%s: %s, want %s", line, words, want)
		}
	}
}

func TestReport(t *testing.T) {
	one, two, three := &adviceError{errors.New("one"), "list"}, &adviceError{errors.New("two"), "list"}, errors.New("three")
	for name, tc := range map[string]struct {
		err    error
		status int
		stderr string
	}{
		"success":        {nil, 0, ""},
		"the program's":  {exitStatus(7), 7, ""},
		"0":              {exitStatus(0), 0, ""},
		"rbox's own":     {errors.New("x"), 125, "rbox: x\n"},
		"with a hint":    {fmt.Errorf("a: %w", &adviceError{errors.New("x"), "do y"}), 125, "rbox: a: x\nrbox: hint: do y\n"},
		"two, a hint":    {errors.Join(one, two), 125, "rbox: one\nrbox: two\nrbox: hint: list\n"},
		"nested":         {errors.Join(errors.Join(one, three), two), 125, "rbox: one\nrbox: hint: list\nrbox: three\nrbox: two\nrbox: hint: list\n"},
		"one of many":    {errors.Join(nil, one), 125, "rbox: one\nrbox: hint: list\n"},
		"two in words":   {fmt.Errorf("%w (%w)", one, two), 125, "rbox: one (two)\nrbox: hint: list\n"},
		"an empty hint":  {&adviceError{errors.New("x"), ""}, 125, "rbox: x\n"},
		"not found":      {fmt.Errorf("a: %w", &container.Failure{Text: "x", Advice: "y", Status: 127}), 127, "rbox: a: x\nrbox: hint: y\n"},
		"not executable": {&container.Failure{Text: "x", Status: 126}, 126, "rbox: x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if got := (&App{Stderr: &b}).report(tc.err); got != tc.status || b.String() != tc.stderr {
				t.Errorf("got %d, %q; want %d, %q", got, b.String(), tc.status, tc.stderr)
			}
		})
	}
	// A helper's status must never pass for the container's.
	helper := exec.Command("/bin/sh", "-c", "exit 3").Run()
	var b bytes.Buffer
	if got := (&App{Stderr: &b}).report(fmt.Errorf("newuidmap: %w", helper)); got != 125 {
		t.Errorf("a helper's failure gives %d", got)
	}
}

func TestRunStatus(t *testing.T) {
	for line, want := range map[string]struct {
		status int
		stdout string // a part of it
	}{
		"version":          {0, "rbox version"},
		"--version":        {0, "rbox version"},
		"-v":               {0, "rbox version"},
		"version x":        {125, ""},
		"ps --format":      {125, ""},
		"rm":               {125, ""},
		"doctor --format=": {125, ""},
		"images --nope":    {125, ""},
	} {
		var out, words bytes.Buffer
		got := run(&App{Root: t.TempDir(), Stdout: &out, Stderr: &words}, strings.Fields(line))
		if got != want.status || !strings.Contains(out.String(), want.stdout) || (got == 125) != strings.HasPrefix(words.String(), "rbox: ") {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want %d, %q", line, got, out.String(), words.String(), want.status, want.stdout)
		}
	}
}
