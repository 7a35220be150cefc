package seccomp

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rbox/userns/confine"
)

var targets = []Target{BuiltinTarget("amd64", confine.DefaultCapabilities), BuiltinTarget("arm64", confine.DefaultCapabilities)}

// audits are the values of seccomp_data's arch that calls are tried with.
var audits = []uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_S390X}

func compile(t testing.TB, p *Profile, target Target) []unix.SockFilter {
	t.Helper()
	f, err := p.Compile(target)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(f.Program); err != nil {
		t.Fatalf("the kernel would refuse the filter: %v", err)
	}
	return f.Program
}

func parse(t testing.TB, text string) *Profile {
	t.Helper()
	p, err := Parse("p.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// numbersOf are all numbers that calls may have in any interface, and some of none.
func numbersOf(target Target) (all []uint32) {
	for nr := range uint32(560) {
		all = append(all, nr, x32Bit|nr)
	}
	for nr := range uint32(10) {
		all = append(all, armPrivate-1+nr)
	}
	return append(all, x32Bit-1, 1<<31-1, 1<<31, noCall-1, noCall)
}

// argumentsOf are values that p's conditions tell apart.
func argumentsOf(p *Profile) []uint64 {
	values := map[uint64]bool{0: true, 1: true, math.MaxUint32: true, math.MaxUint64: true, 1 << 32: true}
	for _, r := range p.Syscalls {
		for _, c := range r.Args {
			for _, v := range []uint64{c.Value, c.ValueTwo} {
				for _, near := range []uint64{v, v - 1, v + 1, v ^ 1<<32, v | 1<<63, v & math.MaxUint32, ^v} {
					values[near] = true
				}
			}
		}
	}
	all := make([]uint64, 0, len(values))
	for v := range values {
		all = append(all, v)
	}
	return all
}

// agree holds a filter against the profile's rules.
func agree(t testing.TB, p *Profile, target Target, filter []unix.SockFilter, calls func(yield func(data))) {
	t.Helper()
	wrong := 0
	calls(func(d data) {
		got, err := interpret(filter, d)
		if want := verdictOf(p, target, d); err != nil || got != want {
			if wrong++; wrong < 10 {
				t.Errorf("%s: arch %#x, call %#x, arguments %#x: %#x, %v; want %#x", target.Arch, d[1], d[0], d[4:], got, err, want)
			}
		}
	})
}

// Every system call of each machine, with arguments on both sides of each condition.
func TestBuiltin(t *testing.T) {
	sets := confine.Prebuilt()
	agreesOn(t, Builtin(), sets[:]...)
}

// The same for what the network process may call: its filters are made of this by
// slirp/sandbox/gen.
func TestNetworkProcess(t *testing.T) {
	text, err := os.ReadFile("../../../slirp/sandbox/profile.json")
	if err != nil {
		t.Fatal(err)
	}
	agreesOn(t, parse(t, string(text)), 0, 1<<unix.CAP_SYS_ADMIN)
}

// agreesOn holds p's filters against its rules, for sets of capabilities.
func agreesOn(t *testing.T, p *Profile, sets ...uint64) {
	t.Helper()
	arguments := argumentsOf(p)
	for _, capabilities := range sets {
		for _, target := range targets {
			target.Capabilities = capabilities
			filter := compile(t, p, target)
			agree(t, p, target, filter, func(yield func(data)) {
				for _, audit := range audits {
					for _, nr := range numbersOf(target) {
						yield(call(audit, nr))
					}
					for _, numbers := range conditional(p, target) {
						for _, nr := range numbers {
							for _, a := range arguments {
								yield(call(audit, nr, a, a, a, a, a, a))
							}
						}
					}
				}
			})
		}
	}
}

// conditional are the numbers of the calls whose arguments matter.
func conditional(p *Profile, target Target) map[string][]uint32 {
	all := map[string][]uint32{}
	for _, r := range p.Syscalls {
		for _, name := range r.names() {
			if len(r.Args) == 0 || all[name] != nil {
				continue
			}
			for _, s := range spacesOf(target.Arch) {
				for _, abi := range s.abis {
					if nr, ok := numbersBy(&abi)[name]; ok {
						all[name] = append(all[name], nr)
					}
				}
			}
		}
	}
	return all
}

// What the default profile is for, in so many words.
func TestBuiltinSays(t *testing.T) {
	const (
		allow = unix.SECCOMP_RET_ALLOW
		eperm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		nosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	)
	filter := compile(t, Builtin(), targets[0])
	for name, tc := range map[string]struct {
		d    data
		want uint32
	}{
		"read":                        {call(unix.AUDIT_ARCH_X86_64, 0), allow},
		"mount":                       {call(unix.AUDIT_ARCH_X86_64, 165), eperm},
		"a thread":                    {call(unix.AUDIT_ARCH_X86_64, 56, 0x3d0f00), allow},
		"a namespace":                 {call(unix.AUDIT_ARCH_X86_64, 56, unix.CLONE_NEWUSER|uint64(unix.SIGCHLD)), eperm},
		"clone3":                      {call(unix.AUDIT_ARCH_X86_64, 435), nosys},
		"TCP":                         {call(unix.AUDIT_ARCH_X86_64, 41, unix.AF_INET, unix.SOCK_STREAM), allow},
		"AF_ALG":                      {call(unix.AUDIT_ARCH_X86_64, 41, unix.AF_ALG), eperm},
		"AF_VSOCK":                    {call(unix.AUDIT_ARCH_X86_64, 41, unix.AF_VSOCK), eperm},
		"AF_VSOCK with a high bit":    {call(unix.AUDIT_ARCH_X86_64, 41, 1<<32|unix.AF_VSOCK), eperm},
		"the newest that it names":    {call(unix.AUDIT_ARCH_X86_64, 466), allow},
		"a newer one":                 {call(unix.AUDIT_ARCH_X86_64, 467), nosys},
		"one to come":                 {call(unix.AUDIT_ARCH_X86_64, 5000), nosys},
		"x32":                         {call(unix.AUDIT_ARCH_X86_64, x32Bit|1), allow},
		"mount by x32":                {call(unix.AUDIT_ARCH_X86_64, x32Bit|165), eperm},
		"ioctl by x32, not its own":   {call(unix.AUDIT_ARCH_X86_64, x32Bit|16), eperm},
		"ioctl by x32":                {call(unix.AUDIT_ARCH_X86_64, x32Bit|514), allow},
		"a newer one by x32":          {call(unix.AUDIT_ARCH_X86_64, x32Bit|600), nosys},
		"what a tracer passes over":   {call(unix.AUDIT_ARCH_X86_64, noCall), eperm},
		"read by 32 bits":             {call(unix.AUDIT_ARCH_I386, 3), allow},
		"mount by 32 bits":            {call(unix.AUDIT_ARCH_I386, 21), eperm},
		"a number of 64 bits there":   {call(unix.AUDIT_ARCH_I386, 165), allow}, // getresuid
		"a namespace by 32 bits":      {call(unix.AUDIT_ARCH_I386, 120, 0x55<<32|unix.CLONE_NEWUSER), eperm},
		"AF_ALG by 32 bits":           {call(unix.AUDIT_ARCH_I386, 359, 0x55<<32|unix.AF_ALG), eperm},
		"TCP by 32 bits":              {call(unix.AUDIT_ARCH_I386, 359, 0x55<<32|unix.AF_INET), allow},
		"calls of another machine":    {call(unix.AUDIT_ARCH_AARCH64, 0), unix.SECCOMP_RET_KILL_PROCESS},
		"personality of 32 bits, all": {call(unix.AUDIT_ARCH_X86_64, 135, math.MaxUint32), allow},
		"personality, no random":      {call(unix.AUDIT_ARCH_X86_64, 135, 0x0040000), eperm},
	} {
		if got, err := interpret(filter, tc.d); err != nil || got != tc.want {
			t.Errorf("%s: %#x, %v; want %#x", name, got, err, tc.want)
		}
	}
}

// The files that confine embeds are what the compiler makes now.
func TestBuiltinIsFresh(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		all, err := Prebuild(arch)
		if err != nil {
			t.Fatal(err)
		}
		file := "../builtin_" + arch + ".bpf"
		if text, err := os.ReadFile(file); err != nil || !bytes.Equal(text, all) {
			t.Errorf("%s is stale (%v): go generate ./userns/confine/seccomp", file, err)
		}
		f, err := Builtin().Compile(BuiltinTarget(arch, confine.DefaultCapabilities))
		if err != nil || f.Flags != unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW { // which package stage takes for granted
			t.Errorf("%v, flags %#x", err, f.Flags)
		}
	}
}

// A container gets the filter that is made for its capabilities, or none of
// those that are made beforehand.
func TestBuiltinByCapabilities(t *testing.T) {
	const chown, admin, nice = 1 << unix.CAP_CHOWN, 1 << unix.CAP_SYS_ADMIN, 1 << unix.CAP_SYS_NICE
	for name, tc := range map[string]struct {
		set  uint64
		made bool
	}{
		"Docker's":       {confine.DefaultCapabilities, true},
		"none":           {0, true},
		"one of no rule": {chown, true},
		"all":            {confine.AllCapabilities, true},
		"one more":       {confine.DefaultCapabilities | admin, true},
		"two more":       {confine.DefaultCapabilities | admin | nice, false},
		"one alone":      {admin, false},
	} {
		got := confine.Builtin(tc.set)
		f, err := Builtin().Compile(BuiltinTarget(runtime.GOARCH, tc.set))
		if err != nil {
			t.Skip(err)
		}
		switch {
		case tc.made && got != string(f.Bytes()):
			t.Errorf("%s: the filter is another", name)
		case !tc.made && got != "":
			t.Errorf("%s: there is a filter", name)
		}
	}
}

// Capabilities, and kernels, other than those that are named make no difference.
func TestBuiltinDepends(t *testing.T) {
	var depends uint64
	for _, r := range Builtin().Syscalls {
		for _, w := range []when{r.Includes, r.Excludes} {
			for _, name := range w.Caps {
				if capability(name) == 0 {
					t.Errorf("capability %s is unknown", name)
				}
				depends |= capability(name)
			}
			if w.MinKernel != nil && !targets[0].Kernel.atLeast(*w.MinKernel) {
				t.Errorf("a rule is for Linux %v", *w.MinKernel)
			}
		}
	}
	if depends != confine.BuiltinDepends {
		t.Errorf("the rules depend on %v, want %v", confine.CapabilityNames(depends), confine.CapabilityNames(confine.BuiltinDepends))
	}
}

func TestOperators(t *testing.T) {
	const big = 0x5_0000_0007
	for op, holds := range map[string]func(a, v uint64) bool{
		"EQ": func(a, v uint64) bool { return a == v }, "NE": func(a, v uint64) bool { return a != v },
		"LT": func(a, v uint64) bool { return a < v }, "LE": func(a, v uint64) bool { return a <= v },
		"GT": func(a, v uint64) bool { return a > v }, "GE": func(a, v uint64) bool { return a >= v },
		"MASKED_EQ": func(a, v uint64) bool { return a&v == 7&v },
	} {
		for _, v := range []uint64{0, 7, big, math.MaxUint32, 1 << 32, math.MaxUint64} {
			p := parse(t, fmt.Sprintf(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
				{"names": ["lseek"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 1, "value": %d, "valueTwo": 7, "op": "SCMP_CMP_%s"}]}]}`, v, op))
			filter := compile(t, p, targets[0])
			for _, a := range argumentsOf(p) {
				want := uint32(unix.SECCOMP_RET_ALLOW)
				if holds(a, v) {
					want = unix.SECCOMP_RET_KILL_PROCESS
				}
				if got, err := interpret(filter, call(unix.AUDIT_ARCH_X86_64, 8, ^a, a, ^a)); got != want || err != nil {
					t.Errorf("%#x %s %#x: %#x, %v", a, op, v, got, err)
				}
			}
		}
	}
}

func TestCompile(t *testing.T) {
	const (
		allow = unix.SECCOMP_RET_ALLOW
		eperm = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
		kill  = unix.SECCOMP_RET_KILL_PROCESS
		x86   = unix.AUDIT_ARCH_I386
		x64   = unix.AUDIT_ARCH_X86_64
	)
	for name, tc := range map[string]struct {
		text string
		d    data
		want uint32
	}{
		"errno":                    {`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": []}`, call(x64, 1), unix.SECCOMP_RET_ERRNO | 38},
		"errno 0":                  {`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 0}`, call(x64, 1), unix.SECCOMP_RET_ERRNO},
		"errno by itself":          {`{"defaultAction": "SCMP_ACT_ERRNO"}`, call(x64, 1), eperm},
		"log":                      {`{"defaultAction": "SCMP_ACT_LOG"}`, call(x64, 1), unix.SECCOMP_RET_LOG},
		"trap":                     {`{"defaultAction": "SCMP_ACT_TRAP"}`, call(x64, 1), unix.SECCOMP_RET_TRAP},
		"trace":                    {`{"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 7}`, call(x64, 1), unix.SECCOMP_RET_TRACE | 7},
		"kill":                     {`{"defaultAction": "SCMP_ACT_KILL"}`, call(x64, 1), unix.SECCOMP_RET_KILL_THREAD},
		"kill a thread":            {`{"defaultAction": "SCMP_ACT_KILL_THREAD"}`, call(x64, 1), unix.SECCOMP_RET_KILL_THREAD},
		"old name":                 {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "write", "action": "SCMP_ACT_ERRNO"}]}`, call(x64, 1), eperm},
		"unknown names":            {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["nosuch", "write", "set_tls"], "action": "SCMP_ACT_ERRNO"}]}`, call(x64, 1), eperm},
		"two conditions":           {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 5, "op": "SCMP_CMP_GT"}]}]}`, call(x64, 1, 1, 0, 6), eperm},
		"one of two":               {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 5, "op": "SCMP_CMP_GT"}]}]}`, call(x64, 1, 1, 0, 5), allow},
		"one argument twice":       {`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}]}`, call(x64, 1, 2), allow},
		"several rules":            {`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}, {"names": ["write"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_LT"}]}]}`, call(x64, 1, 2), kill},
		"the first that holds":     {`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}, {"names": ["write"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_LT"}]}]}`, call(x64, 1, 1), allow},
		"one without conditions":   {`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}, {"names": ["write"], "action": "SCMP_ACT_KILL_PROCESS"}]}`, call(x64, 1, 1), kill},
		"the default action":       {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ALLOW"}, {"names": ["write"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}`, call(x64, 1, 1), kill},
		"newer, where all is well": {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO"}]}`, call(x64, 999), allow},
		"newer, of no rules":       {`{"defaultAction": "SCMP_ACT_ERRNO"}`, call(x64, 999), eperm},
		"newer than killed":        {`{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ALLOW"}]}`, call(x64, 2), unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		"no other architecture":    {`{"defaultAction": "SCMP_ACT_ALLOW"}`, call(x86, 1), kill},
		"no x32":                   {`{"defaultAction": "SCMP_ACT_ALLOW"}`, call(x64, x32Bit|1), kill},
		"the native one, unnamed":  {`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"]}`, call(x64, 1), allow},
		"another one":              {`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"]}`, call(x86, 1), allow},
		"not through the map":      {`{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_X86"]}]}`, call(x86, 1), kill},
		"through the map":          {`{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"]}]}`, call(x64, x32Bit|1), allow},
		"socketcall, passed":       {`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [{"names": ["bind"], "action": "SCMP_ACT_ALLOW"}]}`, call(x86, 102, 2), allow},
		"socketcall, another":      {`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [{"names": ["bind"], "action": "SCMP_ACT_ALLOW"}]}`, call(x86, 102, 3), eperm},
		"socketcall, unseen":       {`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}`, call(x86, 102, 1), eperm},
		"socketcall, refused":      {`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]}]}`, call(x86, 102, 1), eperm},
		"ipc":                      {`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [{"names": ["shmget"], "action": "SCMP_ACT_ERRNO"}]}`, call(x86, 117, 23), eperm},
		"a capability":             {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}]}`, call(x64, 1), eperm},
		"not all capabilities":     {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_CHOWN", "CAP_SYS_BOOT"]}}]}`, call(x64, 1), allow},
		"no such capability":       {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["ALL"]}}]}`, call(x64, 1), allow},
		"without a capability":     {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_BOOT", "CAP_KILL"]}}]}`, call(x64, 1), allow},
		"an old kernel":            {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "4.9"}}]}`, call(x64, 1), allow},
		"not a new one":            {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "excludes": {"minKernel": "4.8"}}]}`, call(x64, 1), allow},
		"another machine":          {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["arm64"]}}]}`, call(x64, 1), allow},
		"not this machine":         {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "excludes": {"arches": ["amd64"]}}]}`, call(x64, 1), allow},
	} {
		filter := compile(t, parse(t, tc.text), targets[0])
		if got, err := interpret(filter, tc.d); err != nil || got != tc.want {
			t.Errorf("%s: %#x, %v; want %#x", name, got, err, tc.want)
		}
	}
}

