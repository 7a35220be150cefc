package tests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
)

// volumes lists all volumes of b.
func (b *box) volumes(flags ...string) []string {
	b.t.Helper()
	return strings.Fields(b.must(append([]string{"volume", "ls", "-q"}, flags...)...))
}

// want checks which volumes there are.
func (b *box) wantVolumes(names ...string) {
	b.t.Helper()
	if got := b.volumes(); !slices.Equal(got, names) {
		b.t.Errorf("volumes %q, want %q", got, names)
	}
}

func TestVolumeCommands(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.own(filepath.Join(b.home, "mine"))
	for _, step := range []struct {
		args string
		want want
	}{
		{"volume create data", want{stdout: "data\n"}},
		{"volume create --label a=b --label c data", want{stdout: "data\n"}},
		{"volume create --label a=b --label c labelled", want{stdout: "labelled\n"}},
		{"volume create -d local --opt type=none --opt o=bind --opt device=" + b.home + "/mine mine", want{stdout: "mine\n"}},
		{"volume create", want{match: `^[0-9a-f]{64}\n$`}},
		{"volume create x", want{status: 125, stderr: "too short"}},
		{"volume create ./x", want{status: 125, stderr: "invalid characters"}},
		{"volume create -d nfs xx", want{status: 125, stderr: "nfs"}},
		{"volume create --opt type=tmpfs --opt device=tmpfs xx", want{status: 125, stderr: "takes root"}},
		{"volume create --opt type=none --opt o=bind --opt device=/no/such xx", want{status: 125, stderr: "/no/such"}},
		{"volume create --opt size=1g xx", want{status: 125, stderr: "size=1g"}},
		{"volume ls", want{match: `^DRIVER +VOLUME NAME\n(local +[0-9a-f]{64}\n)?local +data\n(local +[0-9a-f]{64}\n)?local +labelled\nlocal +mine\n$`}},
		{"volume list -q -f name=a", want{match: `(?s)data\n.*labelled\n$`}},
		{"volume ls -q -f label=a", want{stdout: "labelled\n"}},
		{"volume ls -q -f label=a=b -f label=c", want{stdout: "labelled\n"}},
		{"volume ls -q -f label=a=c", want{match: "^$"}},
		{"volume ls -q -f name=data -f name=mine -f driver=local -f dangling=true", want{stdout: "data\nmine\n"}},
		{"volume ls -q -f dangling=false", want{match: "^$"}},
		{"volume ls -f colour=red", want{status: 125, stderr: "colour"}},
		{"volume ls -f name=labelled --format {{.Name}}:{{.Driver}}:{{.Labels}}:{{.Label\u00a0\"a\"}}", want{stdout: "labelled:local:a=b,c=:b\n"}},
		{"volume ls -f name=data --format json", want{match: `^\{"Availability":"N/A","Driver":"local",.*"Mountpoint":"` + b.root + `/volumes/data/_data","Name":"data","Scope":"local","Size":"N/A","Status":"N/A"\}\n$`}},
		{"volume inspect --format {{.Mountpoint}} data", want{stdout: b.root + "/volumes/data/_data\n"}},
		{"volume inspect nosuch", want{status: 125, stdout: "[]\n", stderr: "no such volume: nosuch"}},
		{"volume rm nosuch", want{status: 125, stderr: "no such volume: nosuch"}},
		{"volume rm -f nosuch", want{stdout: "nosuch\n"}},
		{"volume rm data nosuch mine", want{status: 125, stdout: "data\nmine\n", stderr: "nosuch"}},
		{"volume prune -f", want{match: `^Deleted Volumes:\n[0-9a-f]{64}\n\nTotal reclaimed space: 0B\n$`}},
		{"volume prune -f -a --filter label!=a", want{stdout: "Total reclaimed space: 0B\n"}},
		{"volume prune -f -a --filter until=1h", want{status: 125, stderr: "until"}},
		{"volume ls -q", want{stdout: "labelled\n"}},
	} {
		args := strings.Split(step.args, " ")
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "\u00a0", " ")
		}
		got := b.rbox(args...)
		step.want.check(t, got)
		if t.Failed() {
			t.Fatal(step.args)
		}
	}
	if _, err := os.Stat(filepath.Join(b.home, "mine")); err != nil {
		t.Error(err)
	}

	var details []map[string]any
	if err := json.Unmarshal([]byte(b.must("volume", "inspect", "labelled")), &details); err != nil || len(details) != 1 {
		t.Fatal(err)
	}
	d := details[0]
	if made, err := time.Parse(time.RFC3339, fmt.Sprint(d["CreatedAt"])); err != nil || time.Since(made) > time.Hour {
		t.Errorf("CreatedAt: %v", d["CreatedAt"])
	}
	delete(d, "CreatedAt")
	if got := fmt.Sprint(d); got != "map[Driver:local Labels:map[a:b c:] Mountpoint:"+b.root+"/volumes/labelled/_data Name:labelled Options:<nil> Scope:local]" {
		t.Error(got)
	}
}

