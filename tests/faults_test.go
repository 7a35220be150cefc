package tests

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
	"rbox/tests/registry"
)

// hostileEntries are members of archives that are after the file canary in b's
// home, or after rbox itself.
func hostileEntries(b *box, canary string) map[string][]images.Entry {
	up := strings.Repeat("../", 20)
	abs := strings.TrimPrefix(canary, "/")
	return map[string][]images.Entry{
		"a name with ..":                     {{Name: up + abs, Data: "broken\n"}},
		"an absolute name":                   {{Name: canary, Data: "broken\n"}},
		"a name with .. inside":              {{Name: "a/" + up + abs, Data: "broken\n"}},
		"through an absolute symlink":        {{Name: "out", Link: b.home}, {Name: "out/canary", Data: "broken\n"}},
		"through a relative symlink":         {{Name: "out", Link: up + b.home}, {Name: "out/canary", Data: "broken\n"}},
		"through two symlinks":               {{Name: "a", Link: "/"}, {Name: "b", Link: "a/" + strings.TrimPrefix(b.home, "/")}, {Name: "b/canary", Data: "broken\n"}},
		"through a symlink as the last":      {{Name: "out", Link: canary}, {Name: "out", Data: "broken\n"}},
		"through the process":                {{Name: "out", Link: "/proc/self/root" + b.home}, {Name: "out/canary", Data: "broken\n"}},
		"a hard link out, absolute":          {{Name: "hard", Hard: canary}, {Name: "hard", Data: "broken\n"}},
		"a hard link out, with ..":           {{Name: "hard", Hard: up + abs}, {Name: "hard", Data: "broken\n"}},
		"a hard link through a symlink":      {{Name: "out", Link: b.home}, {Name: "hard", Hard: "out/canary"}},
		"a whiteout through a symlink":       {{Name: "out", Link: b.home}, {Name: "out/.wh.canary"}},
		"a whiteout with ..":                 {{Name: up + filepath.Dir(abs) + "/.wh.canary"}},
		"a whiteout of ..":                   {{Name: "a/.wh..."}},
		"a whiteout of .":                    {{Name: "a/.wh.."}},
		"a whiteout of nothing":              {{Name: "a/.wh."}},
		"an opaque folder through a symlink": {{Name: "out", Link: b.home}, {Name: "out/.wh..wh..opq"}},
		"a folder through a symlink":         {{Name: "out", Link: b.home}, {Name: "out/", Mode: 0o700}},
		"modes through a symlink":            {{Name: "out", Link: canary}, {Name: "out", Link: canary, Mode: 0o777}},
		"times through a symlink":            {{Name: "out", Link: b.home, ModTime: time.Unix(1, 0)}},
		"a disk":                             {{Name: "disk", Type: tar.TypeBlock, Major: 8, Minor: 0, Mode: 0o666}},
		"the kernel's memory":                {{Name: "mem", Type: tar.TypeChar, Major: 1, Minor: 1, Mode: 0o666}},
		"a whiteout by hand":                 {{Name: "etc/passwd", Type: tar.TypeChar, Major: 0, Minor: 0}},
		"an overlay's own mark":              {{Name: "etc/", Xattrs: map[string]string{"user.overlay.opaque": "y", "trusted.overlay.opaque": "y", "user.rbox.owner": "0:0"}}},
		"a redirect":                         {{Name: "etc/", Xattrs: map[string]string{"user.overlay.redirect": "/../../.."}}},
		"the empty name":                     {{Name: "", Type: tar.TypeReg, Data: "x"}},
		"the root itself, as a symlink":      {{Name: "./", Type: tar.TypeSymlink, Link: b.home}, {Name: "canary", Data: "broken\n"}},
		"the root itself, as a file":         {{Name: ".", Data: "x"}},
		"the root itself, whited out":        {{Name: ".wh.."}, {Name: ".wh..wh..opq"}},
		"a folder over a file":               {{Name: "etc/passwd/"}, {Name: "etc/passwd/x", Data: "x"}},
		"a file over a folder":               {{Name: "etc", Data: "x"}},
		"a name that is too long":            {{Name: strings.Repeat("n", 300), Data: "x"}},
		"a path that is too long":            {{Name: strings.Repeat("d/", 3000) + "x", Data: "x"}},
		"a huge header":                      {{Name: "x", Data: "x", Xattrs: map[string]string{"user.huge": strings.Repeat("h", 1<<20-100)}}},
		"owners out of reach":                {{Name: "x", Data: "x", UID: 1 << 31, GID: 1<<31 - 1}},
		"times out of reach":                 {{Name: "x", Data: "x", ModTime: time.Unix(1<<40, 0)}},
		"FIFOs for accounts":                 {{Name: "etc/passwd", Type: tar.TypeFifo}, {Name: "etc/group", Type: tar.TypeFifo}, {Name: "canary", Type: tar.TypeFifo}},
		"a FIFO for the program":             {{Name: "bin/busybox", Type: tar.TypeFifo, Mode: 0o777}},
		"a type that is none":                {{Name: "x", Type: 'Z'}},
	}
}

