//go:build !front

package main

import (
	"context"
	"errors"
	"fmt"

	"rbox/rootfs/image"
	"rbox/rootfs/registry"
	"rbox/rootfs/store"
)

// PullCmd is `rbox pull`.
type PullCmd struct {
	registryFlags
	Quiet    bool     `short:"q" help:"Print nothing but the image's id."`
	Platform string   `help:"Platform of the image, as linux/arm64 (default: this machine's)." placeholder:"OS/ARCH"`
	AllTags  bool     `short:"a" help:"Pull all tags of the repository."`
	MaxSize  string   `help:"Refuse a layer that unpacks to more than this." placeholder:"SIZE"`
	Images   []string `arg:"" name:"IMAGE" help:"Image to pull."`
}

// Run pulls one image after the other and prints their ids.
func (c *PullCmd) Run(app *App) error {
	app.Quiet = app.Quiet || c.Quiet
	p, err := newPuller(app, c.registryFlags, c.Platform)
	if err != nil {
		return err
	}
	p.verbose = true
	if c.MaxSize != "" {
		if p.maxBytes, err = parseSize(c.MaxSize); err != nil {
			return fmt.Errorf("--max-size: %w", err)
		}
	}
	ctx, stop := interruptible()
	defer stop()
	for _, name := range c.Images {
		if err := c.pull(ctx, app, p, name); err != nil {
			return orInterrupted(ctx, err)
		}
	}
	return nil
}

func (c *PullCmd) pull(ctx context.Context, app *App, p *puller, name string) error {
	refs, err := c.references(ctx, p, name)
	if err != nil {
		return err
	}
	for _, ref := range refs {
		pulled, err := p.pull(ctx, ref)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(app.Stdout, pulled.ID); err != nil {
			return err
		}
	}
	return nil
}

// references returns what name stands for: one image, or with --all-tags all
// of a repository.
func (c *PullCmd) references(ctx context.Context, p *puller, name string) ([]image.Reference, error) {
	ref, err := p.reference(name)
	if err != nil || !c.AllTags {
		return []image.Reference{ref}, err
	}
	if ref.Digest != "" || ref.Tag != image.DefaultTag {
		return nil, &adviceError{errors.New("--all-tags takes a name without tag and digest"), "rbox pull --all-tags " + ref.FamiliarName()}
	}
	tags, err := p.client.Tags(ctx, ref)
	if err != nil {
		return nil, err
	}
	var refs []image.Reference
	for _, tag := range tags {
		ref.Tag = tag
		refs = append(refs, ref)
	}
	return refs, nil
}

// A puller gets images from registries into the store.
type puller struct {
	app      *App
	store    *store.Store
	config   *registry.Config
	client   *registry.Client
	platform image.Platform
	maxBytes int64 // of one unpacked layer; 0 is the store's limit
	verbose  bool  // pulling is what the user asked for: the bars stay on the screen, and off a terminal there are lines
}

func newPuller(app *App, flags registryFlags, platform string) (*puller, error) {
	p := &puller{app: app, platform: image.Host()}
	var err error
	if platform != "" {
		if p.platform, err = image.ParsePlatform(platform); err != nil {
			return nil, err
		}
	}
	if p.store, err = app.Images(); err != nil {
		return nil, err
	}
	p.config, p.client, err = flags.client(app)
	return p, err
}

// reference reads a name as typed. An alias of registries.conf is resolved.
func (p *puller) reference(name string) (image.Reference, error) {
	if ref, found, err := p.config.Alias(name); found || err != nil {
		return ref, err
	}
	return image.ParseReference(name)
}

// pull gets ref, and records that.
func (p *puller) pull(ctx context.Context, ref image.Reference) (*store.Pulled, error) {
	pulled, err := p.get(ctx, ref)
	if err == nil {
		p.app.recordImage("pull", ref.Familiar(), ref.FamiliarName())
	}
	return pulled, err
}

// get gets ref, and shows on stderr how that gets on.
func (p *puller) get(ctx context.Context, ref image.Reference) (*store.Pulled, error) {
	unpacking, done, err := p.app.Unpacking()
	if err != nil {
		return nil, err
	}
	defer done()
	unpacking.MaxBytes = p.maxBytes
	o := store.PullOptions{Unpacking: unpacking, Platform: p.platform}
	if p.app.Quiet {
		return p.store.Pull(ctx, p.client, ref, o)
	}
	stderr := p.app.Stderr
	bars := newProgress(stderr)
	fmt.Fprintf(stderr, "Pulling %s from %s\n", ref.Familiar(), ref.Registry)
	if p.verbose || bars.window != nil {
		o.Progress = bars
	}
	p.app.Stderr = bars // notices go above the bars
	pulled, err := p.store.Pull(ctx, p.client, ref, o)
	bars.end(p.verbose || err != nil)
	p.app.Stderr = stderr
	if err == nil {
		p.report(pulled, ref)
	}
	return pulled, err
}

