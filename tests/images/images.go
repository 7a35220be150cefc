package images

import (
	"archive/tar"
	"bytes"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// Entry is a member of a layer. Its kind follows from what is set: Link makes a
// symbolic link, Hard a hard link, Type anything else, a name that ends in "/"
// a folder, and nothing of these a file.
type Entry struct {
	Name     string
	Data     string
	Mode     int64 // 0: 0644 for a file, 0755 for a folder
	UID, GID int
	Link     string
	Hard     string
	Type     byte
	Xattrs   map[string]string
	ModTime  time.Time
	Major    int64
	Minor    int64
}

func writeEntry(t *tar.Writer, e Entry) error {
	h := &tar.Header{
		Name: e.Name, Mode: e.Mode, Uid: e.UID, Gid: e.GID, Typeflag: tar.TypeReg,
		Size: int64(len(e.Data)), ModTime: e.ModTime, Devmajor: e.Major, Devminor: e.Minor,
	}
	if h.ModTime.IsZero() {
		h.ModTime = time.Unix(1700000000, 0)
	}
	switch {
	case e.Type != 0:
		h.Typeflag, h.Linkname = e.Type, e.Link+e.Hard
	case e.Link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
	case e.Hard != "":
		h.Typeflag, h.Linkname = tar.TypeLink, e.Hard
	case strings.HasSuffix(e.Name, "/"):
		h.Typeflag = tar.TypeDir
	}
	if h.Mode == 0 {
		h.Mode = 0o644
		if h.Typeflag == tar.TypeDir {
			h.Mode = 0o755
		}
	}
	for name, value := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(t, e.Data)
	return err
}

// Tar returns an archive of entries.
func Tar(entries ...Entry) ([]byte, error) {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, e := range entries {
		if err := writeEntry(t, e); err != nil {
			return nil, err
		}
	}
	err := t.Close()
	return b.Bytes(), err
}

// Compression is how a layer is stored.
type Compression int

const (
	Gzip Compression = iota
	Zstd
	None
)

// Layer returns data, a tar archive, as an OCI layer.
func Layer(data []byte, c Compression) (v1.Layer, error) {
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	plain, err := tarball.LayerFromOpener(opener, tarball.WithMediaType(types.OCILayer))
	if err != nil || c == Gzip {
		return plain, err
	}
	diffID, err := plain.DiffID()
	if err != nil {
		return nil, err
	}
	if c == None {
		return diffLayer{static.NewLayer(data, types.OCIUncompressedLayer), diffID}, nil
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	return diffLayer{static.NewLayer(enc.EncodeAll(data, nil), types.OCILayerZStd), diffID}, nil
}

// diffLayer knows the digest of its own uncompressed form.
type diffLayer struct {
	v1.Layer
	diffID v1.Hash
}

func (l diffLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }

// Image returns an image of layers, lowest first, for this machine's platform.
func Image(c v1.Config, layers ...v1.Layer) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layers...)
	if err != nil {
		return nil, err
	}
	f, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	f = f.DeepCopy()
	f.OS, f.Architecture, f.Config = "linux", runtime.GOARCH, c
	f.Created = v1.Time{Time: time.Unix(1700000000, 0)}
	return mutate.ConfigFile(img, f)
}

// FromTarGz returns an image of one layer: the archive at path.
func FromTarGz(path string, c v1.Config) (v1.Image, error) {
	layer, err := tarball.LayerFromFile(path, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	return Image(c, layer)
}

// Docker returns img with Docker's media types (schema 2) in place of OCI's.
func Docker(img v1.Image) v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(img, types.DockerManifestSchema2), types.DockerConfigJSON)
}

// Index returns an index of img for this machine, and of other for another
// architecture, so that only who looks at platforms takes the right one.
func Index(img, other v1.Image) v1.ImageIndex {
	add := func(i v1.Image, arch string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: i, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: arch},
		}}
	}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		add(other, otherArch()), add(img, runtime.GOARCH))
}

func otherArch() string {
	if runtime.GOARCH == "s390x" {
		return "ppc64le"
	}
	return "s390x"
}

// SaveDocker writes img to file as `docker save` does, under the name tag.
func SaveDocker(file, tag string, img v1.Image) error {
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, ref, img)
}
