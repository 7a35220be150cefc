// Package seccomp compiles profiles of system calls to the classic BPF that
// seccomp(2) takes. It is for rbox itself: what starts containers has the
// default profile ready made (confine.Builtin).
package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Profile says what becomes of each system call: LinuxSeccomp of the OCI
// runtime specification (config-linux.md, "Seccomp"), with what Docker's
// profiles have beyond it: archMap, includes and excludes.
type Profile struct {
	DefaultAction   string       `json:"defaultAction"`
	DefaultErrnoRet *uint32      `json:"defaultErrnoRet"`
	Architectures   []string     `json:"architectures"`
	ArchMap         []archFamily `json:"archMap"`
	Flags           []string     `json:"flags"` // nil and none differ, see Filter
	Syscalls        []rule       `json:"syscalls"`
}

// An archFamily is an architecture with those whose programs its kernel runs, too.
type archFamily struct {
	Architecture     string   `json:"architecture"`
	SubArchitectures []string `json:"subArchitectures"`
}

// A rule is one action for some system calls, if all its conditions hold.
type rule struct {
	Name     string      `json:"name"` // in old profiles, in place of Names
	Names    []string    `json:"names"`
	Action   string      `json:"action"`
	ErrnoRet *uint32     `json:"errnoRet"`
	Args     []condition `json:"args"`
	Includes when        `json:"includes"`
	Excludes when        `json:"excludes"`
}

// A condition compares an argument of the call.
type condition struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`    // SCMP_CMP_MASKED_EQ: the mask
	ValueTwo uint64 `json:"valueTwo"` // SCMP_CMP_MASKED_EQ: what the masked argument is to be
	Op       string `json:"op"`
}

// A when is what a rule depends on: all of Caps, one of Arches, a kernel.
type when struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`    // as GOARCH has them
	MinKernel *Kernel  `json:"minKernel"` // this one or a newer
}

// A Kernel is a version of Linux by its first two numbers.
type Kernel [2]int

// ParseKernel reads 6.1 or, as uname(2) has it, 6.1.0-9-amd64.
func ParseKernel(text string) (k Kernel, err error) {
	first, rest, _ := strings.Cut(text, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	var bad [2]error
	k[0], bad[0] = strconv.Atoi(first)
	k[1], bad[1] = strconv.Atoi(rest)
	if bad[0] != nil || bad[1] != nil || k[0] < 0 {
		return k, fmt.Errorf("%q is not a version of Linux, as 4.8 is", text)
	}
	return k, nil
}

// UnmarshalText makes a Kernel of JSON's text.
func (k *Kernel) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKernel(string(text))
	return err
}

// A ProfileError is what is wrong with a profile.
type ProfileError struct {
	File string // or another name of the profile
	Why  string
	hint string
}

func (e *ProfileError) Error() string { return "seccomp profile " + e.File + ": " + e.Why }

// Hint says what there is instead.
func (e *ProfileError) Hint() string { return e.hint }

// actions are what may become of a system call (seccomp(2)).
var actions = [...]struct {
	name  string
	value uint32
	errno bool // it takes errnoRet
}{
	{"SCMP_ACT_ALLOW", unix.SECCOMP_RET_ALLOW, false},
	{"SCMP_ACT_ERRNO", unix.SECCOMP_RET_ERRNO, true},
	{"SCMP_ACT_LOG", unix.SECCOMP_RET_LOG, false},
	{"SCMP_ACT_TRACE", unix.SECCOMP_RET_TRACE, true},
	{"SCMP_ACT_TRAP", unix.SECCOMP_RET_TRAP, false},
	{"SCMP_ACT_KILL_PROCESS", unix.SECCOMP_RET_KILL_PROCESS, false},
	{"SCMP_ACT_KILL_THREAD", unix.SECCOMP_RET_KILL_THREAD, false},
	{"SCMP_ACT_KILL", unix.SECCOMP_RET_KILL_THREAD, false},
}

const notify = "SCMP_ACT_NOTIFY"

// operators compare arguments.
var operators = [...]string{
	"SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ",
}

// architectures are all that the OCI runtime specification names.
var architectures = [...]string{
	"SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64",
	"SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
	"SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X",
	"SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB",
}

// flags of seccomp(2) that a profile may set.
var flags = [...]struct {
	name  string
	value uint32
}{
	{"SECCOMP_FILTER_FLAG_LOG", unix.SECCOMP_FILTER_FLAG_LOG},
	{"SECCOMP_FILTER_FLAG_SPEC_ALLOW", unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
	{"SECCOMP_FILTER_FLAG_TSYNC", unix.SECCOMP_FILTER_FLAG_TSYNC},
	{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 0}, // only SCMP_ACT_NOTIFY waits for an answer
}

// maxErrno is the largest that the kernel returns (MAX_ERRNO).
const maxErrno = 4095

// Parse reads and checks the JSON of a profile; file is its name, for errors,
// which are *ProfileError.
func Parse(file string, text []byte) (*Profile, error) {
	p := new(Profile)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, &ProfileError{file, jsonTrouble(text, err), "a profile is JSON, as the OCI runtime specification and Docker have it; jq . " + file}
	}
	if err := p.check(); err != nil {
		err.File = file
		return nil, err
	}
	return p, nil
}

