package main

import (
	"errors"
	"fmt"
	"io"
)

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
	a.tell(err)
	var failed interface{ ExitStatus() int }
	if errors.As(err, &failed) {
		return failed.ExitStatus()
	}
	return 125
}

// tell prints err and its hint: of several joined errors each, and a hint that
// serves several once.
func (a *App) tell(err error) {
	all := apart(err)
	hints := make([]string, len(all))
	for i, err := range all {
		var hinted interface{ Hint() string }
		if errors.As(err, &hinted) {
			hints[i] = hinted.Hint()
		}
	}
	for i, err := range all {
		fmt.Fprintln(a.Stderr, "rbox:", visible(err.Error()))
		if i+1 == len(all) || hints[i] != hints[i+1] {
			printHint(a.Stderr, hints[i])
		}
	}
}

// apart is what errors.Join put together, or err alone.
func apart(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || errors.Join(joined.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		all = append(all, apart(e)...)
	}
	return all
}

func printHint(w io.Writer, hint string) {
	if hint != "" {
		fmt.Fprintln(w, "rbox: hint:", visible(hint))
	}
}
