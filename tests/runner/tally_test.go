package main

import (
	"io"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for name, tc := range map[string]struct {
		events string
		strict bool
		want   string
	}{
		"pass": {
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`,
			want: "1 passed, 0 failed, 0 skipped",
		},
		"subtests stand for their parent": {
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/one"}
{"Action":"run","Package":"p","Test":"TestA/two"}
{"Action":"pass","Package":"p","Test":"TestA/one"}
{"Action":"fail","Package":"p","Test":"TestA/two"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			want: "1 passed, 1 failed, 0 skipped",
		},
		"a parent that fails by itself": {
			events: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/one"}
{"Action":"pass","Package":"p","Test":"TestA/one"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`,
			want: "1 passed, 1 failed, 0 skipped",
		},
		"a build that fails": {
			events: `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: no\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p"}`,
			want: "0 passed, 1 failed, 0 skipped",
		},
		"skip": {
			events: `{"Action":"skip","Package":"p","Test":"TestA"}`,
			want:   "0 passed, 0 failed, 1 skipped",
		},
		"skip in CI": {
			events: `{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"skip","Package":"p","Test":"TestListed"}`,
			strict: true,
			want:   "0 passed, 1 failed, 1 skipped",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &tally{strict: tc.strict, allowed: map[string]bool{"p.TestListed": true}, out: io.Discard}
			if err := c.read(strings.NewReader(tc.events)); err != nil {
				t.Fatal(err)
			}
			if got := c.String(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
