//go:build !front

package main

import (
	"time"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
)

// ImageCmd holds the commands about images under Docker's newer names.
type ImageCmd struct {
	Ls      ImagesCmd       `cmd:"" aliases:"list" help:"List images."`
	Inspect ImageInspectCmd `cmd:"" help:"Show all about images, as JSON."`
	History HistoryCmd      `cmd:"" help:"Show how an image was built."`
	Rm      RmiCmd          `cmd:"" aliases:"remove" help:"Remove images."`
	Tag     TagCmd          `cmd:"" help:"Give an image another name."`
	Import  ImportCmd       `cmd:"" help:"Make an image from the archive of a root file system."`
	Load    LoadCmd         `cmd:"" help:"Load images from an archive."`
	Save    SaveCmd         `cmd:"" help:"Save images to an archive."`
}

// ImageInspectCmd shows all about images.
type ImageInspectCmd struct {
	Format string   `short:"f" placeholder:"TEMPLATE" help:"json, or a Go template over Docker's fields."`
	Images []string `arg:"" name:"IMAGE" help:"Names or ids."`
}

// An imageDetail is Docker's answer about one image (Engine API, ImageInspect).
type imageDetail struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Parent       string
	Comment      string
	Created      string
	Author       string
	Config       image.ContainerConfig
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	Size         int64
	RootFS       imageRootFS
	Metadata     imageMetadata
	Descriptor   imageDescriptor
}

type imageRootFS struct {
	Type   string
	Layers []image.Digest
}

type imageMetadata struct{ LastTagTime time.Time }

type imageDescriptor struct {
	MediaType string       `json:"mediaType"`
	Digest    image.Digest `json:"digest"`
}

// Run prints a JSON list. Where an image is not there, those before it are printed.
func (c *ImageInspectCmd) Run(app *App) error {
	s, err := app.Images()
	if err != nil {
		return err
	}
	details := []imageDetail{}
	var missing error
	for _, name := range c.Images {
		m, err := s.Inspect(name)
		if err != nil {
			missing = err
			break
		}
		details = append(details, detail(m))
	}
	if err := printEach(app.Stdout, c.Format, details); err != nil {
		return err
	}
	return missing
}

func detail(m *store.Image) imageDetail {
	platform := m.Config.Platform()
	d := imageDetail{
		ID: string(m.ID), RepoTags: []string{}, RepoDigests: []string{},
		Comment: m.Config.Comment, Author: m.Config.Author, Config: m.Config.Config,
		Architecture: platform.Arch, Variant: platform.Variant, Os: platform.OS, Size: m.Size,
		RootFS:     imageRootFS{Type: "layers", Layers: m.Config.RootFS.DiffIDs},
		Metadata:   imageMetadata{LastTagTime: m.Stored},
		Descriptor: imageDescriptor{m.MediaType, m.ManifestDigest},
	}
	if created := m.Created(); !created.IsZero() {
		d.Created = created.Format(time.RFC3339Nano)
	}
	if n := len(m.Config.History); n > 0 && d.Comment == "" {
		d.Comment = m.Config.History[n-1].Comment
	}
	seen := map[string]bool{}
	for _, r := range m.Refs {
		ref := r.Reference()
		if ref.Tag != "" {
			d.RepoTags = append(d.RepoTags, ref.Familiar())
		}
		if r.Digest == "" {
			continue
		}
		digest := ref.WithDigest(r.Digest).Familiar()
		if !seen[digest] {
			d.RepoDigests = append(d.RepoDigests, digest)
		}
		seen[digest] = true
	}
	return d
}
