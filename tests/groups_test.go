package tests

import (
	"strings"
	"testing"
)

// Docker's longer forms of the commands, and Podman's exists.
func TestGroups(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	for group, verbs := range map[string]string{
		"container": "attach commit cp create diff exec exists export inspect kill list logs ls pause prune ps rename restart rm run start stop top unpause wait",
		"image":     "exists history import inspect list load ls prune pull rm save tag",
		"volume":    "create exists inspect list ls prune rm",
		"system":    "check df events info prune",
	} {
		for verb := range strings.FieldsSeq(verbs) {
			want{match: `(?m)^Usage: rbox `}.check(t, b.rbox(group, verb, "--help"))
		}
		want{status: 125, stderr: "a command is missing"}.check(t, b.rbox(group))
		want{status: 125, stderr: `has no command "frob"`}.check(t, b.rbox(group, "frob"))
	}
}

func TestContainerGroup(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	id := b.must("container", "run", "-d", "--name", "one", "alpine", "sleep", "1000")
	b.must("container", "create", "--name", "two", "alpine", "sh", "-c", "echo two; exit 3")
	for _, step := range []struct {
		args string
		want want
	}{
		{"container run --rm --network none alpine echo hi", want{stdout: "hi\n"}},
		{"container run --rm --init=true alpine sh -c exit\u00a04", want{status: 4}}, // what the front leaves to the whole
		{"container run --nosuch alpine", want{status: 125, stderr: "--nosuch"}},
		{"container run", want{status: 125, stderr: "IMAGE is missing"}},
		{"container start -a two", want{status: 3, stdout: "two\n"}},
		{"container logs two", want{stdout: "two\n"}},
		{"container wait two", want{stdout: "3\n"}},
		{"container exec one echo in", want{stdout: "in\n"}},
		{"container ls -q --no-trunc", want{stdout: id + "\n"}},
		{"container list -aqf name=two", want{match: "^[0-9a-f]{12}\n$"}},
		{"container inspect -f {{.Name}} one", want{stdout: "/one\n"}},
		{"container inspect alpine", want{status: 125, stderr: "no such container: alpine"}},
		{"inspect -f {{.Id}}\u00a0{{.Config.Entrypoint}}\u00a0{{.ID}} alpine", want{match: `^sha256:[0-9a-f]{64} \[\] sha256:[0-9a-f]{64}\n$`}},
		{"inspect --type wine one", want{status: 125, stderr: "choose one of container, image, volume"}},
		{"container rename two two", want{status: 125, stderr: "has that name already"}},
		{"container rename two three", want{}},
		{"container rename three two", want{}},
		{"system events --since 1h --no-stream -f event=rename --format {{.Actor.Attributes.oldName}}", want{stdout: "/two\n/three\n"}},
		{"container run --rm --health-interval soon alpine true", want{status: 125, stderr: "--health-interval soon"}},
		{"container run -d --name ill --health-cmd [\u00a0-e\u00a0/ok\u00a0] --health-interval 1h alpine sleep 1000", want{match: "^[0-9a-f]{64}\n$"}},
		{"inspect -f {{.Config.Healthcheck.Test}} ill", want{stdout: "[CMD-SHELL [ -e /ok ]]\n"}},
		{"rm -f ill", want{stdout: "ill\n"}},
		{"container kill no-1 no-2", want{status: 125, stderr: `\Arbox: no such container: no-1\nrbox: no such container: no-2\nrbox: hint: [^\n]*\n\z`}},
		{"tag alpine BAD\u00a0NAME", want{status: 125, stderr: `hint: names look like`}},
		{"ps -n x", want{status: 125, stderr: `--last: want a number, not "x"`}},
		{"container exists one", want{}},
		{"container exists " + id[:12], want{}},
		{"container exists alpine", want{status: 1, match: "^$"}},
		{"image exists alpine", want{}},
		{"image exists one", want{status: 1, match: "^$"}},
		{"volume exists none", want{status: 1, match: "^$"}},
		{"volume exists ./x", want{status: 1}},
		{"container kill one", want{stdout: "one\n"}},
		{"container rm one two", want{stdout: "one\ntwo\n"}},
		{"container exists one", want{status: 1}},
	} {
		var args []string
		for word := range strings.SplitSeq(step.args, " ") {
			args = append(args, strings.ReplaceAll(word, "\u00a0", " "))
		}
		t.Log(step.args)
		step.want.check(t, b.rbox(args...))
	}
}
