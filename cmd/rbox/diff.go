//go:build !front

package main

import (
	"bufio"
	"fmt"
)

// DiffCmd shows what a container changed.
type DiffCmd struct {
	Container string `arg:"" name:"CONTAINER" help:"Name or id."`
}

// Run prints a line per file, in the order of their names: A for what was
// added, C for what was changed and D for what was deleted.
func (c *DiffCmd) Run(app *App) error {
	ctx, stop := interruptible()
	defer stop()
	files, err := openFiles(ctx, app, c.Container, "diff")
	if err != nil {
		return err
	}
	defer files.stop()
	if files.image == nil {
		return files.noImage("to compare it with")
	}
	if err := files.start(ctx, nil, nil); err != nil {
		return err
	}
	out := bufio.NewWriter(app.Stdout)
	shown := func(path string) string { return path }
	if forPeople(app.Stdout) != app.Stdout {
		shown = inCell
	}
	for {
		r, err := files.answer()
		if err != nil {
			return orInterrupted(ctx, err)
		}
		for _, change := range r.Changes {
			fmt.Fprintf(out, "%c %s\n", change.Kind, shown(string(change.Path)))
		}
		if r.Done {
			return out.Flush()
		}
	}
}
