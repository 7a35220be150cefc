package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// repository is the way from here to the top level.
const repository = "../.."

func readDoc(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// allDocs is the text for users.
func allDocs(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(repository + "/docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("docs: %d files, %v", len(files), err)
	}
	text := readDoc(t, "README.md")
	for _, f := range files {
		text += readDoc(t, "docs/"+filepath.Base(f))
	}
	return text
}

// TestEveryFlagOfRunIsDocumented looks for an entry of its own in docs/run.md.
func TestEveryFlagOfRunIsDocumented(t *testing.T) {
	text := readDoc(t, "docs/run.md")
	for _, f := range child(t, model(t), "run").Flags {
		entry := "`--" + f.Name
		if f.Short != 0 {
			entry = "`-" + string(f.Short) + "`, " + entry
		}
		if !regexp.MustCompile("(?m)^- " + regexp.QuoteMeta(entry) + "[ `]").MatchString(text) {
			t.Errorf("docs/run.md has no entry %s", entry)
		}
		if f.Enum == "" {
			continue
		}
		for _, value := range f.EnumSlice() {
			if !strings.Contains(text, "`"+value+"`") && !strings.Contains(text, f.Name+" "+value) {
				t.Errorf("docs/run.md does not say what --%s %s is", f.Name, value)
			}
		}
	}
}

// TestDocumentedFlagsOfRunExist keeps docs/run.md from promising more.
func TestDocumentedFlagsOfRunExist(t *testing.T) {
	known := map[string]bool{}
	for _, f := range shownFlags(child(t, model(t), "run")) {
		known[f.Name] = true
		for _, alias := range f.Aliases {
			known[alias] = true
		}
	}
	for _, m := range regexp.MustCompile(`--([a-z][a-z-]*)`).FindAllStringSubmatch(readDoc(t, "docs/run.md"), -1) {
		if !known[m[1]] {
			t.Errorf("docs/run.md speaks of --%s, which run has not", m[1])
		}
	}
}

// TestEveryCommandIsDocumented wants each to be shown by name.
func TestEveryCommandIsDocumented(t *testing.T) {
	text := allDocs(t)
	for _, c := range model(t).Children {
		if !c.Hidden && !strings.Contains(text, commandPath(c)) {
			t.Errorf("%s is nowhere in README.md and docs", commandPath(c))
		}
	}
}

// TestCommandsInDocsExist checks the first word after rbox in lines that are commands.
func TestCommandsInDocsExist(t *testing.T) {
	known := map[string]bool{}
	for _, c := range model(t).Children {
		known[c.Name] = true
		for _, alias := range c.Aliases {
			known[alias] = true
		}
	}
	for _, m := range regexp.MustCompile("(?:`|\n    (?:\\$ )?)rbox ([a-z]+)").FindAllStringSubmatch(allDocs(t), -1) {
		if !known[m[1]] {
			t.Errorf("the docs speak of rbox %s, which is no command", m[1])
		}
	}
}

// TestLinksLeadSomewhere follows the links between the files.
func TestLinksLeadSomewhere(t *testing.T) {
	files, _ := filepath.Glob(repository + "/docs/*.md")
	top, _ := filepath.Glob(repository + "/*.md")
	for _, f := range append(files, top...) {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(f), m[1])); err != nil {
				t.Errorf("%s: %v", filepath.Base(f), err)
			}
		}
	}
}
