package idmap

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRefusal(t *testing.T) {
	for name, tc := range map[string]struct {
		helper, words, why, cure string
	}{
		"range gone": {
			helper: "newuidmap", words: "newuidmap: uid range [1-65537) -> [100000-165536) not allowed\n",
			why:  "uid range [1-65537) -> [100000-165536) not allowed",
			cure: "compare the range with your lines in /etc/subuid (rbox doctor shows what was read)",
		},
		"newgrp": {
			helper: "newgidmap", words: "newgidmap: Target process 7 is owned by a different user: uid:1 pw_uid:1\n",
			why:  "Target process 7 is owned by a different user: uid:1 pw_uid:1",
			cure: "newuidmap serves only under your primary group: leave the shell that newgrp or sg started",
		},
		"the kernel": {
			helper: "newgidmap", words: "warning\nnewgidmap: write to gid_map failed: Operation not permitted\n",
			why:  "write to gid_map failed: Operation not permitted",
			cure: "the kernel refused newgidmap (rbox doctor tells why); in an outer container, give it more ids or correct /etc/subgid",
		},
		"silence": {helper: "newuidmap", why: "exit status 9"},
	} {
		t.Run(name, func(t *testing.T) {
			why, cure := refusal(tc.helper, tc.words, errors.New("exit status 9"))
			if why != tc.why || cure != tc.cure {
				t.Errorf("got %q and %q", why, cure)
			}
		})
	}
}

func TestHelperWithoutPrivilege(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "newuidmap")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	_, err := findHelper("newuidmap")
	var e *HelperError
	if !errors.As(err, &e) || e.Path != path || e.Why == "" || e.Cure == "" {
		t.Fatalf("got %v, want a *HelperError for %s with a cure", err, path)
	}
}

func TestUIDMapPackage(t *testing.T) {
	for in, want := range map[string]string{
		"PRETTY_NAME=\"Debian\"\nID=debian\n":          "apt-get install uidmap",
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n":    "apt-get install uidmap",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"": "dnf install shadow-utils",
		"ID=alpine\n": "apk add shadow-uidmap",
		"":            "install newuidmap and newgidmap (package uidmap or shadow-utils)",
	} {
		if got := uidmapPackage(in); got != want {
			t.Errorf("uidmapPackage(%q) = %q, want %q", in, got, want)
		}
	}
}