// A filter with many conditions has jumps farther than 255 instructions.
func TestFarJumps(t *testing.T) {
	var rules []string
	for i := range 70 {
		rules = append(rules, fmt.Sprintf(`{"names": ["ioctl", "write", "lseek"], "action": "SCMP_ACT_ALLOW", "args": [
			{"index": 1, "value": %d, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": %d, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 1}]}`, i*77, 1<<40|i))
	}
	p := parse(t, `{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": [`+strings.Join(rules, ",")+`]}`)
	filter := compile(t, p, targets[0])
	if len(filter) < 1000 {
		t.Errorf("%d instructions are no test", len(filter))
	}
	agree(t, p, targets[0], filter, func(yield func(data)) {
		for _, audit := range audits {
			for _, nr := range []uint32{0, 1, 4, 8, 16, 19, 54, 55, 514 | x32Bit, 1 | x32Bit} {
				for i := range uint64(80) {
					yield(call(audit, nr, 0, i*77, 1))
					yield(call(audit, nr, 0, i*77, i|1))
				}
			}
		}
	})
}

func TestTooLong(t *testing.T) {
	var rules []string
	for i := range 2000 {
		rules = append(rules, fmt.Sprintf(`{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": %d, "op": "SCMP_CMP_EQ"}]}`, uint64(i)<<32|uint64(i)))
	}
	p := parse(t, `{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [`+strings.Join(rules, ",")+`]}`)
	_, err := p.Compile(targets[0])
	if err == nil || !strings.Contains(err.Error(), "instructions, and the kernel takes 4096") {
		t.Error(err)
	}
}