// No layer reaches out of its folder, whatever the archive holds: it is either
// refused, or unpacked as if the image's root were the only root there is.
func TestHostileLayers(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	canary := b.file("canary", "untouched\n", 0o666)
	for name, entries := range hostileEntries(b, canary) {
		t.Run(name, func(t *testing.T) {
			data, err := images.Tar(entries...)
			if err != nil {
				t.Fatal(err)
			}
			l, err := images.Layer(data, images.Gzip)
			if err != nil {
				t.Fatal(err)
			}
			img := alpineImage(t, v1.Config{Cmd: []string{"/bin/busybox", "true"}}, l)
			file := filepath.Join(b.home, "hostile.tar")
			if err := errors.Join(images.SaveDocker(file, "hostile:latest", img), os.Chmod(file, 0o644)); err != nil {
				t.Fatal(err)
			}
			got := b.rbox("load", "-i", file)
			if got.status == 0 {
				got = b.rbox("run", "--rm", "hostile")
				if len(b.must("images", "-q")) > 0 {
					b.must("rmi", "-f", "hostile")
				}
			}
			os.Remove(file)
			b.in(t).untouched(canary, got)
		})
	}
}

// untouched checks that nothing came out of a hostile archive: the file canary,
// of mode 0666, is as it was, and nothing else was made. got is how the command
// ended that read it.
func (b *box) untouched(canary string, got result) {
	b.t.Helper()
	if got.status != 0 && !strings.HasPrefix(got.stderr, "rbox: ") || strings.Contains(got.stderr, "goroutine") || got.status > 127 {
		b.t.Errorf("got %v", got)
	}
	info, err := os.Lstat(canary)
	if err != nil || info.Mode() != 0o666 || owner(info) != b.who.UID || info.Sys().(*syscall.Stat_t).Nlink != 1 || b.read("canary") != "untouched\n" {
		b.t.Errorf("a file outside was changed: %v %v", info, err)
	}
	if info, err := os.Lstat(b.home); err != nil || info.Mode().Perm() != 0o700 || info.ModTime().Unix() == 1 {
		b.t.Errorf("a folder outside was changed: %v %v", info, err)
	}
	for _, dir := range []string{b.root, b.runtime, b.dir} {
		if _, err := os.Stat(filepath.Join(dir, "canary")); err == nil {
			b.t.Errorf("a file was made in %s", dir)
		}
	}
}

