package tests

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
)

// changes is a script that does to a tree what there is to do, and what diff says of it.
const changes = `echo x >>/etc/passwd; rm /etc/motd; rm -r /opt; rm -r /etc/apk; mkdir /etc/apk; echo new >/etc/apk/new
	mkdir -p /made/below; echo y >/made/f; ln /made/f /made/g; chown 12:34 /made/f; ln -s /etc/x /made/l; mkfifo /made/p; chmod 4711 /bin/busybox; mv /media /media2`

const changed = `C /bin
C /bin/busybox
C /etc
C /etc/apk
D /etc/apk/arch
D /etc/apk/keys
A /etc/apk/new
D /etc/apk/protected_paths.d
D /etc/apk/repositories
D /etc/apk/world
D /etc/motd
C /etc/passwd
A /made
A /made/below
A /made/f
A /made/g
A /made/l
A /made/p
D /media
A /media2
A /media2/cdrom
A /media2/floppy
A /media2/usb
D /opt
`

// Each storage driver tells the same of a container, and makes the same image of it.
func TestDiffExportCommit(t *testing.T) {
	t.Parallel()
	if !run.real {
		t.Skip("needs Alpine's own files")
	}
	for _, driver := range []string{"overlay", "fuse-overlayfs", "copy"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, withEnv("RBOX_STORAGE_DRIVER="+driver))
			for state, name := range b.states(changes) {
				t.Run(state, func(t *testing.T) {
					wanted := changed
					if name == "up" {
						wanted += "A /ready\n"
					}
					want{stdout: wanted}.check(t, b.rbox("diff", name))
					id := b.must("commit", "-m", "what it is", name, "made/"+name+":1")
					want{stdout: id + "\n"}.check(t, b.rbox("image", "inspect", "--format", "{{.Id}}", "made/"+name+":1"))
					const look = `stat -c '%n %u:%g %a %h %F' /made/* /bin/busybox; cat /made/f /etc/apk/*; ls -d /opt /etc/motd 2>/dev/null; tail -n 1 /etc/passwd; readlink /made/l`
					want{stdout: "/made/below 0:0 755 2 directory\n/made/f 12:34 644 2 regular file\n/made/g 12:34 644 2 regular file\n" +
						"/made/l 0:0 777 1 symbolic link\n/made/p 0:0 644 1 fifo\n/bin/busybox 0:0 4711 1 regular file\ny\nnew\nx\n/etc/x\n"}.check(t,
						b.rbox("run", "--rm", "made/"+name+":1", "sh", "-c", look))
				})
			}
			got := b.rbox("export", "up")
			checkExport(t, got)
			b.must("export", "-o", "out.tar", "down")
			text, err := os.ReadFile(filepath.Join(b.home, "out.tar"))
			if err != nil {
				t.Fatal(err)
			}
			checkExport(t, result{stdout: string(text)})
			b.must("import", "out.tar", "flat")
			want{stdout: "y\n"}.check(t, b.rbox("run", "--rm", "flat", "cat", "/made/g"))
		})
	}
}

func checkExport(t *testing.T, got result) {
	t.Helper()
	want{}.check(t, got)
	entries := map[string]*tar.Header{}
	for r := tar.NewReader(strings.NewReader(got.stdout)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		entries[h.Name] = h
		for _, dir := range []string{"proc/", "sys/", "dev/"} {
			if strings.HasPrefix(h.Name, dir) && h.Name != dir {
				t.Errorf("%s is in the archive", h.Name)
			}
		}
	}
	for name, check := range map[string]func(*tar.Header) bool{
		"made/f":      func(h *tar.Header) bool { return h.Uid == 12 && h.Gid == 34 && h.Size == 2 },
		"made/g":      func(h *tar.Header) bool { return h.Typeflag == tar.TypeLink && h.Linkname == "made/f" },
		"made/l":      func(h *tar.Header) bool { return h.Linkname == "/etc/x" },
		"bin/busybox": func(h *tar.Header) bool { return h.Mode&0o7777 == 0o4711 },
		"etc/shadow":  func(h *tar.Header) bool { return h.Gid == 42 },
		"proc/":       func(h *tar.Header) bool { return h.Typeflag == tar.TypeDir },
	} {
		if h := entries[name]; h == nil || !check(h) {
			t.Errorf("%s is %+v", name, h)
		}
	}
	if entries["etc/motd"] != nil || entries["opt/"] != nil {
		t.Error("what was deleted is in the archive")
	}
}

