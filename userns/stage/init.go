package stage

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitMain is process 1 of a container run with --init: it starts args, hands
// on the signals it gets, reaps every orphan, and returns the exit status of
// args once that has ended. The kernel then ends the rest. It closes the
// descriptor listening when it hears signals.
func InitMain(listening int, args []string) int {
	unix.CloseOnExec(listening)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	unix.Close(listening)
	path, err := exec.LookPath(args[0])
	var pid int
	if err == nil || errors.Is(err, exec.ErrDot) {
		pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{
			Env:   os.Environ(),
			Files: []uintptr{0, 1, 2},
			Sys:   foreground(),
		})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "rbox: run %q: %v\n", args[0], err)
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			return 127
		}
		return 126
	}
	for s := range signals {
		if s != unix.SIGCHLD && s != unix.SIGURG {
			unix.Kill(pid, s.(unix.Signal))
			continue
		}
		if status, ended := reap(pid); ended {
			return status
		}
	}
	return 125
}

// foreground makes the program the terminal's foreground process group, if
// there is a terminal of ours.
func foreground() *syscall.SysProcAttr {
	if _, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err != nil {
		return &syscall.SysProcAttr{Setpgid: true}
	}
	return &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: 0}
}

// reap collects all children that have ended, and pid's status if it is among them.
func reap(pid int) (status int, ended bool) {
	for {
		var ws unix.WaitStatus
		child, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || child <= 0 {
			return status, ended
		}
		if child != pid {
			continue
		}
		status, ended = ws.ExitStatus(), true
		if ws.Signaled() {
			status = 128 + int(ws.Signal())
		}
	}
}
