package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/images"
)

// Each rung of the root file system shows the same container.
func TestRootfsRungs(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"overlay", "fuse-overlayfs", "copy"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, noImage, withEnv("RBOX_STORAGE_DRIVER="+driver))
			b.load("layers:latest", alpineImage(t, v1.Config{Cmd: []string{"sh"}},
				layer(t, images.Entry{Name: "opt/a/"}, images.Entry{Name: "opt/a/gone", Data: "1"}, images.Entry{Name: "opt/a/kept", Data: "kept\n"},
					images.Entry{Name: "opt/b/"}, images.Entry{Name: "opt/b/hidden", Data: "1"}, images.Entry{Name: "opt/over", Data: "lower\n"}),
				layer(t, images.Entry{Name: "opt/a/.wh.gone"}, images.Entry{Name: "opt/b/"}, images.Entry{Name: "opt/b/.wh..wh..opq"},
					images.Entry{Name: "opt/b/new", Data: "new\n"}, images.Entry{Name: "opt/over", Data: "upper\n", UID: 1000}, images.Entry{Name: "etc/motd.wh.", Data: "no whiteout\n"}),
			))
			for name, tc := range map[string]struct{ script, want string }{
				"layers":       {"ls /opt/a /opt/b; cat /opt/over; stat -c %u /opt/over", "/opt/a:\nkept\n\n/opt/b:\nnew\nupper\n1000\n"},
				"writing":      {"echo x >>/opt/over; rm /opt/a/kept; mkdir /opt/c; ls /opt; cat /opt/over", "a\nb\nc\nover\nupper\nx\n"},
				"nothing kept": {"cat /opt/over", "upper\n"},
				"removing":     {"rm -r /opt && mkdir /opt && ls /opt | wc -l", "0\n"},
				"renaming":     {"mv /etc/passwd /etc/passwd2 && mv /opt/b /opt/z && ls /opt/z", "new\n"},
				"hard links":   {"ln /etc/passwd /etc/passwd2 && stat -c %h /etc/passwd", "2\n"},
				"owners":       {"chown 5:6 /opt/a/kept && stat -c %u:%g /opt/a/kept", "5:6\n"},
				"modes":        {"chmod 4711 /bin/busybox && stat -c %a /bin/busybox", "4711\n"},
			} {
				t.Run(name, func(t *testing.T) {
					want{stdout: tc.want}.check(t, b.rbox("run", "--rm", "layers", "sh", "-c", tc.script))
				})
			}
			t.Run("read-only", func(t *testing.T) {
				want{match: "Read-only"}.check(t, b.rbox("run", "--rm", "--read-only", "layers", "sh", "-c", "touch /x 2>&1 || true"))
			})
			t.Run("several at once", func(t *testing.T) {
				var all []*process
				for i := range 4 {
					all = append(all, b.start(call{args: []string{"run", "--rm", "layers", "sh", "-c", fmt.Sprintf("echo %d >/opt/n && sleep 0.1 && cat /opt/n", i)}}))
				}
				for i, p := range all {
					want{stdout: fmt.Sprintln(i)}.check(t, p.wait())
				}
			})
		})
	}
}

func TestImageOf500Layers(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	var layers []v1.Layer
	for i := range 499 {
		layers = append(layers, layer(t, images.Entry{Name: fmt.Sprint("layer/", i), Data: "x\n"}, images.Entry{Name: "layer/last", Data: fmt.Sprintln(i)}))
	}
	b.load("deep:latest", alpineImage(t, v1.Config{Cmd: []string{"sh", "-c", "ls /layer | wc -l; cat /layer/last"}}, layers...))
	want{stdout: "500\n498\n"}.check(t, b.do(call{args: []string{"run", "--rm", "deep"}}))
}

