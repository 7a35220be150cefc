package idmap

import (
	"reflect"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	full := Maps{UIDs: []Mapping{{0, 1000, 1}, {1, 100000, 65536}}, GIDs: []Mapping{{0, 1000, 1}, {1, 100000, 65536}}}
	swapped := Maps{UIDs: full.UIDs, GIDs: []Mapping{{0, 1000, 1}, {1, 200000, 65536}}}
	if got := (Maps{Single: true}).Key(); got != "single" {
		t.Errorf("single: Key() = %q", got)
	}
	if full.Key() == swapped.Key() {
		t.Errorf("key %q does not tell gids apart", full.Key())
	}
	// A key that changes between versions makes every user unpack again.
	if got, want := full.Key(), "8ef52987e4ae4591"; got != want {
		t.Errorf("Key() = %q, want %q", got, want)
	}
}

func TestParseMap(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    []Mapping
		wantErr string
	}{
		"initial namespace": {in: "         0          0 4294967295\n", want: []Mapping{{0, 0, 4294967295}}},
		"nested":            {in: "0 1000 1\n1 100000 65536\n", want: []Mapping{{0, 1000, 1}, {1, 100000, 65536}}},
		"not yet written":   {in: ""},
		"short":             {in: "0 1000\n", wantErr: `map line 1: "0 1000" is not three numbers`},
		"too great":         {in: "0 0 4294967296\n", wantErr: `map line 1: "4294967296" is not a number`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseMap("map", tc.in)
			checkError(t, err, tc.wantErr)
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// checkError compares an error's text; want "" is no error.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case err == nil && want != "":
		t.Errorf("no error, want %q", want)
	case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
		t.Errorf("error %q, want %q", err, want)
	}
}
