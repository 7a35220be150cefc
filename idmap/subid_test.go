package idmap

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseSubIDs(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    []Range
		wantBad string
	}{
		"by name":               {in: "kim:100000:65536\n", want: []Range{{100000, 65536}}},
		"by uid":                {in: "1000:100000:65536\n", want: []Range{{100000, 65536}}},
		"no newline at the end": {in: "kim:100000:65536", want: []Range{{100000, 65536}}},
		"both, several, in order": {
			in:   "kim:300000:10\nlee:200000:10\n1000:100000:10\nkim:400000:10\n",
			want: []Range{{300000, 10}, {100000, 10}, {400000, 10}},
		},
		"someone else":             {in: "lee:100000:65536\n"},
		"someone else's bad line":  {in: "lee:lots\nlee\n\n# kim\nkimberly:x:y\nkim:1:2\n", want: []Range{{1, 2}}},
		"above 2^31":               {in: "kim:4000000000:294967295\n", want: []Range{{4000000000, 294967295}}},
		"the highest id":           {in: "kim:4294967294:1\n", want: []Range{{4294967294, 1}}},
		"every id":                 {in: "kim:0:4294967295\n", want: []Range{{0, 4294967295}}},
		"one too many":             {in: "kim:4294967294:2\n", wantBad: "f line 1: 2 ids from 4294967294 on pass the highest id, 4294967294"},
		"first id no id":           {in: "kim:4294967295:1\n", wantBad: "pass the highest id"},
		"wraps":                    {in: "kim:1:18446744073709551615\n", wantBad: "pass the highest id"},
		"bad first id":             {in: "kim:0x10:5\n", wantBad: `f line 1: first id "0x10" is not a number`},
		"bad count, others stand":  {in: "kim:1:2\nkim:100000:lots\nkim:5:6\n", want: []Range{{1, 2}, {5, 6}}, wantBad: `f line 2: count "lots" is not a number`},
		"negative":                 {in: "kim:-1:5\n", wantBad: `first id "-1" is not a number`},
		"zero count":               {in: "kim:100000:0\n", wantBad: "f line 1: count is zero"},
		"no count":                 {in: "kim:100000\n", wantBad: "f line 1: no count: a line is NAME:FIRST:COUNT"},
		"no colon":                 {in: "kim\n", wantBad: "f line 1: no count"},
		"no owner is not everyone": {in: ":100000:65536\n"},
		"DOS line ends":            {in: "kim:1:2\r\n", wantBad: `f line 1: count "2\r" is not a number`},
	} {
		t.Run(name, func(t *testing.T) {
			got, bad := parseSubIDs("f", tc.in, "kim", 1000)
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			var err error
			if len(bad) > 1 {
				t.Errorf("bad lines: %v", bad)
			} else if len(bad) == 1 {
				err = bad[0]
			}
			checkError(t, err, tc.wantBad)
		})
	}
}

func TestParseSubIDsWithoutName(t *testing.T) {
	got, bad := parseSubIDs("f", ":1:2\n1000:3:4\n", "", 1000)
	if want := []Range{{3, 4}}; !reflect.DeepEqual(got, want) || bad != nil {
		t.Errorf("got %v and %v, want %v", got, bad, want)
	}
}

func FuzzParseSubIDs(f *testing.F) {
	for _, seed := range []string{
		"kim:100000:65536\n", "1000:100000:65536", "kim:4294967294:1\n", "kim:4294967294:2\n",
		"kim:0:4294967296\nkim::\n:::\n", "lee:1:1\nkim:1:1\nkim:1:1\n", "kim:1:2\r\n", "\x00\xff:\n\n\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		ranges, bad := parseSubIDs("f", data, "kim", 1000)
		if len(ranges)+len(bad) > strings.Count(data, "\n")+1 {
			t.Errorf("%d ranges and %d errors out of %q", len(ranges), len(bad), data)
		}
		for _, r := range ranges {
			if r.Count == 0 || r.end() > maxID+1 {
				t.Errorf("impossible range %v out of %q", r, data)
			}
		}
		maps, _ := arrange(1000, ranges, []Range{{0, maxID + 1}}, 4096)
		checkMaps(t, maps)
	})
}

// checkMaps asserts what the kernel asks of a map.
func checkMaps(t *testing.T, maps []Mapping) {
	t.Helper()
	if len(maps) > 340 || len(text(maps)) >= 4096 {
		t.Errorf("%d lines, %d bytes", len(maps), len(text(maps)))
	}
	for i, a := range maps {
		in, out := Range{a.Inside, a.Count}, Range{a.Outside, a.Count}
		if a.Count == 0 || in.end() > maxID+1 || out.end() > maxID+1 {
			t.Errorf("line %v is out of bounds", a)
		}
		for _, b := range maps[:i] {
			if len(intersect(in, []Range{{b.Inside, b.Count}})) > 0 || len(intersect(out, []Range{{b.Outside, b.Count}})) > 0 {
				t.Errorf("lines %v and %v overlap", a, b)
			}
		}
	}
}

func TestParseGetSubIDs(t *testing.T) {
	for name, tc := range map[string]struct {
		in      string
		want    []Range
		wantBad string
	}{
		"two":          {in: "0: kim 100000 65536\n1: kim 300000 5\n", want: []Range{{100000, 65536}, {300000, 5}}},
		"name blanked": {in: "0: 100000 65536\n", wantBad: `getsubids kim: output line 1 "0: 100000 65536": it is not INDEX: NAME FIRST COUNT`},
		"bad number":   {in: "0: kim x 65536\n", wantBad: `first id "x" is not a number`},
		"nothing":      {},
	} {
		t.Run(name, func(t *testing.T) {
			got, bad := parseGetSubIDs("getsubids kim", tc.in)
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			var err error
			if len(bad) > 0 {
				err = bad[0]
			}
			checkError(t, err, tc.wantBad)
		})
	}
}

func TestSubidSource(t *testing.T) {
	for in, want := range map[string]string{
		"":                               "files",
		"passwd: files sss\n":            "files",
		"passwd: files\nsubid: sss\n":    "sss",
		" subid:\tsss files # and so on": "sss",
		"#subid: sss\n":                  "files",
		"subid:\n":                       "files",
	} {
		if got := subidSource(in); got != want {
			t.Errorf("subidSource(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestUserName(t *testing.T) {
	const passwd = "root:x:0:0::/:/bin/sh\nbad line\nkim:x:1000:1000::/home/kim:/bin/sh\nkim2:x:1000:1000::/:/bin/sh\n"
	for uid, want := range map[uint32]string{0: "root", 1000: "kim", 1001: ""} {
		if got := userName(passwd, uid); got != want {
			t.Errorf("userName(%d) = %q, want %q", uid, got, want)
		}
	}
}

func TestFirstFree(t *testing.T) {
	for in, want := range map[string]uint32{
		"":                   100000,
		"lee:100000:65536\n": 165536,
		"lee:165536:65536\nkim:100000:65536\nlee:100000:65536\n": 231072,
		"lee:200000:65536\n":    100000,
		"lee:150000:65536\nx\n": 215536,
		"lee:1:4294967294\n":    100000,
	} {
		if got := firstFree(in); got != want {
			t.Errorf("firstFree(%q) = %d, want %d", in, got, want)
		}
	}
}
