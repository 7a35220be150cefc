package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// A page of docs/commands is made of the grammar and of what is written in it
// by hand: the text between these two lines, and the indented lines below a flag.
const (
	byHand = "<!-- By hand: -->"
	byMake = "<!-- Made by `make docs`, but for the indented lines below a flag: -->"
)

const pagesDir = "docs/commands"

var update = flag.Bool("update", false, "write the pages of docs/commands")

// TestPages holds the pages against the grammar; `make docs` writes them.
func TestPages(t *testing.T) {
	root := model(t)
	want := map[string]bool{"README.md": true}
	checkPage(t, "README.md", func(old string) (string, error) { return indexPage(root, old), nil })
	for _, n := range commandNodes(root) {
		if sameCommand(root, n) != nil {
			continue
		}
		want[pageName(n)] = true
		checkPage(t, pageName(n), func(old string) (string, error) { return commandPage(root, n, old) })
	}
	files, err := os.ReadDir(filepath.Join(repository, pagesDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want[f.Name()] {
			t.Errorf("%s/%s is of no command", pagesDir, f.Name())
		}
	}
}

// checkPage compares a page with what it is to be, or writes that.
func checkPage(t *testing.T, name string, page func(old string) (string, error)) {
	t.Helper()
	path := filepath.Join(repository, pagesDir, name)
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	text, err := page(string(old))
	if err != nil {
		t.Errorf("%s/%s: %v", pagesDir, name, err)
		return
	}
	if text == string(old) {
		return
	}
	if !*update {
		t.Errorf("%s/%s is not what the grammar says now: make docs", pagesDir, name)
		return
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// commandNodes are all commands that help shows, the groups among them too.
func commandNodes(n *kong.Node) (all []*kong.Node) {
	for _, c := range n.Children {
		if !c.Hidden {
			all = append(append(all, c), commandNodes(c)...)
		}
	}
	return all
}

// pageName is the file of n's page, as "volume-create.md".
func pageName(n *kong.Node) string {
	return strings.ReplaceAll(shortPath(n), " ", "-") + ".md"
}

// shortPath is how n is called after "rbox ".
func shortPath(n *kong.Node) string {
	_, path, _ := strings.Cut(commandPath(n), " ")
	return path
}

// indexPage lists all pages by group.
func indexPage(root *kong.Node, old string) string {
	var b strings.Builder
	prose, _ := handWritten(old)
	fmt.Fprintf(&b, "# Commands\n\n%s\n%s%s\n", byHand, prose, byMake)
	for _, s := range commandSections(root) {
		fmt.Fprintf(&b, "\n## %s\n\n", s.title)
		for _, r := range s.rows {
			n := root.Children[slices.IndexFunc(root.Children, func(c *kong.Node) bool { return c.Name == r.name })]
			for _, n := range append([]*kong.Node{n}, commandNodes(n)...) {
				if sameCommand(root, n) == nil {
					fmt.Fprintf(&b, "- [%s](%s): %s\n", shortPath(n), pageName(n), n.Help)
				}
			}
		}
	}
	return b.String()
}

// commandPage is the page of n, with what old, as it is now, has by hand.
func commandPage(root, n *kong.Node, old string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n\n    %s\n", commandPath(n), n.Help, usageLine(n))
	if len(n.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAlso called: %s.\n", strings.Join(n.Aliases, ", "))
	}
	prose, notes := handWritten(old)
	fmt.Fprintf(&b, "\n%s\n%s%s\n", byHand, prose, byMake)
	if args := argumentSection(n).rows; len(args) > 0 {
		b.WriteString("\n## Arguments\n\n")
		for _, r := range args {
			fmt.Fprintf(&b, "- `%s`: %s\n", r.name, r.text)
		}
	}
	if len(n.Children) > 0 {
		b.WriteString("\n## Commands\n\n")
		for _, c := range commandNodes(n) {
			page := c
			if same := sameCommand(root, c); same != nil {
				page = same
			}
			fmt.Fprintf(&b, "- [%s](%s): %s\n", commandPath(c), pageName(page), c.Help)
		}
	}
	for _, g := range flagGroups(n) {
		writeFlags(&b, g, notes)
	}
	for name := range notes {
		return "", fmt.Errorf("there are lines below --%s, which %s has not", name, commandPath(n))
	}
	return b.String(), nil
}

// writeFlags writes a group's section, and takes from notes what is below its flags.
func writeFlags(b *strings.Builder, g flagGroup, notes map[string]string) {
	flags := slices.DeleteFunc(g.flags, func(f *kong.Flag) bool { return f.Name == "help" }) // all have it
	if len(flags) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n", g.title)
	for _, f := range flags {
		letter, long, found := strings.Cut(strings.TrimSpace(flagForm(f)), ", ")
		entry := "`" + letter + "`"
		if found {
			entry += ", `" + long + "`"
		}
		if len(f.Aliases) > 0 {
			entry += " (also `--" + strings.Join(f.Aliases, "`, `--") + "`)"
		}
		fmt.Fprintf(b, "- %s: %s\n%s", entry, withDefault(f.Value), notes[f.Name])
		delete(notes, f.Name)
	}
}

// sameCommand is the command of the top level that n is another name of, or nil:
// such a one has no page.
func sameCommand(root, n *kong.Node) *kong.Node {
	if n.Parent == root || len(n.Children) > 0 {
		return nil
	}
	for _, c := range root.Children {
		if c.Target.IsValid() && n.Target.IsValid() && c.Target.Type() == n.Target.Type() {
			return c
		}
	}
	return nil
}

var flagEntry = regexp.MustCompile("^- (?:`-.`, )?`--([a-z0-9-]+)")

// handWritten takes a page apart: the text between the two lines, and what is
// indented below each flag.
func handWritten(page string) (prose string, notes map[string]string) {
	_, after, _ := strings.Cut(page, byHand+"\n")
	prose, made, found := strings.Cut(after, byMake+"\n")
	if !found {
		prose = "\n"
	}
	notes = map[string]string{}
	name := ""
	for line := range strings.Lines(made) {
		switch m := flagEntry.FindStringSubmatch(line); {
		case m != nil:
			name = m[1]
		case name != "" && strings.HasPrefix(line, "  "):
			notes[name] += line
		default:
			name = ""
		}
	}
	return prose, notes
}

// TestPagesHaveExamples wants each page to show its command at work, with words
// of a person.
func TestPagesHaveExamples(t *testing.T) {
	root := model(t)
	for _, n := range commandNodes(root) {
		if len(n.Children) > 0 || sameCommand(root, n) != nil {
			continue
		}
		prose, _ := handWritten(readDoc(t, pagesDir+"/"+pageName(n)))
		if !regexp.MustCompile("(?m)^    .*" + commandPath(n)).MatchString(prose) {
			t.Errorf("%s/%s shows no example by hand", pagesDir, pageName(n))
		}
	}
}

// TestExamplesParse has kong read every command line that the docs show.
func TestExamplesParse(t *testing.T) {
	usage := map[string]bool{}
	for _, n := range commandNodes(model(t)) {
		usage[usageLine(n)] = true
	}
	for name, text := range userDocs(t) {
		for _, m := range regexp.MustCompile(`(?m)^    (?:\$ )?([^\n]*\brbox [^\n]*)`).FindAllStringSubmatch(text, -1) {
			if usage[m[1]] {
				continue
			}
			for _, words := range rboxWords(m[1]) {
				if err := parses(words); err != nil {
					t.Errorf("%s: %s: %v", name, m[1], err)
				}
			}
		}
	}
}

// parses tells what kong finds wrong with a command line.
func parses(words []string) error {
	if words[0] == "help" || slices.Contains(words, "--help") {
		return nil
	}
	k, err := kong.New(grammarFor(words[0]), kong.Name("rbox"), kong.NoDefaultHelp(), kong.Exit(func(int) {}))
	if err == nil {
		_, err = k.Parse(words)
	}
	return err
}

// rboxWords splits a line into the words of the rbox commands in it, much as a
// shell does. Forms of a command line, with brackets or dots, are none.
func rboxWords(line string) (all [][]string) {
	if strings.ContainsAny(line, "[]…") && !strings.ContainsAny(line, `'"`) || strings.Contains(line, "...") {
		return nil
	}
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	endWord := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 1 && words[0] == "rbox" {
			all = append(all, words[1:])
		}
		words = nil
	}
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ':
			endWord()
		case c == '#' && !inWord:
			endCommand()
			return all
		case strings.ContainsRune("<>", c):
			if _, err := strconv.Atoi(word.String()); err == nil { // of a descriptor
				word.Reset()
				inWord = false
			}
			endCommand()
			words = []string{"file"} // what follows is its name
		case strings.ContainsRune("|;&()", c):
			endCommand()
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	endCommand()
	return all
}
