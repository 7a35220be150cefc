// Command network is the third executable that rbox carries: the process at the
// host's end of a container's network. It alone links a network stack, which
// makes it too large for what starts with every container.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"

	"rbox/slirp/process"
)

func main() {
	serve := process.Main
	if len(os.Args) > 1 { // the directory of a named network
		serve = func() error { return process.NamedMain(os.Args[1]) }
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "rbox-network:", err)
		os.Exit(1)
	}
}
