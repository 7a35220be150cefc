package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"9": 9, "KILL": 9, "sigterm": 15, "SIGRTMIN": 34, "RTMIN+3": 37, "SIGRTMAX": 64, "rtmax-14": 50,
		"0": 0, "65": 0, "-1": 0, "": 0, "SIG": 0, "NOSUCH": 0, "RTMIN+31": 0, "RTMAX-31": 0, "RTMAX+1": 0,
	} {
		if got, err := parseSignal(text); got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
}
