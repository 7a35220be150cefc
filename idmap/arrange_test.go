package idmap

import (
	"reflect"
	"testing"
)

func TestArrange(t *testing.T) {
	all := []Range{{0, maxID + 1}}
	for name, tc := range map[string]struct {
		own     uint32
		ranges  []Range
		within  []Range
		want    []Mapping
		dropped string
	}{
		"own alone": {own: 1000, within: all, want: []Mapping{{0, 1000, 1}}},
		"in the order given": {
			own: 1000, ranges: []Range{{300000, 10}, {100000, 65536}}, within: all,
			want: []Mapping{{0, 1000, 1}, {1, 300000, 10}, {11, 100000, 65536}},
		},
		"neighbours join": {
			own: 1000, ranges: []Range{{100000, 10}, {100010, 5}, {100020, 5}}, within: all,
			want: []Mapping{{0, 1000, 1}, {1, 100000, 15}, {16, 100020, 5}},
		},
		"own is no neighbour": { // newuidmap grants it by another rule
			own: 1000, ranges: []Range{{1001, 10}}, within: all,
			want: []Mapping{{0, 1000, 1}, {1, 1001, 10}},
		},
		"overlaps count once": {
			own: 1000, ranges: []Range{{100, 10}, {105, 10}, {90, 40}, {100, 10}}, within: all,
			want: []Mapping{{0, 1000, 1}, {1, 100, 15}, {16, 90, 10}, {26, 115, 15}},
		},
		"own is cut out": {
			own: 1000, ranges: []Range{{998, 5}}, within: all,
			want: []Mapping{{0, 1000, 1}, {1, 998, 2}, {3, 1001, 2}},
		},
		"up to the highest id": {
			own: 4294967294, ranges: []Range{{4294967290, 5}}, within: all,
			want: []Mapping{{0, 4294967294, 1}, {1, 4294967290, 4}},
		},
		"all ids": {
			own: 0, ranges: []Range{{0, 4294967295}}, within: all,
			want: []Mapping{{0, 0, 1}, {1, 1, 4294967294}},
		},
		"inside an outer container": {
			own: 1000, ranges: []Range{{60000, 10000}, {100000, 65536}}, within: []Range{{0, 65537}},
			want: []Mapping{{0, 1000, 1}, {1, 60000, 5537}}, dropped: "ids 100000 to 165535 do not exist in this user namespace",
		},
		"an outer map of several lines": { // the kernel wants each of ours within one of its lines
			own: 5, ranges: []Range{{0, 100}}, within: []Range{{0, 10}, {10, 10}, {50, 5}},
			want: []Mapping{{0, 5, 1}, {1, 0, 5}, {6, 6, 4}, {10, 10, 10}, {20, 50, 5}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, dropped := arrange(tc.own, tc.ranges, tc.within, 4096)
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			checkMaps(t, got)
			var err error
			if len(dropped) > 0 {
				err = dropped[0]
			}
			checkError(t, err, tc.dropped)
		})
	}
}

// 340 lines and, what comes first on most machines, less than a page.
func TestArrangeKeepsTheKernelsLimits(t *testing.T) {
	var ranges []Range
	for i := range uint32(1000) {
		ranges = append(ranges, Range{100000 + 10*i, 5})
	}
	for page, want := range map[int]int{4096: 0, 65536: 340} {
		maps, dropped := arrange(1000, ranges, []Range{{0, maxID + 1}}, page)
		if len(dropped) != 1 {
			t.Errorf("page %d: dropped %v, want one word on it", page, dropped)
		}
		if want != 0 && len(maps) != want || len(text(maps)) >= page {
			t.Errorf("page %d: %d lines, %d bytes", page, len(maps), len(text(maps)))
		}
		next, _ := arrange(1000, ranges[:len(maps)], []Range{{0, maxID + 1}}, 1<<20)
		if len(maps) < 340 && len(text(next)) < page {
			t.Errorf("page %d: %d lines of %d bytes, another would have fitted", page, len(maps), len(text(maps)))
		}
	}
}
