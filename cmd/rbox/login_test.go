package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestReadSecret(t *testing.T) {
	for in, want := range map[string]string{
		"secret":                         "secret",
		"secret\n":                       "secret",
		"secret\r\n":                     "secret",
		" spaces count \n":               " spaces count ",
		"two\nlines\n":                   "two\nlines",
		"ends with two\n\n":              "ends with two\n",
		"":                               "",
		"\n":                             "",
		strings.Repeat("x", maxSecret+1): "",
	} {
		got, err := readSecret(strings.NewReader(in))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%.20q: got %.20q, %v", in, got, err)
		}
	}
}

// Whoever asks for a password where nobody can answer is told what to do instead.
func TestLoginAsksOnlyPeople(t *testing.T) {
	password := "x"
	for name, c := range map[string]*LoginCmd{
		"both":            {Username: "kim", Password: &password, PasswordStdin: true},
		"stdin, no name":  {PasswordStdin: true},
		"no terminal":     {},
		"password, alone": {Password: &password},
	} {
		app := &App{Stdout: io.Discard, Stderr: io.Discard}
		_, _, err := c.ask(context.Background(), app, "quay.io", "")
		var hinted interface{ Hint() string }
		if !errors.As(err, &hinted) || hinted.Hint() == "" {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestOrInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	failed, ended := errors.New("failed"), fmt.Errorf("pull: %w", context.Canceled)
	if got := orInterrupted(ctx, ended); got != ended {
		t.Errorf("before: %v", got)
	}
	cancel()
	for err, want := range map[error]error{ended: interrupted, failed: failed, nil: nil} {
		if got := orInterrupted(ctx, err); got != want {
			t.Errorf("%v became %v", err, got)
		}
	}
}
