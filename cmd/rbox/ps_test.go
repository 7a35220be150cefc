package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"rbox/userns/container"
)

// As github.com/docker/go-units' HumanDuration has it.
func TestHumanDuration(t *testing.T) {
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		0: "Less than a second", 999 * time.Millisecond: "Less than a second", time.Second: "1 second", 45 * time.Second: "45 seconds",
		60 * time.Second: "About a minute", 119 * time.Second: "About a minute", 2 * time.Minute: "2 minutes", 59 * time.Minute: "59 minutes",
		60 * time.Minute: "About an hour", 89 * time.Minute: "About an hour", 91 * time.Minute: "2 hours", 47 * time.Hour: "47 hours",
		2 * day: "2 days", 13 * day: "13 days", 14 * day: "2 weeks", 59 * day: "8 weeks", 60 * day: "2 months", 729 * day: "24 months", 730 * day: "2 years",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestStatus(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d - time.Millisecond) }
	for want, info := range map[string]container.Info{
		"Up 5 minutes":               {Running: true, State: container.State{Started: ago(5 * time.Minute)}},
		"Exited (3) 2 hours ago":     {State: container.State{Started: ago(3 * time.Hour), Finished: ago(2 * time.Hour), ExitStatus: 3}},
		"Exited (137) 4 seconds ago": {State: container.State{Started: ago(time.Hour), Finished: ago(4 * time.Second), ExitStatus: 137}},
		"Created":                    {},
		"Dead":                       {State: container.State{Started: ago(time.Hour)}},
	} {
		if got := status(info); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestEllipsis(t *testing.T) {
	for in, want := range map[string]string{"": "", "abcde": "abcde", "abcdef": "abcd…", "äöüßé": "äöüßé", "äöüßéx": "äöüß…"} {
		if got := ellipsis(in, 5); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestPs(t *testing.T) {
	dir := t.TempDir()
	app := &App{Root: dir}
	home, err := app.Home()
	if err != nil {
		t.Fatal(err)
	}
	id := container.NewID()
	f, err := home.Create(id, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Discard()
	config := container.Config{ID: id, Name: "box", Image: "alpine", Created: time.Now().Add(-5*time.Minute - time.Second)}
	config.Plan.Process.Args = []string{"sleep", "a long time indeed"}
	if err := errors.Join(f.Write(config), f.Born(config.Name)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cmd  PsCmd
		want string
	}{
		"none runs": {PsCmd{}, "CONTAINER ID   IMAGE   COMMAND   CREATED   STATUS   NAMES\n"},
		"all": {PsCmd{All: true}, "CONTAINER ID   IMAGE    COMMAND                  CREATED         STATUS    NAMES\n" +
			id[:12] + `   alpine   "sleep a long time i…"   5 minutes ago   Created   box` + "\n"},
		"ids":          {PsCmd{All: true, Quiet: true}, id[:12] + "\n"},
		"ids in full":  {PsCmd{All: true, Quiet: true, NoTrunc: true}, id + "\n"},
		"quiet, none":  {PsCmd{Quiet: true}, ""},
		"all, in full": {PsCmd{All: true, NoTrunc: true}, `"sleep a long time indeed"`},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			app.Stdout = &b
			if err := tc.cmd.Run(app); err != nil || b.String() != tc.want && !(tc.cmd.NoTrunc && !tc.cmd.Quiet && strings.Contains(b.String(), tc.want)) {
				t.Errorf("%v\n got %q\nwant %q", err, b.String(), tc.want)
			}
		})
	}
}
