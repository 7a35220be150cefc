package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLineIsDockers(t *testing.T) {
	e := Event{
		Time: time.Unix(1795366800, 123456789), Type: "container", Action: "die", ID: "abc",
		Attributes: map[string]string{"name": "x", "image": "alpine", "exitCode": "3"},
	}
	want := `{"Type":"container","Action":"die","Actor":{"ID":"abc","Attributes":{"exitCode":"3","image":"alpine",` +
		`"name":"x"}},"scope":"local","time":1795366800,"timeNano":1795366800123456789}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAppendAndRead(t *testing.T) {
	dir, start := t.TempDir(), time.Unix(1000, 0)
	awkward := "quote \" backslash \\ newline \n tab \t nul \x00 del \x7f <&> é 日本   \U0001f600"
	var want []Event
	for i, action := range []string{"create", "start", awkward, "destroy"} {
		e := Event{start.Add(time.Duration(i) * time.Minute), "container", action, "id", map[string]string{awkward: awkward}}
		if err := Append(dir, e); err != nil {
			t.Fatal(err)
		}
		want = append(want, e)
	}
	for name, tc := range map[string]struct {
		since, until time.Time
		want         []Event
	}{
		"all":   {want: want},
		"since": {since: start.Add(time.Minute), want: want[1:]},
		"until": {until: start.Add(time.Minute), want: want[:2]},
		"both":  {start.Add(time.Second), start.Add(time.Minute), want[1:2]},
	} {
		var got []Event
		err := Read(dir, tc.since, tc.until, func(e Event) error { got = append(got, e); return nil })
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %+v, %v\nwant %+v", name, got, err, tc.want)
		}
	}
	if st, err := os.Stat(filepath.Join(dir, fileName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("stat: %v, %v", st, err)
	}
}

func TestWhatIsNoEventIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("junk\n\n{}\n[]\n{\"Type\":\"image\",\"timeNano\":5}\n{\"cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := Read(dir, time.Time{}, time.Time{}, func(e Event) error { got = append(got, e.Type); return nil })
	if want := []string{"", "image"}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestRotationLosesNothing has many writers and one who follows.
func TestRotationLosesNothing(t *testing.T) {
	const writers, each, limit = 8, 200, 1 << 20 // one rotation: what comes before events.1 is gone
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	Append(dir, Event{Action: "before"})
	var wg sync.WaitGroup
	appendMany := func(writer int) {
		for i := range each {
			f, err := openLocked(dir, limit)
			if err != nil {
				t.Error(err)
				return
			}
			e := Event{Time: time.Now(), ID: fmt.Sprint(writer, i), Attributes: map[string]string{"pad": strings.Repeat("x", 1000)}}
			f.Write(append(e.AppendJSON(nil), '\n'))
			f.Close()
		}
	}
	seen, enough := map[string]int{}, errors.New("enough")
	err := Follow(ctx, dir, time.Unix(1, 0), time.Time{}, func(e Event) error {
		if e.Action == "before" {
			for w := range writers {
				wg.Go(func() { appendMany(w) })
			}
			return nil
		}
		seen[e.ID]++
		if len(seen) == writers*each {
			return enough
		}
		return nil
	})
	wg.Wait()
	if !errors.Is(err, enough) {
		t.Fatalf("%v after %d of %d events", err, len(seen), writers*each)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("event %s came %d times", id, n)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, oldName)); err != nil {
		t.Error(err)
	}
}

func TestFollowEndsAtUntil(t *testing.T) {
	dir, begin := t.TempDir(), time.Now()
	Append(dir, Event{Action: "old"})
	err := Follow(context.Background(), dir, time.Time{}, begin.Add(50*time.Millisecond), func(e Event) error {
		return fmt.Errorf("followed %+v", e)
	})
	if err != nil || time.Since(begin) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

func FuzzJSON(f *testing.F) {
	f.Add("a", "b\xff", "c ")
	f.Fuzz(func(t *testing.T, action, key, value string) {
		e := Event{Time: time.Unix(1, 1), Type: "image", Action: action, ID: value, Attributes: map[string]string{key: value}}
		line := e.AppendJSON(nil)
		if !json.Valid(line) || strings.ContainsAny(string(line), "\n\r") {
			t.Fatalf("%q", line)
		}
		got, ok := parse(line)
		if !ok || got.Action != string([]rune(action)) {
			t.Fatalf("%q: %+v", line, got)
		}
	})
}
