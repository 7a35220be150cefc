package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/tests/nstest"
)

func TestPick(t *testing.T) {
	no := errors.New("no")
	fails := func(string) error { return no }
	works := func(string) error { return nil }
	cure := func(string, error) string { return "cure" }
	for name, tc := range map[string]struct {
		overlay, fuse func(string) error
		want          Driver
		skipped       []string
	}{
		"overlay": {works, fails, Overlay, nil},
		"fuse":    {fails, works, Fuse, []string{"overlay (Linux 5.11): no"}},
		"copy":    {fails, fails, Copy, []string{"overlay (Linux 5.11): no", "fuse-overlayfs (Linux 4.18): no"}},
	} {
		t.Run(name, func(t *testing.T) {
			rungs := ladder()
			rungs[0].try, rungs[0].cure = tc.overlay, cure
			rungs[1].try, rungs[1].cure = tc.fuse, cure
			got, skipped := pick(rungs, t.TempDir())
			var texts []string
			for _, err := range skipped {
				texts = append(texts, err.Error())
				var d *DriverError
				if !errors.As(err, &d) || d.Hint() != "cure" || !errors.Is(err, no) {
					t.Errorf("%#v is no *DriverError with its cause and cure", err)
				}
			}
			if got != tc.want || !reflect.DeepEqual(texts, tc.skipped) {
				t.Errorf("picked %s, skipped %q; want %s, %q", got, texts, tc.want, tc.skipped)
			}
		})
	}
}

