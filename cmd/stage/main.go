// Command stage is the small second executable that rbox carries: what it
// becomes depends on the name it is called by.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"rbox/userns"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// The kernel kills what we clone when the thread that did it ends: main stays
// on the main thread.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "rbox:", err)
		os.Exit(125)
	}
}

func run(args []string) error {
	switch {
	case args[0] == "rbox-keeper" && len(args) == 3:
		idle, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		return userns.KeeperMain(idle, args[2])
	case args[0] == "rbox-monitor" && len(args) == 3:
		return container.MonitorMain(args[2])
	case args[0] == "rbox-probe" && len(args) == 3:
		return container.ProbeMain(args[1], args[2])
	case args[0] == "rbox-remove" && len(args) > 2:
		return container.RemoveMain(args[1], args[2:], false)
	case args[0] == "rbox-remove-running" && len(args) > 2:
		return container.RemoveMain(args[1], args[2:], true)
	case args[0] == "rbox-init" && len(args) > 2:
		listening, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		os.Exit(stage.InitMain(listening, args[2:]))
	}
	return fmt.Errorf("%s is started by rbox only", args[0])
}
