package tests

import (
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
)

// What an image's configuration says, and what flags make of it.
func TestImageConfig(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	show := []string{"sh", "-c", `echo "$0 $*"`}
	for tag, c := range map[string]v1.Config{
		"cmd":         {Cmd: []string{"echo", "from cmd"}},
		"entry":       {Entrypoint: append(slices.Clone(show), "entry")},
		"both":        {Entrypoint: append(slices.Clone(show), "entry"), Cmd: []string{"cmd", "args"}},
		"neither":     {},
		"env":         {Env: []string{"A=image", "PATH=/image/bin:/bin:/usr/bin", "EMPTY=", "B=with=equals"}, Cmd: []string{"sh", "-c", `echo "$A,$PATH,${EMPTY-unset},$B"`}},
		"user-name":   {User: "app", Cmd: []string{"sh", "-c", "id -un; id -gn; id -G; echo $HOME"}},
		"user-id":     {User: "1234:4321", Cmd: []string{"sh", "-c", "id -u; id -g"}},
		"user-group":  {User: "app:extra", Cmd: []string{"sh", "-c", "id -un; id -gn"}},
		"user-gone":   {User: "not-in-passwd", Cmd: []string{"true"}},
		"workdir":     {WorkingDir: "/made/by/config", Cmd: []string{"pwd"}},
		"workdir-app": {WorkingDir: "/work", User: "app", Cmd: []string{"sh", "-c", "pwd; stat -c %U ."}},
		"volumes":     {Volumes: map[string]struct{}{"/srv/data": {}, "/srv/new": {}}, Cmd: []string{"sh", "-c", "cat /srv/data/seed; stat -c %U /srv/data; touch /srv/data/x /srv/new/x && grep -c ' /srv/' /proc/self/mountinfo"}},
		"labels":      {Labels: map[string]string{"org.example": "yes"}, Cmd: []string{"true"}},
		"script":      {Cmd: []string{"/bin/start"}},
	} {
		b.load(tag+":latest", alpineImage(t, c, layer(t,
			images.Entry{Name: "etc/passwd", Data: "root:x:0:0:root:/root:/bin/sh\napp:x:1500:1501:App:/home/app:/bin/sh\n"},
			images.Entry{Name: "etc/group", Data: "root:x:0:\napp:x:1501:\nextra:x:1600:app\nmore:x:1601:app,root\n"},
			images.Entry{Name: "srv/data/", UID: 1500, GID: 1501},
			images.Entry{Name: "srv/data/seed", Data: "seed\n", UID: 1500, GID: 1501},
			images.Entry{Name: "bin/start", Data: "#!/bin/sh\necho started\n", Mode: 0o755},
		)))
	}
	for name, tc := range map[string]struct {
		flags []string
		image string
		args  []string
		want  want
	}{
		"Cmd":                          {nil, "cmd", nil, want{stdout: "from cmd\n"}},
		"Cmd replaced":                 {nil, "cmd", []string{"echo", "mine"}, want{stdout: "mine\n"}},
		"Entrypoint":                   {nil, "entry", nil, want{stdout: "entry \n"}},
		"Entrypoint, with arguments":   {nil, "entry", []string{"a", "b"}, want{stdout: "entry a b\n"}},
		"Entrypoint and Cmd":           {nil, "both", nil, want{stdout: "entry cmd args\n"}},
		"Entrypoint, Cmd replaced":     {nil, "both", []string{"x"}, want{stdout: "entry x\n"}},
		"Entrypoint replaced, no Cmd":  {[]string{"--entrypoint", "id"}, "both", nil, want{match: `^uid=0`}},
		"Entrypoint emptied":           {[]string{"--entrypoint", ""}, "both", []string{"echo", "bare"}, want{stdout: "bare\n"}},
		"neither":                      {nil, "neither", nil, want{status: 125, stderr: `^rbox: .*command`}},
		"Env":                          {nil, "env", nil, want{stdout: "image,/image/bin:/bin:/usr/bin,,with=equals\n"}},
		"Env replaced":                 {[]string{"-e", "A=flag"}, "env", nil, want{match: `^flag,`}},
		"User by name":                 {nil, "user-name", nil, want{stdout: "app\napp\n1501 1600 1601\n/home/app\n"}},
		"User by number":               {nil, "user-id", nil, want{stdout: "1234\n4321\n"}},
		"User with a group":            {nil, "user-group", nil, want{stdout: "app\nextra\n"}},
		"User replaced":                {[]string{"-u", "0"}, "user-id", nil, want{stdout: "0\n0\n"}},
		"User that passwd lacks":       {nil, "user-gone", nil, want{status: 125, stderr: `not-in-passwd`}},
		"WorkingDir":                   {nil, "workdir", nil, want{stdout: "/made/by/config\n"}},
		"WorkingDir replaced":          {[]string{"-w", "/tmp"}, "workdir", nil, want{stdout: "/tmp\n"}},
		"WorkingDir of a User":         {nil, "workdir-app", nil, want{match: `^/work\n`}},
		"Volumes hold the image's":     {nil, "volumes", nil, want{stdout: "seed\napp\n2\n"}},
		"Volumes of a read-only image": {[]string{"--read-only"}, "volumes", nil, want{stdout: "seed\napp\n2\n"}},
		"Volumes covered by -v":        {[]string{"-v", "./mine:/srv/data"}, "volumes", []string{"cat", "/srv/data/seed"}, want{stdout: "mine\n"}},
		"Labels":                       {nil, "labels", nil, want{}},
		"a script":                     {nil, "script", nil, want{stdout: "started\n"}},
	} {
		b.file("mine/seed", "mine\n", 0o644)
		t.Run(name, func(t *testing.T) {
			args := slices.Concat([]string{"run", "--rm"}, tc.flags, []string{tc.image}, tc.args)
			tc.want.check(t, b.rbox(args...))
		})
	}
}

// Names are looked up in the image, where links cannot lead out of it.
func TestImagePasswdIsReadInTheImage(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.load("links:latest", alpineImage(t, v1.Config{User: "inside", Cmd: []string{"id", "-u"}}, layer(t,
		images.Entry{Name: "etc/passwd", Link: "/opt/accounts"},
		images.Entry{Name: "etc/group", Link: "../../../../../opt/groups"},
		images.Entry{Name: "opt/accounts", Data: "inside:x:77:78::/:\n"},
		images.Entry{Name: "opt/groups", Data: "inside:x:78:\n"},
	)))
	want{stdout: "77\n"}.check(t, b.rbox("run", "--rm", "links"))

	hostile := map[string]string{
		"no colons":    "inside\n",
		"few fields":   "inside:x:1\n",
		"no number":    "inside:x:root:0::/:\n",
		"negative":     "inside:x:-1:0::/:\n",
		"much too big": "inside:x:99999999999999999999:0::/:\n",
		"a NUL":        "in\x00side:x:1:1::/:\n",
	}
	for name, passwd := range hostile {
		t.Run(name, func(t *testing.T) {
			b.load("hostile:latest", alpineImage(t, v1.Config{User: "inside", Cmd: []string{"id", "-u"}}, layer(t,
				images.Entry{Name: "etc/passwd", Data: passwd})))
			want{status: 125, stderr: `^rbox: `}.check(t, b.rbox("run", "--rm", "hostile"))
		})
	}
}
