package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"golang.org/x/sys/unix"

	"rbox/userns/confine"
)

// A Target is what a filter is compiled for.
type Target struct {
	Arch         string // as GOARCH has it
	Kernel       Kernel
	Capabilities uint64 // the container's bounding set; bit n is capability n
}

// A Filter is what seccomp(2) takes.
type Filter struct {
	Program []unix.SockFilter
	Flags   uint32
}

// Bytes is the program as the kernel reads it, on a little-endian machine.
func (f *Filter) Bytes() []byte {
	var b []byte
	for _, in := range f.Program {
		b = binary.LittleEndian.AppendUint16(b, in.Code)
		b = append(b, in.Jt, in.Jf)
		b = binary.LittleEndian.AppendUint32(b, in.K)
	}
	return b
}

// maxProgram is how many instructions the kernel takes (BPF_MAXINSNS).
const maxProgram = 4096

// badArch becomes of calls by an architecture that the profile leaves out, as
// by x32 or int 0x80: what they are the filter cannot tell. libseccomp kills the
// thread, which leaves the others of its process waiting.
const badArch = unix.SECCOMP_RET_KILL_PROCESS

// Compile makes p's filter. The error is a *ProfileError without a file's name.
//
// It does what runc and libseccomp do. Rules that ask for the default action,
// and names that an architecture does not have, are passed over. Of the rules of
// one call the first without conditions decides; if there is none, the first
// whose conditions all hold (libseccomp sorts these by argument). Several conditions on the same argument are as many
// rules. Where the default is to refuse, a call that is newer than all that the
// profile names fails with ENOSYS, so that programs do without it.
func (p *Profile) Compile(t Target) (*Filter, error) {
	spaces := spacesOf(t.Arch)
	if spaces == nil {
		return nil, &ProfileError{Why: "no filter can be made for " + t.Arch}
	}
	if bad := p.check(); bad != nil {
		return nil, bad
	}
	fallback, _ := action(p.DefaultAction, p.DefaultErrnoRet)
	flags, _ := p.flags()
	asm := newAssembler()
	entry := asm.ret(badArch)
	for i := len(spaces) - 1; i >= 0; i-- { // what is tested first is made last
		s, native := spaces[i], spaces[0].abis[0].oci
		if !p.covers(s.abis[0].oci, native) {
			continue
		}
		var all []span
		for _, abi := range s.abis {
			if p.covers(abi.oci, native) {
				all = append(all, p.spans(abi, t, fallback)...)
			} else {
				all = append(all, span{abi.first, verdict{otherwise: badArch}}, span{abi.private, verdict{otherwise: fallback}})
			}
		}
		tree := asm.search(merge(all))
		entry = asm.branch(unix.BPF_JEQ, s.audit, asm.load(offNr, tree), entry)
	}
	asm.load(offArch, entry)
	f := &Filter{asm.program(), flags}
	if n := len(f.Program); n > maxProgram {
		return nil, &ProfileError{
			Why:  fmt.Sprintf("its filter has %d instructions, and the kernel takes %d", n, maxProgram),
			hint: "compare fewer arguments, or leave out architectures",
		}
	}
	return f, nil
}

// covers tells whether p has rules for an architecture; it always has for the
// native one, the machine's own.
func (p *Profile) covers(arch, native string) bool {
	if arch == native || slices.Contains(p.Architectures, arch) {
		return true
	}
	for _, f := range p.ArchMap {
		if f.Architecture == native && slices.Contains(f.SubArchitectures, arch) {
			return true
		}
	}
	return false
}

// A verdict is what becomes of a call: that of the first rule that holds, else otherwise.
type verdict struct {
	rules     []compiled
	otherwise uint32
	narrow    [6]bool // arguments of which the kernel reads 32 bits
}

// compiled is a rule as the filter has it.
type compiled struct {
	action uint32
	conds  []condition
}

// A span is a run of system calls with the same verdict, up to the next span.
type span struct {
	first uint32
	verdict
}

// spans are those of one binary interface, ascending.
func (p *Profile) spans(abi abi, t Target, fallback uint32) (all []span) {
	verdicts, newest := p.verdicts(abi, t, fallback)
	starts := []uint32{abi.first, abi.private}
	for nr := range verdicts {
		starts = append(starts, nr, nr+1)
	}
	beyond := fallback
	if newest >= 0 && refuses(fallback) {
		beyond = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
		starts = append(starts, uint32(newest)+1)
	}
	slices.Sort(starts)
	for _, nr := range slices.Compact(starts) {
		v, ok := verdicts[nr]
		switch {
		case ok:
		case int64(nr) > newest && nr < abi.private:
			v.otherwise = beyond
		default:
			v.otherwise = fallback
		}
		all = append(all, span{nr, v})
	}
	return all
}

// refuses tells whether ENOSYS can stand for an action: not for one that lets
// the call happen, or leaves it to a tracer.
func refuses(action uint32) bool {
	switch action & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return false
	}
	return true
}

// verdicts are what p's rules say, by the number of the call, and the newest
// call that they name, -1 for none.
func (p *Profile) verdicts(abi abi, t Target, fallback uint32) (all map[uint32]verdict, newest int64) {
	all, numbers := map[uint32]verdict{}, abi.numbers()
	decided := map[uint32]bool{} // by a rule without conditions
	newest = -1
	add := func(nr uint32, name string, c compiled) {
		v, ok := all[nr]
		if !ok {
			v = verdict{otherwise: fallback, narrow: abi.narrow(name)}
		}
		switch {
		case decided[nr]:
		case len(c.conds) == 0:
			v.rules, v.otherwise, decided[nr] = nil, c.action, true
		default:
			v.rules = append(v.rules, c)
		}
		all[nr] = v
	}
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		act, _ := action(r.Action, r.ErrnoRet)
		if !r.applies(t) {
			continue
		}
		for _, name := range r.names() {
			nr, ok := numbers[name]
			if ok && nr < abi.private {
				newest = max(newest, int64(nr))
			}
			if act == fallback {
				continue
			}
			for _, c := range r.alternatives(act) {
				if ok {
					add(nr, name, c)
				}
				if many, c, ok := abi.multiplexed(name, c, numbers); ok {
					add(many, "", c)
				}
			}
		}
	}
	return all, newest
}

