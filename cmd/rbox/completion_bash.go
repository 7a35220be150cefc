//go:build !front

package main

import (
	_ "embed"
	"fmt"
	"strings"
)

// bashFunctions are the part that knows nothing of any command.
//
//go:embed completion/rbox.bash
var bashFunctions string

// bashCompletion writes the script for bash 4.3 and later.
func bashCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString(completionHeader("bash", `In ~/.bashrc: eval "$(rbox completion bash)"`))
	b.WriteString("# _rbox_describe PATH: sets what there is below PATH.\n_rbox_describe() {\n")
	b.WriteString("    commands= offered= flags= valued=' ' kinds= more=0 passes=\n    case $1 in\n")
	for _, c := range all {
		fmt.Fprintf(&b, "    %s)\n", bashPattern(c.paths(all)))
		bashDescribe(&b, c)
		b.WriteString("        ;;\n")
	}
	b.WriteString("    esac\n}\n\n# _rbox_value PATH FLAG: offers values of FLAG.\n_rbox_value() {\n    case \"$1 $2\" in\n")
	for _, c := range all {
		for _, f := range c.flags {
			if f.value == nil || f.value.kind == valueNothing {
				continue
			}
			var flags []string
			for _, path := range c.paths(all) {
				flags = append(flags, path+" "+f.long)
				if f.short != "" {
					flags = append(flags, path+" "+f.short)
				}
			}
			fmt.Fprintf(&b, "    %s) _rbox_offer %s %s ;;\n", bashPattern(flags), f.value.kind, quoteWord(strings.Join(f.value.words, " ")))
		}
	}
	b.WriteString("    esac\n}\n\n")
	b.WriteString(bashFunctions)
	return b.String()
}

// bashPattern is a pattern of case that matches each of words.
func bashPattern(words []string) string {
	var quoted []string
	for _, w := range words {
		quoted = append(quoted, quoteWord(w))
	}
	return strings.Join(quoted, " | ")
}

func bashDescribe(b *strings.Builder, c completion) {
	set := func(name string, words []string) {
		if len(words) > 0 {
			fmt.Fprintf(b, "        %s=%s\n", name, quoteWord(strings.Join(words, " ")))
		}
	}
	var commands, offered, flags, valued, kinds []string
	for _, sub := range c.commands {
		commands = append(commands, sub.names()...)
		offered = append(offered, sub.names()[0])
	}
	for _, f := range c.flags {
		for _, name := range []string{f.long, f.short} {
			if name == "" {
				continue
			}
			if name == f.long {
				flags = append(flags, name)
			}
			if f.value != nil {
				valued = append(valued, name)
			}
		}
	}
	for _, a := range c.args {
		kinds = append(kinds, string(a.kind))
		if a.kind == valueWords {
			kinds[len(kinds)-1] += ":" + strings.Join(a.words, ",")
		}
	}
	set("commands", commands)
	set("offered", offered)
	set("flags", flags)
	if len(valued) > 0 {
		fmt.Fprintf(b, "        valued=%s\n", quoteWord(" "+strings.Join(valued, " ")+" "))
	}
	set("kinds", kinds)
	if c.more {
		b.WriteString("        more=1\n")
	}
	if c.passes {
		b.WriteString("        passes=1\n")
	}
}
