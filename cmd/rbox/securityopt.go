package main

import (
	"fmt"
	"strings"

	"rbox/userns/confine"
	"rbox/userns/stage"
)

// security is what --security-opt asks for.
type security struct {
	seccomp         string // a profile's file, confine.BuiltinProfile or Unconfined; "" if nothing was said
	noNewPrivileges bool
}

// parseSecurity reads the words of --security-opt: KEY=VALUE, or KEY:VALUE as
// Docker has it, too. The later of two counts.
func parseSecurity(words []string) (s security, err error) {
	for _, word := range words {
		key, value := word, ""
		i := strings.IndexAny(word, "=:")
		if i >= 0 {
			key, value = word[:i], word[i+1:]
		}
		switch key {
		case "seccomp":
			s.seccomp = value
			if value == "" {
				err = &adviceError{fmt.Errorf("--security-opt %s: the profile is missing", word), "--security-opt seccomp=FILE, or unconfined for none"}
			}
		case "no-new-privileges":
			switch {
			case i < 0 || value == "true":
				s.noNewPrivileges = true
			case value == "false":
				s.noNewPrivileges = false
			default:
				err = &adviceError{fmt.Errorf("--security-opt %s: want true or false", word), "--security-opt no-new-privileges"}
			}
		default:
			err = &adviceError{fmt.Errorf("--security-opt %s: unknown option %q", word, key), "there are seccomp=FILE, seccomp=unconfined and no-new-privileges"}
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// secure decides what confines the container. Its capabilities are in p.
func (c *RunCmd) secure(p *stage.Plan) error {
	s, err := parseSecurity(c.SecurityOpt)
	if err != nil {
		return err
	}
	if c.Privileged && s.seccomp == "" {
		s.seccomp = confine.Unconfined
	}
	p.Process.NoNewPrivileges = s.noNewPrivileges
	p.Process.Seccomp, err = seccompFor(s.seccomp, p.Process.Capabilities)
	return err
}

// seccompFor is the filter of a profile for a container with such capabilities.
// That of the built-in one for the usual capabilities needs no compiler: the
// stage executable has it.
func seccompFor(profile string, capabilities uint64) (stage.Seccomp, error) {
	unusual := (capabilities ^ confine.DefaultCapabilities) & confine.BuiltinDepends
	switch {
	case profile == confine.Unconfined:
		return stage.Seccomp{Profile: profile}, nil
	case profile != "" && profile != confine.BuiltinProfile || unusual != 0:
		return compileSeccomp(profile, capabilities)
	}
	return stage.Seccomp{Profile: confine.BuiltinProfile}, nil
}
