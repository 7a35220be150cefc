package main

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"rbox/userns/confine"
	"rbox/userns/stage"
)

// security is what --security-opt asks for.
type security struct {
	seccomp         string // a profile's file, confine.BuiltinProfile or Unconfined; "" if nothing was said
	noNewPrivileges bool
	mask            []string // further paths to hide
	unmask          []string // patterns of paths that are neither hidden nor read-only
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
		case "mask":
			s.mask, err = maskedPaths(word, value, s.mask)
		case "unmask":
			s.unmask = append(s.unmask, strings.Split(value, ":")...)
		case "systempaths", "label", "apparmor":
			err = s.take(word, key, value)
		default:
			err = &adviceError{fmt.Errorf("--security-opt %s: unknown option %q", word, key), "there are seccomp=, no-new-privileges, mask=, unmask= and systempaths=unconfined"}
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// take takes an option of Docker's that there is one value of here. The labels
// and profiles of SELinux and AppArmor are not rbox's to give: a container has
// those of its user, so that to ask for none is met, and for another is not.
func (s *security) take(word, key, value string) error {
	switch {
	case key == "systempaths" && value == "unconfined":
		s.unmask = append(s.unmask, "ALL")
	case key == "label" && value == "disable", key == "apparmor" && value == "unconfined":
	case key == "systempaths":
		return &adviceError{fmt.Errorf("--security-opt %s: there is unconfined alone", word), "--security-opt unmask=/proc/interrupts shows one path"}
	case key == "label":
		return &adviceError{fmt.Errorf("--security-opt %s: rbox labels no processes; a container runs with the label that you have", word), "--security-opt label=disable says so"}
	default:
		return &adviceError{fmt.Errorf("--security-opt %s: only this host's root gives profiles of AppArmor; a container has the one that you have", word), "--security-opt apparmor=unconfined says so"}
	}
	return nil
}

// maskedPaths adds those of mask=PATH:PATH to list.
func maskedPaths(word, value string, list []string) ([]string, error) {
	for name := range strings.SplitSeq(value, ":") {
		clean := path.Clean(name)
		if !path.IsAbs(name) || clean == "/" || clean == "/proc" || clean == "/sys" {
			return nil, fmt.Errorf("--security-opt %s: %q is not an absolute path below /, /proc or /sys", word, name)
		}
		list = append(list, clean)
	}
	return list, nil
}

// paths applies mask= and unmask= to the plan.
func (s *security) paths(p *stage.Plan) {
	shown := func(name string) bool {
		return slices.ContainsFunc(s.unmask, func(pattern string) bool { return confine.Unmasked(pattern, name) })
	}
	p.Masked = append(slices.DeleteFunc(p.Masked, shown), s.mask...)
	p.Locked = slices.DeleteFunc(p.Locked, shown)
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
	s.paths(p)
	p.Process.NoNewPrivileges = s.noNewPrivileges
	p.Process.Seccomp, err = seccompFor(s.seccomp, p.Process.Capabilities)
	return err
}

// seccompFor is the filter of a profile for a container with such capabilities.
// That of the built-in one for the usual sets of them needs no compiler.
func seccompFor(profile string, capabilities uint64) (stage.Seccomp, error) {
	switch profile {
	case confine.Unconfined:
		return stage.Seccomp{Profile: profile}, nil
	case "", confine.BuiltinProfile:
		if s, ok := stage.Prebuilt(capabilities); ok {
			return s, nil
		}
	}
	return compileSeccomp(profile, capabilities)
}
