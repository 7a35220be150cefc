package seccomp

import (
	_ "embed"
	"encoding/binary"

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

// BuiltinTarget is what confine.Builtin is compiled for: Linux 4.8 or newer,
// which all minKernel of the profile ask for.
func BuiltinTarget(arch string, capabilities uint64) Target {
	return Target{Arch: arch, Kernel: Kernel{4, 8}, Capabilities: capabilities}
}

// Prebuild is the file that package confine embeds: the filters for its sets of
// capabilities, in that order, each after its length.
func Prebuild(arch string) (file []byte, err error) {
	for _, set := range confine.Prebuilt() {
		f, err := Builtin().Compile(BuiltinTarget(arch, set))
		if err != nil {
			return nil, err
		}
		program := f.Bytes()
		file = append(binary.LittleEndian.AppendUint32(file, uint32(len(program))), program...)
	}
	return file, nil
}
