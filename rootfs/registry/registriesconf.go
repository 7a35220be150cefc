package registry

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"rbox/rootfs/image"
)

// Config is what containers-registries.conf(5) says of registries: where they
// really are, which mirrors to ask first, and which not to verify or to use.
// The zero Config is that of a machine without such a file.
type Config struct {
	registries []registryConf
	aliases    map[string]string // short name → full name, both without tag
}

// registryConf is a [[registry]] table. Unlike in the file, prefix is never empty.
type registryConf struct {
	Prefix             string       `toml:"prefix"`
	Location           string       `toml:"location"`
	Insecure           bool         `toml:"insecure"`
	Blocked            bool         `toml:"blocked"`
	Mirrors            []mirrorConf `toml:"mirror"`
	MirrorByDigestOnly bool         `toml:"mirror-by-digest-only"`

	file string // where it stands, for errors
}

type mirrorConf struct {
	Location       string `toml:"location"`
	Insecure       bool   `toml:"insecure"`
	PullFromMirror string `toml:"pull-from-mirror"` // all (default), digest-only, tag-only
}

// LoadConfig reads $CONTAINERS_REGISTRIES_CONF, else
// $XDG_CONFIG_HOME/containers/registries.conf, else
// /etc/containers/registries.conf, and then the registries.conf.d directories
// beside the last two, whose files override it in the order of their names. A
// missing file is none, unless the environment names it; one that cannot be
// read or parsed is an error.
func LoadConfig(getenv func(string) string) (*Config, error) {
	user := filepath.Join(configHome(getenv), "containers")
	const system = "/etc/containers"
	files := []string{getenv("CONTAINERS_REGISTRIES_CONF")}
	if files[0] != "" {
		if _, err := os.Stat(files[0]); err != nil {
			return nil, &ConfigError{File: files[0], err: errors.New("CONTAINERS_REGISTRIES_CONF names it, but it is not there")}
		}
	} else {
		files[0] = filepath.Join(user, "registries.conf")
		if _, err := os.Stat(files[0]); err != nil {
			files[0] = filepath.Join(system, "registries.conf")
		}
	}
	for _, dir := range []string{system, user} {
		files = append(files, dropIns(filepath.Join(dir, "registries.conf.d"))...)
	}
	c := new(Config)
	for _, file := range files {
		if err := c.readFile(file); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// dropIns lists the files of dir that end in .conf, in the order of their names.
func dropIns(dir string) (files []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // absent, most likely
	}
	for _, e := range entries {
		if file := filepath.Join(dir, e.Name()); filepath.Ext(file) == ".conf" && !isDistributionList(file) {
			files = append(files, file)
		}
	}
	return files
}

// isDistributionList says that file is the list of short names that
// distributions ship with Podman. It differs between them, and gives names
// such as hello-world another meaning than Docker's: it is nobody's decision
// on this machine, so it is not read.
func isDistributionList(file string) bool {
	name := filepath.Base(file)
	return name == "shortnames.conf" || name == "000-shortnames.conf"
}

func (c *Config) readFile(file string) error {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &ConfigError{File: file, err: err}
	}
	return c.parse(file, raw)
}

// parse adds what raw says to c. A table replaces an earlier one of its prefix.
func (c *Config) parse(file string, raw []byte) error {
	var doc struct {
		Registries []registryConf    `toml:"registry"`
		Aliases    map[string]string `toml:"aliases"`
	}
	if err := toml.Unmarshal(raw, &doc); err != nil {
		return &ConfigError{File: file, err: err}
	}
	for _, r := range doc.Registries {
		r.file = file
		r.Prefix, r.Location = strings.TrimSuffix(r.Prefix, "/"), strings.TrimSuffix(r.Location, "/")
		r.Prefix = cmp.Or(r.Prefix, r.Location)
		if r.Prefix == "" {
			return &ConfigError{File: file, err: errors.New("a [[registry]] has neither prefix nor location")}
		}
		if strings.HasPrefix(r.Prefix, "*.") && r.Location != "" {
			return &ConfigError{File: file, err: fmt.Errorf("registry %s: a prefix with a wildcard takes no location", r.Prefix)}
		}
		if i := slices.IndexFunc(c.registries, func(old registryConf) bool { return old.Prefix == r.Prefix }); i >= 0 {
			c.registries[i] = r
		} else {
			c.registries = append(c.registries, r)
		}
	}
	for short, full := range doc.Aliases {
		if c.aliases == nil {
			c.aliases = make(map[string]string)
		}
		c.aliases[short] = full
	}
	return nil
}

// Alias returns the reference that name, as typed, stands for in [aliases],
// and whether there is one. Tag and digest of name are kept.
func (c *Config) Alias(name string) (image.Reference, bool, error) {
	short, rest := name, ""
	if i := strings.IndexAny(name, ":@"); i >= 0 {
		short, rest = name[:i], name[i:]
	}
	full, found := c.aliases[short]
	if !found || full == "" { // an empty value removes an alias of an earlier file
		return image.Reference{}, false, nil
	}
	ref, err := image.ParseReference(full + rest)
	return ref, err == nil, err
}