// A call that the default profile decides by number costs a few comparisons.
func TestBuiltinIsShort(t *testing.T) {
	for _, target := range targets {
		filter := compile(t, Builtin(), target)
		if len(filter) > 400 {
			t.Errorf("%s: %d instructions", target.Arch, len(filter))
		}
	}
}

// Profiles of random rules, held against the rules themselves.
func TestRandomProfiles(t *testing.T) {
	names := []string{"read", "write", "ioctl", "socket", "bind", "socketcall", "ipc", "shmget", "mount", "clone", "lseek", "personality", "mseal", "set_tls", "rt_sigaction", "nosuch"}
	pick := func(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }
	values := []uint64{0, 1, 2, 38, 1 << 31, math.MaxUint32, 1 << 32, 1<<32 | 1, math.MaxUint64}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := &Profile{DefaultAction: actions[r.IntN(len(actions))].name}
		for _, a := range []string{"SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_S390"} {
			if r.IntN(2) == 0 {
				p.Architectures = append(p.Architectures, a)
			}
		}
		for range r.IntN(12) {
			one := rule{Names: []string{pick(r, names), pick(r, names)}, Action: actions[r.IntN(len(actions))].name}
			for range r.IntN(3) {
				one.Args = append(one.Args, condition{uint(r.IntN(3)), values[r.IntN(len(values))], values[r.IntN(len(values))], pick(r, operators[:])})
			}
			p.Syscalls = append(p.Syscalls, one)
		}
		for _, target := range targets {
			filter := compile(t, p, target)
			agree(t, p, target, filter, func(yield func(data)) {
				for range 100 {
					all := numbersOf(target)
					nr := all[r.IntN(len(all))]
					if some := conditional(p, target)[pick(r, names)]; len(some) > 0 {
						nr = some[r.IntN(len(some))]
					}
					yield(call(audits[r.IntN(len(audits))], nr, values[r.IntN(len(values))], values[r.IntN(len(values))], values[r.IntN(len(values))]))
				}
			})
			if t.Failed() {
				t.Fatalf("seed %d: %+v", seed, p)
			}
		}
	}
}

func BenchmarkCompileBuiltin(b *testing.B) {
	for b.Loop() {
		if _, err := Builtin().Compile(targets[0]); err != nil {
			b.Fatal(err)
		}
	}
}
