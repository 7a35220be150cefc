package wire

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

type words []string

func (w *words) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		*w = words{string(b[1 : len(b)-1])}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

type Embedded struct{ Inside, Other int }

type document struct {
	Embedded
	Plain   sample
	Named   string     `json:"other-name"`
	Omitted *time.Time `json:"when,omitempty"`
	Zero    time.Time  `json:",omitzero"`
	Kept    time.Time
	Pause   time.Duration
	Flags   uintptr
	Set     map[string]struct{} `json:",omitempty"`
	Empty   []string            `json:",omitempty"`
	Words   words               `json:",omitempty"`
	Never   int                 `json:"-"`
	Nested  map[string][]inner
	Address netip.Addr
	Net     netip.Prefix `json:",omitzero"`
}

func documents() map[string]document {
	when := time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("", 3600))
	return map[string]document{
		"zero": {},
		"full": {
			Embedded: Embedded{1, 2}, Plain: full(), Named: "<a & b>", Omitted: &when, Zero: when, Kept: when, Pause: time.Hour, Flags: 7, Set: map[string]struct{}{"80/tcp": {}},
			Empty: []string{}, Words: words{"sh", "-c", `echo "hi"` + "\n"}, Never: 3, Nested: map[string][]inner{"b": {{"x", 1}}, "a\\": nil},
			Address: netip.MustParseAddr("fd00::2"), Net: netip.MustParsePrefix("10.0.2.0/24"),
		},
	}
}

// TestJSON holds both directions against encoding/json.
func TestJSON(t *testing.T) {
	for name, in := range documents() {
		t.Run(name, func(t *testing.T) {
			ours := AppendJSON(nil, in)
			theirs, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			var want document
			if err := json.Unmarshal(theirs, &want); err != nil {
				t.Fatal(err)
			}
			for by, text := range map[string][]byte{"AppendJSON": ours, "json.Marshal": theirs} {
				var std, own document
				if err := json.Unmarshal(text, &std); err != nil || !reflect.DeepEqual(std, want) {
					t.Errorf("json.Unmarshal of %s's %s: %+v, %v", by, text, std, err)
				}
				if err := ReadJSON(text, &own); err != nil || !reflect.DeepEqual(own, want) {
					t.Errorf("ReadJSON of %s's %s: %+v, %v", by, text, own, err)
				}
			}
		})
	}
}

// TestReadsJSONItself makes sure that the common case does without encoding/json.
func TestReadsJSONItself(t *testing.T) {
	in := documents()["full"]
	in.Named, in.Words, in.Nested, in.Plain.Text = "a", words{"sh"}, nil, "b"
	j := jsonReader{b: AppendJSON(nil, in)}
	if !j.value(reflect.ValueOf(&document{}).Elem()) {
		t.Errorf("it stopped at %q", j.b[:j.i])
	}
}

// FuzzReadJSON holds ReadJSON against json.Unmarshal on whatever comes.
func FuzzReadJSON(f *testing.F) {
	for _, in := range documents() {
		f.Add(AppendJSON(nil, in))
	}
	f.Add([]byte(`{"Plain":{"":`))
	f.Add([]byte(`{"Plain":{"on":true},"Words":"one","Kept":null} `))
	f.Fuzz(func(t *testing.T, text []byte) {
		var std, own document
		stdErr, ownErr := json.Unmarshal(text, &std), ReadJSON(text, &own)
		if (stdErr == nil) != (ownErr == nil) {
			t.Fatalf("%q: %v, json.Unmarshal %v", text, ownErr, stdErr)
		}
		if stdErr == nil && !reflect.DeepEqual(std, own) {
			t.Errorf("%q: %+v, json.Unmarshal %+v", text, own, std)
		}
	})
}