func TestVolumePruneAsks(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.must("volume", "create", "data")
	prune := func(answer string) result {
		return b.do(call{args: []string{"volume", "prune", "-a"}, stdin: strings.NewReader(answer)})
	}
	for _, answer := range []string{"", "n\n", "\n"} {
		want{match: `^WARNING! This will remove all local volumes not used by at least one container\.\nAre you sure you want to continue\? \[y/N\] \n?$`}.check(t, prune(answer))
	}
	b.wantVolumes("data")
	want{match: `(?s)Deleted Volumes:\ndata\n`}.check(t, prune("y\n"))
	b.wantVolumes()
}

// withData is alpine with a directory that has more than files in it.
func withData(t testing.TB, c v1.Config) v1.Image {
	return alpineImage(t, c, layer(t,
		images.Entry{Name: "data/", UID: 33, GID: 34, Mode: 0o750},
		images.Entry{Name: "data/owned", Data: "content\n", UID: 1000, GID: 1001, Mode: 0o640},
		images.Entry{Name: "data/sub/", UID: 5, GID: 6, Mode: 0o1777},
		images.Entry{Name: "data/sub/hard", Hard: "data/owned"},
		images.Entry{Name: "data/out", Link: "/etc/passwd"},
		images.Entry{Name: "data/setuid", Data: "x", Mode: 0o4755},
		images.Entry{Name: "alias", Link: "/data"},
	))
}

// look prints all that a copy of /data has to have.
const look = `cd $0 && stat -c '%n %u:%g %a %h' . owned sub sub/hard setuid && readlink out && cat owned`

func seen(dir, owned, sub, file string) string {
	return fmt.Sprintf(". %s 750 3\nowned %s 640 2\nsub %s 1777 2\nsub/hard %s 640 2\nsetuid %s 4755 1\n/etc/passwd\ncontent\n", dir, owned, sub, owned, file)
}

