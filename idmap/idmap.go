// Package idmap decides which ids a user namespace of ours gets and writes
// its maps: the user's own id with every subordinate id the host grants
// (subuid(5), subgid(5)), an outer namespace's whole range, or the own id alone.
package idmap

import (
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"strconv"
	"strings"
)

// maxID is the highest valid id: the kernel keeps 4294967295 for "no id".
const maxID = math.MaxUint32 - 1

// Mapping is one line of uid_map or gid_map (user_namespaces(7)): Count ids
// that start at Inside in the namespace and at Outside in its parent.
type Mapping struct{ Inside, Outside, Count uint32 }

// Range is Count ids that start at Start, as in /etc/subuid.
type Range struct{ Start, Count uint32 }

// end is the first id after r; it can be one more than an uint32 holds.
func (r Range) end() uint64 { return uint64(r.Start) + uint64(r.Count) }

// Maps is what to write into a new user namespace's uid_map and gid_map.
type Maps struct {
	UIDs, GIDs []Mapping

	// Single says that only the user's own id is mapped, so that chown to
	// any other fails with EINVAL and setgroups(2) with EPERM.
	Single bool

	// Skipped tells why better rungs of the ladder were not taken, and what
	// was left out of the one that was: unreadable lines, ranges in excess.
	// It does not survive JSON.
	Skipped []error `json:"-"`
}

// Key is a short stable name for what the maps do to a file's owner: trees
// unpacked under one key have the wrong owners under another.
func (m Maps) Key() string {
	if m.Single {
		return "single"
	}
	h := fnv.New64a()
	h.Write(text(m.UIDs))
	h.Write([]byte{0})
	h.Write(text(m.GIDs))
	return fmt.Sprintf("%016x", h.Sum64())
}

// text is ms as uid_map and gid_map read it.
func text(ms []Mapping) []byte {
	var b []byte
	for _, m := range ms {
		b = m.append(b)
	}
	return b
}

// append adds the line of m to b.
func (m Mapping) append(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(m.Inside), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(m.Outside), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(m.Count), 10)
	return append(b, '\n')
}

// ReadMap reads file, the uid_map or gid_map of a process.
func ReadMap(file string) ([]Mapping, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseMap(file, string(b))
}

// parseMap reads the text of a uid_map or gid_map as the kernel prints it.
func parseMap(file, s string) ([]Mapping, error) {
	var ms []Mapping
	for n, line := range strings.Split(strings.TrimRight(s, "\n"), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("%s line %d: %q is not three numbers", file, n+1, line)
		}
		var v [3]uint32
		for i := range v {
			u, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("%s line %d: %q is not a number", file, n+1, f[i])
			}
			v[i] = uint32(u)
		}
		ms = append(ms, Mapping{v[0], v[1], v[2]})
	}
	return ms, nil
}
