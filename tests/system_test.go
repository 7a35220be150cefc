package tests

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
)

func TestPrune(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("tag", "alpine", "used:1")
	b.load("unused:1", alpineImage(t, v1.Config{}, layer(t, images.Entry{Name: "extra", Data: "text"})))
	b.must("run", "--name", "old", "-l", "keep=no", "used:1", "sh", "-c", "echo text >/file")
	b.must("run", "--name", "kept", "-l", "keep=yes", "used:1", "true")
	b.must("run", "-d", "--name", "up", "used:1", "sleep", "1000")
	answer := func(text string, args ...string) result {
		return b.do(call{args: args, stdin: strings.NewReader(text)})
	}
	for _, step := range []struct {
		name string
		got  result
		want want
	}{
		{"no", answer("n\n", "container", "prune"), want{match: `^WARNING! This will remove all stopped containers.\nAre you sure you want to continue\? \[y/N\] `}},
		{"no answer", answer("", "container", "prune"), want{match: `\[y/N\] `}},
		{"still there", b.rbox("ps", "-a", "--format", "{{.Names}}"), want{stdout: "up\nkept\nold\n"}},
		{"too young", b.rbox("container", "prune", "-f", "--filter", "until=1h"), want{stdout: "Total reclaimed space: 0B\n"}},
		{"a label", answer("y\n", "container", "prune", "--filter", "label!=keep=yes"), want{match: `(?s)Deleted Containers:\n[0-9a-f]{64}\n\nTotal reclaimed space: 5B\n$`}},
		{"one is left", b.rbox("ps", "-a", "--format", "{{.Names}}"), want{stdout: "up\nkept\n"}},
		{"in use", b.rbox("rmi", "used:1", "alpine"), want{status: 125, stdout: "Untagged: used:1\n", stderr: `unable to remove repository reference "alpine:latest" \(must force\) - container (up|kept) is using its referenced image [0-9a-f]{12}`}},
		{"in use, by id", b.rbox("rmi", strings.TrimSpace(b.must("images", "-q", "alpine"))), want{status: 125, stderr: `unable to delete [0-9a-f]{12} \(cannot be forced\) - image is being used by running container up`}},
		{"nothing hangs", b.rbox("image", "prune", "-f"), want{stdout: "Total reclaimed space: 0B\n"}},
		{"unused images", b.rbox("image", "prune", "-af"), want{match: `^Deleted Images:\nuntagged: unused:1\ndeleted: sha256:[0-9a-f]{64}\n\nTotal reclaimed space: [1-9][0-9.]*[kM]?B\n$`}},
		{"the used stays", b.rbox("images", "--format", "{{.Repository}}"), want{stdout: "alpine\n"}},
		{"no such filter", b.rbox("system", "prune", "-f", "--filter", "colour=red"), want{status: 125, stderr: "filters are until, label"}},
		{"no such time", b.rbox("image", "prune", "-f", "--filter", "until=soon"), want{status: 125, stderr: "that is no time"}},
	} {
		t.Run(step.name, func(t *testing.T) { step.want.check(t, step.got) })
	}
	b.must("rm", "-f", "up")
	b.must("volume", "create", "named")
	want{match: `(?s)Deleted Containers:\n[0-9a-f]{64}\n\nDeleted Images:\nuntagged: alpine:latest\ndeleted: sha256:.*Total reclaimed space: `}.check(t, b.rbox("system", "prune", "-af", "--volumes"))
	want{stdout: "named\n"}.check(t, b.rbox("volume", "ls", "-q"))
	want{match: "^$"}.check(t, b.rbox("images", "-q"))
	b.must("volume", "rm", "named")
}

func TestSystemDf(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "--name", "one", "-v", "data:/data", "alpine", "sh", "-c", "echo text >/file; echo more >/data/file")
	want{match: `^TYPE +TOTAL +ACTIVE +SIZE +RECLAIMABLE\nImages +1 +1 +[0-9.]+[kM]B +0B \(0%\)\nContainers +1 +0 +5B +5B \(100%\)\nLocal Volumes +1 +1 +5B +0B \(0%\)\n$`}.check(t, b.rbox("system", "df"))
	want{stdout: "Images 1\nContainers 1\nLocal Volumes 1\n"}.check(t, b.rbox("system", "df", "--format", "{{.Type}} {{.TotalCount}}"))
	want{match: `(?s)^Images space usage:.*alpine +latest.*Containers space usage:.* 5B .*one\n.*Local Volumes space usage:.*data +1 +5B\n$`}.check(t, b.rbox("system", "df", "-v"))
	want{match: `(?s)Containers: 1\n.*Images: 1\n.*Storage Driver: .*Root Dir: `}.check(t, b.rbox("info"))
	want{stdout: "1 1\n"}.check(t, b.rbox("system", "info", "-f", "{{.Containers}} {{.Images}}"))
	want{match: `^\S+ \S+\n$`}.check(t, b.rbox("version", "--format", "{{.Version}} {{.Server.Version}}"))
	b.must("rm", "one")
	b.must("volume", "rm", "data")
}

