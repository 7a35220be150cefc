//go:build !front

package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"
)

// Widths of help, in columns.
const (
	helpIndent   = 2
	helpMaxNames = 30 // longer names have their text on the next line
	helpMinWidth = 50
	helpMaxWidth = 100
)

// A helpSection is a heading and what stands below it, in the order of the grammar.
type helpSection struct {
	title string
	rows  []helpRow
}

type helpRow struct{ name, text string }

// printHelp is a kong.HelpPrinter: it describes the command that was selected,
// or lists them all.
func printHelp(_ kong.HelpOptions, ctx *kong.Context) error {
	node := ctx.Selected()
	if node == nil {
		node = ctx.Model.Node
	}
	_, err := io.WriteString(ctx.Stdout, helpText(node, helpWidth()))
	return err
}

// helpWidth is that of the terminal on stdout, within what reads well.
func helpWidth() int {
	size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return 80
	}
	return min(max(int(size.Col), helpMinWidth), helpMaxWidth)
}

// helpText describes a command, or the program if it is the root.
func helpText(n *kong.Node, width int) string {
	var b strings.Builder
	writeWrapped(&b, n.Help, 0, width)
	fmt.Fprintf(&b, "\nUsage: %s\n", usageLine(n))
	if n.Type == kong.CommandNode {
		if names := n.Aliases; len(names) > 0 {
			fmt.Fprintf(&b, "Also called: %s\n", strings.Join(names, ", "))
		}
	}
	sections := append([]helpSection{argumentSection(n)}, commandSections(n)...)
	for _, s := range append(sections, flagSections(n)...) {
		s.write(&b, width)
	}
	if len(n.Children) > 0 {
		fmt.Fprintf(&b, "\n%s COMMAND --help tells more of a command.\n", commandPath(n))
	}
	return b.String()
}

// usageLine is the form of a command line, as in "rbox run [flags] IMAGE [COMMAND [ARG...]]".
func usageLine(n *kong.Node) string {
	words := []string{commandPath(n)}
	if len(shownFlags(n)) > 1 {
		words = append(words, "[flags]")
	}
	if len(n.Children) > 0 {
		words = append(words, "COMMAND [ARG...]")
	}
	for _, p := range n.Positional {
		words = append(words, argumentForm(p))
	}
	return strings.Join(words, " ")
}

// commandPath is what the user types to get to n.
func commandPath(n *kong.Node) string {
	if n.Parent == nil {
		return n.Name
	}
	return commandPath(n.Parent) + " " + n.Name
}

// argumentForm shows whether an argument may be left out or repeated.
func argumentForm(p *kong.Positional) string {
	form := argumentName(p)
	if p.IsCumulative() && !p.Passthrough {
		form += "..."
	}
	if !p.Required {
		form = "[" + form + "]"
	}
	return form
}

func argumentName(p *kong.Positional) string {
	if p.Name == strings.ToLower(p.Name) {
		return strings.ToUpper(p.Name)
	}
	return p.Name
}

func argumentSection(n *kong.Node) helpSection {
	var s helpSection
	for _, p := range n.Positional {
		name, _, _ := strings.Cut(argumentName(p), " ")
		s.rows = append(s.rows, helpRow{strings.TrimLeft(name, "["), withDefault(p)})
	}
	return s
}

func commandSections(n *kong.Node) []helpSection {
	var all []helpSection
	for _, c := range n.Children {
		if !c.Hidden {
			all = addRow(all, groupTitle(c.Group, "Commands"), helpRow{c.Name, c.Help})
		}
	}
	return all
}

func flagSections(n *kong.Node) (all []helpSection) {
	for _, g := range flagGroups(n) {
		s := helpSection{title: g.title}
		for _, f := range g.flags {
			s.rows = append(s.rows, helpRow{flagForm(f), withDefault(f.Value)})
		}
		all = append(all, s)
	}
	return all
}

// A flagGroup is the flags under one heading.
type flagGroup struct {
	title string
	flags []*kong.Flag
}

// flagGroups are the flags of n as its help shows them: those without a group last.
func flagGroups(n *kong.Node) (all []flagGroup) {
	others := flagGroup{title: "Flags"}
	for _, f := range shownFlags(n) {
		if f.Group == nil {
			others.flags = append(others.flags, f)
			continue
		}
		i := slices.IndexFunc(all, func(g flagGroup) bool { return g.title == f.Group.Title })
		if i < 0 {
			i, all = len(all), append(all, flagGroup{title: f.Group.Title})
		}
		all[i].flags = append(all[i].flags, f)
	}
	if len(all) > 0 {
		others.title = "Other flags"
	}
	return append(all, others)
}

// addRow puts row in the section title, which is made if it is new.
func addRow(all []helpSection, title string, row helpRow) []helpSection {
	for i := range all {
		if all[i].title == title {
			all[i].rows = append(all[i].rows, row)
			return all
		}
	}
	return append(all, helpSection{title, []helpRow{row}})
}

func groupTitle(g *kong.Group, otherwise string) string {
	if g == nil {
		return otherwise
	}
	return g.Title
}

