// Package image holds what images are made of, as pure types and parsers:
// references, platforms, indexes, manifests and configurations, in Docker's
// schema 2 and OCI's form. It reaches neither the network nor the disk.
package image

import (
	"errors"
	"fmt"
	"strings"
)

// DefaultRegistry is where names without a registry live; DefaultTag is the
// tag of a name with neither tag nor digest.
const (
	DefaultRegistry = "docker.io"
	DefaultTag      = "latest"

	officialNamespace = "library/" // of docker.io's names with one component
	maxName           = 255        // bytes of registry and repository together
	maxTag            = 128        // bytes
)

// Reference is the full name of an image, in the grammar of Docker's
// distribution/reference. Exactly what ParseReference returns is valid.
type Reference struct {
	Registry   string // host[:port], as in "docker.io" or "[::1]:5000"
	Repository string // path in the registry, as in "library/alpine"
	Tag        string // empty only if Digest is not
	Digest     Digest // if set it decides, and Tag is but a label
}

// ParseReference reads a name as Docker does: "alpine" is
// docker.io/library/alpine:latest, and what stands before the first slash is a
// registry if it holds a dot or a colon, is localhost or has an upper-case
// letter. Podman's prefix "docker://" is accepted. A bad name gives a
// *ReferenceError.
func ParseReference(s string) (Reference, error) {
	r, err := parseReference(strings.TrimPrefix(s, "docker://"))
	if err != nil {
		var bad *ReferenceError
		if errors.As(err, &bad) {
			bad.Reference = s
			return Reference{}, bad
		}
		return Reference{}, &ReferenceError{Reference: s, Why: err.Error()}
	}
	return r, nil
}

func parseReference(s string) (Reference, error) {
	if err := refuseOddities(s); err != nil {
		return Reference{}, err
	}
	var r Reference
	name, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest {
		d, err := ParseDigest(digest)
		if err != nil {
			return Reference{}, err
		}
		r.Digest = d
	}
	// A colon after the last slash starts the tag; one before is a port's.
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, r.Tag = name[:i], name[i+1:]
		if err := checkTag(r.Tag); err != nil {
			return Reference{}, err
		}
	} else if !hasDigest {
		r.Tag = DefaultTag
	}
	if len(name) == 64 && isLowerHex(name) {
		return Reference{}, &ReferenceError{
			Why:  "64 hexadecimal digits name an image by id, not a repository",
			hint: "an id can be used once the image is here: pull it by its name first",
		}
	}
	r.Registry, r.Repository = splitRegistry(name)
	if err := checkRegistry(r.Registry); err != nil {
		return Reference{}, err
	}
	if lower := strings.ToLower(r.Repository); lower != r.Repository && checkRepository(lower) == nil {
		r.Repository = lower
		return Reference{}, &ReferenceError{Why: "a repository's name is all lower case", hint: "try " + r.Familiar()}
	}
	if err := checkRepository(r.Repository); err != nil {
		return Reference{}, err
	}
	if n := len(r.Registry) + 1 + len(r.Repository); n > maxName {
		return Reference{}, fmt.Errorf("the name is %d bytes long, more than %d", n, maxName)
	}
	return r, nil
}

// refuseOddities catches what people paste and the grammar would refuse in
// words that do not help.
func refuseOddities(s string) error {
	switch {
	case s == "":
		return &ReferenceError{Why: "the name is empty", hint: "name an image, such as alpine or quay.io/fedora/fedora:latest"}
	case strings.HasPrefix(s, "https://"), strings.HasPrefix(s, "http://"):
		_, rest, _ := strings.Cut(s, "://")
		return &ReferenceError{Why: "a name has no scheme", hint: "leave it out: " + rest}
	case strings.HasPrefix(s, "-"):
		return &ReferenceError{Why: "a name cannot start with a dash", hint: "flags come before the image"}
	case strings.HasPrefix(s, "/"), strings.HasPrefix(s, "./"), strings.HasPrefix(s, "../"):
		return &ReferenceError{Why: "this is a path, not the name of an image", hint: "a directory: rbox run --rootfs DIR; an archive: rbox load or rbox import"}
	}
	return nil
}

func splitRegistry(name string) (registry, repository string) {
	registry, repository, found := strings.Cut(name, "/")
	if !found || !looksLikeHost(registry) {
		registry, repository = DefaultRegistry, name
	}
	if registry == "index.docker.io" {
		registry = DefaultRegistry
	}
	if registry == DefaultRegistry && !strings.Contains(repository, "/") {
		repository = officialNamespace + repository
	}
	return registry, repository
}