// alternatives are r as rules that hold each by themselves: one, unless it has
// several conditions on one argument.
func (r *rule) alternatives(act uint32) (all []compiled) {
	var seen [6]bool
	for _, c := range r.Args {
		if seen[c.Index] {
			for _, c := range r.Args {
				all = append(all, compiled{act, []condition{c}})
			}
			return all
		}
		seen[c.Index] = true
	}
	return []compiled{{act, r.Args}}
}

// applies tells whether r is for t.
func (r *rule) applies(t Target) bool {
	has := func(cap string) bool { return t.Capabilities&capability(cap) != 0 }
	in, ex := &r.Includes, &r.Excludes
	switch {
	case slices.Contains(ex.Arches, t.Arch), slices.ContainsFunc(ex.Caps, has), ex.MinKernel != nil && t.Kernel.atLeast(*ex.MinKernel):
		return false
	case len(in.Arches) > 0 && !slices.Contains(in.Arches, t.Arch), in.MinKernel != nil && !t.Kernel.atLeast(*in.MinKernel):
		return false
	}
	return !slices.ContainsFunc(in.Caps, func(cap string) bool { return !has(cap) })
}

func (k Kernel) atLeast(min Kernel) bool { return slices.Compare(k[:], min[:]) >= 0 }

// capability is the bit of a capability, 0 for a name that there is not.
func capability(name string) uint64 {
	bit, err := confine.Capability(name)
	if err != nil || bits.OnesCount64(bit) != 1 { // ALL is none
		return 0
	}
	return bit
}

// merge joins neighbours that have the same verdict. Of two that begin at one
// number the later holds.
func merge(all []span) (merged []span) {
	for _, s := range all {
		if n := len(merged); n > 0 && merged[n-1].first == s.first {
			merged = merged[:n-1]
		}
		if n := len(merged); n > 0 && len(s.rules)+len(merged[n-1].rules) == 0 && s.otherwise == merged[n-1].otherwise {
			continue
		}
		merged = append(merged, s)
	}
	return merged
}

// search finds the span of the number in the accumulator by halves: a few
// comparisons instead of one for each call.
func (a *assembler) search(all []span) node {
	if len(all) == 1 {
		return a.verdict(&all[0].verdict)
	}
	half := len(all) / 2
	right := a.search(all[half:])
	left := a.search(all[:half])
	return a.branch(unix.BPF_JGE, all[half].first, right, left)
}

func (a *assembler) verdict(v *verdict) node {
	if len(v.rules) == 0 {
		return a.ret(v.otherwise)
	}
	key := fmt.Sprint(*v) // many calls have the same rules, as those of one rule do
	if n, ok := a.verdicts[key]; ok {
		return n
	}
	next := a.ret(v.otherwise)
	for i := len(v.rules) - 1; i >= 0; i-- {
		r := &v.rules[i]
		n := a.ret(r.action)
		for j := len(r.conds) - 1; j >= 0; j-- {
			c := &r.conds[j]
			n = a.compare(c, v.narrow[c.Index], n, next)
		}
		next = n
	}
	a.verdicts[key] = next
	return next
}

// compare goes on at yes if the argument is as c says, else at no. Words have 32
// bits here: the high half decides first. Of a narrow argument it means nothing:
// the kernel reads the low half alone, and a program could put there what it likes.
func (a *assembler) compare(c *condition, narrow bool, yes, no node) node {
	offset := uint32(offArgs + 8*c.Index)
	low := func(test uint16, k uint32, yes, no node) node { return a.load(offset, a.branch(test, k, yes, no)) }
	high := func(next node) node { return a.load(offset+4, next) }
	hi, lo := uint32(c.Value>>32), uint32(c.Value)
	switch c.Op {
	case "SCMP_CMP_NE":
		return a.compare(&condition{c.Index, c.Value, 0, "SCMP_CMP_EQ"}, narrow, no, yes)
	case "SCMP_CMP_LT":
		return a.compare(&condition{c.Index, c.Value, 0, "SCMP_CMP_GE"}, narrow, no, yes)
	case "SCMP_CMP_LE":
		return a.compare(&condition{c.Index, c.Value, 0, "SCMP_CMP_GT"}, narrow, no, yes)
	case "SCMP_CMP_EQ":
		n := low(unix.BPF_JEQ, lo, yes, no)
		if narrow {
			return n
		}
		return high(a.branch(unix.BPF_JEQ, hi, n, no))
	case "SCMP_CMP_MASKED_EQ":
		want := c.ValueTwo & c.Value
		n := a.load(offset, a.and(lo, a.branch(unix.BPF_JEQ, uint32(want), yes, no)))
		if narrow || hi == 0 {
			return n
		}
		return high(a.and(hi, a.branch(unix.BPF_JEQ, uint32(want>>32), n, no)))
	}
	test := uint16(unix.BPF_JGT)
	if c.Op == "SCMP_CMP_GE" {
		test = unix.BPF_JGE
	}
	if narrow && hi > 0 { // no 32 bits are as much
		return no
	}
	n := low(test, lo, yes, no)
	if narrow {
		return n
	}
	return high(a.branch(unix.BPF_JGT, hi, yes, a.branch(unix.BPF_JEQ, hi, n, no)))
}
