package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"rbox/userns/container"
)

func TestQuoteUnit(t *testing.T) {
	for name, tc := range map[string]struct{ in, argument, setting string }{
		"plain":         {"/usr/bin/rbox", "/usr/bin/rbox", "/usr/bin/rbox"},
		"empty":         {"", `""`, `""`},
		"a space":       {"a b", `"a b"`, `"a b"`},
		"a specifier":   {"50%n", "50%%n", "50%%n"},
		"a variable":    {"$HOME ${X}", `"$$HOME $${X}"`, `"$HOME ${X}"`},
		"quotes":        {`say "it's"`, `"say \"it's\""`, `"say \"it's\""`},
		"one quote":     {"it's", `"it's"`, `"it's"`},
		"a backslash":   {`a\nb\`, `"a\\nb\\"`, `"a\\nb\\"`},
		"lines":         {"a\n\tb\x7f", `"a\x0a\x09b\x7f"`, `"a\x0a\x09b\x7f"`},
		"a semicolon":   {";", `";"`, `";"`},
		"other letters": {"größe=é", "größe=é", "größe=é"},
		"no letters":    {"\xff\xfe", `"\xff\xfe"`, `"\xff\xfe"`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := quoteUnit(tc.in, true); got != tc.argument {
				t.Errorf("argument: got %s, want %s", got, tc.argument)
			}
			if got := quoteUnit(tc.in, false); got != tc.setting {
				t.Errorf("setting: got %s, want %s", got, tc.setting)
			}
		})
	}
}

// made is a container that this command line made.
func made(line ...string) container.Info {
	var info container.Info
	info.Config.Name, info.Config.Options.Args = "web", line
	info.Config.Plan.Process.Env = []string{"PATH=/bin", "HERE=x y", "HEREAFTER=z"}
	return info
}

func TestNewContainerLine(t *testing.T) {
	for name, tc := range map[string]struct {
		line string
		log  string
		want string
		env  []string
	}{
		"plain":               {line: "run alpine", want: "alpine"},
		"background":          {line: "run -d alpine sleep 9", log: "file", want: "--log-driver=file alpine sleep 9"},
		"letters together":    {line: "run -dite A=1 alpine sh", want: "--tty --env=A=1 alpine sh"},
		"another name":        {line: "run --name old --replace alpine", want: "alpine"},
		"without a value":     {line: "run -e HERE -e PATH=/x alpine", want: "--env=HERE --env=PATH=/x alpine", env: []string{"HERE=x y"}},
		"only for that once":  {line: "run --rm --cidfile=f --restart always --preserve-fds 2 --detach-keys a --no-sig-proxy alpine", want: "alpine"},
		"flags of the image":  {line: "run alpine ls -d --rm --name x", want: "alpine ls -d --rm --name x"},
		"Docker's long form":  {line: "container run -d alpine", want: "alpine"},
		"create":              {line: "create --pull=always -l a=b alpine x", log: "file", want: "--log-driver=file --label=a=b --pull=always alpine x"},
		"a driver asked for":  {line: "run -d --log-driver none alpine", log: "none", want: "--log-driver=none alpine"},
		"the end of flags":    {line: "run -d -- alpine -x", want: "alpine -x"},
		"a boolean":           {line: "run --tls-verify=false --init=true --read-only=false alpine", want: "--init --tls-verify=false alpine"},
		"an entry point":      {line: "run --entrypoint= --net host -v a:/a -v b:/b alpine", want: "--entrypoint= --volume=a:/a --volume=b:/b --network=host alpine"},
		"stops in its time":   {line: "run --stop-timeout 3 --stop-signal INT alpine", want: "--stop-signal=INT --stop-timeout=3 alpine"},
		"stops without limit": {line: "run --stop-timeout=-1 alpine", want: "--stop-timeout=-1 alpine"},
	} {
		t.Run(name, func(t *testing.T) {
			info := made(strings.Fields(tc.line)...)
			info.Config.Log.Driver = tc.log
			line, env, err := newContainerLine(info, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Fields(strings.Join(line, " "))
			want := strings.Fields("run " + tc.want)
			for _, always := range []string{"--rm", "--replace", "--name=web"} {
				i := slices.Index(got, always)
				if i < 0 {
					t.Fatalf("%q has no %s", line, always)
				}
				got = slices.Delete(got, i, i+1)
			}
			if !slices.Equal(got, want) || !slices.Equal(env, tc.env) {
				t.Errorf("got %q %q, want %q %q", got, env, want, tc.env)
			}
			if _, err := slowParse(line[1:]); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		})
	}
	for name, line := range map[string][]string{
		"none": nil, "another command's": {"pull", "alpine"}, "a flag of the future": {"run", "--nosuch", "alpine"},
	} {
		if got, _, err := newContainerLine(made(line...), nil); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Whatever flags run has, they come out as they went in.
func TestFlagWords(t *testing.T) {
	var g struct {
		Run RunCmd `cmd:""`
	}
	parser, err := kong.New(&g, kong.NoDefaultHelp())
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range parser.Model.Children[0].Flags {
		value := "1"
		switch {
		case flag.Enum != "":
			value = flag.EnumSlice()[len(flag.EnumSlice())-1]
		case flag.IsBool():
			value = "true"
			if flag.Default == "true" {
				value = "false"
			}
		}
		before, err := slowParse([]string{"--" + flag.Name + "=" + value, "alpine"})
		if err != nil {
			t.Fatal(err)
		}
		words := flagWords(before)
		if len(words) != 1 {
			t.Errorf("--%s=%s comes out as %q", flag.Name, value, words)
		}
		after, err := slowParse(append(words, "alpine"))
		if err != nil || !reflect.DeepEqual(before, after) {
			t.Errorf("--%s=%s: %q, %v", flag.Name, value, words, err)
		}
	}
	none, err := slowParse([]string{"alpine"})
	if words := flagWords(none); err != nil || len(words) != 0 {
		t.Errorf("no flags come out as %q, %v", words, err)
	}
}

func TestUnitText(t *testing.T) {
	u := &unit{
		name: "container-web.service", exe: "/opt/my rbox", start: []string{"start", "$x", "50%"}, stop: []string{"stop", "web"},
		dir: "/srv/a b%", env: []string{"RBOX_ROOT=/a $b"}, after: []string{"a.service", "b.service"}, requires: []string{"c.service"},
		stopTimeout: 10, cleanStatus: []int{143, 130}, restartPolicy: "on-failure", restartSec: 1, limit: 3,
	}
	want := `# one
# two

[Unit]
Description=rbox container-web.service
After=a.service b.service
Requires=c.service
StartLimitIntervalSec=300
StartLimitBurst=4

[Service]
Type=exec
Environment="RBOX_ROOT=/a $b"
WorkingDirectory=-/srv/a b%%
ExecStart="/opt/my rbox" start $$x 50%%
ExecStop="/opt/my rbox" stop web
Restart=on-failure
RestartSec=1
SuccessExitStatus=143 130
TimeoutStopSec=70
KillMode=mixed
Delegate=yes

[Install]
WantedBy=default.target
`
	if got := u.text([]string{"one", "two"}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	u = &unit{name: "x.service", exe: "/rbox", stopTimeout: -1, restartPolicy: "always", restartSec: -1, forever: true, dir: "/ends with \\"}
	got := u.text(nil)
	for _, line := range []string{"TimeoutStopSec=infinity", "StartLimitIntervalSec=0", "Restart=always"} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
	for _, key := range []string{"RestartSec", "WorkingDirectory", "StartLimitBurst", "After", "#"} {
		if strings.Contains(got, "\n"+key) {
			t.Errorf("%s in\n%s", key, got)
		}
	}
}

func TestUnitRestart(t *testing.T) {
	three := 3
	for name, tc := range map[string]struct {
		own     container.RestartPolicy
		asked   string
		seconds *int
		want    unit
	}{
		"none":           {want: unit{restartPolicy: "on-failure", restartSec: -1}},
		"always":         {own: container.RestartPolicy{Name: "always"}, want: unit{restartPolicy: "always", forever: true, restartSec: 1}},
		"unless-stopped": {own: container.RestartPolicy{Name: "unless-stopped"}, seconds: &three, want: unit{restartPolicy: "always", forever: true, restartSec: 3}},
		"on-failure":     {own: container.RestartPolicy{Name: "on-failure"}, want: unit{restartPolicy: "on-failure", forever: true, restartSec: 1}},
		"three times":    {own: container.RestartPolicy{Name: "on-failure", Limit: 3}, want: unit{restartPolicy: "on-failure", limit: 3, restartSec: 1}},
		"asked":          {own: container.RestartPolicy{Name: "always"}, asked: "no", want: unit{restartPolicy: "no", restartSec: -1}},
	} {
		var u unit
		if u.restart(tc.own, tc.asked, tc.seconds); !reflect.DeepEqual(u, tc.want) {
			t.Errorf("%s: got %+v, want %+v", name, u, tc.want)
		}
	}
}
