package seccomp

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// data is struct seccomp_data (seccomp(2)) in words, on a little-endian machine.
type data [16]uint32

func call(arch, nr uint32, args ...uint64) (d data) {
	d[0], d[1] = nr, arch
	for i, a := range args {
		d[4+2*i], d[5+2*i] = uint32(a), uint32(a>>32)
	}
	return d
}

func (d *data) arg(i uint) uint64 { return uint64(d[4+2*i]) | uint64(d[5+2*i])<<32 }

// interpret runs a filter as the kernel would.
func interpret(filter []unix.SockFilter, d data) (uint32, error) {
	var a uint32
	for pc := 0; pc < len(filter); pc++ {
		in := filter[pc]
		jump := func(taken bool) {
			if taken {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = d[in.K/4]
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(a == in.K)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			jump(a > in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(a >= in.K)
		case unix.BPF_RET | unix.BPF_K:
			return in.K, nil
		default:
			return 0, fmt.Errorf("%d: instruction %#x", pc, in.Code)
		}
	}
	return 0, errors.New("it runs over the end")
}

// verify is what the kernel asks of a filter: bpf_check_classic in net/core/filter.c
// and seccomp_check_filter in kernel/seccomp.c.
func verify(filter []unix.SockFilter) error {
	if len(filter) == 0 || len(filter) > maxProgram {
		return fmt.Errorf("%d instructions", len(filter))
	}
	for pc, in := range filter {
		left := len(filter) - pc - 1 // instructions that follow
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if in.K%4 != 0 || in.K >= 64 {
				return fmt.Errorf("%d: load from %d", pc, in.K)
			}
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, unix.BPF_RET | unix.BPF_K:
		case unix.BPF_JMP | unix.BPF_JA:
			if in.K >= uint32(left) {
				return fmt.Errorf("%d: jump over %d of %d", pc, in.K, left)
			}
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			if int(in.Jt) >= left || int(in.Jf) >= left {
				return fmt.Errorf("%d: jump over %d or %d of %d", pc, in.Jt, in.Jf, left)
			}
		default:
			return fmt.Errorf("%d: instruction %#x", pc, in.Code)
		}
	}
	if last := filter[len(filter)-1]; last.Code != unix.BPF_RET|unix.BPF_K {
		return errors.New("the end is no return")
	}
	return nil
}

// verdictOf is what p says of a call, found rule by rule and without any
// filter. What Compile makes is held against it.
func verdictOf(p *Profile, t Target, d data) uint32 {
	fallback, _ := action(p.DefaultAction, p.DefaultErrnoRet)
	abi, ok := abiOf(p, t, d)
	if !ok {
		return badArch
	}
	if abi == nil {
		return fallback
	}
	numbers := numbersBy(abi)
	var conditional *uint32
	newest, named := uint32(0), false
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		if !r.applies(t) {
			continue
		}
		act, _ := action(r.Action, r.ErrnoRet)
		for _, name := range r.names() {
			nr, ok := numbers[name]
			if ok && nr < abi.private {
				newest, named = max(newest, nr), true
			}
			holds, always := r.holds(d, abi.narrow(name))
			if via := viaMultiplexer(abi, name, d, numbers); via && (len(r.Args) == 0 || refuses(act)) {
				holds, always = true, false
			} else if !ok || nr != d[0] {
				continue
			}
			switch {
			case act == fallback || !holds:
			case always:
				return act
			case conditional == nil:
				conditional = &act
			}
		}
	}
	switch {
	case conditional != nil:
		return *conditional
	case named && d[0] > newest && d[0] < abi.private && refuses(fallback) && !isMultiplexed(p, abi, t, d[0], numbers):
		return unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	return fallback
}

// tables are what numbersBy has read, by the interface's name.
var tables = map[string]map[string]uint32{}

// numbersBy is abi.numbers, read once.
func numbersBy(abi *abi) map[string]uint32 {
	if tables[abi.oci] == nil {
		tables[abi.oci] = abi.numbers()
	}
	return tables[abi.oci]
}

// abiOf is the interface of a call, nil for a number that is of none; false for
// one that p leaves out.
func abiOf(p *Profile, t Target, d data) (*abi, bool) {
	spaces := spacesOf(t.Arch)
	for _, s := range spaces {
		if s.audit != d[1] {
			continue
		}
		for i := len(s.abis) - 1; i >= 0; i-- {
			a := &s.abis[i]
			switch {
			case d[0] < a.first:
			case d[0] >= 1<<31 && len(s.abis) > 1:
				return nil, true
			default:
				return a, p.covers(a.oci, spaces[0].abis[0].oci)
			}
		}
	}
	return nil, false
}

// holds tells whether r's conditions do, and whether it has none.
func (r *rule) holds(d data, narrow [6]bool) (holds, always bool) {
	if len(r.Args) == 0 {
		return true, true
	}
	count, true_ := map[uint]int{}, 0
	for _, c := range r.Args {
		count[c.Index]++
		if c.holds(d, narrow[c.Index]) {
			true_++
		}
	}
	for _, n := range count {
		if n > 1 {
			return true_ > 0, false
		}
	}
	return true_ == len(r.Args), false
}

func (c *condition) holds(d data, narrow bool) bool {
	arg, value, two := d.arg(c.Index), c.Value, c.ValueTwo
	if narrow {
		arg &= 1<<32 - 1
		if c.Op == "SCMP_CMP_EQ" || c.Op == "SCMP_CMP_NE" || c.Op == "SCMP_CMP_MASKED_EQ" {
			value &= 1<<32 - 1
		}
	}
	switch c.Op {
	case "SCMP_CMP_EQ":
		return arg == value
	case "SCMP_CMP_NE":
		return arg != value
	case "SCMP_CMP_LT":
		return arg < value
	case "SCMP_CMP_LE":
		return arg <= value
	case "SCMP_CMP_GT":
		return arg > value
	case "SCMP_CMP_GE":
		return arg >= value
	}
	return arg&value == two&value
}

// viaMultiplexer tells whether d is socketcall(2) or ipc(2) for the call name.
func viaMultiplexer(abi *abi, name string, d data, numbers map[string]uint32) bool {
	if abi.oci != "SCMP_ARCH_X86" {
		return false
	}
	for many, calls := range map[string][]string{"socketcall": bySocketcall, "ipc": byIPC} {
		if d[0] == numbers[many] && d[4] > 0 && int(d[4]) < len(calls) && calls[d[4]] == name && name != "" {
			return true
		}
	}
	return false
}

// isMultiplexed tells whether rules have made nr, socketcall(2) or ipc(2), a call with a verdict of its own.
func isMultiplexed(p *Profile, abi *abi, t Target, nr uint32, numbers map[string]uint32) bool {
	if abi.oci != "SCMP_ARCH_X86" || nr != numbers["socketcall"] && nr != numbers["ipc"] {
		return false
	}
	for _, r := range p.Syscalls {
		for _, name := range r.names() {
			if r.applies(t) && (slices.Contains(bySocketcall, name) || slices.Contains(byIPC, name)) {
				return true
			}
		}
	}
	return false
}