// A new volume has what the image has, on every rung, and keeps what is written.
func TestVolumeFirstUse(t *testing.T) {
	t.Parallel()
	all := seen("33:34", "1000:1001", "5:6", "0:0")
	for name, tc := range map[string]struct {
		options []boxOption
		flags   []string
		want    string
	}{
		"overlay": {want: all},
		// fuse-overlayfs does not show that files of an image are linked.
		"fuse-overlayfs": {options: []boxOption{withEnv("RBOX_STORAGE_DRIVER=fuse-overlayfs")}, want: strings.ReplaceAll(all, "640 2", "640 1")},
		"copy":           {options: []boxOption{withEnv("RBOX_STORAGE_DRIVER=copy")}, want: all},
		"keep-id":        {flags: []string{"--userns", "keep-id", "-u", "0"}, want: all},
		"one id":         {options: []boxOption{as(single(t))}, want: seen("0:0", "0:0", "0:0", "0:0")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, append(tc.options, noImage)...)
			b.load("data:latest", withData(t, v1.Config{Cmd: []string{"sh"}}))
			on := func(script string, flags ...string) result {
				args := slices.Concat([]string{"run", "--rm"}, tc.flags, flags, []string{"data", "sh", "-c", script, "/data"})
				return b.rbox(args...)
			}
			want{stdout: tc.want}.check(t, on(look, "-v", "vol:/data"))
			want{stdout: tc.want}.check(t, on(look, "-v", "vol:/alias:ro"))
			want{stdout: tc.want}.check(t, on(look, "--mount", "src=linked,dst=/alias"))
			want{stdout: tc.want}.check(t, on(look, "-v", "readonly:/data:ro"))
			want{}.check(t, on("echo new >/data/new && rm /data/owned", "-v", "vol:/data"))
			want{stdout: "new\nout\nsetuid\nsub\n"}.check(t, on("ls /mnt", "--mount", "type=volume,source=vol,target=/mnt,readonly"))
			want{match: "Read-only file system"}.check(t, on("touch /data/x 2>&1 || true", "-v", "vol:/data:ro"))
			want{stdout: "0\n"}.check(t, on("ls /data | wc -l", "-v", "none:/data:nocopy"))
			want{stdout: "0\n"}.check(t, on("ls /data | wc -l", "--mount", "type=volume,src=none,dst=/data,volume-nocopy=true"))
			want{stdout: tc.want}.check(t, on(look, "-v", "none:/data"))
			b.wantVolumes("linked", "none", "readonly", "vol")
			b.must("volume", "rm", "linked", "none", "readonly", "vol")
			if left, _ := filepath.Glob(filepath.Join(b.root, "volumes", "*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func TestVolumeWithoutContent(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.file("app/node_modules/host", "", 0o644)
	b.file("mine/kept", "", 0o644)
	b.must("volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device="+b.home+"/mine", "mine")
	for name, tc := range map[string]struct {
		flags  []string
		script string
		want   want
	}{
		"no such directory":            {[]string{"-v", "a1:/new/dir"}, "stat -c '%u:%g %a' /new/dir; ls /new/dir | wc -l", want{stdout: "0:0 755\n0\n"}},
		"of a keep-id user":            {[]string{"-v", "a2:/new/dir", "--userns", "keep-id"}, "touch /new/dir/x && echo ok", want{stdout: "ok\n"}},
		"over a file":                  {[]string{"-v", "a3:/etc/passwd"}, "true", want{status: 125, stderr: "/etc/passwd"}},
		"anonymous, in what is bound":  {[]string{"-v", "./app:/app", "-v", "/app/node_modules"}, "ls /app/node_modules | wc -l", want{stdout: "0\n"}},
		"in a read-only root":          {[]string{"-v", "a4:/opt", "--read-only"}, "touch /opt/x && echo ok", want{stdout: "ok\n"}},
		"in a volume":                  {[]string{"-v", "a5:/a/b", "-v", "a6:/a"}, "touch /a/6 /a/b/5; ls /a /a/b", want{stdout: "/a:\n6\nb\n\n/a/b:\n5\n"}},
		"two targets":                  {[]string{"-v", "a7:/x", "-v", "a7:/y"}, "touch /x/f && ls /y", want{stdout: "f\n"}},
		"of a directory":               {[]string{"-v", "mine:/etc"}, "ls /etc", want{match: `(?m)^kept$`}},
		"under another mount":          {[]string{"--tmpfs", "/t", "-v", "a8:/u", "--mount", "type=tmpfs,dst=/u"}, "grep -c ' /u tmpfs ' /proc/mounts", want{stdout: "1\n"}},
		"a name that is none":          {[]string{"-v", "x:/x"}, "true", want{status: 125, stderr: "too short"}},
		"a directory taken for a name": {[]string{"--mount", "source=./app,target=/app"}, "true", want{status: 125, stderr: "type=bind"}},
	} {
		t.Run(name, func(t *testing.T) { tc.want.check(t, b.sh(tc.script, tc.flags...)) })
	}
}

// Containers that start with one new volume all find it whole.
func TestVolumeSharedFirstUse(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.load("many:latest", manyFiles(t))
	var all []*process
	for range 6 {
		all = append(all, b.start(call{args: []string{"run", "--rm", "-v", "shared:/many", "many", "sh", "-c", "ls /many | wc -l; cat /many/999"}}))
	}
	for _, p := range all {
		want{stdout: "1000\n999\n"}.check(t, p.wait())
	}
}

func manyFiles(t testing.TB) v1.Image {
	entries := []images.Entry{{Name: "many/", UID: 7}}
	for i := range 1000 {
		entries = append(entries, images.Entry{Name: fmt.Sprintf("many/%d", i), Data: fmt.Sprintln(i), UID: i})
	}
	return alpineImage(t, v1.Config{Cmd: []string{"sh"}}, layer(t, entries...))
}

// Whenever a first use is killed, the next finds the volume whole.
func TestVolumeKilledAtFirstUse(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.load("many:latest", manyFiles(t))
	count := []string{"run", "--rm", "-v", "vol:/many", "-v", "/many/sub", "many", "sh", "-c", "ls /many | grep -vc sub; stat -c %u /many /many/999"}
	for delay := 2 * time.Millisecond; delay < 150*time.Millisecond; delay = delay * 3 / 2 {
		p := b.start(call{args: count})
		time.Sleep(delay)
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // and the monitor
		p.wait()
		want{stdout: "1000\n7\n999\n"}.check(t, b.rbox(count...))
		b.must("volume", "rm", "vol")
	}
	b.must("volume", "prune", "-f") // of one killed before its container was whole
	b.wantVolumes()
}

func TestAnonymousVolumes(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.load("data:latest", withData(t, v1.Config{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"/data": {}, "/made": {}}}))
	b.must("volume", "create", "named")

	want{stdout: seen("33:34", "1000:1001", "5:6", "0:0")}.check(t, b.rbox("run", "--rm", "-v", "/more", "-v", "named:/n", "data", "sh", "-c", look, "/data"))
	if !eventually(10*time.Second, func() bool { return len(b.volumes()) == 1 }) {
		t.Errorf("after --rm: %q", b.volumes())
	}
	want{stdout: "new\n"}.check(t, b.rbox("run", "--name", "kept", "-v", "named:/data:nocopy", "data", "sh", "-c", "echo new >/made/file; cat /made/file"))
	all := b.volumes()
	if len(all) != 2 || !regexp.MustCompile("^[0-9a-f]{64}$").MatchString(all[0]) || all[1] != "named" {
		t.Fatalf("%q", all)
	}
	want{stdout: "Total reclaimed space: 0B\n"}.check(t, b.rbox("volume", "prune", "-f", "-a"))
	want{status: 125, stderr: `remove named: volume is in use - \[[0-9a-f]{64}\]`}.check(t, b.rbox("volume", "rm", "named"))
	want{match: "^$"}.check(t, b.rbox("volume", "ls", "-q", "-f", "dangling=true"))
	b.must("rm", "kept")
	want{stdout: "Deleted Volumes:\n" + all[0] + "\n\nTotal reclaimed space: 4B\n"}.check(t, b.rbox("volume", "prune", "-f"))
	b.wantVolumes("named")

	// What did not start leaves none.
	want{status: 127}.check(t, b.rbox("run", "--rm", "data", "nosuch"))
	want{status: 125}.check(t, b.rbox("run", "--rm", "-v", "/x", "-v", "named:/etc/passwd", "data"))
	b.must("run", "--name", "taken", "-v", "named:/data", "-v", "named:/made", "data")
	want{status: 125, stderr: "already in use"}.check(t, b.rbox("run", "--name", "taken", "data"))
	if !eventually(10*time.Second, func() bool { return len(b.volumes()) == 1 }) {
		t.Errorf("after failures: %q", b.volumes())
	}
	b.must("rm", "taken")

	// What was killed leaves none to the next command.
	p := b.start(call{args: []string{"run", "--rm", "data", "sh", "-c", "echo up; sleep 1000"}})
	p.see("up\n")
	below := children(p.cmd.Process.Pid)
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.wait()
	if !eventually(10*time.Second, func() bool { return !anyAlive(below) }) {
		t.Fatal("the monitor lives on")
	}
	b.must("run", "--rm", "-v", "named:/data", "-v", "named:/made", "data")
	b.wantVolumes("named")
}

func TestVolumeInUse(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	p := b.start(call{args: []string{"run", "--rm", "-i", "-v", "data:/data", "alpine", "sh", "-c", "echo up; cat; ls /data"}, stdin: blockedReader(t)})
	p.see("up\n")
	want{status: 125, stderr: "in use"}.check(t, b.rbox("volume", "rm", "data"))
	want{status: 125, stderr: "in use"}.check(t, b.rbox("volume", "rm", "-f", "data"))
	want{match: "^Total"}.check(t, b.rbox("volume", "prune", "-af"))
	p.signal(syscall.SIGKILL)
	p.wait()
	if !eventually(10*time.Second, func() bool { return b.rbox("volume", "rm", "data").status == 0 }) {
		t.Error("still in use after the end")
	}

	// A container of another host that shares the folder counts.
	b.must("volume", "create", "data")
	id := strings.Repeat("a", 64)
	dir := b.own(filepath.Join(b.root, "containers", "0123456789abcdef", "kept", id))
	b.own(filepath.Join(b.root, "containers", "0123456789abcdef", "passing"))
	config := filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, []byte(`{"ID":"`+id+`","Volumes":[{"Name":"data","Target":"/x"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	want{status: 125, stderr: regexp.QuoteMeta("remove data: volume is in use - [" + id + "]")}.check(t, b.rbox("volume", "rm", "data"))
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	b.must("volume", "rm", "data")
}

// Commands at once make one volume of a name, and none in use goes away.
func TestVolumesAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	var runs, removals []*process
	for range 5 {
		runs = append(runs, b.start(call{args: []string{"run", "--rm", "-v", "data:/data", "-v", "/anon", "alpine", "sh", "-c", "touch /data/$HOSTNAME && ls /data/$HOSTNAME | wc -l"}}))
		removals = append(removals, b.start(call{args: []string{"volume", "prune", "-af"}}), b.start(call{args: []string{"volume", "rm", "-f", "data"}}))
	}
	for _, p := range runs {
		want{stdout: "1\n"}.check(t, p.wait())
	}
	for _, p := range removals {
		if got := p.wait(); got.status != 0 && !strings.Contains(got.stderr, "in use") {
			t.Errorf("%s: %v", p.name, got)
		}
	}
	b.must("volume", "prune", "-af")
	b.wantVolumes()
}

// A container that starts again finds its volumes as it left them.
func TestVolumeStartedAgain(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.load("data:latest", withData(t, v1.Config{Cmd: []string{"sh"}, Volumes: map[string]struct{}{"/data/sub": {}}}))
	b.must("create", "--name", "again", "-v", "vol:/data", "data", "sh", "-c", "ls /data | wc -l; rm -rf /data/* 2>/dev/null; touch /data/sub/x; ls /data/sub")
	b.must("volume", "rm", "-f", "nosuch")
	want{status: 125, stderr: "in use"}.check(t, b.rbox("volume", "rm", "vol"))
	want{stdout: "4\nx\n"}.check(t, b.rbox("start", "-a", "again"))
	want{stdout: "1\nx\n"}.check(t, b.rbox("start", "-a", "again"))
	b.must("rm", "again")
	if all := b.volumes(); len(all) != 2 {
		t.Errorf("after rm: %q", all)
	}
	b.must("volume", "prune", "-af")
}

func TestVolumesInTheBackground(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for _, end := range [][]string{{"stop", "-t", "0"}, {"kill"}, {"rm", "-f"}} {
		b.must("run", "-d", "--rm", "--name", "back", "-v", "named:/named", "-v", "/anon", "alpine", "sleep", "1000")
		want{status: 125, stderr: "in use"}.check(t, b.rbox("volume", "rm", "named"))
		b.must(append(end, "back")...)
		if !eventually(10*time.Second, func() bool { return slices.Equal(b.volumes(), []string{"named"}) }) {
			t.Errorf("after %q: %q", end, b.volumes())
		}
		if !eventually(10*time.Second, func() bool { return b.rbox("volume", "rm", "named").status == 0 }) {
			t.Errorf("after %q: still in use", end)
		}
	}
}

// rm -v takes the anonymous volumes along that nobody else uses.
func TestRemoveWithVolumes(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "--name", "one", "-v", "named:/named", "-v", "/anon", "alpine", "touch", "/anon/file")
	anonymous := b.volumes()[0]
	b.must("run", "--name", "two", "-v", anonymous+":/x", "-v", "/anon", "alpine", "ls", "/x/file")
	b.must("rm", "-v", "one")
	b.must("rm", "-v", "two")
	if got := b.volumes(); !slices.Equal(got, []string{anonymous, "named"}) {
		t.Errorf("%q", got)
	}
	b.must("run", "-d", "--name", "three", "-v", "/anon", "alpine", "sleep", "1000")
	b.must("rm", "-f", "-v", "three")
	if got := b.volumes(); !slices.Equal(got, []string{anonymous, "named"}) {
		t.Errorf("%q", got)
	}
}
