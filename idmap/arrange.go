package idmap

import (
	"fmt"
	"slices"
)

// maxLines is how many lines a map may have (user_namespaces(7), Linux 4.15).
const maxLines = 340

// AbsentError reports a range that is granted to us but does not exist in the
// user namespace that we are in.
type AbsentError struct{ Range Range }

func (e *AbsentError) Error() string {
	return fmt.Sprintf("ids %d to %d do not exist in this user namespace", e.Range.Start, e.Range.end()-1)
}

// Hint is what who made that namespace can do.
func (e *AbsentError) Hint() string {
	return "map more ids in the outer container, or change the file to ids that /proc/self/uid_map and gid_map have"
}

// arrange maps own to id 0 and the ranges, in their order, to the ids from 1
// on. No id is mapped twice: what an earlier range or own has is cut from
// later ones. Ids outside of within do not exist in the present namespace and
// are left out. The map stays below maxLines lines and pageSize bytes.
// dropped tells what was left out, but not of ids granted twice, which are lost to no one.
func arrange(own uint32, ranges, within []Range, pageSize int) (maps []Mapping, dropped []error) {
	maps = []Mapping{{0, own, 1}}
	size := len(maps[0].append(nil))
	taken := []Range{{own, 1}}
	next := uint64(1)
	for i, r := range ranges {
		parts := intersect(r, within)
		if len(parts) == 0 {
			dropped = append(dropped, &AbsentError{r})
			continue
		}
		for _, part := range subtract(parts, taken) {
			if next+uint64(part.Count) > maxID+1 {
				part.Count = uint32(maxID + 1 - next)
			}
			if part.Count == 0 {
				break
			}
			m := Mapping{uint32(next), part.Start, part.Count}
			next += uint64(part.Count)
			if last := &maps[len(maps)-1]; len(maps) > 1 && joins(*last, m) && !begins(within, m.Outside) {
				size -= len(last.append(nil))
				last.Count += m.Count
				size += len(last.append(nil))
			} else {
				size += len(m.append(nil))
				maps = append(maps, m)
			}
			if len(maps) > maxLines || size >= pageSize {
				maps = maps[:len(maps)-1]
				return maps, append(dropped, fmt.Errorf("the kernel takes no more than %d lines and %d bytes: range %d of %d (from %d) and those after it are left out",
					maxLines, pageSize-1, i+1, len(ranges), part.Start))
			}
		}
		taken = append(taken, parts...)
	}
	return maps, dropped
}

// joins tells whether b goes on where a ends.
func joins(a, b Mapping) bool {
	return uint64(a.Outside)+uint64(a.Count) == uint64(b.Outside) &&
		uint64(a.Inside)+uint64(a.Count) == uint64(b.Inside)
}

// begins tells whether one of rs starts at id: the kernel wants each line of
// a map within one line of the parent's, however well those join.
func begins(rs []Range, id uint32) bool {
	return slices.ContainsFunc(rs, func(r Range) bool { return r.Start == id })
}

// intersect returns the parts of r that lie in within, in the order of within.
func intersect(r Range, within []Range) []Range {
	var parts []Range
	for _, w := range within {
		start := max(r.Start, w.Start)
		end := min(r.end(), w.end(), maxID+1)
		if uint64(start) < end {
			parts = append(parts, Range{start, uint32(end - uint64(start))})
		}
	}
	return parts
}

// subtract returns what is left of rs without the ids in cuts.
func subtract(rs, cuts []Range) []Range {
	for _, cut := range cuts {
		var left []Range
		for _, r := range rs {
			if cut.end() <= uint64(r.Start) || uint64(cut.Start) >= r.end() {
				left = append(left, r)
				continue
			}
			if r.Start < cut.Start {
				left = append(left, Range{r.Start, cut.Start - r.Start})
			}
			if r.end() > cut.end() {
				left = append(left, Range{uint32(cut.end()), uint32(r.end() - cut.end())})
			}
		}
		rs = left
	}
	return rs
}
