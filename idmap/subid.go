package idmap

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// LineError reports a line of File that grants the user ids but cannot be
// read. The other lines still count.
type LineError struct {
	File string
	Line int // from 1
	Text string
	Why  string
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%s line %d: %s", e.File, e.Line, e.Why)
}

// Hint shows what such a line looks like.
func (e *LineError) Hint() string {
	return fmt.Sprintf("as root: write line %d of %s as NAME:FIRST:COUNT, for example kim:100000:65536", e.Line, e.File)
}

// parseSubIDs returns the ranges that data, the text of /etc/subuid or
// /etc/subgid, grants to the user of that name or uid (both files name users),
// in the order of the lines. Lines of others are passed over unread.
// An empty name matches nobody.
func parseSubIDs(file, data, name string, uid uint32) (ranges []Range, bad []error) {
	number := strconv.FormatUint(uint64(uid), 10)
	for n := 1; data != ""; n++ {
		var line string
		line, data, _ = strings.Cut(data, "\n")
		owner, rest, _ := strings.Cut(line, ":")
		if owner == "" || owner != name && owner != number {
			continue
		}
		r, why := parseRange(rest)
		if why != "" {
			bad = append(bad, &LineError{File: file, Line: n, Text: line, Why: why})
			continue
		}
		ranges = append(ranges, r)
	}
	return ranges, bad
}

// firstFree returns the start of the lowest 65536 ids from 100000 on
// (SUB_UID_MIN of login.defs(5)) that no line of data has.
func firstFree(data string) uint32 {
	var taken []Range
	for line := range strings.Lines(data) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if r, why := parseRange(rest); why == "" {
			taken = append(taken, r)
		}
	}
	slices.SortFunc(taken, func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
	free := uint64(100000)
	for _, r := range taken {
		if free+65536 <= uint64(r.Start) {
			break
		}
		free = max(free, r.end())
	}
	if free > maxID-65535 {
		return 100000 // all taken: the administrator must choose
	}
	return uint32(free)
}

// parseRange reads FIRST:COUNT. A non-empty why tells what is wrong with it.
func parseRange(s string) (r Range, why string) {
	first, count, ok := strings.Cut(s, ":")
	if !ok {
		return r, "no count: a line is NAME:FIRST:COUNT"
	}
	start, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return r, fmt.Sprintf("first id %q is not a number", first)
	}
	n, err := strconv.ParseUint(count, 10, 64)
	if err != nil {
		return r, fmt.Sprintf("count %q is not a number", count)
	}
	if n == 0 {
		return r, "count is zero"
	}
	if start > maxID || n > maxID+1-start {
		return r, fmt.Sprintf("%d ids from %d on pass the highest id, %d", n, start, uint32(maxID))
	}
	return Range{uint32(start), uint32(n)}, ""
}

// parseGetSubIDs reads the output of getsubids(1): "0: kim 100000 65536" lines.
func parseGetSubIDs(command, out string) (ranges []Range, bad []error) {
	for n := 1; out != ""; n++ {
		var line string
		line, out, _ = strings.Cut(out, "\n")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		why := "it is not INDEX: NAME FIRST COUNT"
		var r Range
		if len(f) == 4 {
			r, why = parseRange(f[2] + ":" + f[3])
		}
		if why != "" {
			bad = append(bad, fmt.Errorf("%s: output line %d %q: %s", command, n, line, why))
			continue
		}
		ranges = append(ranges, r)
	}
	return ranges, bad
}

// subidSource is the database that nsswitch.conf(5) names for subordinate
// ids: the first word after "subid:" ("files" where it says nothing), as
// newuidmap has it, which asks that one alone.
func subidSource(nsswitch string) string {
	for line := range strings.Lines(nsswitch) {
		line, _, _ = strings.Cut(line, "#")
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(key) != "subid" {
			continue
		}
		if f := strings.Fields(value); len(f) > 0 {
			return f[0]
		}
	}
	return "files"
}

// userName is the login name of uid in data, the text of passwd(5), or "".
func userName(passwd string, uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.Lines(passwd) {
		f := strings.SplitN(line, ":", 4)
		if len(f) == 4 && f[2] == number {
			return f[0]
		}
	}
	return ""
}