// The configuration of a committed image is the container's, and what -c says.
func TestCommitConfig(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	b.load("base:latest", alpineImage(t, v1.Config{
		Entrypoint: []string{"echo"}, Cmd: []string{"from", "image"}, Env: []string{"A=image", "B=image"},
		WorkingDir: "/usr", User: "1000", Labels: map[string]string{"l": "image"}, ExposedPorts: map[string]struct{}{"80/tcp": {}},
	}, layer(t, images.Entry{Name: "second", Data: "x"})))
	b.removed("one")
	b.must("run", "--name", "one", "-e", "A=run", "-l", "m=run", "base", "given", "words")
	for name, tc := range map[string]struct {
		changes []string
		format  string
		want    string
	}{
		"command":          {nil, "{{json .Config.Entrypoint}} {{json .Config.Cmd}}", `["echo"] ["given","words"]`},
		"environment":      {nil, "{{json .Config.Env}}", `["A=run","B=image"]`},
		"labels":           {nil, "{{json .Config.Labels}}", `{"l":"image","m":"run"}`},
		"user":             {nil, "{{.Config.User}} {{.Config.WorkingDir}}", "1000 /usr"},
		"ports":            {nil, "{{json .Config.ExposedPorts}}", `{"80/tcp":{}}`},
		"author, message":  {nil, "{{.Author}} {{.Comment}}", "kim a message"},
		"layers":           {nil, "{{len .RootFS.Layers}}", "3"},
		"CMD":              {[]string{`CMD ["a", "b"]`}, "{{json .Config.Cmd}}", `["a","b"]`},
		"CMD for a shell":  {[]string{`CMD a b`}, "{{json .Config.Cmd}}", `["/bin/sh","-c","a b"]`},
		"ENTRYPOINT":       {[]string{`ENTRYPOINT ["a"]`}, "{{json .Config.Entrypoint}}", `["a"]`},
		"ENV":              {[]string{`ENV A=new C="two words"`}, "{{json .Config.Env}}", `["A=new","B=image","C=two words"]`},
		"EXPOSE":           {[]string{`EXPOSE 53/udp`}, "{{json .Config.ExposedPorts}}", `{"53/udp":{},"80/tcp":{}}`},
		"LABEL":            {[]string{`LABEL l=new`}, "{{.Config.Labels.l}}", "new"},
		"USER, WORKDIR":    {[]string{"USER root", "WORKDIR /tmp"}, "{{.Config.User}} {{.Config.WorkingDir}}", "root /tmp"},
		"VOLUME":           {[]string{"VOLUME /v"}, "{{json .Config.Volumes}}", `{"/v":{}}`},
		"STOPSIGNAL":       {[]string{"STOPSIGNAL SIGINT"}, "{{.Config.StopSignal}}", "SIGINT"},
		"ONBUILD":          {[]string{"ONBUILD RUN x"}, "{{json .Config.OnBuild}}", `["RUN x"]`},
		"HEALTHCHECK":      {[]string{"HEALTHCHECK --interval=5s --retries=2 CMD test -f /x"}, "{{json .Config.Healthcheck}}", `{"Test":["CMD-SHELL","test -f /x"],"Interval":5000000000,"Retries":2}`},
		"HEALTHCHECK NONE": {[]string{"HEALTHCHECK NONE"}, "{{json .Config.Healthcheck}}", `{"Test":["NONE"]}`},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"commit", "-a", "kim", "-m", "a message"}
			for _, c := range tc.changes {
				args = append(args, "-c", c)
			}
			id := b.must(append(args, "one")...)
			want{stdout: tc.want + "\n"}.check(t, b.rbox("image", "inspect", "--format", tc.format, id))
		})
	}
	t.Run("history", func(t *testing.T) {
		b.must("commit", "-m", "why", "one", "named")
		want{match: `echo given words.*why`}.check(t, b.rbox("history", "named"))
	})
	t.Run("saved and loaded", func(t *testing.T) {
		for _, format := range []string{"docker-archive", "oci-archive"} {
			b.must("save", "--format", format, "-o", format, "named")
			id := b.must("image", "inspect", "--format", "{{.Id}}", "named")
			b.must("rmi", "-f", "named")
			b.must("load", "-i", format)
			want{stdout: id + "\n"}.check(t, b.rbox("image", "inspect", "--format", "{{.Id}}", "named"))
			want{stdout: "given words\n"}.check(t, b.rbox("run", "--rm", "named"))
		}
	})
	t.Run("again and again", func(t *testing.T) {
		from := "named"
		for i := range 3 {
			b.removed(fmt.Sprint("step", i))
			b.must("run", "-u", "0", "--entrypoint", "sh", "--name", fmt.Sprint("step", i), from, "-c", fmt.Sprintf("echo %d >>/steps", i))
			from = fmt.Sprint("step:", i)
			b.must("commit", fmt.Sprint("step", i), from)
		}
		want{stdout: "0\n1\n2\n"}.check(t, b.rbox("run", "--rm", "--entrypoint", "cat", from, "/steps"))
	})
}

