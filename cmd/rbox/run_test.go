package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rbox/idmap"
	"rbox/slirp"
	"rbox/userns"
	"rbox/userns/container"
)

func TestNamespaces(t *testing.T) {
	h, err := container.OpenHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	all := []idmap.Mapping{{Inside: 0, Outside: 1000, Count: 1}, {Inside: 1, Outside: 100000, Count: 65536}}
	outer := &userns.Outer{Maps: idmap.Maps{UIDs: all, GIDs: all}}
	uid := uint32(os.Getuid())
	for name, tc := range map[string]struct {
		mode    string
		network string
		wantErr string
		check   func(n ids) bool
	}{
		"default": {mode: "host-default", check: func(n ids) bool {
			return n.UIDs[1] == idmap.Mapping{Inside: 1, Outside: 1, Count: 65536} && n.kept == nil
		}},
		"host network": {mode: "host", network: "host", check: func(n ids) bool { return n.HostNetwork }},
		"keep-id":      {mode: "keep-id", check: func(n ids) bool { return n.kept.uid == uid && strings.Contains(n.key, "-keep-") }},
		"another's":    {mode: "container:missing", wantErr: "no such container: missing"},
		"nobody's":     {mode: "container:", wantErr: "--userns container:: there are host-default, keep-id and container:ID"},
		"unknown":      {mode: "auto", wantErr: "--userns auto: there are host-default, keep-id and container:ID"},
		"with options": {mode: "keep-id:uid=5", wantErr: "--userns keep-id:uid=5: there are host-default, keep-id and container:ID"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &RunCmd{}
			c.Userns, c.choice.Kind = tc.mode, slirp.Kind(tc.network)
			n, err := c.namespaces(h, outer)
			if text(err) != tc.wantErr || err == nil && !tc.check(n) {
				t.Errorf("got %+v, %v", n, err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cid")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change  func(c *RunCmd)
		wantErr string
	}{
		"nothing":           {change: func(*RunCmd) {}},
		"descriptors":       {change: func(c *RunCmd) { c.PreserveFDs = 2 }},
		"a descriptor less": {change: func(c *RunCmd) { c.PreserveFDs = 3 }, wantErr: "--preserve-fds 3: descriptor 5 is not open"},
		"a name":            {change: func(c *RunCmd) { c.Name = "a/b" }, wantErr: `invalid container name "a/b": only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed`},
		"a container's id":  {change: func(c *RunCmd) { c.Cidfile = file }, wantErr: "container ID file found: " + file},
	} {
		c := &RunCmd{Words: []string{"img"}}
		tc.change(c)
		if got := text(c.check(2)); got != tc.wantErr {
			t.Errorf("%s: got %q, want %q", name, got, tc.wantErr)
		}
	}
	c := &RunCmd{Words: []string{"--", "img", "--"}}
	if err := c.check(0); err != nil || strings.Join(c.Words, " ") != "img --" {
		t.Errorf("after --: %q, %v", c.Words, err)
	}
}

func TestHostname(t *testing.T) {
	id := container.NewID()
	own, _ := os.Hostname()
	for _, tc := range []struct{ flag, network, want string }{{"box", "host", "box"}, {"", "none", id[:12]}, {"", "host", own}} {
		c := &RunCmd{}
		c.Hostname = tc.flag
		n := ids{}
		n.HostNetwork = tc.network == "host"
		if got := c.hostname(id, n); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}
