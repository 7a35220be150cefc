package tests

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// health waits until the container's health is status.
func (b *box) health(name, status string) {
	b.t.Helper()
	if !eventually(15*time.Second, func() bool {
		return b.rbox("inspect", "--format", "{{.State.Health.Status}}", name).stdout == status+"\n"
	}) {
		b.t.Fatalf("%s is %q, want %s: %s", name, b.rbox("inspect", "--format", "{{json .State.Health}}", name).stdout, status, b.must("ps", "-a"))
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	b.must("run", "-d", "--name", "box", "--health-cmd", "test -e /well && echo fine || { echo ill >&2; exit 1; }", "--health-interval", "100ms", "--health-retries", "2", "alpine", "sleep", "1000")
	want{match: `\(health: starting\)|\(healthy\)|\(unhealthy\)`}.check(t, b.rbox("ps"))
	b.health("box", "unhealthy")
	want{match: `\(unhealthy\)`}.check(t, b.rbox("ps"))
	want{stdout: "box\n"}.check(t, b.rbox("ps", "-f", "health=unhealthy", "--format", "{{.Names}}"))
	b.must("exec", "box", "touch", "/well")
	b.health("box", "healthy")
	want{match: `Up .* \(healthy\)`}.check(t, b.rbox("ps"))
	var h struct {
		Status        string
		FailingStreak int
		Log           []struct {
			Start, End time.Time
			ExitCode   int
			Output     string
		}
	}
	if !eventually(10*time.Second, func() bool {
		if err := json.Unmarshal([]byte(b.must("inspect", "--format", "{{json .State.Health}}", "box")), &h); err != nil {
			t.Fatal(err)
		}
		return len(h.Log) == 5 && h.Log[0].ExitCode == 0 // of the last checks
	}) {
		t.Fatalf("health %+v", h)
	}
	if h.FailingStreak != 0 || h.Log[4].Output != "fine\n" || h.Log[4].End.Before(h.Log[4].Start) {
		t.Errorf("health %+v", h)
	}
	events := b.must("events", "--since", "1h", "--until", "0s", "-f", "container=box")
	if strings.Count(events, "health_status: healthy") != 1 || strings.Count(events, "health_status: unhealthy") != 1 {
		t.Errorf("events:\n%s", events)
	}
	b.must("exec", "box", "rm", "/well")
	b.health("box", "unhealthy")
	b.must("stop", "-t", "0", "box")
	b.must("start", "box")
	b.health("box", "unhealthy") // it starts anew
}

func TestHealthFlags(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	img := func(test ...string) v1.Image {
		return alpineImage(t, v1.Config{Cmd: []string{"sleep", "1000"}, Healthcheck: &v1.HealthConfig{Test: test, Interval: 50 * time.Millisecond, Retries: 1}})
	}
	b.load("well", img("CMD", "true"))
	b.load("ill", img("CMD-SHELL", "exit 1"))
	for name, tc := range map[string]struct{ args, status string }{
		"image":             {"well", "healthy"},
		"image-ill":         {"ill", "unhealthy"},
		"another-command":   {"--health-cmd false well", "unhealthy"},
		"json":              {`--health-cmd '["test","-d","/etc"]' ill`, "healthy"},
		"as-the-user":       {"-u 1000 --health-cmd 'test $(id -u) = 1000' ill", "healthy"},
		"timeout":           {"--health-cmd 'sleep 1000' --health-timeout 100ms ill", "unhealthy"},
		"no-such-program":   {`--health-cmd '["nosuch"]' ill`, "unhealthy"},
		"start-period":      {"--health-start-period 1h --health-start-interval 50ms ill", "starting"},
		"start-period-well": {"--health-start-period 1h --health-start-interval 50ms --health-interval 1h well", "healthy"},
		"retries":           {"--health-retries 1000 ill", "starting"},
		"many-words":        {"--health-cmd 'yes | head -c 100000' --health-interval 50ms alpine sleep 1000", "healthy"},
		"clocks":            {"--time-offset boottime=3600 well", "healthy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := b.in(t)
			b.must(words("run -d --network none --name " + name + " " + tc.args)...)
			if tc.status == "starting" {
				time.Sleep(time.Second) // it stays so
			}
			b.health(name, tc.status)
			if name == "many-words" {
				if out := b.must("inspect", "--format", "{{(index .State.Health.Log 0).Output}}", name); len(out) > 5000 {
					t.Errorf("%d bytes are kept", len(out))
				}
			}
			monitor := b.monitor(name)
			if !eventually(5*time.Second, func() bool { return len(children(monitor)) == 1 }) && name != "timeout" {
				t.Errorf("%d processes below the monitor", len(children(monitor)))
			}
			want{stdout: name + "\n"}.check(t, b.rbox("stop", "-t", "0", name)) // while a check may run
		})
	}
	b.steps([]step{
		{`run -d --name off --no-healthcheck well`, want{}},
		{`run -d --name none --health-cmd none well`, want{}},
		{`ps --format '{{.Names}} {{.Status}}' -f name=off -f name=none`, want{match: `^none Up [^()]*\noff Up [^()]*\n$`}},
		{`create --no-healthcheck --health-cmd true well`, want{status: 125, stderr: `[Cc]onflicting options`}},
		{`create --health-cmd true --health-interval x well`, want{status: 125, stderr: `--health-interval x`}},
		{`create --health-cmd true --health-timeout -1s well`, want{status: 125, stderr: `health-timeout`}},
		{`create --health-cmd true --health-retries=-1 well`, want{status: 125, stderr: `--health-retries`}},
	})
}