// The same archives by the other ways in: as a root file system, by import, and
// into a container's directory, by cp.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	b := newBox(t, keeps)
	canary := b.file("canary", "untouched\n", 0o666)
	b.must("run", "-d", "--name", "box", "-v", "shared:/vol", "alpine", "sleep", "1000")
	n := 0
	for name, entries := range hostileEntries(b, canary) {
		t.Run(name, func(t *testing.T) {
			b := b.in(t)
			n++
			data, err := images.Tar(entries...)
			if err != nil {
				t.Fatal(err)
			}
			got := b.do(call{args: []string{"import", "-", fmt.Sprint("hostile", n)}, stdin: bytes.NewReader(data)})
			if got.status == 0 {
				got = b.rbox("run", "--rm", "--network", "none", "-v", run.bin+":/rbox:ro", fmt.Sprint("hostile", n), "/rbox", "version")
			}
			b.untouched(canary, got)
			b.must("exec", "box", "sh", "-c", fmt.Sprintf("mkdir /vol/%d; ln -s %s /vol/%[1]d/out; ln -s / /vol/%[1]d/a", n, b.home))
			b.untouched(canary, b.do(call{args: []string{"cp", "-", fmt.Sprintf("box:/vol/%d", n)}, stdin: bytes.NewReader(data)}))
		})
	}
	want{stdout: "3.20.3\n"}.check(t, b.rbox("exec", "box", "cat", "/etc/alpine-release")) // cp came no further up than /vol
}

// A thousandth of the disk's size can unpack to all of it: there is a limit.
func TestDecompressionBomb(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	bomb := b.do(call{prog: "/bin/sh", args: []string{"-c", `truncate -s 300M zeros && tar -cf - zeros | gzip -1 >bomb.tar.gz && rm zeros`}})
	if bomb.status != 0 {
		t.Fatal(bomb)
	}
	bombed, err := images.FromTarGz(filepath.Join(b.home, "bomb.tar.gz"), v1.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRegistry(t, registry.Options{})
	push(t, r, "bomb", bombed)
	want{status: 125, stderr: `(?s)limit|larger|more than|too (big|large)`}.checkFailed(t, b.rbox("pull", "--max-size", "100m", r.Ref("bomb")))
	want{stdout: ""}.check(t, b.rbox("images", "-q"))
	want{match: "^sha256:"}.check(t, b.rbox("pull", "-q", r.Ref("bomb")))
}

// interrupted serves r, and does to the blobs' answers what a bad network does.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	push(t, r, "hello", hello(t))
	isBlob := func(req *http.Request) bool {
		return req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/")
	}
	for name, tc := range map[string]struct {
		between func(n int32, w http.ResponseWriter, req *http.Request, next http.Handler)
		want    want
	}{
		"an answer cut short": {func(n int32, w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isBlob(req) && n%2 == 1 {
				next.ServeHTTP(&cutWriter{ResponseWriter: w, left: 10_000}, req)
				return
			}
			next.ServeHTTP(w, req)
		}, want{match: "^sha256:"}},
		"a server that is busy": {func(n int32, w http.ResponseWriter, req *http.Request, next http.Handler) {
			if n <= 3 {
				w.Header().Set("Retry-After", "0")
				http.Error(w, "busy", http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, req)
		}, want{match: "^sha256:"}},
		"a server that always fails": {func(_ int32, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(w, "broken", http.StatusInternalServerError)
		}, want{status: 125, stderr: `^rbox: .*500`}},
		"bytes that are others": {func(_ int32, w http.ResponseWriter, req *http.Request, next http.Handler) {
			if isBlob(req) {
				w.Header().Set("Content-Type", "application/octet-stream")
				w.Write(bytes.Repeat([]byte("x"), 1000))
				return
			}
			next.ServeHTTP(w, req)
		}, want{status: 125, stderr: `sha256:`}},
		"a manifest that is another": {func(_ int32, w http.ResponseWriter, req *http.Request, next http.Handler) {
			if strings.Contains(req.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
				io.WriteString(w, `{"schemaVersion": 2, "layers": []}`)
				return
			}
			next.ServeHTTP(w, req)
		}, want{status: 125, stderr: `^rbox: `}},
		"a page for people": {func(_ int32, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>Please log in to the wireless network</html>")
		}, want{status: 125, stderr: `^rbox: `}},
		"a manifest without end": {func(_ int32, w http.ResponseWriter, req *http.Request, next http.Handler) {
			if !strings.Contains(req.URL.Path, "/manifests/") {
				next.ServeHTTP(w, req)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			for range 64 {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
					return
				}
			}
		}, want{status: 125, stderr: `^rbox: `}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			front := newServer(t, frontOf(r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if req.URL.Path == "/v2/" {
					next.ServeHTTP(w, req)
					return
				}
				tc.between(n.Add(1), w, req, next)
			}))
			b := newBox(t, noImage)
			got := b.rbox("pull", "-q", front+"/hello")
			if tc.want.status != 0 {
				tc.want.checkFailed(t, got)
				want{stdout: ""}.check(t, b.rbox("images", "-q"))
				return
			}
			tc.want.check(t, got)
			want{stdout: helloSays}.check(t, b.rbox("run", "--rm", front+"/hello"))
		})
	}
}