func TestFilesMistakes(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	dir := b.own(filepath.Join(b.home, "rootfs"))
	want{}.check(t, b.do(call{prog: "tar", args: []string{"-C", dir, "-xzf", run.alpine, "--no-same-owner"}}))
	b.removed("one", "dir", "host")
	b.must("create", "--name", "one", "alpine", "true")
	b.must("create", "--name", "dir", "--rootfs", dir, "true")
	b.must("create", "--name", "host", "host", "true")
	for name, tc := range map[string]struct {
		args   []string
		stderr string
	}{
		"diff of none":                {[]string{"diff", "none"}, `no such container: none`},
		"export of none":              {[]string{"export", "none"}, `no such container: none`},
		"commit of none":              {[]string{"commit", "none"}, `no such container: none`},
		"diff of a directory":         {[]string{"diff", "dir"}, `started from the directory .*there is no image to compare it with`},
		"commit of a directory":       {[]string{"commit", "dir"}, `started from the directory .*there is no image to add a layer to`},
		"diff of the host":            {[]string{"diff", "host"}, `this machine's own files`},
		"commit of the host":          {[]string{"commit", "host"}, `this machine's own files`},
		"export of the host":          {[]string{"export", "host"}, `this machine's own files`},
		"export to nowhere":           {[]string{"export", "-o", "no/such/file", "one"}, `no/such/file`},
		"a bad name":                  {[]string{"commit", "one", "Bad Name"}, `Bad Name`},
		"a digest for a name":         {[]string{"commit", "one", "x@sha256:" + strings.Repeat("0", 64)}, `cannot have a digest`},
		"an unknown change":           {[]string{"commit", "-c", "RUN x", "one"}, `change "RUN x": there is no such instruction`},
		"a change without a value":    {[]string{"commit", "-c", "CMD", "one"}, `change "CMD": it has no value`},
		"a health check of nothing":   {[]string{"commit", "-c", "HEALTHCHECK CMD", "one"}, `want NONE, or CMD`},
		"a health check, unknown":     {[]string{"commit", "-c", "HEALTHCHECK --x=1 CMD y", "one"}, `no option --x=1`},
		"a health check, no interval": {[]string{"commit", "-c", "HEALTHCHECK --interval=x CMD y", "one"}, `duration`},
	} {
		t.Run(name, func(t *testing.T) {
			want{status: 125, stderr: "^rbox: .*" + tc.stderr}.checkFailed(t, b.rbox(tc.args...))
		})
	}
	if images := b.must("images", "-q"); strings.Count(images, "\n") != 0 {
		t.Errorf("failures left images: %q", images)
	}
	// A directory's files can be copied and exported all the same.
	want{match: `ID=alpine`}.check(t, b.rbox("cp", "dir:/etc/os-release", "-"))
	want{}.check(t, b.rbox("export", "-o", "dir.tar", "dir"))
}

