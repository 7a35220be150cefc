//go:build !front

package main

import (
	"fmt"
	"strconv"

	"github.com/alecthomas/kong"
)

// Decode is kong's hook: it takes -1 for a value, where kong alone sees a flag.
func (s *signed) Decode(ctx *kong.DecodeContext) error {
	*s = signed(ctx.Scan.Pop().String())
	return nil
}

// Decode is kong's hook: it takes -1 for a value, where kong alone sees a flag.
func (s *seconds) Decode(ctx *kong.DecodeContext) error {
	t := ctx.Scan.Pop()
	n, err := strconv.Atoi(t.String())
	if err != nil {
		return fmt.Errorf("want a number of seconds, not %q", t.String())
	}
	*s = seconds(n)
	return nil
}
