package seccomp

import "golang.org/x/sys/unix"

// Offsets in struct seccomp_data (seccomp(2)).
const (
	offNr   = 0
	offArch = 4
	offArgs = 16 // 8 bytes an argument, the low half first on little-endian machines
)

// An assembler makes a program of classic BPF from its end to its beginning:
// all jumps go forward, so that each one's target is there before it, and what
// two places have in common is there once.
type assembler struct {
	backward []unix.SockFilter // the last instruction first
	made     map[instruction]node
	verdicts map[string]node
}

// A node is where the program goes on: the number of an instruction, from the end.
type node int

// An instruction is one whose jumps have nodes for targets.
type instruction struct {
	code   uint16
	k      uint32
	jt, jf node
}

// farthest is how many instructions a conditional jump can pass over.
const farthest = 255

func newAssembler() *assembler {
	return &assembler{made: map[instruction]node{}, verdicts: map[string]node{}}
}

// program is what was made, the beginning first.
func (a *assembler) program() []unix.SockFilter {
	forward := make([]unix.SockFilter, 0, len(a.backward))
	for i := len(a.backward) - 1; i >= 0; i-- {
		forward = append(forward, a.backward[i])
	}
	return forward
}

func (a *assembler) emit(in unix.SockFilter) node {
	a.backward = append(a.backward, in)
	return node(len(a.backward) - 1)
}

// distance is how many instructions the next one would have to pass over to get to n.
func (a *assembler) distance(n node) int { return len(a.backward) - 1 - int(n) }

// ret ends the program with value.
func (a *assembler) ret(value uint32) node {
	in := instruction{code: unix.BPF_RET | unix.BPF_K, k: value}
	// One out of reach is not worth a jump.
	if n, ok := a.made[in]; ok && a.distance(n) < farthest {
		return n
	}
	n := a.emit(unix.SockFilter{Code: in.code, K: value})
	a.made[in] = n
	return n
}

// load goes on at next with the word at offset in the accumulator.
func (a *assembler) load(offset uint32, next node) node {
	return a.straight(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, next)
}

// and goes on at next with the bits of mask left in the accumulator.
func (a *assembler) and(mask uint32, next node) node {
	return a.straight(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, mask, next)
}

func (a *assembler) straight(code uint16, k uint32, next node) node {
	in := instruction{code, k, next, next}
	if n, ok := a.made[in]; ok {
		return n
	}
	if d := a.distance(next); d > 0 {
		a.emit(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(d)})
	}
	n := a.emit(unix.SockFilter{Code: code, K: k})
	a.made[in] = n
	return n
}

// branch goes on at yes if the accumulator compares with k as test says
// (unix.BPF_JEQ, BPF_JGT or BPF_JGE), else at no.
func (a *assembler) branch(test uint16, k uint32, yes, no node) node {
	if yes == no {
		return yes
	}
	in := instruction{unix.BPF_JMP | test | unix.BPF_K, k, yes, no}
	if n, ok := a.made[in]; ok {
		return n
	}
	// Bringing one within reach moves the other away by one.
	yes = a.within(yes, farthest-1)
	no = a.within(no, farthest)
	n := a.emit(unix.SockFilter{Code: in.code, Jt: uint8(a.distance(yes)), Jf: uint8(a.distance(no)), K: k})
	a.made[in] = n
	return n
}

// within returns a node that leads to n and is at most so far away.
func (a *assembler) within(n node, most int) node {
	d := a.distance(n)
	if d <= most {
		return n
	}
	if in := a.backward[n]; in.Code == unix.BPF_RET|unix.BPF_K {
		return a.ret(in.K)
	}
	return a.emit(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(d)})
}