// Each kind of damage is found, said in a line, and mended.
func TestSystemCheck(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "--name", "one", "alpine", "true")
	want{stdout: "all is well\n"}.check(t, b.rbox("system", "check"))
	one := func(pattern string) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(b.root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		return found[0]
	}
	host := filepath.Dir(one("containers/*/kept"))
	write := func(path, text string) error {
		return errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Lchown(path, int(b.who.UID), int(b.who.GID)))
	}
	for name, damage := range map[string]struct {
		do   func() error
		want string
	}{
		"a layer has lost a file": {func() error { return os.Remove(one("layers/*/*/diff/bin/busybox")) }, `unpacked layer [0-9a-f]{12} is damaged: it holds [0-9]+ bytes instead of [0-9]+`},
		"a layer has no record":   {func() error { return write(one("layers/*/*/layer.json"), "{") }, `unpacked layer [0-9a-f]{12} is damaged: its record is damaged`},
		"a name without an image": {func() error { return write(filepath.Join(b.root, "refs/bad"), "text") }, "an image's name that points nowhere"},
		"a name without a container": {func() error { return os.Symlink(strings.Repeat("a", 64), filepath.Join(host, "names/ghost")) },
			"the name ghost is that of no container"},
		"a name that a rename left": {func() error {
			return os.Symlink(filepath.Base(one("containers/*/kept/*")), filepath.Join(host, "names/former"))
		}, "the name former is that of no container"},
		"a container without its name": {func() error { return os.Remove(filepath.Join(host, "names/one")) }, "is not found by its name one"},
		"a state that is none":         {func() error { return write(filepath.Join(one("containers/*/kept/*"), "state.json"), "{") }, "has a state that cannot be read"},
		"a container without work":     {func() error { return os.RemoveAll(filepath.Join(one("containers/*/kept/*"), "work")) }, "has lost .*/work"},
		"a download":                   {func() error { return write(filepath.Join(b.root, "blobs/partial/sha256-aa"), "text") }, "a download that was not finished"},
		"another version":              {func() error { return os.MkdirAll(b.own(filepath.Join(b.root, "stage/0123")), 0o755) }, "executables of another version of rbox: .*/stage/0123"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := damage.do(); err != nil {
				t.Fatal(err)
			}
			line := regexp.MustCompile("^(mended: )?.*" + damage.want + ".*\n$")
			status := 1
			if name == "another version" { // which does no harm
				status = 0
			}
			if got := b.rbox("system", "check"); got.status != status || !line.MatchString(got.stdout) {
				t.Errorf("check: %v", got)
			}
			if got := b.rbox("system", "check", "--repair"); got.status != 0 || !line.MatchString(got.stdout) {
				t.Errorf("repair: %v", got)
			}
			want{stdout: "all is well\n"}.check(t, b.rbox("system", "check"))
			want{stdout: "3.20.3\n"}.check(t, b.rbox("run", "--rm", "alpine", "cat", "/etc/alpine-release"))
		})
	}
	t.Run("a damaged archive", func(t *testing.T) {
		var largest string
		var size int64
		blobs, _ := filepath.Glob(filepath.Join(b.root, "blobs/sha256/*"))
		for _, f := range blobs {
			if st, err := os.Stat(f); err == nil && st.Size() > size {
				largest, size = f, st.Size()
			}
		}
		if err := write(largest, "text"); err != nil {
			t.Fatal(err)
		}
		want{status: 1, match: "a blob that is not what its name says: .*\n.*lacks the archive of layer"}.check(t, b.rbox("system", "check"))
		want{status: 1, match: "mended: a blob .*\n.*lacks the archive of layer", stderr: "pull or load"}.check(t, b.rbox("system", "check", "--repair"))
		b.must("import", run.alpine, "alpine")
		want{stdout: "all is well\n"}.check(t, b.rbox("system", "check"))
	})
	b.must("rm", "one")
}
