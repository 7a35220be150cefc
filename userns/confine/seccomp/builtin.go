package seccomp

import (
	_ "embed"

	"rbox/userns/confine"
)

// builtinProfile is Docker's default, from github.com/moby/profiles/seccomp
// (Apache License 2.0).
//
//go:embed profile.json
var builtinProfile []byte

// Builtin is the default profile.
func Builtin() *Profile {
	p, err := Parse("profile.json", builtinProfile)
	if err != nil {
		panic(err) // a test has read it
	}
	return p
}

// BuiltinTarget is what confine.Builtin is compiled for: the default
// capabilities, and Linux 4.8 or newer, which all minKernel of the profile ask for.
func BuiltinTarget(arch string) Target {
	return Target{Arch: arch, Kernel: Kernel{4, 8}, Capabilities: confine.DefaultCapabilities}
}
