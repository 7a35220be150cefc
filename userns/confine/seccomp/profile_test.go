package seccomp

import (
	"errors"
	"strings"
	"testing"
)

func TestParseErrors(t *testing.T) {
	for name, tc := range map[string]struct{ text, want, hint string }{
		"empty":         {``, "line 1: unexpected end of JSON input", "jq . p.json"},
		"a comma":       {"{\n\"defaultAction\": \"SCMP_ACT_ALLOW\",\n}", "line 3: invalid character '}'", "jq"},
		"a list":        {`[]`, "line 1: the profile cannot be a array", "jq"},
		"a number":      {`{"defaultAction": 7}`, "line 1: defaultAction cannot be a number", "jq"},
		"negative":      {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL", "args": [{"index": -1}]}]}`, "cannot be a number -1", "jq"},
		"no default":    {`{}`, "it has no defaultAction", "SCMP_ACT_ERRNO"},
		"unknown":       {`{"defaultAction": "ALLOW"}`, `defaultAction: unknown action "ALLOW"`, "SCMP_ACT_ALLOW, SCMP_ACT_ERRNO"},
		"notify":        {`{"defaultAction": "SCMP_ACT_NOTIFY"}`, "SCMP_ACT_NOTIFY is not supported", "SCMP_ACT_ERRNO"},
		"no action":     {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"]}]}`, `rule 1 (chmod): unknown action ""`, "SCMP_ACT_ALLOW"},
		"no name":       {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_KILL"}, null]}`, "rule 2: it names no system call", "names"},
		"both":          {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_KILL"}]}`, "both name and names", "leave out"},
		"operator":      {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL", "args": [{"index": 1, "op": "=="}]}]}`, `rule 1 (a): unknown operator "=="`, "SCMP_CMP_EQ"},
		"argument":      {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]}`, "there is no argument 6", "0 to 5"},
		"errno":         {`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}`, "errno 5000: there is none", "EPERM is 1"},
		"errno of none": {`{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}`, "SCMP_ACT_ALLOW takes no errno", "errnoRet"},
		"flag":          {`{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["LOG"]}`, `unknown flag "LOG"`, "SECCOMP_FILTER_FLAG_LOG"},
		"architecture":  {`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["amd64"]}`, `unknown architecture "amd64"`, "SCMP_ARCH_X86_64"},
		"two lists":     {`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}`, "both architectures and archMap", "leave out"},
		"a kernel":      {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL", "includes": {"minKernel": "new"}}]}`, `"new" is not a version of Linux`, "jq"},
	} {
		_, err := Parse("p.json", []byte(tc.text))
		var bad *ProfileError
		if !errors.As(err, &bad) || !strings.HasPrefix(err.Error(), "seccomp profile p.json: ") || !strings.Contains(err.Error(), tc.want) ||
			!strings.Contains(bad.Hint(), tc.hint) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, %+v", name, err, bad)
		}
	}
}

func TestParseKernel(t *testing.T) {
	for text, want := range map[string]Kernel{"4.8": {4, 8}, "6.1.0-9-amd64": {6, 1}, "5.15": {5, 15}, "6.18+": {6, 18}, "6.12-rc3": {6, 12}} {
		if got, err := ParseKernel(text); got != want || err != nil {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "6", "a.b", "-1.2", "6.", ".6"} {
		if got, err := ParseKernel(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// No profile makes the parser or the compiler panic, and each filter is one that
// the kernel takes and says what the rules say.
func FuzzProfile(f *testing.F) {
	f.Add([]byte(`{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
		"syscalls": [{"name": "socket", "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]}]}`), uint32(41), uint64(38), uint64(0))
	f.Add([]byte(`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
		"syscalls": [{"names": ["write", "set_tls", "bind"], "action": "SCMP_ACT_TRACE", "errnoRet": 3, "args": [{"index": 1, "value": 4294967296, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}, {"index": 1, "value": 9, "op": "SCMP_CMP_GE"}],
		"includes": {"caps": ["CAP_KILL"], "arches": ["amd64"], "minKernel": "4.1"}, "excludes": {"caps": ["CAP_BPF"]}}]}`), uint32(1), uint64(1)<<32, uint64(9))
	f.Fuzz(func(t *testing.T, text []byte, nr uint32, a, b uint64) {
		p, err := Parse("p.json", text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q has several lines", err)
			}
			return
		}
		for _, target := range targets {
			filter, err := p.Compile(target)
			if err != nil {
				continue
			}
			if err := verify(filter.Program); err != nil {
				t.Fatal(err)
			}
			agree(t, p, target, filter.Program, func(yield func(data)) {
				for _, audit := range audits {
					yield(call(audit, nr, a, b, a, b, a, b))
					yield(call(audit, nr%500, b, a))
					yield(call(audit, x32Bit|nr%600, b, a))
				}
			})
		}
	})
}