// report tells what a pull brought.
func (p *puller) report(pulled *store.Pulled, ref image.Reference) {
	if p.verbose {
		status := "Image is up to date for "
		if pulled.New {
			status = "Downloaded newer image for "
		}
		fmt.Fprintf(p.app.Stderr, "Digest: %s\nStatus: %s%s\n", pulled.Digest, status, ref.Familiar())
	}
	if pulled.Unmapped > 0 {
		p.app.Notice(fmt.Sprintf("%s: %d files belong to ids that have no place here: they are root's instead (rbox doctor)", ref.Familiar(), pulled.Unmapped))
	}
	if built := pulled.Config.Platform(); !p.platform.Runs(built) {
		p.app.Notice(fmt.Sprintf("%s is built for %s, not for %s", ref.Familiar(), built, p.platform))
	}
}

// A pullRequest says what image a container is to have, and when to look for
// it in a registry.
type pullRequest struct {
	registryFlags
	name     string // as the user wrote it
	policy   string // always, missing, never or newer
	platform string // as the user wrote it, empty for this machine's
	quiet    bool   // no progress
}

// pullIfNeeded returns the image of r, pulled if r.policy says so. That it is
// here already costs a look into the store and nothing else.
func pullIfNeeded(app *App, r pullRequest) (*store.Image, error) {
	if r.policy == "missing" || r.policy == "never" {
		m, err := r.local(app, r.name)
		if err == nil || !isMissing(err) {
			return m, err
		}
	}
	p, err := newPuller(app, r.registryFlags, r.platform)
	if err != nil {
		return nil, err
	}
	ref, err := p.reference(r.name)
	if err != nil {
		return nil, err
	}
	ctx, stop := interruptible()
	defer stop()
	m, err := r.remote(ctx, app, p, ref)
	return m, orInterrupted(ctx, err)
}

// remote decides about an image that is not here under the name as typed, or
// that may be out of date.
func (r pullRequest) remote(ctx context.Context, app *App, p *puller, ref image.Reference) (*store.Image, error) {
	m, err := r.local(app, ref.String())
	switch {
	case err != nil && !isMissing(err):
		return nil, err
	case r.policy == "never" && err != nil:
		return nil, &store.NotFoundError{Name: r.name}
	case err == nil && (r.policy == "missing" || r.policy == "never"):
		return m, nil
	case err == nil && r.policy == "newer":
		now, headErr := p.client.Head(ctx, ref)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if headErr != nil {
			app.Notice(fmt.Sprintf("%s: using the image that is here: cannot look for a newer one: %v", ref.Familiar(), headErr))
			return m, nil
		}
		if isOf(m, now) {
			return m, nil
		}
	}
	if r.quiet {
		defer func(quiet bool) { app.Quiet = quiet }(app.Quiet)
		app.Quiet = true
	}
	pulled, err := p.pull(ctx, ref)
	if err != nil {
		return nil, err
	}
	return pulled.Image, nil
}

// local looks name up in the store. An image for another platform than asked
// for is as good as missing.
func (r pullRequest) local(app *App, name string) (*store.Image, error) {
	s, err := app.Images()
	if err != nil {
		return nil, err
	}
	m, err := s.Lookup(name)
	if err != nil || r.platform == "" {
		return m, err
	}
	wanted, err := image.ParsePlatform(r.platform)
	if err != nil {
		return nil, err
	}
	if built := m.Config.Platform(); built != wanted && !wanted.Runs(built) {
		return nil, &store.NotFoundError{Name: name}
	}
	return m, nil
}

func isMissing(err error) bool {
	var missing *store.NotFoundError
	return errors.As(err, &missing)
}

// isOf says that m is what its name stood for when the registry's digest was now.
func isOf(m *store.Image, now image.Digest) bool {
	if m.ManifestDigest == now {
		return true
	}
	for _, ref := range m.Refs {
		if ref.Digest == now {
			return true
		}
	}
	return false
}
