//go:build !front

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// CompletionCmd prints a completion script. All that a script knows of
// commands and flags comes from the grammar.
type CompletionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints the script.
func (c *CompletionCmd) Run(app *App) error {
	parser, err := kong.New(new(grammar), kong.Name("rbox"), kong.NoDefaultHelp())
	if err != nil {
		return err
	}
	write := map[string]func([]completion) string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	_, err = io.WriteString(app.Stdout, write[c.Shell](completions(parser.Model.Node)))
	return err
}

// A completion is what a shell can offer for one command.
type completion struct {
	path     string // "rbox image ls"
	help     string
	aliases  []string     // other names for the last word of path
	commands []completion // below this one
	flags    []completionFlag
	args     []completionValue // the last is for all further arguments too, if more
	more     bool
	passes   bool // the words after the first argument belong to another command
}

type completionFlag struct {
	long, short string // with dashes; short may be ""
	help        string
	value       *completionValue // nil: it takes none
	repeats     bool
}

// A completionValue is what a flag or an argument takes.
type completionValue struct {
	name  string // for people
	kind  valueKind
	words []string // of kind valueWords
}

// valueKind is what to offer for a value.
type valueKind string

const (
	valueNothing    valueKind = "nothing"
	valueWords      valueKind = "words"
	valueFiles      valueKind = "files"
	valueImages     valueKind = "images"
	valueContainers valueKind = "containers"
	valueVolumes    valueKind = "volumes"
	valueNetworks   valueKind = "networks"
	valueModes      valueKind = "modes"   // what --network takes
	valueObjects    valueKind = "objects" // an image, a container, a volume or a network
	valueCopies     valueKind = "copies"  // a file, or a container and a colon
	valuePrograms   valueKind = "programs"
)

// completions describes the root of a grammar and, after it, every command.
func completions(root *kong.Node) []completion {
	var all []completion
	var visit func(n *kong.Node) completion
	visit = func(n *kong.Node) completion {
		c := completion{path: commandPath(n), help: n.Help, aliases: n.Aliases}
		at := len(all)
		all = append(all, c)
		for _, child := range n.Children {
			if !child.Hidden {
				c.commands = append(c.commands, visit(child))
			}
		}
		for _, f := range shownFlags(n) {
			c.flags = append(c.flags, flagCompletion(f))
		}
		for _, p := range n.Positional {
			c.args = append(c.args, valueCompletion(p, argumentName(p)))
			c.more = c.more || p.IsCumulative()
			c.passes = c.passes || p.Passthrough
		}
		all[at] = c
		return c
	}
	visit(root)
	return all
}

func flagCompletion(f *kong.Flag) completionFlag {
	c := completionFlag{long: "--" + f.Name, help: f.Help, repeats: f.IsCumulative()}
	if f.Short != 0 {
		c.short = "-" + string(f.Short)
	}
	if !f.IsBool() && !f.IsCounter() {
		v := valueCompletion(f.Value, f.FormatPlaceHolder())
		c.value = &v
	}
	return c
}

// valueCompletion goes by the choices of v, else by what stands for it in the help.
func valueCompletion(v *kong.Value, placeholder string) completionValue {
	c := completionValue{name: strings.Trim(placeholder, `"`), kind: valueNothing}
	if v.Enum != "" {
		c.kind, c.words = valueWords, v.EnumSlice()
		return c
	}
	end := strings.IndexFunc(placeholder, func(r rune) bool { return r < 'A' || r > 'Z' })
	if end < 0 {
		end = len(placeholder)
	}
	switch what := placeholder[:end]; {
	case placeholder == "CONTAINER|IMAGE|VOLUME|NETWORK":
		c.kind = valueObjects
	case what == "SRC" || what == "DST":
		c.kind = valueCopies
	case what == "FILE" || what == "SOURCE":
		c.kind = valueFiles
	case what == "IMAGE" || placeholder == "NAME[:TAG]":
		c.kind = valueImages
	case what == "CONTAINER":
		c.kind = valueContainers
	case what == "VOLUME":
		c.kind = valueVolumes
	case what == "NETWORK" && v.Flag != nil:
		c.kind = valueModes
	case what == "NETWORK":
		c.kind = valueNetworks
	case what == "COMMAND" && v.Passthrough:
		c.kind = valuePrograms
	}
	return c
}

// names are all a command is called by, its aliases last.
func (c completion) names() []string {
	return append([]string{c.path[strings.LastIndexByte(c.path, ' ')+1:]}, c.aliases...)
}

// paths are all ways to write c's path, by the aliases of each of its words.
func (c completion) paths(all []completion) []string {
	i := strings.LastIndexByte(c.path, ' ')
	if i < 0 {
		return []string{c.path}
	}
	parent := all[slices.IndexFunc(all, func(p completion) bool { return p.path == c.path[:i] })]
	var paths []string
	for _, before := range parent.paths(all) {
		for _, name := range c.names() {
			paths = append(paths, before+" "+name)
		}
	}
	return paths
}

// quoteWord makes s one word for bash, zsh and fish.
func quoteWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("-_./=,:+%@", r) && !(r >= '0' && r <= '9') && !(r >= 'A' && r <= 'Z') && !(r >= 'a' && r <= 'z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// completionHeader begins a script.
func completionHeader(shell, install string) string {
	return fmt.Sprintf("# Completion of rbox for %s, made by: rbox completion %s\n# %s\n\n", shell, shell, install)
}