func looksLikeHost(s string) bool {
	return strings.ContainsAny(s, ".:") || s == "localhost" || strings.ToLower(s) != s
}

func checkTag(tag string) error {
	if tag == "" {
		return errors.New("the tag after the colon is empty")
	}
	if len(tag) > maxTag {
		return fmt.Errorf("the tag is %d bytes long, more than %d", len(tag), maxTag)
	}
	for i := 0; i < len(tag); i++ {
		c := tag[i]
		if !(isLower(c) || isUpper(c) || isDigit(c) || c == '_' || i > 0 && (c == '.' || c == '-')) {
			return fmt.Errorf("the tag %s may hold only letters, digits, _, . and -, and not start with . or -", quote(tag))
		}
	}
	return nil
}

// IsRegistry says that s is a registry's host, with or without a port.
func IsRegistry(s string) bool { return checkRegistry(s) == nil }

// checkRegistry accepts a host name, an IPv4 address or an IPv6 address in
// brackets, each with or without a port.
func checkRegistry(s string) error {
	bad := fmt.Errorf("%s is not a registry's host[:port]", quote(s))
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 || !isIPv6(s[1:end]) {
			return bad
		}
		host, port = "", s[end+1:]
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		host, port = s[:i], s[i:]
		if host == "" {
			return bad
		}
	}
	if port != "" && (port[0] != ':' || !isPort(port[1:])) {
		return bad
	}
	if host == "" {
		return nil
	}
	for label := range strings.SplitSeq(host, ".") {
		if !isHostLabel(label) {
			return bad
		}
	}
	return nil
}

func isIPv6(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' || c == ':') {
			return false
		}
	}
	return strings.Count(s, ":") >= 2
}

func isPort(s string) bool {
	if s == "" || len(s) > 5 {
		return false
	}
	port := 0
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return false
		}
		port = port*10 + int(s[i]-'0')
	}
	return port <= 65535
}

func isHostLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(isLower(c) || isUpper(c) || isDigit(c) || c == '-') {
			return false
		}
	}
	return true
}

func checkRepository(s string) error {
	for component := range strings.SplitSeq(s, "/") {
		if component == "" {
			return errors.New("a component of the name is empty")
		}
		if !isPathComponent(component) {
			return fmt.Errorf("%s may hold only a-z, 0-9 and, between those, one . or _, two _ or any number of -", quote(component))
		}
	}
	return nil
}

// isPathComponent matches [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func isPathComponent(s string) bool {
	alnum := func(i int) bool { return i < len(s) && (isLower(s[i]) || isDigit(s[i])) }
	if !alnum(0) {
		return false
	}
	for i := 0; i < len(s); {
		if alnum(i) {
			i++
			continue
		}
		switch separator := s[i]; separator {
		case '.':
			i++
		case '_':
			i++
			if i < len(s) && s[i] == '_' {
				i++
			}
		case '-':
			for i < len(s) && s[i] == '-' {
				i++
			}
		default:
			return false
		}
		if !alnum(i) {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// Name returns registry/repository, without tag and digest.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// String returns the canonical form, as in "docker.io/library/alpine:latest".
// ParseReference reads it back.
func (r Reference) String() string { return r.Name() + r.suffix() }

// FamiliarName returns the name as people write it, as in "alpine".
func (r Reference) FamiliarName() string {
	if r.Registry != DefaultRegistry {
		return r.Name()
	}
	if name, official := strings.CutPrefix(r.Repository, officialNamespace); official && !strings.Contains(name, "/") {
		return name
	}
	// "docker.io/localhost/x" cannot lose its registry without changing it.
	if first, _, _ := strings.Cut(r.Repository, "/"); looksLikeHost(first) {
		return r.Name()
	}
	return r.Repository
}

// Familiar returns the reference as people write it, as in "alpine:latest".
func (r Reference) Familiar() string { return r.FamiliarName() + r.suffix() }

// WithDigest returns r pinned to d, without its tag.
func (r Reference) WithDigest(d Digest) Reference {
	r.Tag, r.Digest = "", d
	return r
}

func (r Reference) suffix() string {
	var s string
	if r.Tag != "" {
		s = ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// ReferenceError reports a name that is not one of an image.
type ReferenceError struct {
	Reference string // as the user wrote it
	Why       string
	hint      string
}

func (e *ReferenceError) Error() string {
	return "image name " + quote(e.Reference) + ": " + e.Why
}

// Hint is what the user can do.
func (e *ReferenceError) Hint() string {
	if e.hint != "" {
		return e.hint
	}
	return "names look like alpine, alpine:3.20 or registry.example.com:5000/team/app:v1"
}
