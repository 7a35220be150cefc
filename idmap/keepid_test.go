package idmap

import (
	"reflect"
	"testing"
)

func TestKeepID(t *testing.T) {
	outer := []Mapping{{0, 1000, 1}, {1, 100000, 65536}}
	for name, tc := range map[string]struct {
		outer []Mapping
		kept  uint32
		want  []Mapping
	}{
		"root":          {outer: outer, kept: 0, want: []Mapping{{0, 0, 1}, {1, 1, 65536}}},
		"usual":         {outer: outer, kept: 1000, want: []Mapping{{1000, 0, 1}, {0, 1, 1000}, {1001, 1001, 64536}}},
		"the last":      {outer: outer, kept: 65536, want: []Mapping{{65536, 0, 1}, {0, 1, 65536}}},
		"beyond":        {outer: outer, kept: 3000000000, want: []Mapping{{3000000000, 0, 1}, {0, 1, 65536}}},
		"one id":        {outer: outer[:1], kept: 1000, want: []Mapping{{1000, 0, 1}}},
		"several lines": {outer: []Mapping{{0, 1000, 1}, {1, 100000, 10}, {11, 300000, 10}}, kept: 5, want: []Mapping{{5, 0, 1}, {0, 1, 5}, {6, 6, 5}, {11, 11, 10}}},
		"holes":         {outer: []Mapping{{0, 0, 3}, {10, 10, 5}}, kept: 12, want: []Mapping{{12, 0, 1}, {0, 1, 2}, {9, 10, 3}, {13, 13, 2}}},
		"every id":      {outer: []Mapping{{0, 0, 4294967295}}, kept: 4294967294, want: []Mapping{{4294967294, 0, 1}, {0, 1, 4294967294}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := KeepID(Maps{UIDs: tc.outer, GIDs: tc.outer, Single: len(tc.outer) == 1}, 0, 0, tc.kept, tc.kept)
			if !reflect.DeepEqual(m.UIDs, tc.want) || !reflect.DeepEqual(m.GIDs, tc.want) {
				t.Errorf("got %v, want %v", m, tc.want)
			}
			if m.Single != (len(tc.outer) == 1) {
				t.Errorf("Single is %v", m.Single)
			}
			checkMaps(t, m.UIDs)
			checkShift(t, m.UIDs, tc.kept)
		})
	}
}

// checkShift asserts that LayerShift agrees with maps wherever they reach.
func checkShift(t *testing.T, maps []Mapping, kept uint32) {
	t.Helper()
	for _, m := range maps {
		for _, n := range []uint32{0, m.Count / 2, m.Count - 1} {
			if got, want := LayerShift(m.Inside+n, kept), m.Outside+n; got != want {
				t.Errorf("LayerShift(%d, %d) = %d, the map has %d", m.Inside+n, kept, got, want)
			}
		}
	}
}

// A user who is not root of the outer namespace.
func TestKeepIDOfAnother(t *testing.T) {
	outer := Maps{UIDs: []Mapping{{0, 0, 10}}, GIDs: []Mapping{{0, 0, 10}}}
	want := Maps{
		UIDs: []Mapping{{7, 3, 1}, {0, 0, 3}, {3, 4, 4}, {8, 8, 2}},
		GIDs: []Mapping{{0, 3, 1}, {1, 0, 3}, {4, 4, 6}},
	}
	if got := KeepID(outer, 3, 3, 7, 0); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