// endpoint is one place that may hold a repository.
type endpoint struct {
	host       string // host[:port] to connect to
	repository string // path there
	insecure   bool   // its certificate does not count, and plain HTTP will do
	mirror     bool
	registry   string // what credentials are stored under
}

// endpoints returns where to look for ref, in order: mirrors, then the
// registry itself. A blocked registry gives a *BlockedError.
func (c *Config) endpoints(ref image.Reference) ([]endpoint, error) {
	r, found := c.match(ref.Name())
	if !found {
		return []endpoint{newEndpoint(ref.Registry, ref.Repository)}, nil
	}
	if r.Blocked {
		return nil, &BlockedError{Image: ref.Familiar(), Prefix: r.Prefix, File: r.file}
	}
	var list []endpoint
	for _, m := range r.Mirrors {
		if !m.serves(ref, r.MirrorByDigestOnly) {
			continue
		}
		e, err := r.relocate(ref, m.Location)
		if err != nil {
			return nil, err
		}
		e.insecure, e.mirror = m.Insecure, true
		list = append(list, e)
	}
	e := newEndpoint(ref.Registry, ref.Repository)
	if r.Location != "" {
		var err error
		if e, err = r.relocate(ref, r.Location); err != nil {
			return nil, err
		}
	}
	e.insecure = r.Insecure
	return append(list, e), nil
}

func (m mirrorConf) serves(ref image.Reference, byDigestOnly bool) bool {
	switch {
	case m.PullFromMirror == "digest-only" || byDigestOnly:
		return ref.Digest != ""
	case m.PullFromMirror == "tag-only":
		return ref.Digest == ""
	}
	return true
}

// match returns the table with the longest prefix of name, a reference
// without tag and digest.
func (c *Config) match(name string) (best registryConf, found bool) {
	for _, r := range c.registries {
		if r.matches(name) && len(r.Prefix) > len(best.Prefix) {
			best, found = r, true
		}
	}
	return best, found
}

func (r registryConf) matches(name string) bool {
	if domain, wild := strings.CutPrefix(r.Prefix, "*"); wild { // "*.example.com"
		host, _, _ := strings.Cut(name, "/")
		host, _, _ = strings.Cut(host, ":")
		return strings.HasSuffix(host, domain)
	}
	rest, found := strings.CutPrefix(name, r.Prefix)
	return found && (rest == "" || rest[0] == '/')
}

// relocate puts location in place of r's prefix of ref's name.
func (r registryConf) relocate(ref image.Reference, location string) (endpoint, error) {
	path := strings.TrimPrefix(ref.Name(), r.Prefix)
	if strings.HasPrefix(r.Prefix, "*.") {
		path = "/" + ref.Repository
	}
	host, repository, _ := strings.Cut(strings.TrimSuffix(location, "/")+path, "/")
	if _, err := image.ParseReference(host + "/" + repository); err != nil || host == "" || repository == "" {
		return endpoint{}, &ConfigError{File: r.file, err: fmt.Errorf("location %q does not lead %s to a repository", location, ref.Name())}
	}
	return newEndpoint(host, repository), nil
}

func newEndpoint(registry, repository string) endpoint {
	return endpoint{host: apiHost(registry), repository: repository, registry: registry}
}

// apiHost returns where a registry's API is. Only Docker Hub's has another name.
func apiHost(registry string) string {
	if registry == image.DefaultRegistry || registry == "index.docker.io" {
		return "registry-1.docker.io"
	}
	return registry
}

// ConfigError reports a configuration file that cannot be used.
type ConfigError struct {
	File string
	err  error
}

func (e *ConfigError) Error() string { return e.File + ": " + oneLine(e.err.Error()) }

func (e *ConfigError) Unwrap() error { return e.err }

// Hint is what the user can do.
func (e *ConfigError) Hint() string {
	return "mend the file (containers-registries.conf(5)), or name another: CONTAINERS_REGISTRIES_CONF=FILE"
}

// BlockedError reports an image that registries.conf forbids.
type BlockedError struct{ Image, Prefix, File string }

func (e *BlockedError) Error() string {
	return fmt.Sprintf("%s: %s blocks %s", e.Image, e.File, e.Prefix)
}

// Hint is what the user can do.
func (e *BlockedError) Hint() string {
	return "ask who wrote " + e.File + ", or use the image from another registry"
}

// configHome returns $XDG_CONFIG_HOME or ~/.config.
func configHome(getenv func(string) string) string {
	return cmp.Or(getenv("XDG_CONFIG_HOME"), filepath.Join(getenv("HOME"), ".config"))
}
