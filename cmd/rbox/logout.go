//go:build !front

package main

import (
	"errors"
	"fmt"

	"rbox/rootfs/registry"
)

// LogoutCmd is `rbox logout`.
type LogoutCmd struct {
	Authfile string `help:"File with credentials, instead of the usual ones (default $$REGISTRY_AUTH_FILE)." placeholder:"FILE"`
	All      bool   `short:"a" help:"Forget all registries."`
	Registry string `arg:"" optional:"" help:"Registry, or registry/namespace (default docker.io)."`
}

// Run forgets credentials wherever they are stored, Docker's files included.
func (c *LogoutCmd) Run(app *App) error {
	if c.All && c.Registry != "" {
		return &adviceError{errors.New("--all takes no registry"), "rbox logout --all"}
	}
	ctx, stop := interruptible()
	defer stop()
	credentials := registryFlags{Authfile: c.Authfile}.credentials(app)
	if c.All {
		if err := credentials.EraseAll(ctx); err != nil {
			return err
		}
		_, err := fmt.Fprintln(app.Stdout, "Removed all login credentials")
		return err
	}
	key, err := registry.ParseLogin(c.Registry)
	if err != nil {
		return err
	}
	found, err := credentials.Erase(ctx, key)
	if err != nil {
		return err
	}
	if !found {
		return &adviceError{errors.New("not logged in to " + key), "rbox logout --all forgets every registry"}
	}
	_, err = fmt.Fprintln(app.Stdout, "Removed login credentials for "+key)
	return err
}
