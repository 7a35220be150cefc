//go:build !front

package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// confirm warns of what is about to happen and reports whether the user wants
// it: the answer is a line of stdin that begins with y.
func confirm(app *App, warning string) bool {
	fmt.Fprintf(app.Stdout, "WARNING! %s\nAre you sure you want to continue? [y/N] ", warning)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && !isTerminal(0) {
		fmt.Fprintln(app.Stdout)
	}
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(answer)), "y")
}
