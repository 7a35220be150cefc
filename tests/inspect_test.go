package tests

import (
	"encoding/json"
	"strings"
	"testing"
)

// What scripts read of a container.
func TestInspectContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t, withEnv("A=1"))
	b.own(b.home + "/dir")
	b.must("run", "-d", "--name", "up", "-l", "a=b", "-e", "A", "-h", "host1", "-w", "/tmp", "-u", "1:2", "-v", b.home+"/dir:/dir:ro", "-v", "vol:/vol",
		"--tmpfs", "/t:size=1m", "--read-only", "--restart", "on-failure:3", "--stop-signal", "INT", "--stop-timeout", "4", "--ulimit", "nofile=100:200",
		"--add-host", "x:1.2.3.4", "alpine", "sleep", "1000")
	b.rbox("run", "--name", "failed", "alpine", "sh", "-c", "echo five >/file; exit 3")
	for format, want := range map[string]string{
		"{{.Name}} {{.Path}} {{json .Args}}":                                                             `/up sleep ["1000"]`,
		"{{.State.Status}} {{.State.Running}} {{.State.Paused}} {{.State.ExitCode}}":                     "running true false 0",
		"{{.State.OOMKilled}} {{.State.Dead}} {{.State.Restarting}} {{.RestartCount}}":                   "false false false 0",
		"{{.Config.Image}} {{.Config.Hostname}} {{.Config.User}} {{.Config.WorkingDir}}":                 "alpine host1 1:2 /tmp",
		"{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .Config.Labels}}":                       `["sleep","1000"] null {"a":"b"}`,
		"{{range .Config.Env}}{{println .}}{{end}}":                                                      "A=1\n",
		"{{.Config.StopSignal}} {{.Config.StopTimeout}} {{.Config.Tty}}":                                 "INT 4 false",
		"{{.HostConfig.NetworkMode}} {{.HostConfig.Privileged}} {{.HostConfig.AutoRemove}}":              "private false false",
		"{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}":             "on-failure:3",
		"{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.ShmSize}} {{json .HostConfig.ExtraHosts}}":         `true 67108864 ["x:1.2.3.4"]`,
		"{{json .HostConfig.Tmpfs}} {{json .HostConfig.Ulimits}}":                                        `{"/t":"size=1048576"} [{"Name":"nofile","Hard":200,"Soft":100}]`,
		"{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{println}}{{end}}":                "bind  /dir false\nvolume vol /vol true\n",
		"{{json .NetworkSettings.Ports}} {{json .HostConfig.PortBindings}}":                              "{} {}",
		"{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{$net.IPPrefixLen}}|{{end}}":       "private 24|",
		"{{len .Id}} {{slice .Image 0 7}} {{.Driver}} {{.Platform}}":                                     "64 sha256: overlay linux",
		"{{upper .Name}} {{join .Args \",\"}} {{index (split .Config.Image \"p\") 0}}":                   "/UP 1000 al",
		"{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.HostConfig.LogConfig.Type}}": "none file",
	} {
		got := b.must("inspect", "-f", format, "up")
		for _, line := range strings.Split(want, "\n") {
			if strings.HasSuffix(want, "\n") && !strings.Contains(got, line) || !strings.HasSuffix(want, "\n") && got != want {
				t.Errorf("%s\n got %q\nwant %q", format, got, want)
			}
		}
	}
	want{stdout: "exited 3 0 false\n"}.check(t, b.rbox("container", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}} {{.State.Running}}", "failed"))
	want{match: `^5 [0-9]{5,}\n$`}.check(t, b.rbox("inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "failed"))
	b.must("rm", "-f", "up", "failed")
	b.must("volume", "rm", "vol")
}

// What has a name is found: containers first, then images, then volumes.
func TestInspectFinds(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("tag", "alpine", "both")
	b.must("run", "--name", "both", "alpine", "true")
	b.must("volume", "create", "data")
	for name, tc := range map[string]struct {
		args []string
		want want
	}{
		"container":         {[]string{"-f", "{{.Path}}", "both"}, want{stdout: "true\n"}},
		"image of the name": {[]string{"--type", "image", "-f", "{{index .RepoTags 1}}", "both"}, want{stdout: "both:latest\n"}},
		"image":             {[]string{"-f", "{{.Os}} {{.Id}}", "alpine"}, want{match: "^linux sha256:"}},
		"volume":            {[]string{"-f", "{{.Name}} {{.Driver}}", "data"}, want{stdout: "data local\n"}},
		"no container":      {[]string{"--type", "container", "alpine"}, want{status: 125, stdout: "[]\n", stderr: "no such container: alpine"}},
		"no volume":         {[]string{"--type", "volume", "both"}, want{status: 125, stdout: "[]\n", stderr: "no such volume"}},
		"nothing":           {[]string{"nosuch"}, want{status: 125, stdout: "[]\n", stderr: "no such object: nosuch"}},
		"some":              {[]string{"-f", "{{.Id}}", "nosuch", "alpine"}, want{status: 125, match: "^sha256:", stderr: "no such object: nosuch"}},
		"no such field":     {[]string{"-f", "{{.Nope}}", "both"}, want{status: 125, stderr: "Nope"}},
		"no such type":      {[]string{"--type", "cloud", "both"}, want{status: 125, stderr: "type"}},
		"json on one line":  {[]string{"-f", "json", "data"}, want{match: `^\[\{"CreatedAt".*\}\]\n$`}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.rbox(append([]string{"inspect"}, tc.args...)...)) })
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(b.must("inspect", "both", "alpine", "data")), &list); err != nil || len(list) != 3 {
		t.Errorf("%d objects, %v", len(list), err)
	}
	b.must("rm", "both")
	b.must("volume", "rm", "data")
}