// cutWriter ends the connection after left bytes.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		c.ResponseWriter.Write(p[:c.left])
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}

// A pull that was killed goes on where it stopped.
func TestPullResumesAfterSIGKILL(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	noise := make([]byte, 24<<20)
	x := uint32(1)
	for i := range noise {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	push(t, r, "big", alpineImage(t, v1.Config{Cmd: []string{"cat", "/hello"}},
		layerAs(t, images.None, images.Entry{Name: "noise", Data: string(noise)}, images.Entry{Name: "hello", Data: helloSays})))
	var (
		stall  atomic.Bool
		half   = make(chan struct{})
		once   sync.Once
		mu     sync.Mutex
		ranges []string
	)
	stall.Store(true)
	front := newServer(t, frontOf(r, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if !strings.Contains(req.URL.Path, "/blobs/") {
			next.ServeHTTP(w, req)
			return
		}
		if stall.Load() {
			next.ServeHTTP(&stallWriter{ResponseWriter: w, left: 12 << 20, stalled: func() { once.Do(func() { close(half) }); <-req.Context().Done() }}, req)
			return
		}
		mu.Lock()
		ranges = append(ranges, req.Header.Get("Range"))
		mu.Unlock()
		next.ServeHTTP(w, req)
	}))
	b := newBox(t, noImage)
	p := b.start(call{args: []string{"pull", "-q", front + "/big"}})
	select {
	case <-half:
	case <-time.After(30 * time.Second * run.patience):
		t.Fatal("the pull does not get half way")
	}
	partial := func() (size int64) {
		found, _ := filepath.Glob(filepath.Join(b.root, "blobs/partial/*"))
		for _, f := range found {
			if info, err := os.Stat(f); err == nil {
				size = max(size, info.Size())
			}
		}
		return size
	}
	if !eventually(10*time.Second, func() bool { return partial() > 4<<20 }) {
		t.Fatalf("only %d bytes arrived on disk", partial())
	}
	p.signal(syscall.SIGKILL)
	p.wait()
	stall.Store(false)
	want{match: "^sha256:"}.check(t, b.rbox("pull", "-q", front+"/big"))
	want{stdout: helloSays}.check(t, b.rbox("run", "--rm", front+"/big"))
	mu.Lock()
	defer mu.Unlock()
	resumed := false
	for _, r := range ranges {
		var from int64
		if n, _ := fmt.Sscanf(r, "bytes=%d-", &from); n == 1 && from > 4<<20 {
			resumed = true
		}
	}
	if !resumed {
		t.Errorf("the second pull asked for %q: it did not resume", ranges)
	}
}

// stallWriter stops for good after left bytes.
type stallWriter struct {
	http.ResponseWriter
	left    int
	stalled func()
}

func (s *stallWriter) Write(p []byte) (int, error) {
	if len(p) > s.left {
		s.ResponseWriter.(http.Flusher).Flush()
		s.stalled()
		panic(http.ErrAbortHandler)
	}
	s.left -= len(p)
	return s.ResponseWriter.Write(p)
}

