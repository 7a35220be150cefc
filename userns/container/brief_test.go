package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rbox/userns/stage"
)

func briefConfig(id string) Config {
	c := Config{
		ID: id, Name: "name-" + Short(id), Image: "alpine", ImageID: "sha256:12", Created: time.Now().Round(0),
		Labels: map[string]string{"a<b": "c&&d \"\\ü\n", "empty": ""}, Entrypoint: []string{"sh", "-c"}, Command: []string{"a > b"},
		Volumes: []VolumeUse{{"v", "/v", false}, {"w", "/w", true}}, Options: Options{Network: "host"},
		Health: &Healthcheck{Test: []string{"CMD", "true"}}, AutoRemove: true,
	}
	c.Plan.Process.Args = []string{"sh", "-c", "a > b"}
	return c
}

// scanConfig reads what encoding/json does, and nothing of a file cut short.
func TestScanConfig(t *testing.T) {
	want := briefConfig(NewID())
	for name, change := range map[string]func(*Config){
		"all":                  func(*Config) {},
		"nothing but an id":    func(c *Config) { *c = Config{ID: c.ID} },
		"no command":           func(c *Config) { c.Entrypoint, c.Command = nil, nil },
		"a plan with all else": func(c *Config) { c.Plan = stage.Plan{Files: []stage.File{{Target: "/x", Text: []byte("\"}")}}} },
	} {
		c := want
		change(&c)
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var got Config
		if !scanConfig(string(b), &got) {
			t.Fatalf("%s: cannot read %s", name, b)
		}
		if len(c.Entrypoint)+len(c.Command) == 0 {
			c.Command = c.Plan.Process.Args
		}
		if !got.Created.Equal(c.Created) {
			t.Errorf("%s: created %v, want %v", name, got.Created, c.Created)
		}
		got.Created = c.Created
		c.Plan, c.Health = stage.Plan{}, nil
		if !reflect.DeepEqual(got, c) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c)
		}
	}
	b, _ := json.Marshal(Config{ID: "x", Plan: want.Plan})
	for n := range b {
		var got Config
		if scanConfig(string(b[:n]), &got) {
			t.Fatalf("takes %s for whole", b[:n])
		}
	}
}

