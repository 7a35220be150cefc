package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func newStore(t *testing.T) *Store { return &Store{filepath.Join(t.TempDir(), "volumes")} }

func TestCheckName(t *testing.T) {
	for name, want := range map[string]bool{
		"ab": true, "a.b_c-d": true, "0x": true, NewName(): true, strings.Repeat("x", maxName): true,
		"": false, "a": false, ".a": false, "-a": false, "_a": false, "a/b": false, "a b": false, "aé": false, "a\n": false, "..": false,
		strings.Repeat("x", maxName+1): false,
	} {
		if err := CheckName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCreate(t *testing.T) {
	s := newStore(t)
	v := Volume{Name: "data", CreatedAt: time.Unix(1e9, 0), Labels: map[string]string{"a": "b"}}
	for i, want := range []bool{true, false} {
		if made, err := s.Create(v); made != want || err != nil {
			t.Fatalf("time %d: %v, %v", i, made, err)
		}
	}
	got, err := s.Get("data")
	if err != nil || got.Name != "data" || !got.CreatedAt.Equal(v.CreatedAt) || got.Labels["a"] != "b" || got.Anonymous {
		t.Errorf("%+v, %v", got, err)
	}
	if st, err := os.Stat(s.Mountpoint("data")); err != nil || st.Mode() != os.ModeDir|0o755 {
		t.Errorf("%v, %v", st, err)
	}
	if _, err := s.Create(Volume{Name: "../x"}); !errors.As(err, new(*NameError)) {
		t.Error(err)
	}
	for _, name := range []string{"none", "../volumes", ""} {
		if _, err := s.Get(name); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A volume stands for a directory of the user's, which its end leaves alone.
func TestDevice(t *testing.T) {
	s, dir := newStore(t), t.TempDir()
	if _, err := s.Create(Volume{Name: "mine", Device: dir}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Mountpoint("mine"), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(FolderOf(s.Mountpoint("mine"))); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
		t.Error(err)
	}
}

func TestListPassesOverWhatIsNoVolume(t *testing.T) {
	s := newStore(t)
	if all, err := s.List(); len(all) != 0 || err != nil {
		t.Fatalf("without a folder: %v, %v", all, err)
	}
	for _, name := range []string{"bb", "aa", "cut"} {
		if _, err := s.Create(Volume{Name: name, Labels: map[string]string{"x": ""}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{unborn + "x", doomed + "bb", "empty"} {
		if err := os.Mkdir(s.folder(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(s.folder("cut"), recordFile), 5); err != nil { // by a power cut
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil || len(all) != 3 || all[0].Name != "aa" || all[1].Name != "bb" || all[2].Name != "cut" || all[2].CreatedAt.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestManyCreateOne(t *testing.T) {
	s := newStore(t)
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			mine, err := s.Create(Volume{Name: "data"})
			if err != nil {
				t.Error(err)
			}
			if mine {
				made.Add(1)
			}
			if _, err := s.Get("data"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if entries, _ := os.ReadDir(s.Dir); made.Load() != 1 || len(entries) != 1 {
		t.Errorf("made %d times; left: %v", made.Load(), entries)
	}
}

func TestDoom(t *testing.T) {
	s := newStore(t)
	free := func() error { return nil }
	if _, err := s.Doom("data", free); !errors.As(err, new(*NotFoundError)) {
		t.Error(err)
	}
	hold, made, err := s.Use(Volume{Name: "data"})
	if err != nil || !made {
		t.Fatal(made, err)
	}
	again, made, err := s.Use(Volume{Name: "data"})
	if err != nil || made {
		t.Fatal(made, err)
	}
	again.Close()
	if _, err := s.Doom("data", free); !errors.As(err, new(*BusyError)) {
		t.Errorf("in use: %v", err)
	}
	hold.Close()
	no := errors.New("no")
	if _, err := s.Doom("data", func() error { return no }); err != no {
		t.Errorf("refused: %v", err)
	}
	for range 3 { // the deletion of earlier ones is under way
		dir, err := s.Doom("data", free)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, dataDir)); err != nil {
			t.Error(err)
		}
		if _, err := s.Get("data"); !errors.As(err, new(*NotFoundError)) {
			t.Error(err)
		}
		if _, err := s.Create(Volume{Name: "data"}); err != nil {
			t.Fatal(err)
		}
	}
	if left := s.Leftovers(); len(left) != 3 {
		t.Errorf("%q", left)
	}
}

// Whoever holds a volume finds it there, however often others remove it.
func TestUseAndDoomAtOnce(t *testing.T) {
	s := newStore(t)
	var users, dooming sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		dooming.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				dir, err := s.Doom("data", func() error { return nil })
				if err == nil {
					err = os.RemoveAll(dir)
				}
				if err != nil && !errors.As(err, new(*BusyError)) && !errors.As(err, new(*NotFoundError)) {
					t.Error(err)
				}
			}
		})
	}
	for range 8 {
		users.Go(func() {
			for range 100 {
				hold, _, err := s.Use(Volume{Name: "data", Anonymous: true})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.ReadDir(s.Mountpoint("data")); err != nil {
					t.Error(err)
				}
				hold.Close()
			}
		})
	}
	users.Wait()
	close(stop)
	dooming.Wait()
}

func TestLeftovers(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{unborn + "now", unborn + "then", doomed + "x", "kept"} {
		if err := os.MkdirAll(s.folder(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(s.folder(unborn+"then"), then, then); err != nil {
		t.Fatal(err)
	}
	if left := s.Leftovers(); len(left) != 2 || left[0] != s.folder(unborn+"then") || left[1] != s.folder(doomed+"x") {
		t.Errorf("%q", left)
	}
}

func TestRemoveGoesOn(t *testing.T) {
	s := newStore(t)
	if _, err := s.Create(Volume{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	if _, err := doom(s.folder("data")); err != nil { // and here it was killed
		t.Fatal(err)
	}
	for range 2 {
		if err := Remove(s.folder("data")); err != nil {
			t.Fatal(err)
		}
	}
	if entries, _ := os.ReadDir(s.Dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
}