// Kill rbox at any instant of a pull or an import: the image is then whole or
// absent, and the next command works.
func TestKilledWhileStoring(t *testing.T) {
	t.Parallel()
	r := newRegistry(t, registry.Options{})
	push(t, r, "hello", hello(t))
	for name, args := range map[string][]string{
		"pull":   {"pull", "-q", r.Ref("hello")},
		"import": {"import", run.alpine, "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, noImage)
			image := args[len(args)-1]
			for delay := time.Millisecond; delay < 400*time.Millisecond; delay = delay*3/2 + time.Millisecond {
				p := b.start(call{args: args})
				time.Sleep(delay)
				p.cmd.Process.Kill()
				p.wait()
				if got := b.rbox("images", "-q"); got.status != 0 || got.stderr != "" {
					t.Fatalf("killed after %v: %v", delay, got)
				}
				if got := b.rbox("run", "--rm", "--pull", "never", image, "true"); got.status != 0 && got.status != 125 {
					t.Fatalf("killed after %v: %v", delay, got)
				}
				b.rbox("rmi", "-f", image)
			}
			b.must(args...)
			want{stdout: "3.20.3\n"}.check(t, b.rbox("run", "--rm", "--pull", "never", image, "cat", "/etc/alpine-release"))
		})
	}
}

// Kill rbox at any instant of a run: the container dies with it, and nothing of
// it is left (which the box checks).
func TestKilledWhileRunning(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"plain":       nil,
		"with --init": {"--init"},
		"as a user":   {"-u", "1000"},
		"keep-id":     {"--userns", "keep-id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			args := append(append([]string{"run", "--rm"}, flags...), "alpine", "sh", "-c", "echo up; trap '' TERM HUP INT; sleep 1000 & sleep 1000")
			for delay := time.Millisecond; delay < 60*time.Millisecond; delay = delay*4/3 + time.Millisecond {
				p := b.start(call{args: args})
				time.Sleep(delay)
				p.cmd.Process.Kill()
				p.wait()
			}
			p := b.start(call{args: args})
			p.see("up\n")
			below := children(p.cmd.Process.Pid)
			p.signal(syscall.SIGKILL)
			p.wait()
			if !eventually(10*time.Second, func() bool { return !anyAlive(below) }) {
				t.Errorf("still alive after rbox was killed: %v", below)
			}
			want{stdout: "next\n"}.check(t, b.sh("echo next"))
		})
	}
}

// Kill any one process of a running container: rbox ends with a status that
// tells of it, nothing is left, and the next command works.
func TestEachProcessKilled(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for i := 0; ; i++ {
		p := b.start(call{args: []string{"run", "--rm", "--init", "--network", "none", "alpine", "sh", "-c", "echo up; sleep 1000"}, limit: 20 * time.Second})
		p.see("up\n")
		below := slices.DeleteFunc(children(p.cmd.Process.Pid), func(pid int) bool {
			return strings.Contains(describe(pid), "rbox-keeper") // the container outlives it
		})
		if i >= len(below) {
			p.signal(syscall.SIGKILL)
			p.wait()
			break
		}
		name := describe(below[i])
		t.Logf("kill %s", name)
		syscall.Kill(below[i], syscall.SIGKILL)
		got := p.wait()
		if got.status != 137 && got.status != 125 {
			t.Errorf("killed %s: %v", name, got)
		}
		if !eventually(10*time.Second, func() bool { return !anyAlive(below) }) {
			t.Errorf("killed %s: still alive: %v", name, below)
		}
		want{stdout: "next\n"}.check(t, b.sh("echo next"))
	}
}

