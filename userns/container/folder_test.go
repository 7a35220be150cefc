package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func home(t *testing.T) *Home {
	t.Helper()
	h, err := OpenHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// create makes the folder of a container that runs until its folder is closed.
func create(t *testing.T, h *Home, id, name string, autoRemove bool) *Folder {
	t.Helper()
	f, err := h.Create(id, autoRemove)
	if err == nil {
		err = errors.Join(f.Write(Config{ID: id, Name: name, AutoRemove: autoRemove}), f.Born(name))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.config.Close() })
	return f
}

func TestOpenHome(t *testing.T) {
	dir := t.TempDir()
	a, err1 := OpenHome(dir)
	b, err2 := OpenHome(dir)
	if err1 != nil || err2 != nil || a.Dir != b.Dir || filepath.Dir(a.Dir) != dir {
		t.Errorf("%v %v, %v %v", a, err1, b, err2)
	}
	if ids, err := a.IDs(); err != nil || len(ids) > 0 {
		t.Errorf("a new home holds %v, %v", ids, err)
	}
	if st, err := os.Stat(a.Dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", st.Mode(), err)
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "A9": true, "my_box-1.2": true, "0": true, strings.Repeat("a", 200): true,
		"": false, "_a": false, "-a": false, ".a": false, "..": false, "a/b": false, "a b": false, "ä": false, "a\n": false,
		strings.Repeat("a", 201): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	h := home(t)
	first := create(t, h, "aa", "box", false)
	other, err := h.Create("bb", true)
	if err != nil {
		t.Fatal(err)
	}
	err = other.Born("box")
	var used *NameInUseError
	if !errors.As(err, &used) || used.ID != "aa" || used.Hint() == "" {
		t.Errorf("a name in use: %v", err)
	}
	if ids, _ := h.IDs(); !slices.Equal(ids, []string{"aa"}) {
		t.Errorf("the failure left %v", ids)
	}
	for _, dir := range []string{other.Dir, other.Unborn} {
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("the failure left %s", dir)
		}
	}
	first.Discard()
	second := create(t, h, "bb", "box", true)
	// A crash: the folder goes, the name stays.
	if err := os.RemoveAll(second.Dir); err != nil {
		t.Fatal(err)
	}
	create(t, h, "cc", "box", false)
	if id, err := h.Find("box"); id != "cc" || err != nil {
		t.Errorf("box is %s, %v", id, err)
	}
	// What removes the old one late must not take the name from the new one.
	h.forget("bb", "box")
	if id, err := h.Find("box"); id != "cc" || err != nil {
		t.Errorf("box is %s, %v", id, err)
	}
}

// A rename that is cut short leaves two names, of which the container has one:
// the other is free.
func TestRenameCutShort(t *testing.T) {
	h := home(t)
	link := func(id, name string) {
		t.Helper()
		if err := os.Symlink(id, filepath.Join(h.Dir, names, name)); err != nil {
			t.Fatal(err)
		}
	}
	create(t, h, "aa", "old", false)
	link("aa", "new") // killed before it was recorded
	create(t, h, "bb", "new", false)
	link("bb", "newer")
	folder := filepath.Join(h.Dir, kept, "bb")
	if err := writeState(folder, State{Name: "newer"}); err != nil { // killed once it was
		t.Fatal(err)
	}
	create(t, h, "cc", "new", false)
	for name, id := range map[string]string{"old": "aa", "newer": "bb", "new": "cc"} {
		if got, err := h.Find(name); got != id || err != nil {
			t.Errorf("%s is %s, %v; want %s", name, got, err, id)
		}
		var used *NameInUseError
		if err := h.takeName(name, "dd"); !errors.As(err, &used) || used.ID != id {
			t.Errorf("%s can be taken: %v", name, err)
		}
	}
	link("aa", "again")
	if err := h.rename("aa", "old", "again", func() error { return nil }); err != nil {
		t.Errorf("a rename cannot be repeated: %v", err)
	}
	if err := h.rename("aa", "again", "more", func() error { return fs.ErrPermission }); err == nil {
		t.Error("a rename that cannot be recorded is no failure")
	}
	if entries, _ := os.ReadDir(filepath.Join(h.Dir, names)); len(entries) != 3 {
		t.Errorf("names: %v", entries)
	}
}