func TestScanState(t *testing.T) {
	want := State{
		Name: "new", Pid: 7, StartTime: 1 << 40, BootID: "b", Monitor: 6, Started: time.Now().UTC().Round(0), Finished: time.Now().UTC().Round(0),
		ExitStatus: -1, Error: "it \"failed\"", Paused: true, Restarting: true, OOMKilled: true, Restarts: 3,
		Health: &Health{Status: "healthy", Log: []HealthResult{{Output: "}]\""}}},
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got State
	if !scanState(string(b), &got) {
		t.Fatalf("cannot read %s", b)
	}
	want.OOMKilled, want.Restarts, want.Health = false, 0, &Health{Status: "healthy"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	for n := range b {
		if scanState(string(b[:n]), new(State)) {
			t.Fatalf("takes %s for whole", b[:n])
		}
	}
}

// put makes the folder of a container that does not run.
func put(t *testing.T, h *Home, sub string, c Config, s *State) string {
	t.Helper()
	dir := filepath.Join(h.Dir, sub, c.ID)
	b, err := json.Marshal(c)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
	}
	if err == nil && s != nil {
		if b, err = json.Marshal(s); err == nil {
			err = os.WriteFile(filepath.Join(dir, "state.json"), b, 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// A thousand containers in every condition read as Inspect finds each.
func TestBrief(t *testing.T) {
	h, err := OpenHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ended := State{Started: time.Now().Add(-time.Hour).UTC(), Finished: time.Now().UTC(), ExitStatus: 3}
	up := State{Pid: 1, Started: time.Now().UTC(), BootID: "x"}
	want, running := 0, 0
	for i := range 1000 {
		c := briefConfig(NewID())
		c.Name, c.Created, c.AutoRemove = fmt.Sprint("box", i), time.Unix(int64(i*7919%1000), 0).UTC(), false
		switch i % 5 {
		case 0:
			put(t, h, kept, c, nil)
		case 1:
			put(t, h, kept, c, &ended)
		case 2: // its monitor was killed
			put(t, h, kept, c, &up)
		case 3:
			c.AutoRemove = true
			put(t, h, passing, c, &up) // likewise: nobody sees it again
			continue
		case 4:
			lock, err := os.OpenFile(filepath.Join(put(t, h, kept, c, &up), "config.json"), os.O_RDWR, 0)
			if err == nil {
				err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			running++
		}
		want++
	}
	for _, name := range []string{".new-x", NewID()} { // in the making
		if err := os.Mkdir(filepath.Join(h.Dir, kept, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	list, err := h.Brief(true)
	if err != nil || len(list) != want {
		t.Fatalf("%d containers, want %d, %v", len(list), want, err)
	}
	for i, got := range list {
		if i > 0 && got.Config.Created.After(list[i-1].Config.Created) {
			t.Fatal("not the newest first")
		}
		full, err := h.Inspect(got.Config.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name() != full.Name() || got.Status() != full.Status() || !reflect.DeepEqual(got.State, full.State) || !reflect.DeepEqual(got.Config.Labels, full.Config.Labels) {
			t.Fatalf("\n got %+v\nwant %+v", got, full)
		}
	}
	if list, err = h.Brief(false); err != nil || len(list) != running {
		t.Fatalf("%d run, want %d, %v", len(list), running, err)
	}
}

// What the index says of many containers is what their files say, whatever
// happens to them after it was written.
func TestBriefByIndex(t *testing.T) {
	h, err := OpenHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ended := State{Started: time.Now().Add(-time.Hour).UTC(), Finished: time.Now().UTC(), ExitStatus: 3}
	up := State{Pid: 1, Started: time.Now().UTC(), BootID: "x"}
	var dirs []string
	var locks []*os.File
	controls := map[int]int{}
	make := func(i int, s *State) {
		t.Helper()
		c := briefConfig(NewID())
		c.Name, c.AutoRemove = fmt.Sprint("box", i), false
		dirs = append(dirs, put(t, h, kept, c, nil))
		lock, err := os.OpenFile(filepath.Join(dirs[i], "config.json"), os.O_RDWR, 0)
		if err == nil && s != nil {
			err = replaceState(dirs[i], *s)
		}
		if err == nil && s == &up {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
			if err == nil && i%2 == 0 { // others have not come to it
				controls[i], err = listenControl(dirs[i])
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		locks = append(locks, lock)
		t.Cleanup(func() { lock.Close() })
	}
	kill := func(i int) {
		locks[i].Close()
		if sock, listens := controls[i]; listens {
			unix.Close(sock)
		}
	}
	check := func(what string, total, running int) {
		t.Helper()
		for _, all := range []bool{true, false, true} {
			list, err := h.Brief(all)
			if want := map[bool]int{true: total, false: running}[all]; err != nil || len(list) != want {
				t.Fatalf("%s: %d containers, want %d, %v", what, len(list), want, err)
			}
			for _, got := range list {
				full, err := h.Inspect(got.Config.ID)
				if err != nil || got.Name() != full.Name() || got.Status() != full.Status() || !reflect.DeepEqual(got.State, full.State) ||
					!reflect.DeepEqual(got.Config.Labels, full.Config.Labels) || !got.Config.Created.Equal(full.Config.Created) {
					t.Fatalf("%s:\n got %+v\nwant %+v, %v", what, got, full, err)
				}
			}
		}
	}
	for i := range 3 * manyContainers {
		make(i, []*State{nil, &ended, &up}[i%3])
	}
	check("first", 3*manyContainers, manyContainers)
	if _, err := os.Stat(filepath.Join(h.Dir, indexName)); err != nil {
		t.Fatal(err)
	}
	kill(2)
	check("a monitor killed", 3*manyContainers, manyContainers-1)
	if err := replaceState(dirs[5], ended); err != nil {
		t.Fatal(err)
	}
	kill(5)
	check("one ended", 3*manyContainers, manyContainers-2)
	again := ended
	again.Name = "renamed"
	if err := replaceState(dirs[1], again); err != nil {
		t.Fatal(err)
	}
	check("one renamed", 3*manyContainers, manyContainers-2)
	if err := os.RemoveAll(dirs[0]); err != nil {
		t.Fatal(err)
	}
	check("one removed", 3*manyContainers-1, manyContainers-2)
	make(len(dirs), &up)
	check("one made", 3*manyContainers, manyContainers-1)
	for _, text := range []string{"", indexFormat, indexFormat + h.changeMark() + "\n" + filepath.Base(dirs[3]) + "\n{}\n"} {
		if err := os.WriteFile(filepath.Join(h.Dir, indexName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		check("an index cut short", 3*manyContainers, manyContainers-1)
	}
}

func BenchmarkBrief(b *testing.B) {
	t := &testing.T{}
	for _, n := range []int{10, 1000} {
		h, err := OpenHome(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		for i := range n {
			c := briefConfig(NewID())
			c.Name, c.AutoRemove = fmt.Sprint("box", i), false
			put(t, h, kept, c, &State{Started: time.Now().UTC(), Finished: time.Now().UTC()})
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if list, err := h.Brief(true); err != nil || len(list) != n {
					b.Fatal(len(list), err)
				}
			}
		})
	}
}
