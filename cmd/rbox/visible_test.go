package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain, größe, 日本\n\ttext": "plain, größe, 日本\n\ttext",
		"\x1b]0;title\a":           `\u001b]0;title\u0007`,
		"a\rb\x7f":                 `a\u000db\u007f`,
		"\u009b31m":                `\u009b31m`,
		"abc\u202edcba":            `abc\u202edcba`,
		"":                         "",
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := inCell("one\ntwo\x1bc"); got != `one\u000atwo\u001bc` {
		t.Errorf("in a cell: %q", got)
	}
}

// What is shown of JSON is still the same JSON.
func TestJSONIsVisible(t *testing.T) {
	in := []any{map[string]any{"label": "\u009b31m \x1b[0m \x7f \u202e end\n"}}
	var b bytes.Buffer
	if err := printJSON(&b, in, "  "); err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsFunc(b.Bytes(), harmful) {
		t.Errorf("shown raw: %q", b.String())
	}
	var out []any
	if err := json.Unmarshal(b.Bytes(), &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %v, %v", out, err)
	}
}
