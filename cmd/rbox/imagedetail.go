package main

import (
	"time"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
)

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

// Id is ID, by the name that it has in JSON: templates call it both.
func (d imageDetail) Id() string { return d.ID }

type imageRootFS struct {
	Type   string
	Layers []image.Digest
}

type imageMetadata struct{ LastTagTime time.Time }

type imageDescriptor struct {
	MediaType string       `json:"mediaType"`
	Digest    image.Digest `json:"digest"`
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
