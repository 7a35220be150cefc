package main

import (
	"bytes"
	"os"
	"testing"
)

// The files are what their sources, as go.mod names them, say now.
func TestFresh(t *testing.T) {
	for file, text := range map[string]func() ([]byte, error){"numbers.txt": numbers, "profile.json": profile} {
		want, err := text()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile("../" + file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale (%v): go generate ./userns/confine/seccomp", file, err)
		}
	}
}
