package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rbox/rootfs"
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

func TestStatusText(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	up := container.State{Pid: 1, Started: ago(5 * time.Minute)}
	with := func(change func(*container.State)) container.Info {
		s := up
		change(&s)
		return container.Info{Running: true, State: s}
	}
	for want, info := range map[string]container.Info{
		"Up 5 minutes":                    {Running: true, State: up},
		"Up 5 minutes (Paused)":           with(func(s *container.State) { s.Paused = true }),
		"Up 5 minutes (healthy)":          with(func(s *container.State) { s.Health = &container.Health{Status: "healthy"} }),
		"Up 5 minutes (health: starting)": with(func(s *container.State) { s.Health = &container.Health{Status: "starting"} }),
		"Restarting (1) 5 seconds ago":    with(func(s *container.State) { s.Restarting, s.Finished, s.ExitStatus = true, ago(5*time.Second), 1 }),
		"Exited (3) 2 hours ago":          {State: container.State{Started: ago(3 * time.Hour), Finished: ago(2 * time.Hour), ExitStatus: 3}},
		"Exited (137) 4 seconds ago":      {State: container.State{Started: ago(time.Hour), Finished: ago(4 * time.Second), ExitStatus: 137}},
		"Created":                         {},
		"Exited (137)":                    {State: container.State{Started: ago(time.Hour), Finished: ago(2 * time.Hour), ExitStatus: 137}}, // nobody saw its end
		"Exited (127) 1 second ago":       {State: container.State{Error: "no such file", Finished: ago(time.Second), ExitStatus: 127}},
	} {
		if got := statusText(&info, now); got != want {
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

// putContainer makes the folder of a container that nobody runs. It is filled,
// which a container cannot change, and unlocked.
func putContainer(t *testing.T, home *container.Home, c container.Config, state string) {
	t.Helper()
	f, err := home.Create(c.ID, c.AutoRemove)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Write(c), f.Born(c.Name)); err != nil {
		t.Fatal(err)
	}
	if state != "" {
		if err := os.WriteFile(filepath.Join(f.Dir, "state.json"), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// testApp is an App whose output is kept.
func testApp(t *testing.T) (*App, *container.Home, *bytes.Buffer) {
	t.Helper()
	out := new(bytes.Buffer)
	app := &App{Root: t.TempDir(), Stdout: out, Stderr: out}
	home, err := app.Home()
	if err != nil {
		t.Fatal(err)
	}
	return app, home, out
}

// fourContainers are made one minute after the other; the last that is listed
// is the first.
func fourContainers(t *testing.T, home *container.Home) (ids [4]string) {
	t.Helper()
	start := time.Now().Add(-10 * time.Minute)
	for i, c := range []container.Config{
		{Name: "web", Image: "nginx", ImageID: "sha256:" + strings.Repeat("1", 64), Command: []string{"nginx", "-g", "daemon off;"}, Labels: map[string]string{"tier": "front", "com.example.some-word": "x,y"}},
		{Name: "web-2", Image: "nginx", ImageID: "sha256:" + strings.Repeat("1", 64), Labels: map[string]string{"tier": "front"}, Options: container.Options{Network: "host"}},
		{Name: "db", Image: "postgres", Labels: map[string]string{"tier": "back"}, Volumes: []container.VolumeUse{{Name: "data", Target: "/var/lib"}}},
		{Name: "job", Image: "alpine", Entrypoint: []string{"sleep"}, Command: []string{"a long time indeed"}},
	} {
		ids[i] = container.NewID()
		c.ID, c.Created = ids[i], start.Add(time.Duration(i)*time.Minute-time.Second)
		if c.Volumes != nil {
			c.Plan.Mounts = []rootfs.Mount{{Type: "bind", Source: "/volumes/data", Target: "/var/lib"}, {Type: "bind", Source: "/srv", Target: "/srv", ReadOnly: true}}
		}
		state := ""
		if i == 0 || i == 2 {
			state = fmt.Sprintf(`{"Pid":0,"ExitStatus":%d,"Started":%q,"Finished":%q}`, i, c.Created.Format(time.RFC3339Nano), time.Now().Add(-3*time.Minute-time.Second).Format(time.RFC3339Nano))
		}
		putContainer(t, home, c, state)
	}
	return ids
}

func TestPs(t *testing.T) {
	app, home, out := testApp(t)
	id := fourContainers(t, home)
	for i := range id {
		id[i] = id[i][:12]
	}
	const head = "CONTAINER ID   IMAGE      COMMAND                  CREATED          STATUS                     PORTS     NAMES\n"
	for name, tc := range map[string]struct{ args, want string }{
		"none runs": {"", "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"},
		"all": {"-a", head +
			id[3] + `   alpine     "sleep 'a long time …"   7 minutes ago    Created                              job` + "\n" +
			id[2] + `   postgres   ""                       8 minutes ago    Exited (2) 3 minutes ago             db` + "\n" +
			id[1] + `   nginx      ""                       9 minutes ago    Created                              web-2` + "\n" +
			id[0] + `   nginx      "nginx -g 'daemon of…"   10 minutes ago   Exited (0) 3 minutes ago             web` + "\n"},
		"ids":            {"-aq", id[3] + "\n" + id[2] + "\n" + id[1] + "\n" + id[0] + "\n"},
		"quiet, none":    {"-q", ""},
		"last":           {"-n 2 --format {{.Names}}", "job\ndb\n"},
		"last, attached": {"-qn1", id[3] + "\n"},
		"latest":         {"-lq", id[3] + "\n"},
		"long":           {"--last=3 --format {{.Names}}", "job\ndb\nweb-2\n"},
		"no heading":     {"--noheading", ""},

		"table":           {"-a --format table~{{.Names}}\\t{{.State}} -n 2", "NAMES     STATE\njob       created\ndb        exited\n"},
		"label":           {"-a --format {{.Names}}:{{.Label~\"tier\"}}", "job:\ndb:back\nweb-2:front\nweb:front\n"},
		"label's heading": {"-a -f name=^web$ --format table~{{.Label~\"com.example.some-word\"}}", "SOME WORD\nx,y\n"},
		"fields": {"-af name=db --format {{.Command}}|{{.Image}}|{{.RunningFor}}|{{.Status}}|{{.Labels}}|{{.Mounts}}|{{.Networks}}|{{.LocalVolumes}}|{{.Ports}}",
			`""|postgres|8 minutes ago|Exited (2) 3 minutes ago|tier=back|data,/srv|none|1|` + "\n"},
		"size of nothing": {"-af name=db --format {{.Size}}", "0B (virtual 0B)\n"},
		"quoted command":  {"-af name=^web$ --no-trunc --format {{.Command}}", `"nginx -g 'daemon off;'"` + "\n"},

		"filter, all":          {"-f name=web", "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"},
		"name":                 {"-af name=web --format {{.Names}}", "web-2\nweb\n"},
		"name, anchored":       {"-af name=^web$ --format {{.Names}}", "web\n"},
		"name, with a slash":   {"-af name=^/web$ --format {{.Names}}", "web\n"},
		"names":                {"-af name=db -f name=job --format {{.Names}}", "job\ndb\n"},
		"name and label":       {"-af name=web -f label=tier=front -f status=exited --format {{.Names}}", "web\n"},
		"id":                   {"-af id=" + id[2][:9] + " --format {{.Names}}", "db\n"},
		"label's name":         {"-af label=tier --format {{.Names}}", "db\nweb-2\nweb\n"},
		"labels, both":         {"-af label=tier -f label=com.example.some-word --format {{.Names}}", "web\n"},
		"exited":               {"-f exited=0 -f exited=2 --format {{.Names}}", "db\nweb\n"},
		"exited otherwise":     {"-f exited=7 --format {{.Names}}", ""},
		"status without -a":    {"-f status=created --format {{.Names}}", "job\nweb-2\n"},
		"statuses":             {"-f status=created -f status=exited -q", id[3] + "\n" + id[2] + "\n" + id[1] + "\n" + id[0] + "\n"},
		"before":               {"-af before=web-2 --format {{.Names}}", "web\n"},
		"since":                {"-af since=" + id[1] + " --format {{.Names}}", "job\ndb\n"},
		"since and before":     {"-af since=web -f before=db --format {{.Names}}", "web-2\n"},
		"ancestor":             {"-af ancestor=nginx --format {{.Names}}", "web-2\nweb\n"},
		"volume":               {"-af volume=data --format {{.Names}}", "db\n"},
		"volume, by its place": {"-af volume=/srv --format {{.Names}}", "db\n"},
		"network":              {"-af network=host --format {{.Names}}", "web-2\n"},
		"no network":           {"-af network=none --format {{.Names}}", "job\ndb\nweb\n"},
		"health":               {"-af health=none -n 1 --format {{.Names}}", "job\n"},
		"unhealthy":            {"-af health=unhealthy", "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"},
		"publish":              {"-aqf publish=80/tcp", ""},
		"last, filtered":       {"-n 1 -f name=web --format {{.Names}}", "web-2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out.Reset()
			args := strings.Fields(tc.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "~", " ")
			}
			if status := run(app, append([]string{"ps"}, args...)); status != 0 || out.String() != tc.want {
				t.Errorf("status %d\n got %q\nwant %q", status, out.String(), tc.want)
			}
		})
	}
}

func TestPsRefuses(t *testing.T) {
	app, home, out := testApp(t)
	fourContainers(t, home)
	for args, want := range map[string]string{
		"-f colour=red":                "there is no such filter",
		"-f name":                      "it has no value",
		"-f status=tired":              "status is one of created, restarting",
		"-f health=fine":               "health is one of starting",
		"-f exited=no":                 "that is no exit status",
		"-f publish=http":              "that is no port",
		"-f before=nobody":             "no such container: nobody",
		"-a --format {{.NoSuchField}}": "the fields .Command .CreatedAt",
		"-a --format {{.Names":         "unclosed action",
		"-n many":                      "many",
	} {
		out.Reset()
		if status := run(app, append([]string{"ps"}, strings.Fields(args)...)); status == 0 || !strings.Contains(out.String(), want) {
			t.Errorf("ps %s: status %d, %s", args, status, out.String())
		}
	}
}

// A row of a listing in JSON has Docker's fields.
func TestPsJSON(t *testing.T) {
	app, home, out := testApp(t)
	fourContainers(t, home)
	if status := run(app, []string{"ps", "-lf", "name=^web$", "--format", "json"}); status != 0 {
		t.Fatal(out)
	}
	var row map[string]string
	if err := json.Unmarshal(out.Bytes(), &row); err != nil {
		t.Fatal(err)
	}
	var fields []string
	for k := range row {
		fields = append(fields, k)
	}
	slices.Sort(fields)
	want := []string{"Command", "CreatedAt", "ID", "Image", "Labels", "LocalVolumes", "Mounts", "Names", "Networks", "Ports", "RunningFor", "Size", "State", "Status"}
	if !slices.Equal(fields, want) {
		t.Errorf("fields %v, want %v", fields, want)
	}
}