// Many want one name, which is free, or whose container is gone.
func TestOneOfManyGetsTheName(t *testing.T) {
	for round := range 30 {
		h := home(t)
		if stale := round%2 == 0; stale {
			if err := os.Symlink("gone", filepath.Join(h.Dir, names, "box")); err != nil {
				t.Fatal(err)
			}
		}
		var won atomic.Int32
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				f, err := h.Create(fmt.Sprint("id", i), i%2 == 0)
				if err != nil {
					t.Error(err)
					return
				}
				switch err := f.Born("box"); {
				case err == nil:
					won.Add(1)
					defer f.config.Close()
				case !errors.As(err, new(*NameInUseError)):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if ids, err := h.IDs(); won.Load() != 1 || len(ids) != 1 || err != nil {
			t.Fatalf("round %d: %d got the name; folders of %v, %v", round, won.Load(), ids, err)
		}
	}
}

// Nobody sees a container before it is whole.
func TestUnborn(t *testing.T) {
	h := home(t)
	f, err := h.Create("aa", false)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := h.IDs()
	if dead := h.Dead(); err != nil || len(ids) > 0 || len(dead) > 0 {
		t.Errorf("in the making: ids %v, %v; dead %v", ids, err, dead)
	}
	if _, err := os.Lstat(f.Unborn); err != nil {
		t.Error(err)
	}
	f.config.Close() // its maker was killed
	if dead := h.Dead(); len(dead) == 1 {
		if err := h.removeWhole(dead[0], false); err != nil {
			t.Error(err)
		}
	} else if err := os.Chtimes(f.Unborn, time.Time{}, time.Now().Add(-2*makingTime)); err != nil || len(h.Dead()) != 1 {
		t.Errorf("with its maker gone, and old (%v), dead are %v", err, h.Dead())
	}
}

func TestFind(t *testing.T) {
	h := home(t)
	create(t, h, "abc1", "one", false)
	create(t, h, "abd2", "abc", true) // named like the other's beginning
	create(t, h, "abd3", "three", false)
	for name, tc := range map[string]struct{ id, wantErr string }{
		"one":    {id: "abc1"},
		"abc":    {id: "abd2"},
		"abc1":   {id: "abc1"},
		"abd3":   {id: "abd3"},
		"abd":    {wantErr: "abd is the beginning of several container ids"},
		"b":      {wantErr: "no such container: b"},
		"":       {wantErr: "no such container: "},
		"../x":   {wantErr: "no such container: ../x"},
		".new-x": {wantErr: "no such container: .new-x"},
	} {
		id, err := h.Find(name)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if id != tc.id || text != tc.wantErr {
			t.Errorf("%q: got %q, %q; want %q, %q", name, id, text, tc.id, tc.wantErr)
		}
	}
}

func TestInspect(t *testing.T) {
	running := State{Pid: 7, Started: time.Unix(1, 0)}
	for name, tc := range map[string]struct {
		state   *State
		ends    bool // its monitor has ended
		running bool
		pid     int
	}{
		"starting":              {},
		"running":               {state: &running, running: true, pid: 7},
		"ended":                 {state: &State{ExitStatus: 3}, ends: true},
		"killed with its host":  {state: &running, ends: true},
		"killed while starting": {ends: true},
		"being cleaned up":      {state: &State{ExitStatus: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			h := home(t)
			f := create(t, h, "aa", "box", false)
			if tc.state != nil {
				if err := writeState(f.Dir, *tc.state); err != nil {
					t.Fatal(err)
				}
			}
			if tc.ends {
				f.config.Close()
			}
			info, err := h.Inspect("aa")
			if err != nil || info.Running != tc.running || info.State.Pid != tc.pid || info.Config.Name != "box" {
				t.Errorf("got %+v, %v", info, err)
			}
			// Looking takes no lock away from a monitor, and keeps none.
			again, err := h.Inspect("aa")
			if err != nil || again.Running != tc.running {
				t.Errorf("and again: %+v, %v", again, err)
			}
		})
	}
}

// What a crash leaves half made reads as absent.
func TestCrashStates(t *testing.T) {
	whole, err := json.Marshal(Config{ID: "aa", Name: "box"})
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]string{"none": "-", "empty": "", "cut short": string(whole[:len(whole)/2]), "zeros": "\x00\x00"} {
		for _, in := range []string{kept, passing} {
			t.Run(in+"/"+name, func(t *testing.T) {
				h := home(t)
				dir := filepath.Join(h.Dir, in, "aa")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if config != "-" {
					if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if info, err := h.Inspect("aa"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("got %+v, %v", info, err)
				}
				if all, err := h.List(); err != nil || len(all) > 0 {
					t.Errorf("listed: %+v, %v", all, err)
				}
			})
		}
	}
	t.Run("state cut short", func(t *testing.T) {
		h := home(t)
		f := create(t, h, "aa", "box", false)
		if err := os.WriteFile(filepath.Join(f.Dir, "state.json"), []byte(`{"Pid":7,`), 0o600); err != nil {
			t.Fatal(err)
		}
		if info, err := h.Inspect("aa"); err != nil || info.Running {
			t.Errorf("got %+v, %v", info, err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		if _, err := home(t).Inspect("aa"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDead(t *testing.T) {
	h := home(t)
	create(t, h, "running", "a", true)
	create(t, h, "ended", "b", true).config.Close()
	create(t, h, "kept", "c", false).config.Close()
	for name, age := range map[string]time.Duration{unborn + "old": 2 * makingTime, unborn + "fresh": 0, doomed + "half": 2 * makingTime, doomed + "last": 0} {
		dir := filepath.Join(h.Dir, passing, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	// Being removed by its monitor, and by one that was killed.
	create(t, h, "ending", "d", true)
	create(t, h, "killed", "e", true).config.Close()
	for _, id := range []string{"ending", "killed"} {
		if _, err := h.doom(id); err != nil {
			t.Fatal(err)
		}
	}
	got := h.Dead()
	slices.Sort(got)
	if want := []string{unborn + "old", doomed + "half", doomed + "killed", "ended"}; !slices.Equal(got, want) {
		t.Errorf("dead are %v, want %v", got, want)
	}
	if ids, err := h.IDs(); err != nil || slices.ContainsFunc(ids, func(id string) bool { return id[0] == '.' }) {
		t.Errorf("ids %v, %v", ids, err)
	}
}

func TestList(t *testing.T) {
	h := home(t)
	for i, c := range []struct {
		id      string
		passing bool
		ends    bool
	}{{"aa", false, true}, {"bb", true, false}, {"cc", false, false}, {"dd", true, true}} {
		f, err := h.Create(c.id, c.passing)
		if err == nil {
			err = errors.Join(f.Write(Config{ID: c.id, Name: "name-" + c.id, AutoRemove: c.passing, Created: time.Unix(int64(i), 0)}), f.Born("name-"+c.id))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.config.Close()
		if err := writeState(f.Dir, State{Pid: 1}); err != nil {
			t.Fatal(err)
		}
		if c.ends {
			f.config.Close()
		}
	}
	all, err := h.List()
	var ids []string
	for _, info := range all {
		ids = append(ids, info.Config.ID)
	}
	// Newest first; the dead one that is to be removed is none any more.
	if want := []string{"cc", "bb", "aa"}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("got %v, %v; want %v", ids, err, want)
	}
}

func TestRemoveMain(t *testing.T) {
	h := home(t)
	running := create(t, h, "running", "a", false)
	create(t, h, "ended", "b", false).config.Close()
	half := filepath.Join(h.Dir, passing, doomed+"half", "upper")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeState(running.Dir, State{Pid: 1}); err != nil {
		t.Fatal(err)
	}
	if err := h.removeWhole("running", false); err == nil || !strings.Contains(err.Error(), "is running") {
		t.Errorf("a running one: %v", err)
	}
	for _, id := range []string{"ended", doomed + "half"} {
		if err := h.removeWhole(id, false); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if ids, err := h.IDs(); err != nil || !slices.Equal(ids, []string{"running"}) {
		t.Errorf("left: %v, %v", ids, err)
	}
	if _, err := os.Lstat(half); err == nil {
		t.Error("half a container is still there")
	}
	if left, err := os.ReadDir(filepath.Join(h.Dir, names)); err != nil || len(left) != 1 {
		t.Errorf("names: %v, %v", left, err)
	}
	running.Discard()
}

func TestIDs(t *testing.T) {
	a, b := NewID(), NewID()
	if len(a) != 64 || a == b || CheckName(a) != nil {
		t.Errorf("%s, %s", a, b)
	}
	if Short(a) != a[:12] || Short("ab") != "ab" {
		t.Errorf("%s, %s", Short(a), Short("ab"))
	}
}

// A configuration that has become shorter leaves nothing of the longer one.
func TestShorterConfig(t *testing.T) {
	h := home(t)
	f := create(t, h, "ab", "box", false)
	c := Config{ID: "ab", Name: "box", AutoRemove: true}
	c.Annotations = map[string]string{"long": strings.Repeat("x", 10000)}
	if err := f.Write(c); err != nil {
		t.Fatal(err)
	}
	c.Annotations = nil
	if err := f.Pass(&c); err != nil {
		t.Fatal(err)
	}
	if info, err := h.Inspect("ab"); err != nil || info.Config.Name != "box" {
		t.Errorf("%+v, %v", info.Config, err)
	}
}

// A state that a killed monitor left is put right by who locks the folder next:
// with the lock held it would say that the container runs.
func TestReopenSettlesTheState(t *testing.T) {
	h := home(t)
	f := create(t, h, "ab", "box", false)
	if err := replaceState(f.Dir, State{Pid: 1, Started: time.Now()}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	again, _, err := h.Reopen("ab")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if info, err := h.Inspect("ab"); err != nil || info.Running || info.State.ExitStatus != killed {
		t.Errorf("%+v, %v", info, err)
	}
}