func TestKeeperKilled(t *testing.T) {
	t.Parallel()
	b := newBox(t, withEnv("RBOX_KEEPER_IDLE=20s"))
	p := b.start(call{args: []string{"run", "--rm", "alpine", "sh", "-c", "echo up; sleep 0.5; echo still"}})
	p.see("up\n")
	keepers := 0
	for _, pid := range processesOf(b.dir) {
		if strings.Contains(describe(pid), "rbox-keeper") {
			keepers++
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if keepers != 1 && os.Geteuid() == 0 {
		t.Errorf("%d keepers", keepers)
	}
	want{stdout: "next\n"}.check(t, b.sh("echo next"))
	want{stdout: "up\nstill\n"}.check(t, p.wait())
	b.endKeeper()
}

// endKeeper ends a keeper that would stay for long.
func (b *box) endKeeper() {
	for _, pid := range processesOf(b.dir) {
		if strings.Contains(describe(pid), "rbox-keeper") {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func TestKeeperIsShared(t *testing.T) {
	t.Parallel()
	b := newBox(t, withEnv("RBOX_KEEPER_IDLE=20s"))
	var all []*process
	for range 8 {
		all = append(all, b.start(call{args: []string{"run", "--rm", "alpine", "true"}}))
	}
	for _, p := range all {
		want{}.check(t, p.wait())
	}
	keepers := 0
	for _, pid := range processesOf(b.dir) {
		if strings.Contains(describe(pid), "rbox-keeper") {
			keepers++
		}
	}
	if keepers > 1 {
		t.Errorf("%d keepers", keepers)
	}
	b.endKeeper()
}

// onTmpfs runs a script as the box's account where its home is a tmpfs with options.
func (b *box) onTmpfs(options, script string) result {
	b.t.Helper()
	r := newBox(b.t, as(root(b.t)), noImage)
	r.env = append(append([]string{}, b.env...), "RBOX="+run.bin, "ALPINE="+run.alpine, "RBOX_ROOT="+b.home+"/r", "RBOX_RUNTIME="+b.home+"/rt")
	become := fmt.Sprintf(`mount -t tmpfs -o %s,mode=700,uid=%d,gid=%d none %s && cd %[4]s && mkfifo .grow .grown && chmod 666 .grow .grown &&
		{ read x <.grow && mount -o remount,size=100m %[4]s && echo >.grown & } &&
		setpriv --reuid %[2]d --regid %[3]d --init-groups sh -c '%[5]s'; s=$?; kill $! 2>/dev/null; exit $s`, options, b.who.UID, b.who.GID, b.home, script)
	return r.do(call{prog: "unshare", dir: "/", args: []string{"-m", "--propagation", "private", "sh", "-c", become}})
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	got := b.onTmpfs("size=4m", `mkdir rt; "$RBOX" import "$ALPINE" alpine; echo status $?; "$RBOX" images -q; ls r/blobs/partial r/tmp 2>/dev/null
		echo >.grow; read x <.grown; "$RBOX" import "$ALPINE" alpine >/dev/null && "$RBOX" run --rm alpine echo works`)
	if !strings.HasPrefix(got.stdout, "status 1") || !strings.HasSuffix(got.stdout, "works\n") || !strings.Contains(got.stderr, "is full") {
		t.Errorf("got %v", got)
	}
}

func TestFullDiskUnderARunningContainer(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	got := b.onTmpfs("size=80m", `mkdir rt; "$RBOX" import "$ALPINE" alpine >/dev/null && "$RBOX" run --rm alpine sh -c "dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null; echo status \$?"
		for i in $(seq 100); do "$RBOX" run --rm alpine echo next 2>/dev/null && break; sleep 0.05; done # what it wrote is deleted once it has ended`)
	if got.status != 0 || got.stdout != "status 1\nnext\n" {
		t.Errorf("got %v", got)
	}
}

// However little room there is, a program does not run in vain: rbox fails
// before, or ends with its status.
func TestAlmostFullDisk(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	got := b.onTmpfs("size=80m", `mkdir rt; "$RBOX" import "$ALPINE" alpine >/dev/null; "$RBOX" run --rm alpine true
		dd if=/dev/zero of=fill bs=4096 2>/dev/null
		for flags in --rm --rm\ --log-driver=file ""; do
			n=0; until [ $n = 60 ] || [ "$status" = 3 ]; do
				out=$("$RBOX" run $flags alpine sh -c "echo ran; exit 3" 2>&1); status=$?
				echo "$status $(echo "$out" | grep -c "^ran$")"
				truncate -s -4096 fill; n=$((n+1))
			done; status=
		done | sort | uniq -c; truncate -s -4M fill; "$RBOX" rm -a >/dev/null; "$RBOX" run --rm alpine echo next`)
	if !regexp.MustCompile(`^ *[0-9]+ 125 0\n +3 3 1\nnext\n$`).MatchString(got.stdout) {
		t.Errorf("got %v", got)
	}
}

func TestReadOnlyHome(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	want{status: 125, stderr: `^rbox: .*/proc/nowhere.*\nrbox: hint: .*RBOX_ROOT`}.check(t,
		b.do(call{args: []string{"run", "--rm", "alpine", "true"}, env: []string{"RBOX_ROOT=/proc/nowhere"}}))
	closed := b.own(filepath.Join(b.home, "closed"))
	if err := os.Chmod(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	want{status: 125, stderr: `^rbox: .*closed.*\nrbox: hint: `}.check(t,
		b.do(call{args: []string{"run", "--rm", "alpine", "true"}, env: []string{"RBOX_ROOT=" + closed + "/root"}}))
}

func TestRuntimeFolderLadder(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	foreign := "/proc/1" // neither ours nor writable
	for name, env := range map[string][]string{
		"XDG_RUNTIME_DIR":                {"RBOX_RUNTIME=", "XDG_RUNTIME_DIR=" + b.own(filepath.Join(b.home, "xdg"))},
		"XDG_RUNTIME_DIR of another":     {"RBOX_RUNTIME=", "XDG_RUNTIME_DIR=" + foreign},
		"XDG_RUNTIME_DIR that is gone":   {"RBOX_RUNTIME=", "XDG_RUNTIME_DIR=/run/user/no-such"},
		"none":                           {"RBOX_RUNTIME=", "XDG_RUNTIME_DIR="},
		"a folder that is still to make": {"RBOX_RUNTIME=" + b.home + "/to/make"},
	} {
		t.Run(name, func(t *testing.T) {
			got := b.do(call{args: []string{"run", "--rm", "alpine", "echo", "works"}, env: env})
			if got.status != 0 || got.stdout != "works\n" {
				t.Errorf("got %v", got)
			}
		})
	}
}

// Where user namespaces are forbidden, run says so, and what to ask for.
func TestNoUserNamespaces(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	leftovers(b.dir, 10*time.Second) // the keeper of the import, which has a namespace
	got := b.do(call{prog: "unshare", args: []string{"-Ur", "sh", "-c",
		`echo 0 >/proc/sys/user/max_user_namespaces && exec "$RBOX" run --rm alpine true`}, env: []string{"RBOX=" + run.bin}})
	want{status: 125, stderr: `^rbox: (.*\n)*rbox: hint: .*user\.max_user_namespaces`}.check(t, got)
}

// Without newuidmap the lower rung is taken, and one line says what was lost.
func TestNoNewuidmap(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage, withEnv("PATH=/nonexistent"))
	b.must("import", run.alpine, "alpine")
	got := b.sh("id -u; cat /etc/alpine-release")
	if got.status != 0 || got.stdout != "0\n3.20.3\n" || strings.Count(got.stderr, "\n") > 1 {
		t.Errorf("got %v", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	var all []*process
	for i := range 12 {
		args := []string{"run", "--rm", "alpine", "echo", "works"}
		switch i % 4 {
		case 1:
			args = []string{"import", run.alpine, fmt.Sprint("copy", i)}
		case 2:
			args = []string{"tag", "alpine", fmt.Sprint("tag", i)}
		}
		all = append(all, b.start(call{args: args}))
	}
	for _, p := range all {
		want{}.check(t, p.wait())
	}
	if got := strings.Count(b.must("images"), "\n"); got != 1+3+3 {
		t.Errorf("%d rows of images: %s", got, b.must("images"))
	}
}
