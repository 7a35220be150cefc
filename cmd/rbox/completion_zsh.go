//go:build !front

package main

import (
	_ "embed"
	"fmt"
	"strings"
)

// zshFunctions are the part that knows nothing of any command.
//
//go:embed completion/rbox.zsh
var zshFunctions string

// zshCompletion writes the script for zsh's completion system (zshcompsys(1)).
func zshCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString("#compdef rbox\n")
	b.WriteString(completionHeader("zsh", `In ~/.zshrc, below compinit: source <(rbox completion zsh)`))
	for _, c := range all {
		fmt.Fprintf(&b, "%s() {\n", zshFunction(c.path))
		if len(c.commands) > 0 {
			zshCommands(&b, c)
		} else {
			zshArguments(&b, c)
		}
		b.WriteString("}\n\n")
	}
	b.WriteString(zshFunctions)
	return b.String()
}

// zshFunction names the function that completes the command at path.
func zshFunction(path string) string { return "_" + strings.ReplaceAll(path, " ", "_") }

// zshCommands completes a command that has others below it.
func zshCommands(b *strings.Builder, c completion) {
	b.WriteString("    local curcontext=$curcontext state line\n    local -a commands=(\n")
	for _, sub := range c.commands {
		fmt.Fprintf(b, "        %s\n", quoteWord(sub.names()[0]+":"+sub.help))
	}
	b.WriteString("    )\n    _arguments -C '--help[Show help.]' '1:command:->command' '*::argument:->argument'\n")
	b.WriteString("    case $state in\n    command) _describe -t commands command commands ;;\n    argument)\n        case $words[1] in\n")
	for _, sub := range c.commands {
		fmt.Fprintf(b, "        %s) %s ;;\n", strings.Join(sub.names(), "|"), zshFunction(sub.path))
	}
	b.WriteString("        esac ;;\n    esac\n")
}

// zshArguments completes the flags and arguments of one command.
func zshArguments(b *strings.Builder, c completion) {
	b.WriteString("    _arguments -s -S")
	if c.passes {
		b.WriteString(" -A '-*'")
	}
	for _, f := range c.flags {
		long, short, tail := f.long, f.short, "["+zshText(f.help)+"]"
		if f.value != nil {
			long, short = long+"=", short+"+"
			tail += ":" + zshText(f.value.name) + ":" + zshAction(*f.value)
		}
		for _, name := range []string{long, short} {
			if name == "" || name == "+" {
				continue
			}
			switch {
			case f.repeats:
				name = "*" + name
			case f.short != "":
				name = "(" + f.short + " " + f.long + ")" + name
			}
			fmt.Fprintf(b, " \\\n        %s", quoteWord(name+tail))
		}
	}
	for i, a := range c.args {
		position := fmt.Sprint(i + 1)
		if c.more && i == len(c.args)-1 && !c.passes {
			position = "*"
		}
		fmt.Fprintf(b, " \\\n        %s", quoteWord(position+":"+zshText(a.name)+":"+zshAction(a)))
	}
	if c.passes {
		b.WriteString(" \\\n        '*:::argument:_default'")
	}
	b.WriteString("\n")
}

// zshText escapes what ends a description or a message in _arguments.
func zshText(s string) string {
	return strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`).Replace(s)
}

func zshAction(v completionValue) string {
	switch v.kind {
	case valueWords:
		return "(" + strings.Join(v.words, " ") + ")"
	case valueFiles:
		return "_files"
	case valueImages:
		return "_rbox_images"
	case valueContainers:
		return "_rbox_containers"
	case valueVolumes:
		return "_rbox_volumes"
	case valueNetworks:
		return "_rbox_networks"
	case valueModes:
		return "_rbox_modes"
	case valueObjects:
		return "_rbox_objects"
	case valueCopies:
		return "_rbox_copies"
	case valuePrograms:
		return "_command_names -e"
	}
	return " "
}
