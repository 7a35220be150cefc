package main

import (
	"errors"
	"fmt"
	"io"
)

// version is set by the linker.
var version = "dev"

// exitStatus is the status of a container's program. As an error it carries
// the status to main and says nothing.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// An adviceError is an error with a hint.
type adviceError struct {
	error
	advice string
}

func (e *adviceError) Unwrap() error { return e.error }
func (e *adviceError) Hint() string  { return e.advice }

// report prints err and its hint and returns the exit status it stands for.
func (a *App) report(err error) int {
	if err == nil {
		return 0
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	fmt.Fprintln(a.Stderr, "rbox:", err)
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		printHint(a.Stderr, hinted.Hint())
	}
	var failed interface{ ExitStatus() int }
	if errors.As(err, &failed) {
		return failed.ExitStatus()
	}
	return 125
}

func printHint(w io.Writer, hint string) {
	if hint != "" {
		fmt.Fprintln(w, "rbox: hint:", hint)
	}
}
