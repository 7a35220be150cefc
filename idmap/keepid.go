package idmap

// KeepID plans the maps of a container nested in a namespace mapped by outer:
// outer's uid and gid (0 and 0 are the user of rbox) become insideUID and
// insideGID, so that the user owns their own files there under the number
// they are used to. All other ids keep their order and fill the numbers
// around it: with uid 0, ids below insideUID are one more in outer, and those
// above are the same. Ids that outer lacks are left out.
func KeepID(outer Maps, uid, gid, insideUID, insideGID uint32) Maps {
	return Maps{
		UIDs:   keep(insides(outer.UIDs), uid, insideUID),
		GIDs:   keep(insides(outer.GIDs), gid, insideGID),
		Single: outer.Single,
	}
}

// LayerShift returns the outer id that must own a file for it to belong to id
// in a container where KeepID made the user (outer 0) kept. With kept 0
// nothing moves.
func LayerShift(id, kept uint32) uint32 {
	switch {
	case id == kept:
		return 0
	case id < kept:
		return id + 1
	}
	return id
}

// keep maps self to kept, and the other ids of outer in their order: numbered
// without self, they are the container's ids numbered without kept.
func keep(outer []Range, self, kept uint32) []Mapping {
	maps := []Mapping{{kept, self, 1}}
	for _, r := range subtract(outer, []Range{{self, 1}}) {
		rank := r.Start
		if r.Start > self {
			rank--
		}
		below := uint32(0)
		if rank < kept {
			below = min(r.Count, kept-rank)
			maps = append(maps, Mapping{rank, r.Start, below})
		}
		if below < r.Count {
			maps = append(maps, Mapping{rank + below + 1, r.Start + below, r.Count - below})
		}
	}
	return maps
}
