//go:build !front

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"rbox/rootfs/image"
)

// CommitOptions says what image Commit makes.
type CommitOptions struct {
	Unpacking
	Reference *image.Reference      // its name, or nil for none
	Config    image.ContainerConfig // how its containers start
	Changes   []string              // lines of a Dockerfile, applied to Config
	Author    string
	Message   string
	CreatedBy string // for its history
}

// Commit makes an image of base with one more layer, r, a plain archive as
// layers are.
func (s *Store) Commit(ctx context.Context, base *Image, r io.Reader, o CommitOptions) (*Image, error) {
	for _, line := range o.Changes {
		if err := applyChange(&o.Config, line); err != nil {
			return nil, err
		}
	}
	release, err := s.adding(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	s.cleanBuilds(ctx, o.Unpacking)
	layers, err := s.baseLayers(ctx, base, o.Unpacking)
	if err != nil {
		return nil, err
	}
	packed := packGzip(r)
	defer packed.Close()
	top, err := s.ingestLayer(ctx, packed, "", o.Unpacking)
	if err != nil {
		return nil, err
	}
	return s.assemble(ctx, committed(base, top.record.DiffID, o), append(layers, *top), o.Reference)
}

// committed is the configuration of the new image.
func committed(base *Image, top image.Digest, o CommitOptions) *image.Config {
	created := time.Now().UTC()
	config := base.Config
	config.Created, config.Author, config.Comment, config.DockerVersion = &created, o.Author, o.Message, ""
	config.Config = o.Config
	config.RootFS = image.RootFS{Type: "layers", DiffIDs: append(append([]image.Digest(nil), base.Config.RootFS.DiffIDs...), top)}
	config.History = append(append([]image.History(nil), base.Config.History...),
		image.History{Created: &created, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Message})
	return &config
}

// baseLayers are base's, each unpacked.
func (s *Store) baseLayers(ctx context.Context, base *Image, u Unpacking) (list []ingested, err error) {
	for _, l := range base.Layers {
		record, err := s.ensureLayer(ctx, l, u)
		if err != nil {
			return nil, err
		}
		list = append(list, ingested{image.Descriptor{MediaType: ociLayerType(l.MediaType), Digest: l.Digest, Size: l.Size}, record})
	}
	return list, nil
}

// packGzip packs r: every registry and program takes gzip.
func packGzip(r io.Reader) *io.PipeReader {
	out, in := io.Pipe()
	go func() {
		z, err := gzip.NewWriterLevel(in, gzip.BestSpeed)
		if err == nil {
			_, err = io.Copy(z, r)
		}
		if err == nil {
			err = z.Close()
		}
		in.CloseWithError(err)
	}()
	return out
}

// healthcheck reads what follows HEALTHCHECK in a Dockerfile.
func healthcheck(s string) (*image.Healthcheck, error) {
	h := &image.Healthcheck{}
	times := map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	}
	for strings.HasPrefix(s, "--") {
		flag, rest, _ := strings.Cut(s, " ")
		s = strings.TrimSpace(rest)
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		var err error
		switch {
		case times[name] != nil:
			*times[name], err = time.ParseDuration(value)
		case name == "retries":
			h.Retries, err = strconv.Atoi(value)
		default:
			err = fmt.Errorf("there is no option %s", flag)
		}
		if err != nil {
			return nil, err
		}
	}
	kind, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		h.Test = image.Words{"NONE"}
		return h, nil
	case "CMD":
		var list []string
		if json.Unmarshal([]byte(rest), &list) == nil {
			h.Test = append(image.Words{"CMD"}, list...)
		} else {
			h.Test = image.Words{"CMD-SHELL", rest}
		}
	}
	if len(h.Test) < 2 || h.Test[1] == "" {
		return nil, errors.New("want NONE, or CMD and a command")
	}
	return h, nil
}
