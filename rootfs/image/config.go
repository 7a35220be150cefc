package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Config is an image's configuration blob, whose digest is the image's id. The
// JSON names are Docker's and OCI's (image-spec, config.md).
type Config struct {
	Created      *time.Time      `json:"created,omitempty"`
	Author       string          `json:"author,omitempty"`
	Architecture string          `json:"architecture"`
	Variant      string          `json:"variant,omitempty"`
	OS           string          `json:"os"`
	Config       ContainerConfig `json:"config"`
	RootFS       RootFS          `json:"rootfs"`
	History      []History       `json:"history,omitempty"`

	DockerVersion string `json:"docker_version,omitempty"`
	Comment       string `json:"comment,omitempty"`
}

// ContainerConfig is how a container of the image is started unless the user
// says otherwise.
type ContainerConfig struct {
	User         string              `json:"User,omitempty"` // name or number, with or without ":group"
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"` // NAME=value
	Entrypoint   Words               `json:"Entrypoint,omitempty"`
	Cmd          Words               `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	StopTimeout  *int                `json:"StopTimeout,omitempty"` // seconds
	Healthcheck  *Healthcheck        `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        Words               `json:"Shell,omitempty"`
	ArgsEscaped  bool                `json:"ArgsEscaped,omitempty"`
	Hostname     string              `json:"Hostname,omitempty"`
	Domainname   string              `json:"Domainname,omitempty"`
	Image        string              `json:"Image,omitempty"`
}

// Words is a command. Old images have a plain string in its place, which is
// one word.
type Words []string

// UnmarshalJSON reads a list, a string or null.
func (w *Words) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var one string
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*w = Words{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

// Healthcheck is HEALTHCHECK of a Dockerfile. Durations are nanoseconds in
// JSON; zero means Docker's default.
type Healthcheck struct {
	Test          Words         `json:"Test,omitempty"` // NONE, CMD word…, or CMD-SHELL line
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// RootFS lists the digests of the layers' plain tar archives, lowest first.
type RootFS struct {
	Type    string   `json:"type"` // "layers"
	DiffIDs []Digest `json:"diff_ids"`
}

// History tells how a layer came about.
type History struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"` // it has no layer of its own
}

// ParseConfig reads and validates a configuration blob.
func ParseConfig(raw []byte) (*Config, error) {
	if len(raw) > MaxConfigSize {
		return nil, fmt.Errorf("the image's configuration is larger than %d bytes", MaxConfigSize)
	}
	var c Config
	if err := decodeJSON(raw, &c); err != nil {
		return nil, fmt.Errorf("the image's configuration is not valid: %w", err)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("the image's configuration is not valid: %w", err)
	}
	return &c, nil
}

// Platform returns what the image is built for. Where the configuration does
// not say, it is Linux on this machine's architecture.
func (c *Config) Platform() Platform {
	p := Platform{OS: c.OS, Arch: c.Architecture, Variant: c.Variant}
	if p.OS == "" {
		p.OS = "linux"
	}
	if p.Arch == "" {
		p.Arch = Host().Arch
	}
	return p.Normalize()
}

// Validate returns an error unless c can start a container on Linux.
func (c *Config) Validate() error {
	if os := c.Platform().OS; os != "linux" {
		return &UnsupportedError{
			What: "the image is built for " + quote(os),
			hint: "rbox runs Linux images only",
		}
	}
	if t := c.RootFS.Type; t != "layers" && !(t == "" && len(c.RootFS.DiffIDs) == 0) {
		return fmt.Errorf("rootfs.type is %s, not \"layers\"", quote(t))
	}
	if len(c.RootFS.DiffIDs) > MaxLayers {
		return fmt.Errorf("it has %d layers, more than %d", len(c.RootFS.DiffIDs), MaxLayers)
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("diff id %d: %w", i+1, err)
		}
	}
	return c.Config.validate()
}

// validate refuses what no execve(2) could take.
func (c *ContainerConfig) validate() error {
	for _, env := range c.Env {
		if strings.HasPrefix(env, "=") {
			return fmt.Errorf("the variable %s of Env has no name", quote(env))
		}
	}
	words := map[string][]string{
		"Env": c.Env, "Entrypoint": c.Entrypoint, "Cmd": c.Cmd, "User": {c.User}, "WorkingDir": {c.WorkingDir},
	}
	for field, list := range words {
		for _, word := range list {
			if strings.IndexByte(word, 0) >= 0 {
				return errors.New(field + ": a value holds a NUL byte")
			}
		}
	}
	return nil
}

// CheckLayers returns an error unless m and c, from one image, have the same
// number of layers.
func CheckLayers(m *Manifest, c *Config) error {
	if layers, ids := len(m.Layers), len(c.RootFS.DiffIDs); layers != ids {
		return fmt.Errorf("the manifest has %d layers but the configuration %d", layers, ids)
	}
	return nil
}
