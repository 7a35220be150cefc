package main

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"rbox/userns/container"
)

// early is what `rbox run` begins before it has read its command line: a
// monitor takes as long to start as that does.
type early struct {
	id      string // of the container
	open    int    // descriptors beyond 2 that we were started with, without a gap
	monitor func() (*container.Monitor, error)
}

// startEarly marks what we inherited and starts a monitor. A failure shows
// when the monitor is asked for.
func startEarly(app *App) *early {
	e := &early{id: container.NewID(), open: markInherited()}
	start, err := app.monitorStarter(e.id)
	if err != nil {
		e.monitor = func() (*container.Monitor, error) { return nil, err }
		return e
	}
	e.monitor = sync.OnceValues(start)
	go e.monitor()
	return e
}

// monitorStarter finds all that it takes to start the monitor of container id.
func (a *App) monitorStarter(id string) (func() (*container.Monitor, error), error) {
	outer, stage, err := a.outerAndStage()
	if err != nil {
		return nil, err
	}
	home, err := a.Home()
	if err != nil {
		return nil, err
	}
	return func() (*container.Monitor, error) { return container.StartMonitor(home, outer, stage, id) }, nil
}

// markInherited closes on exec all descriptors beyond 2 and counts those that
// we inherited, up to the first gap: the Go runtime's own are marked already.
func markInherited() (open int) {
	for {
		flags, err := unix.FcntlInt(uintptr(3+open), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			break
		}
		open++
	}
	if unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return open
	}
	entries, _ := os.ReadDir("/proc/self/fd") // before Linux 5.11
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return open
}

// abandon ends the monitor and gives back what it took.
func (e *early) abandon() {
	if monitor, err := e.monitor(); err == nil {
		monitor.Abandon()
	}
	for fd := range e.open {
		unix.FcntlInt(uintptr(3+fd), unix.F_SETFD, 0)
	}
}