// A container that was given other ids has the image's again in what is made of it.
func TestCommitKeepID(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.removed("kept")
	b.must("run", "--name", "kept", "--userns", "keep-id", "-u", "0", "alpine", "sh", "-c", "echo x >/f; chown 12:34 /f; echo x >/g")
	b.must("commit", "kept", "image")
	want{stdout: "12:34\n0:0\n0:42\n"}.check(t, b.rbox("run", "--rm", "image", "stat", "-c", "%u:%g", "/f", "/g", "/etc/shadow"))
	list := b.do(call{prog: "tar", args: []string{"-tv", "--numeric-owner"}, stdin: strings.NewReader(b.rbox("export", "kept").stdout)})
	want{match: ` 12/34 .* f\n`}.check(t, list)
}

func TestCommitSingleID(t *testing.T) {
	t.Parallel()
	b := newBox(t, as(single(t)), noImage)
	b.load("owners:latest", manyOwners(t))
	b.removed("one")
	b.must("run", "--name", "one", "owners", "sh", "-c", "echo more >>/owned/file-1000; echo x >/new")
	want{stdout: "A /new\nC /owned\nC /owned/file-1000\n"}.check(t, b.rbox("diff", "one"))
	list := b.do(call{prog: "tar", args: []string{"-tv", "--numeric-owner"}, stdin: strings.NewReader(b.rbox("export", "one").stdout)})
	want{match: `(?s) 0/0 .* new\n.* 1000/1000 .* owned/file-1000\n.* 999/999 .* owned/file-999\n`}.check(t, list)
	b.must("commit", "one", "image")
	want{stdout: "x\nmore\n"}.check(t, b.rbox("run", "--rm", "image", "cat", "/owned/file-1000"))
}

// What volumes hold is in none of it.
func TestCommitWithoutVolumes(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	data := b.own(filepath.Join(b.home, "data"))
	b.file("data/f", "bound\n", 0o644)
	for state, name := range b.states("echo x >/data/g; echo y >/new", "-v", data+":/data") {
		t.Run(state, func(t *testing.T) {
			want{match: `^A /data\nA /new\n`}.check(t, b.rbox("diff", name))
			b.must("commit", name, "image-"+name)
			want{stdout: "0\ny\n"}.check(t, b.rbox("run", "--rm", "image-"+name, "sh", "-c", "ls /data | wc -l; cat /new"))
			list := b.do(call{prog: "tar", args: []string{"-t"}, stdin: strings.NewReader(b.rbox("export", name).stdout)})
			if !strings.Contains(list.stdout, "\ndata/\n") || strings.Contains(list.stdout, "\ndata/f\n") {
				t.Errorf("the archive's names: %v", list)
			}
		})
	}
}

// The events of a container tell what was made of it.
func TestFilesEvents(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.removed("one")
	b.must("create", "--name", "one", "alpine", "true")
	b.file("f", "x\n", 0o644)
	b.must("cp", "f", "one:/f")
	b.must("export", "-o", "x.tar", "one")
	b.must("commit", "one")
	files, err := filepath.Glob(filepath.Join(b.root, "containers/*/events"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		var e struct{ Type, Action string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Error(err)
		}
		seen[e.Type+" "+e.Action] = true
	}
	for _, event := range []string{"container copy", "container export", "container commit"} {
		if !seen[event] {
			t.Errorf("no event %s in\n%s", event, text)
		}
	}
}