func TestRunRootfsFolder(t *testing.T) {
	t.Parallel()
	b := newBox(t, noImage)
	dir := b.own(filepath.Join(b.home, "rootfs"))
	want{}.check(t, b.do(call{prog: "tar", args: []string{"-C", dir, "-xzf", run.alpine, "--no-same-owner"}}))
	want{stdout: "3.20.3\n"}.check(t, b.rbox("run", "--rm", "--rootfs", dir, "cat", "/etc/alpine-release"))
	want{stdout: "3.20.3\n"}.check(t, b.rbox("run", "--rm", "--rootfs", "./rootfs", "cat", "/etc/alpine-release"))
	want{}.check(t, b.rbox("run", "--rm", "--read-only", "--rootfs", dir, "sh", "-c", "! touch /x 2>/dev/null"))
	want{status: 125, stderr: `/etc/passwd`}.check(t, b.rbox("run", "--rm", "--rootfs", "/etc/passwd", "true"))
	// The account's own folder is open to it whatever its mode; another's is not.
	if err := os.Mkdir(filepath.Join(b.dir, "closed"), 0o700); err == nil && os.Geteuid() == 0 {
		want{status: 125, stderr: `closed`}.check(t, b.rbox("run", "--rm", "--rootfs", filepath.Join(b.dir, "closed"), "true"))
	}
}

// Where the store's file system cannot hold a writable layer, another place
// can, and one line says so.
func TestStoreOnAFileSystemWithoutUserXattrs(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	b := newBox(t)
	// ramfs keeps no extended attributes; only root may mount one.
	root(t)
	script := fmt.Sprintf(`mount -t ramfs none %[1]s && chown %[2]d:%[3]d %[1]s && exec setpriv --reuid %[2]d --regid %[3]d --init-groups sh -c '
		"$RBOX" import %[4]s alpine >/dev/null && "$RBOX" run --rm alpine sh -c "echo x >/etc/x && cat /etc/x"'`,
		b.home, b.who.UID, b.who.GID, run.alpine)
	r := newBox(t, as(root(t)), noImage)
	env := append(append([]string{}, b.env...), "RBOX="+run.bin, "RBOX_ROOT="+b.home+"/root", "TMPDIR="+b.own(filepath.Join(b.dir, "local")))
	r.env = env
	got := r.do(call{prog: "unshare", dir: "/", args: []string{"-m", "--propagation", "private", "sh", "-c", script}})
	if got.status != 0 || got.stdout != "x\n" {
		t.Errorf("got %v", got)
	}
}

func TestWritableLayerIsDeleted(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must("run", "--rm", "alpine", "true") // which writes out what rbox carries
	var before string
	if !eventually(10*time.Second, func() bool { before = b.tree(); return !strings.Contains(before, "/passing/") }) {
		t.Fatalf("the first container stays:\n%s", before)
	}
	want{}.check(t, b.sh("mkdir -p /a/b && chmod 0 /a && chown -R 1000 /a && dd if=/dev/zero of=/big bs=1M count=4 2>/dev/null && mknod /p p"))
	// The last of it may be deleted when rbox has ended.
	if !eventually(10*time.Second, func() bool { return b.tree() == before }) {
		t.Errorf("the store before:\n%s\nafter:\n%s", before, b.tree())
	}
}

// tree lists the files below the box's store, but for caches and locks, and
// what a host keeps of all its containers.
func (b *box) tree() string {
	var list strings.Builder
	filepath.WalkDir(b.root, func(path string, d os.DirEntry, err error) error {
		hosts := d != nil && slices.Contains([]string{"changed", "events", "index"}, d.Name())
		if err == nil && !d.IsDir() && !hosts && !strings.Contains(path, "lock") && !strings.Contains(path, "cache") && !strings.Contains(path, "driver") {
			fmt.Fprintln(&list, strings.TrimPrefix(path, b.root))
		}
		return nil
	})
	return list.String()
}

func TestStorageDriverThatIsNone(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	got := b.do(call{args: []string{"run", "--rm", "alpine", "true"}, env: []string{"RBOX_STORAGE_DRIVER=floppy"}})
	want{status: 125, stderr: `floppy`}.check(t, got)
}
