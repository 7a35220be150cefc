package container

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseKeys(t *testing.T) {
	for text, want := range map[string][]byte{
		"": nil, "ctrl-p,ctrl-q": {16, 17}, "CTRL-A": {1}, "a,b,Z": {'a', 'b', 'Z'}, "ctrl-@": {0}, "ctrl-[": {27},
		"ctrl-\\,x": {28, 'x'}, "ctrl-]": {29}, "ctrl-^": {30}, "ctrl-_": {31},
	} {
		if got, err := ParseKeys(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-1", "ab", ",", "a,", "ctrl-pp", "ü"} {
		if got, err := ParseKeys(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

// What was typed before the keys is the program's, however it arrives.
func TestKeyReader(t *testing.T) {
	for _, tc := range []struct {
		keys, typed, want string
		found             bool
	}{
		{"ab", "ab", "", true}, {"ab", "xab", "x", true}, {"ab", "abx", "", true}, {"ab", "aab", "a", true},
		{"ab", "axab", "ax", true}, {"ab", "a", "a", false}, {"ab", "xa", "xa", false}, {"", "ab", "ab", false},
		{"abac", "ababac", "ab", true}, {"aab", "aaab", "a", true}, {"abac", "abab", "abab", false},
		{"a", "xxa", "xx", true}, {"abc", "ababx", "ababx", false},
	} {
		for name, r := range map[string]io.Reader{
			"at once": strings.NewReader(tc.typed), "one by one": iotest.OneByteReader(strings.NewReader(tc.typed)),
		} {
			k := &keyReader{r: r, keys: []byte(tc.keys)}
			got, err := io.ReadAll(k)
			if err != nil || string(got) != tc.want || k.found != tc.found {
				t.Errorf("keys %q, typed %q %s: %q %v %v, want %q %v", tc.keys, tc.typed, name, got, k.found, err, tc.want, tc.found)
			}
		}
	}
}
