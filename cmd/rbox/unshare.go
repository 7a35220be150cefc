//go:build !front

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"

	"rbox/userns/container"
)

// UnshareCmd runs a command in the outer user namespace.
type UnshareCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" name:"COMMAND [ARG...]" help:"The command; your shell if there is none."`
}

// Run ends with the command's exit status.
func (c *UnshareCmd) Run(app *App) error {
	outer, err := app.Outer()
	if err != nil {
		return err
	}
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{"/bin/sh"}
		if shell := os.Getenv("SHELL"); shell != "" {
			words[0] = shell
		}
	}
	path, err := exec.LookPath(words[0])
	if err != nil {
		return &container.Failure{Text: fmt.Sprintf("run %q: %v", words[0], reason(errors.Unwrap(err))), Status: 127}
	}
	cmd := outer.Command(path, words[1:]...)
	cmd.Args[0] = words[0]
	cmd.NewMount = true
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(cmd.Env, "RBOX_UNSHARED=1")
	// The terminal's keys reach the command as they reach us; it decides.
	signal.Ignore(unix.SIGINT, unix.SIGQUIT)
	ws, err := cmd.Run()
	if err != nil {
		return &container.Failure{Text: err.Error(), Status: 126}
	}
	if ws.Signaled() {
		return exitStatus(128 + int(ws.Signal()))
	}
	return exitStatus(ws.ExitStatus())
}
