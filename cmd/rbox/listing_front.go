//go:build front

package main

import (
	"io"

	"rbox/userns/container"
)

// What takes templates, sizes or volumes is the whole's.

func (*PsCmd) full(*App) error { return errBeyond }

func (*ImagesCmd) full(*App) error { return errBeyond }

func printTemplate(io.Writer, string, []any) error { return errBeyond }

func (*containerDetail) addSizes(*App, *container.Home, container.Info) error { return errBeyond }

func inspectOther(*App, string, string) (any, error) { return nil, errBeyond }

// wholeOnly ends what the front cannot do.
func wholeOnly() error { return errBeyond }
