package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Media types of manifests and their parts, Docker's and OCI's.
const (
	DockerIndex     = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	DockerConfig    = "application/vnd.docker.container.image.v1+json"
	DockerLayer     = "application/vnd.docker.image.rootfs.diff.tar"
	DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	DockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"

	OCIIndex     = "application/vnd.oci.image.index.v1+json"
	OCIManifest  = "application/vnd.oci.image.manifest.v1+json"
	OCIConfig    = "application/vnd.oci.image.config.v1+json"
	OCILayer     = "application/vnd.oci.image.layer.v1.tar"
	OCILayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
	OCILayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd"

	dockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// Limits of what is read from a registry or an archive.
const (
	MaxManifestSize = 4 << 20 // bytes of one manifest or index
	MaxConfigSize   = 8 << 20 // bytes of one configuration
	MaxLayers       = 4096    // layers of one image
	maxEntries      = 4096    // manifests of one index
)

// Descriptor points at a blob or manifest by its digest.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       Digest            `json:"digest"`
	Size         int64             `json:"size"` // bytes
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// isAttachment says that d is no image but something about one: a build's
// attestation, a signature, a bill of materials.
func (d Descriptor) isAttachment() bool {
	switch d.ArtifactType {
	case "", OCIConfig, DockerConfig: // some tools repeat the configuration's type here
	default:
		return true
	}
	if d.Annotations["vnd.docker.reference.type"] != "" {
		return true
	}
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Arch == "unknown"
}

func (d Descriptor) validate(what string) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s: its size is %d bytes", what, d.Size)
	}
	return nil
}

// Index lists the manifests of one image for several platforms: Docker's
// manifest list or OCI's image index.
type Index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Manifests     []Descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Manifest is one image for one platform: its configuration, and its layers
// lowest first.
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Size returns the bytes of all layers as they are transferred.
func (m *Manifest) Size() int64 {
	var n int64
	for _, l := range m.Layers {
		n += l.Size
	}
	return n
}

// IsIndexType says that mediaType is an index's.
func IsIndexType(mediaType string) bool { return mediaType == DockerIndex || mediaType == OCIIndex }

func isManifestType(mediaType string) bool {
	return mediaType == DockerManifest || mediaType == OCIManifest
}

// Resolved is what a registry says of a reference for one platform. All
// digests are verified.
type Resolved struct {
	Reference      Reference
	Platform       Platform // as the index says, or as asked for where there is none
	Index          []byte   // as sent, nil if the reference names a manifest itself
	IndexDigest    Digest   // of Index, empty without one
	RawManifest    []byte   // as sent
	ManifestDigest Digest   // of RawManifest
	MediaType      string   // of RawManifest
	Manifest       *Manifest
}

// Digest returns what the reference itself names: the index if there is one.
func (r *Resolved) Digest() Digest {
	if r.IndexDigest != "" {
		return r.IndexDigest
	}
	return r.ManifestDigest
}

// Decode reads raw as an index or a manifest, whichever it is: exactly one of
// the two results is set. mediaType is what the registry calls it, and counts
// only where raw itself does not say. The content is validated; what rbox
// cannot run (schema 1, foreign layers, artifacts) gives an
// *UnsupportedError.
func Decode(raw []byte, mediaType string) (*Index, *Manifest, error) {
	if len(raw) > MaxManifestSize {
		return nil, nil, fmt.Errorf("the manifest is larger than %d bytes", MaxManifestSize)
	}
	var shape struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := decodeJSON(raw, &shape); err != nil {
		return nil, nil, fmt.Errorf("the manifest is not valid: %w", err)
	}
	if shape.MediaType != "" {
		mediaType = shape.MediaType
	}
	isIndex, isManifest := shape.Manifests != nil, shape.Layers != nil || shape.Config != nil
	switch {
	case shape.SchemaVersion == 1 || shape.FSLayers != nil || mediaType == dockerSchema1 || mediaType == dockerSchema1Signed:
		return nil, nil, &UnsupportedError{
			What: "its manifest is in Docker's schema 1, obsolete since 2017",
			hint: "ask for it to be pushed again with a current tool, or convert it: skopeo copy docker://OLD docker://NEW",
		}
	case shape.SchemaVersion != 2:
		return nil, nil, fmt.Errorf("the manifest's schemaVersion is %d, not 2", shape.SchemaVersion)
	case isIndex && isManifest:
		return nil, nil, errors.New("the manifest is ambiguous: it has manifests, as an index has, and layers, as an image has")
	case isIndex && !isManifestType(mediaType):
		x, err := decodeIndex(raw)
		return x, nil, err
	case isManifest && !IsIndexType(mediaType):
		m, err := decodeManifest(raw)
		return nil, m, err
	}
	return nil, nil, fmt.Errorf("the manifest's content does not match its media type %s", quote(mediaType))
}

