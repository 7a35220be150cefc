//go:build !front

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"rbox/userns/confine"
	"rbox/userns/confine/seccomp"
	"rbox/userns/stage"
)

// maxProfile is the size of a file, in bytes, that is still taken for a profile:
// Docker's has 20 000.
const maxProfile = 4 << 20

// compileSeccomp makes the filter of a profile: the built-in one's, or that of a file.
func compileSeccomp(profile string, capabilities uint64) (s stage.Seccomp, err error) {
	s.Profile = confine.BuiltinProfile
	p := seccomp.Builtin()
	if profile != "" && profile != confine.BuiltinProfile {
		s.Profile = absolute(profile)
		if p, err = readProfile(profile); err != nil {
			return s, err
		}
	}
	target := seccomp.Target{Arch: runtime.GOARCH, Capabilities: capabilities}
	if target.Kernel, err = kernel(); err != nil {
		return s, err
	}
	filter, err := p.Compile(target)
	var bad *seccomp.ProfileError
	if errors.As(err, &bad) {
		bad.File = s.Profile
	}
	if err != nil {
		return s, err
	}
	s.Filter, s.Flags = filter.Bytes(), filter.Flags
	return s, nil
}

// readProfile reads a file that --security-opt names.
func readProfile(path string) (*seccomp.Profile, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &adviceError{fmt.Errorf("seccomp profile %s: there is no such file", path), "the path of a JSON file, builtin, or unconfined for no filter"}
	}
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxProfile+1))
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	if len(text) > maxProfile {
		return nil, fmt.Errorf("seccomp profile %s: it is larger than %d MiB", path, maxProfile>>20)
	}
	return seccomp.Parse(path, text)
}

// kernel is the version of the kernel we run on.
func kernel() (seccomp.Kernel, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return seccomp.Kernel{}, os.NewSyscallError("uname", err)
	}
	return seccomp.ParseKernel(unix.ByteSliceToString(u.Release[:]))
}