// jsonTrouble says where in text, and in our words, json.Unmarshal failed.
func jsonTrouble(text []byte, err error) string {
	line := func(offset int64) int {
		return 1 + strings.Count(string(text[:min(int(offset), len(text))]), "\n")
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("line %d: %v", line(syntax.Offset), err)
	case errors.As(err, &kind):
		where := kind.Field
		if where == "" {
			where = "the profile"
		}
		return fmt.Sprintf("line %d: %s cannot be a %s", line(kind.Offset), where, kind.Value)
	}
	return err.Error()
}

func (p *Profile) check() *ProfileError {
	if p.DefaultAction == "" {
		return &ProfileError{Why: "it has no defaultAction", hint: `"defaultAction": "SCMP_ACT_ERRNO"`}
	}
	if _, err := action(p.DefaultAction, p.DefaultErrnoRet); err != nil {
		err.Why = "defaultAction: " + err.Why
		return err
	}
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return &ProfileError{Why: "it has both architectures and archMap", hint: "leave out one of them"}
	}
	for _, arch := range p.allArchitectures() {
		if !slices.Contains(architectures[:], arch) {
			return &ProfileError{Why: fmt.Sprintf("unknown architecture %q", arch), hint: "there are " + strings.Join(architectures[:5], ", ") + " and others"}
		}
	}
	if _, err := p.flags(); err != nil {
		return err
	}
	for i := range p.Syscalls {
		r := &p.Syscalls[i]
		if err := r.check(); err != nil {
			err.Why = fmt.Sprintf("rule %d%s: %s", i+1, r.title(), err.Why)
			return err
		}
	}
	return nil
}

func (p *Profile) allArchitectures() []string {
	all := slices.Clone(p.Architectures)
	for _, f := range p.ArchMap {
		all = append(append(all, f.Architecture), f.SubArchitectures...)
	}
	return all
}

// flags are those for seccomp(2). A profile that does not speak of any means
// SPEC_ALLOW, as runc has it: without it kernels before 5.16 turn off
// speculation for the program, which costs more than it protects.
func (p *Profile) flags() (all uint32, bad *ProfileError) {
	if p.Flags == nil {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	for _, name := range p.Flags {
		i := slices.IndexFunc(flags[:], func(f struct {
			name  string
			value uint32
		}) bool {
			return f.name == name
		})
		if i < 0 {
			var known []string
			for _, f := range flags {
				known = append(known, f.name)
			}
			return 0, &ProfileError{Why: fmt.Sprintf("unknown flag %q", name), hint: "there are " + strings.Join(known, ", ")}
		}
		all |= flags[i].value
	}
	return all, nil
}

// title names the rule by its first system call.
func (r *rule) title() string {
	if names := r.names(); len(names) > 0 {
		return " (" + names[0] + ")"
	}
	return ""
}

func (r *rule) names() []string {
	if r.Name != "" {
		return append([]string{r.Name}, r.Names...)
	}
	return r.Names
}

func (r *rule) check() *ProfileError {
	if len(r.names()) == 0 {
		return &ProfileError{Why: "it names no system call", hint: `"names": ["chmod"]`}
	}
	if r.Name != "" && len(r.Names) > 0 {
		return &ProfileError{Why: "it has both name and names", hint: "leave out name"}
	}
	if _, err := action(r.Action, r.ErrnoRet); err != nil {
		return err
	}
	for _, c := range r.Args {
		if c.Index > 5 {
			return &ProfileError{Why: fmt.Sprintf("there is no argument %d", c.Index), hint: "a system call has arguments 0 to 5"}
		}
		if !slices.Contains(operators[:], c.Op) {
			return &ProfileError{Why: fmt.Sprintf("unknown operator %q", c.Op), hint: "there are " + strings.Join(operators[:], ", ")}
		}
	}
	return nil
}

// action is what a filter returns for the action of that name.
func action(name string, errno *uint32) (uint32, *ProfileError) {
	if name == notify {
		return 0, &ProfileError{Why: notify + " is not supported: nothing here answers the notifications", hint: "use SCMP_ACT_ERRNO, or SCMP_ACT_TRACE with a tracer"}
	}
	for _, a := range actions {
		switch {
		case a.name != name:
		case errno == nil && a.errno:
			return a.value | uint32(unix.EPERM), nil
		case errno == nil:
			return a.value, nil
		case !a.errno: // "the runtime MUST print an error and fail"
			return 0, &ProfileError{Why: name + " takes no errno", hint: "leave out errnoRet, or use SCMP_ACT_ERRNO"}
		case *errno > maxErrno:
			return 0, &ProfileError{Why: fmt.Sprintf("errno %d: there is none", *errno), hint: "errors are 1 to 133 (errno(3)); EPERM is 1"}
		default:
			return a.value | *errno, nil
		}
	}
	var known []string
	for _, a := range actions {
		known = append(known, a.name)
	}
	return 0, &ProfileError{Why: fmt.Sprintf("unknown action %q", name), hint: "there are " + strings.Join(known, ", ")}
}
