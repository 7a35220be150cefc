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

// userDocs is the text for users, by file.
func userDocs(t *testing.T) map[string]string {
	t.Helper()
	docs := map[string]string{"README.md": readDoc(t, "README.md")}
	for _, pattern := range []string{"docs/*.md", pagesDir + "/*.md"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, f := range files {
			name := filepath.Join(filepath.Dir(pattern), filepath.Base(f))
			docs[name] = readDoc(t, name)
		}
	}
	return docs
}

// TestChoicesAreDocumented wants each value of a flag of run that has few to be explained.
func TestChoicesAreDocumented(t *testing.T) {
	page := pagesDir + "/run.md"
	_, notes := handWritten(readDoc(t, page))
	for _, f := range child(t, model(t), "run").Flags {
		if f.Enum == "" {
			continue
		}
		for _, value := range f.EnumSlice() {
			if !strings.Contains(notes[f.Name], "`"+value+"`") {
				t.Errorf("%s does not say what --%s %s is", page, f.Name, value)
			}
		}
	}
}

// TestDocumentedFlagsExist keeps a page from promising more than its command
// has; flags of other commands follow their name.
func TestDocumentedFlagsExist(t *testing.T) {
	root := model(t)
	for _, n := range commandNodes(root) {
		if sameCommand(root, n) != nil {
			continue
		}
		known := map[string]bool{}
		for _, f := range shownFlags(n) {
			known[f.Name] = true
			known["no-"+f.Name] = f.Tag.Negatable != ""
			for _, alias := range f.Aliases {
				known[alias] = true
			}
		}
		text := readDoc(t, pagesDir+"/"+pageName(n))
		text = regexp.MustCompile("(?m)`rbox [^`]*`|^    .*$").ReplaceAllString(text, "") // TestExamplesParse is for these
		for _, m := range regexp.MustCompile(`--([a-z][a-z0-9-]*)`).FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s/%s speaks of --%s, which %s has not", pagesDir, pageName(n), m[1], commandPath(n))
			}
		}
	}
}

// TestCommandsInDocsExist checks the first word after rbox in lines that are commands.
func TestCommandsInDocsExist(t *testing.T) {
	known := map[string]bool{"help": true}
	for _, c := range model(t).Children {
		known[c.Name] = true
		for _, alias := range c.Aliases {
			known[alias] = true
		}
	}
	for name, text := range userDocs(t) {
		for _, m := range regexp.MustCompile("(?:`|\n    (?:\\$ )?)rbox ([a-z]+)").FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s speaks of rbox %s, which is no command", name, m[1])
			}
		}
	}
}

// TestLinksLeadSomewhere follows the links between the files.
func TestLinksLeadSomewhere(t *testing.T) {
	var files []string
	for _, pattern := range []string{"/*.md", "/docs/*.md", "/docs/*/*.md"} {
		some, _ := filepath.Glob(repository + pattern)
		files = append(files, some...)
	}
	for _, f := range files {
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
