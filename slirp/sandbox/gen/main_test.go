package main

import (
	"bytes"
	"os"
	"testing"
)

// The filters are what the profile says now.
func TestFresh(t *testing.T) {
	profile, err := os.ReadFile("../profile.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range filters(profile) {
		if got, err := os.ReadFile("../" + name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale (%v): go generate ./slirp/sandbox", name, err)
		}
	}
}
