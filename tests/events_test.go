package tests

import (
	"encoding/json"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func TestEvents(t *testing.T) {
	b := newBox(t)
	b.ended("job", "exit 3", "--label", "team=blue")
	b.must("tag", "alpine", "other:1")
	b.must("rm", "job")
	b.must("rmi", "other:1")
	b.must("volume", "create", "data")
	b.must("volume", "rm", "data")
	const short = "{{.Type}} {{.Action}}"
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"container":       {[]string{"-f", "container=job"}, "container create|container start|container die|container destroy"},
		"event":           {[]string{"-f", "event=die", "-f", "event=start"}, "container start|container die"},
		"label":           {[]string{"-f", "label=team=blue", "-f", "event=create"}, "container create"},
		"another label":   {[]string{"-f", "label=team=red"}, ""},
		"image":           {[]string{"-f", "image=alpine", "-f", "type=container", "-f", "event=die"}, "container die"},
		"image by a name": {[]string{"-f", "image=other", "-f", "type=image"}, "image tag|image untag"},
		"another tag":     {[]string{"-f", "image=other:2"}, ""},
		"images":          {[]string{"-f", "type=image"}, "image import|image tag|image untag"},
		"volumes":         {[]string{"-f", "type=volume"}, "volume create|volume destroy"},
		"a volume":        {[]string{"-f", "volume=data", "-f", "event=create"}, "volume create"},
		"until long ago":  {[]string{"--until", "2001-01-01"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := b.must(append([]string{"events", "--since", "1h", "--no-stream", "--format", short}, tc.args...)...)
			if got != strings.ReplaceAll(tc.want, "|", "\n") {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestEventsOfStopAndRestart(t *testing.T) {
	b := newBox(t)
	b.must("run", "-d", "--name", "svc", "alpine", "sleep", "1000")
	t.Cleanup(func() { b.rbox("rm", "-f", "svc") })
	b.must("restart", "-t", "0", "svc")
	b.must("stop", "-t", "0", "svc")
	got := b.must("events", "--since", "1h", "--no-stream", "-f", "container=svc", "--format", "{{.Action}}")
	ending := "kill kill die stop" // the signal to end, and the one that no program survives
	if want := "create start " + ending + " start restart " + ending; strings.ReplaceAll(got, "\n", " ") != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// What happens to a container that is removed when it ends, and to programs
// beside it, is told in its order.
func TestEventsInOrder(t *testing.T) {
	b := newBox(t)
	b.must("run", "-d", "--rm", "--name", "svc", "alpine", "sleep", "1000")
	want{status: 3}.check(t, b.rbox("exec", "svc", "sh", "-c", "exit 3"))
	want{status: 127}.check(t, b.rbox("exec", "svc", "nosuch"))
	b.must("stop", "-t", "0", "svc")
	b.must("run", "-d", "--rm", "--name", "killed", "alpine", "sleep", "1000")
	b.must("kill", "killed")
	look := func(name, format string) string {
		return strings.ReplaceAll(b.must("events", "--since", "1h", "--no-stream", "-f", "container="+name, "--format", format), "\n", "|")
	}
	want := "create|start|exec_create: sh -c exit 3|exec_start: sh -c exit 3|exec_die|exec_create: nosuch|exec_start: nosuch|kill|kill|die|stop|destroy"
	if got := look("svc", "{{.Action}}"); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := look("killed", "{{.Action}}"); got != "create|start|kill|die|destroy" {
		t.Errorf("got %q", got)
	}
	if got := b.must("events", "--since", "1h", "--no-stream", "-f", "event=exec_die", "--format", "{{.Actor.Attributes.exitCode}} {{len .Actor.Attributes.execID}}"); got != "3 64" {
		t.Errorf("exec_die: %q", got)
	}
}

func TestEventsForms(t *testing.T) {
	b := newBox(t)
	b.ended("job", "exit 3")
	id := b.must("inspect", "-f", "{{.Id}}", "job")
	args := []string{"events", "--since", "1h", "--until", "0s", "-f", "event=die"}
	line := b.must(args...)
	want := `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) container die ` + id + ` \(.*exitCode=3, .*image=alpine, .*name=job\)$`
	if !regexp.MustCompile(want).MatchString(line) {
		t.Errorf("got %q", line)
	}
	var e struct {
		Status, ID, From, Type, Action, Scope string
		Actor                                 struct {
			ID         string
			Attributes map[string]string
		}
		Time, TimeNano int64
	}
	if err := json.Unmarshal([]byte(b.must(append(args, "--format", "json")...)), &e); err != nil {
		t.Fatal(err)
	}
	if e.Status != "die" || e.ID != id || e.From != "alpine" || e.Type != "container" || e.Action != "die" || e.Scope != "local" ||
		e.Actor.ID != id || e.Actor.Attributes["exitCode"] != "3" || e.TimeNano/1e9 != e.Time {
		t.Errorf("got %+v", e)
	}
	for name, args := range map[string][]string{
		"filter": {"-f", "colour=red"}, "filter without value": {"-f", "type"}, "type": {"-f", "type=wine"},
		"format": {"--format", "{{.Nope}}"}, "template": {"--format", "{{"}, "time": {"--since", "soon"},
	} {
		if got := b.rbox(append([]string{"events", "--since", "1h", "--no-stream"}, args...)...); got.status != 125 && got.status != 2 || got.stderr == "" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestEventsFollow(t *testing.T) {
	b := newBox(t)
	b.must("volume", "create", "marker")
	p := b.start(call{args: []string{"events", "--since", "1h", "--format", "{{.Type}} {{.Action}}"}})
	p.see("volume create\n")
	b.must("volume", "rm", "marker")
	p.see("volume destroy\n")
	p.signal(syscall.SIGINT)
	if got := p.wait(); got.status != 0 || got.stderr != "" || !strings.HasSuffix(got.stdout, "volume create\nvolume destroy\n") {
		t.Error(got)
	}
}