func decodeIndex(raw []byte) (*Index, error) {
	var x Index
	if err := decodeJSON(raw, &x); err != nil {
		return nil, fmt.Errorf("the index is not valid: %w", err)
	}
	if len(x.Manifests) > maxEntries {
		return nil, fmt.Errorf("the index has %d manifests, more than %d", len(x.Manifests), maxEntries)
	}
	for i, d := range x.Manifests {
		if err := d.validate(fmt.Sprintf("manifest %d of the index", i+1)); err != nil {
			return nil, err
		}
	}
	return &x, nil
}

func decodeManifest(raw []byte) (*Manifest, error) {
	var m Manifest
	if err := decodeJSON(raw, &m); err != nil {
		return nil, fmt.Errorf("the manifest is not valid: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return &m, nil
}

// Validate returns an error unless m describes an image that rbox can use.
func (m *Manifest) Validate() error {
	switch m.Config.MediaType {
	case DockerConfig, OCIConfig, "application/octet-stream", "": // the last two from old tools
	default:
		return &UnsupportedError{
			What: "it is no container image: its configuration is " + quote(m.Config.MediaType),
			hint: "rbox runs container images; charts, signatures and other artifacts need the tool that made them",
		}
	}
	if err := m.Config.validate("the manifest's config"); err != nil {
		return err
	}
	if m.Config.Size > MaxConfigSize {
		return fmt.Errorf("the image's configuration is announced with %d bytes, more than %d", m.Config.Size, MaxConfigSize)
	}
	if len(m.Layers) > MaxLayers {
		return fmt.Errorf("the image has %d layers, more than %d", len(m.Layers), MaxLayers)
	}
	var total int64
	for i, l := range m.Layers {
		what := fmt.Sprintf("layer %d of the manifest", i+1)
		if err := l.validate(what); err != nil {
			return err
		}
		if total += l.Size; total < 0 {
			return fmt.Errorf("%s: the sizes add up to more than any disk holds", what)
		}
		if err := checkLayerType(l); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func checkLayerType(l Descriptor) error {
	switch l.MediaType {
	case DockerLayer, DockerLayerGzip, DockerLayerZstd, OCILayer, OCILayerGzip, OCILayerZstd:
		return nil
	case "application/vnd.docker.image.rootfs.foreign.diff.tar", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":
		return &UnsupportedError{
			What: "it is a foreign layer, which the registry does not hold",
			hint: "such layers belong to Windows images and vendors' private files: rbox takes layers from the registry only",
		}
	case "application/vnd.oci.image.layer.v1.tar+encrypted", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
		"application/vnd.oci.image.layer.v1.tar+zstd+encrypted":
		return &UnsupportedError{What: "it is encrypted", hint: "decrypt the image first: skopeo copy --decryption-key KEY …"}
	}
	return &UnsupportedError{
		What: "its media type " + quote(l.MediaType) + " is not a layer's",
		hint: "rbox reads tar layers, plain or compressed with gzip or zstd",
	}
}

// UnsupportedError reports a well-formed thing that rbox does not run.
type UnsupportedError struct{ What, hint string }

func (e *UnsupportedError) Error() string { return e.What }

// Hint is what the user can do.
func (e *UnsupportedError) Hint() string { return e.hint }

// decodeJSON is json.Unmarshal with errors that tell a truncated or foreign
// document (a login page, say) from a wrong one.
func decodeJSON(raw []byte, v any) error {
	trimmed := bytes.TrimLeft(raw, " \t\r\n")
	if len(trimmed) == 0 {
		return errors.New("it is empty")
	}
	if trimmed[0] != '{' {
		return errors.New("it is not a JSON object")
	}
	return json.Unmarshal(raw, v)
}
