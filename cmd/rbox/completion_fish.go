//go:build !front

package main

import (
	_ "embed"
	"fmt"
	"strings"
)

// fishFunctions are the part that knows nothing of any command.
//
//go:embed completion/rbox.fish
var fishFunctions string

// fishCompletion writes the script for fish.
func fishCompletion(all []completion) string {
	var b strings.Builder
	b.WriteString(completionHeader("fish", `In ~/.config/fish/completions/rbox.fish`))
	b.WriteString("set -g __rbox_commands")
	for _, c := range all[1:] {
		for _, path := range c.paths(all) {
			fmt.Fprintf(&b, " \\\n    %s", quoteWord(path))
		}
	}
	b.WriteString("\n\n" + fishFunctions + "\ncomplete -c rbox -f\n")
	for _, c := range all {
		var paths []string
		for _, path := range c.paths(all) {
			paths = append(paths, quoteWord(path))
		}
		here := "complete -c rbox -n " + quoteWord("__rbox_at "+strings.Join(paths, " "))
		for _, sub := range c.commands {
			fmt.Fprintf(&b, "%s -a %s -d %s\n", here, sub.names()[0], quoteWord(sub.help))
		}
		for _, f := range c.flags {
			fmt.Fprintf(&b, "%s -l %s", here, f.long[2:])
			if f.short != "" {
				fmt.Fprintf(&b, " -s %s", f.short[1:])
			}
			if f.value != nil {
				b.WriteString(" -r" + fishValue(*f.value))
			}
			fmt.Fprintf(&b, " -d %s\n", quoteWord(f.help))
		}
		for _, a := range c.args {
			if value := fishValue(a); value != " -f" {
				fmt.Fprintf(&b, "%s%s\n", here, value)
			}
		}
	}
	return b.String()
}

// fishValue is what to offer, as flags of complete.
func fishValue(v completionValue) string {
	switch v.kind {
	case valueWords:
		return " -f -a " + quoteWord(strings.Join(v.words, " "))
	case valueFiles:
		return " -F"
	case valueImages:
		return " -f -a '(__rbox_images)'"
	case valueContainers:
		return " -f -a '(__rbox_containers)'"
	case valueVolumes:
		return " -f -a '(__rbox_volumes)'"
	case valueNetworks:
		return " -f -a '(__rbox_networks)'"
	case valueModes:
		return " -f -a 'private none host (__rbox_networks)'"
	case valueObjects:
		return " -f -a '(__rbox_containers; __rbox_images; __rbox_volumes; __rbox_networks)'"
	case valueCopies:
		return " -F -a '(__rbox_copies)'"
	case valuePrograms:
		return " -f -a '(__fish_complete_subcommand)'"
	}
	return " -f"
}