func TestDriversMount(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	for _, d := range []Driver{Overlay, Fuse, Copy} {
		t.Run(string(d), func(t *testing.T) {
			dir := t.TempDir()
			if err := TryDriver(d, dir); err != nil {
				t.Skip(err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left in scratch: %v, %v", left, err)
			}
		})
	}
	if d, skipped := PickDriver(t.TempDir()); len(skipped) != slices.Index([]Driver{Overlay, Fuse, Copy}, d) {
		t.Errorf("picked %s, skipped %v", d, skipped)
	}
}

// Overlay on overlay: the kernel refuses an upper directory there.
func TestDriverNamesTheFileSystem(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s, err := newStack(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	if err := MountOverlay(s.merged, s.lowers(), s.upper, s.work); err != nil {
		t.Skip(err)
	}
	defer unix.Unmount(s.merged, unix.MNT_DETACH)
	d, skipped := PickDriver(s.merged)
	if d == Overlay {
		t.Skip("this kernel stacks overlay on overlay")
	}
	if !strings.Contains(skipped[0].Error(), "overlay at "+s.merged) {
		t.Errorf("%v: does not say what lies there", skipped[0])
	}
	if hint := skipped[0].(*DriverError).Hint(); !strings.Contains(hint, "RBOX_ROOT") {
		t.Errorf("hint %q: no way out", hint)
	}
}

// A file system that hides nothing, keeps owners, and so on is no driver's.
func TestExerciseFindsFaults(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	s, err := newStack(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	if err := unix.Mount(s.lower, s.merged, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(s.merged, unix.MNT_DETACH)
	if err := exercise(s.merged); err == nil || !strings.HasPrefix(err.Error(), "hide what a layer marks as deleted: ") {
		t.Errorf("a layer alone: %v", err)
	}
	if err := os.RemoveAll(s.lower + "/hidden"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.lower + "/whiteout"); err != nil {
		t.Fatal(err)
	}
	if err := exercise(s.merged); err != nil {
		t.Errorf("a plain directory: %v", err)
	}
	if err := unix.Mount("", s.merged, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := exercise(s.merged); !errors.Is(err, unix.EROFS) || !strings.HasPrefix(err.Error(), "create a file: ") {
		t.Errorf("a read-only one: %v", err)
	}
}

func TestFuseMountEnds(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	if err := TryDriver(Fuse, t.TempDir()); err != nil {
		t.Skip(err)
	}
	s, err := newStack(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	f, err := MountFuse(s.merged, s.lowers(), s.upper, s.work)
	if err != nil {
		t.Fatal(err)
	}
	busy, err := os.Open(s.merged + "/full/old")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := f.Unmount(); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(f.process.Pid, 0); err != unix.ESRCH {
		t.Errorf("its process: %v", err)
	}
	if _, err := MountFuse(s.merged, []string{s.dir + "/missing"}, s.upper, s.work); err == nil || !strings.HasPrefix(err.Error(), "fuse-overlayfs ended: ") {
		t.Errorf("a layer that is missing: %v", err)
	}
}

func TestCures(t *testing.T) {
	local := t.TempDir()
	for name, tc := range map[string]struct {
		got, want string
	}{
		"module":      {cureOverlay(local, unix.ENODEV), "modprobe overlay"},
		"old kernel":  {cureOverlay(local, unix.EPERM), "Linux 5.11"},
		"FUSE device": {cureFuse(local, &os.PathError{Op: "open", Path: "/dev/fuse", Err: unix.ENOENT}), "modprobe fuse"},
		"FUSE mode":   {cureFuse(local, &os.PathError{Op: "open", Path: "/dev/fuse", Err: unix.EACCES}), "chmod 666 /dev/fuse"},
		"no program":  {cureFuse(local, os.ErrNotExist), "install fuse-overlayfs"},
	} {
		if !strings.Contains(tc.got, tc.want) {
			t.Errorf("%s: %q lacks %q", name, tc.got, tc.want)
		}
	}
}

func TestFileSystemNames(t *testing.T) {
	for magic, want := range map[int64]string{
		0x6969: "NFS", 0x0bd00bd0: "Lustre", 0x47504653: "GPFS", 0x65735546: "FUSE", 0xf15f: "eCryptfs",
		0x794c7630: "overlay", 0x1234: "file system 0x1234",
	} {
		if got := fsName(magic); got != want {
			t.Errorf("fsName(%#x) = %q, want %q", magic, got, want)
		}
	}
	if got := FileSystem("/proc/nothing/there"); got != "unknown" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestMapsOne(t *testing.T) {
	for in, want := range map[string]bool{
		"0 1000 1\n":                 false,
		"0 1000 1\n1 100000 65536\n": true,
		"0 0 4294967295\n":           true,
		"0 0 1\n5 5 100\n":           false,
		"":                           false,
	} {
		if got := mapsOne(in); got != want {
			t.Errorf("mapsOne(%q) = %v", in, got)
		}
	}
}

func TestChoice(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "driver.json")
	stamp, err := Stamp(dir, "single")
	if err != nil {
		t.Fatal(err)
	}
	want := Choice{Driver: Fuse, Skipped: []string{"overlay: no"}, Stamp: stamp, Place: "/var/tmp/rbox-1-2", Unfit: "NFS", Useless: true}
	if _, ok := ReadChoice(file, stamp); ok {
		t.Error("read a choice before one was made")
	}
	if err := want.Write(file); err != nil {
		t.Fatal(err)
	}
	if got, ok := ReadChoice(file, stamp); !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, ok, want)
	}
	other, err := Stamp(dir, "e1b3")
	if err != nil || other == stamp {
		t.Fatalf("stamp %q for both kinds of ids, %v", other, err)
	}
	if _, ok := ReadChoice(file, other); ok {
		t.Error("a stale choice was taken")
	}
	for _, damaged := range []string{"", "{", `{"Driver":"zfs","Stamp":"` + stamp + `"}`} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, ok := ReadChoice(file, stamp); ok {
			t.Errorf("%q was taken for %+v", damaged, c)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left beside the choice: %v", left)
	}
}

func TestFuseOptions(t *testing.T) {
	got := fuseOptions([]string{"/l/1", "/l/2:x"}, "/u", "/w", []string{"noacl"})
	if want := `lowerdir=/l/2\:x:/l/1,upperdir=/u,workdir=/w,noacl`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseDriver(t *testing.T) {
	if d, err := ParseDriver("copy"); d != Copy || err != nil {
		t.Errorf("copy: %v, %v", d, err)
	}
	if _, err := ParseDriver("vfs"); err == nil || !strings.Contains(err.Error(), `"vfs"`) {
		t.Errorf("vfs: %v", err)
	}
}