// shownFlags are those of the command itself and of what it is part of.
func shownFlags(n *kong.Node) (flags []*kong.Flag) {
	for _, level := range n.AllFlags(true) {
		flags = append(flags, level...)
	}
	return flags
}

// flagForm is how a flag is written, as in "-e, --env NAME[=VALUE]".
func flagForm(f *kong.Flag) string {
	name := "    --" + f.Name
	if f.Short != 0 {
		name = fmt.Sprintf("-%c, --%s", f.Short, f.Name)
	}
	if f.IsBool() || f.IsCounter() {
		return name
	}
	return name + " " + flagValue(f)
}

// flagValue stands for the value of a flag in its help.
func flagValue(f *kong.Flag) string {
	switch {
	case f.PlaceHolder != "":
		return f.PlaceHolder
	case f.Enum != "" && len(f.Enum) <= 16:
		return strings.Join(f.EnumSlice(), "|")
	}
	return strings.ToUpper(f.Name)
}

// withDefault is the help of v with its default, unless it tells that itself.
func withDefault(v *kong.Value) string {
	if !v.HasDefault || v.IsBool() || v.Default == "" || strings.Contains(v.Help, "(default") {
		return v.Help
	}
	return strings.TrimSuffix(v.Help, ".") + " (default: " + v.Default + ")."
}

// write prints the section with the texts in one column; nothing if it is empty.
func (s helpSection) write(b *strings.Builder, width int) {
	if len(s.rows) == 0 {
		return
	}
	column := 0
	for _, r := range s.rows {
		if len(r.name) <= helpMaxNames {
			column = max(column, len(r.name))
		}
	}
	column += 2*helpIndent + 1
	b.WriteByte('\n')
	if s.title != "" {
		fmt.Fprintf(b, "%s:\n", s.title)
	}
	for _, r := range s.rows {
		at, _ := fmt.Fprintf(b, "%*s%s", helpIndent, "", r.name)
		if at >= column {
			b.WriteByte('\n')
			at = 0
		}
		fmt.Fprintf(b, "%*s", column-at, "")
		writeWrapped(b, r.text, column, width)
	}
}

// writeWrapped writes text, which begins at column, in lines no longer than
// width unless a word is.
func writeWrapped(b *strings.Builder, text string, column, width int) {
	at := column
	for i, word := range strings.Fields(text) {
		switch n := len([]rune(word)); {
		case i == 0:
			at += n
		case at+1+n > width:
			fmt.Fprintf(b, "\n%*s", column, "")
			at = column + n
		default:
			b.WriteByte(' ')
			at += 1 + n
		}
		b.WriteString(word)
	}
	b.WriteByte('\n')
}

// usageError says in one line what is wrong with a command line, with the help
// to look it up in as hint.
func usageError(parser *kong.Kong, err error) error {
	var parse *kong.ParseError
	if !errors.As(err, &parse) || parse.Context == nil {
		return &adviceError{err, parser.Model.Name + " --help"}
	}
	node := parse.Context.Selected()
	if node == nil {
		node = parser.Model.Node
	}
	return &adviceError{plainly(node, err), commandPath(node) + " --help"}
}

// plainly says in our words what kong has found, where those read better.
func plainly(n *kong.Node, err error) error {
	text := err.Error()
	before, guess, _ := strings.Cut(text, ", ")
	word, unexpected := strings.CutPrefix(before, "unexpected argument ")
	flag, valueless := strings.CutSuffix(text, ": expected string value but got \"EOL\" (<EOL>)")
	letter, unknown := strings.CutPrefix(before, "unknown flag -")
	numbered, word64, number := strings.Cut(text, ": expected a valid 64 bit int but got ")
	value, choices, limited := strings.Cut(text, " must be one of ")
	switch {
	case limited:
		choices, got, _ := strings.Cut(choices, " but got ")
		choices = strings.Trim(strings.ReplaceAll(choices, `"`, ""), ",") // "" is one, too
		return fmt.Errorf("%s %s: choose one of %s", strings.Trim(value, "<>"), got, strings.ReplaceAll(choices, ",", ", "))
	case unknown && len(letter) == 1: // kong finds it like every other letter
		return errors.New(before)
	case unexpected && len(n.Children) > 0:
		return errors.New(strings.TrimSuffix(fmt.Sprintf("%s has no command %q, %s", commandPath(n), word, guess), ", "))
	case unexpected:
		return fmt.Errorf("%s: one argument too many: %s", strings.TrimPrefix(commandPath(n), "rbox "), word)
	case number:
		return fmt.Errorf("%s: want a number, not %s", numbered, word64)
	case valueless:
		return fmt.Errorf("%s: a value is missing", flag)
	case strings.HasPrefix(text, "expected ") && n.Type == kong.CommandNode:
		return fmt.Errorf("%s: %s", strings.TrimPrefix(commandPath(n), "rbox "), missing(n))
	}
	return err
}

// missing names what a command line of n lacks.
func missing(n *kong.Node) string {
	if len(n.Children) > 0 {
		return "a command is missing"
	}
	for _, p := range n.Positional {
		if p.Required && !p.Set {
			name, _, _ := strings.Cut(argumentName(p), " ")
			return name + " is missing"
		}
	}
	return "an argument is missing"
}
