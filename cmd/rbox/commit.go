//go:build !front

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
	"rbox/userns/container"
)

// CommitCmd makes an image of a container.
type CommitCmd struct {
	Author    string   `short:"a" placeholder:"AUTHOR" help:"Author, for the image's history."`
	Change    []string `short:"c" sep:"none" placeholder:"INSTRUCTION" help:"Apply a line of a Dockerfile to the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR."`
	Message   string   `short:"m" placeholder:"TEXT" help:"Message for the image's history."`
	Pause     bool     `short:"p" negatable:"" default:"true" help:"Pause a running container meanwhile, where this host can."`
	Quiet     bool     `short:"q" help:"Accepted for compatibility: only the image's id is printed."`
	Container string   `arg:"" name:"CONTAINER" help:"Name or id."`
	Name      string   `arg:"" optional:"" name:"NAME[:TAG]" help:"Name of the image."`
}

// Run prints the new image's id.
func (c *CommitCmd) Run(app *App) error {
	o := store.CommitOptions{Changes: c.Change, Author: c.Author, Message: c.Message}
	if c.Name != "" {
		ref, err := tagName(c.Name)
		if err != nil {
			return err
		}
		o.Reference = &ref
	}
	ctx, stop := interruptible()
	defer stop()
	files, err := openFiles(ctx, app, c.Container, "commit")
	if err != nil {
		return err
	}
	defer files.stop()
	if files.image == nil {
		return files.noImage("to add a layer to")
	}
	o.Config = committedConfig(&files.info.Config, &files.image.Config.Config)
	o.CreatedBy = strings.Join(files.info.Config.Plan.Process.Args, " ")
	m, err := c.commit(ctx, app, files, o)
	if err != nil {
		return orInterrupted(ctx, err)
	}
	container.Record(files.home, files.info, "commit", map[string]string{"comment": c.Message, "imageID": string(m.ID), "imageRef": c.Name})
	_, err = fmt.Fprintln(app.Stdout, m.ID)
	return err
}

// pause freezes the container if it runs and that is possible here.
func (c *CommitCmd) pause(files *containerFiles) (thaw func()) {
	if !c.Pause || !files.info.Running || files.info.State.Paused {
		return func() {}
	}
	client, err := files.home.Dial(files.info.Config.ID)
	if err != nil {
		return func() {}
	}
	frozen := client.Pause(true) == nil
	return func() {
		if frozen {
			client.Pause(false)
		}
		client.Close()
	}
}

func (c *CommitCmd) commit(ctx context.Context, app *App, files *containerFiles, o store.CommitOptions) (*store.Image, error) {
	s, err := app.Images()
	if err != nil {
		return nil, err
	}
	unpacking, done, err := app.Unpacking()
	if err != nil {
		return nil, err
	}
	defer done()
	o.Unpacking = unpacking
	r, w, err := archivePipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer c.pause(files)()
	err = files.start(ctx, nil, w)
	w.Close()
	if err != nil {
		return nil, err
	}
	m, err := s.Commit(ctx, files.image, &wholeArchive{r, files}, o)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", c.Container, err)
	}
	return m, nil
}

// A wholeArchive ends with an error unless the process that writes it said
// that it is whole.
type wholeArchive struct {
	r     *os.File
	files *containerFiles
}

func (a *wholeArchive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err == io.EOF {
		if failed := a.files.end(); failed != nil {
			return n, failed
		}
	}
	return n, err
}

// committedConfig is how containers of the new image start: as this one did,
// but for what was the machine's.
func committedConfig(c *container.Config, from *image.ContainerConfig) image.ContainerConfig {
	p := &c.Plan.Process
	n := image.ContainerConfig{
		User: p.User, WorkingDir: p.Cwd, Labels: maps.Clone(c.Labels), StopSignal: c.StopSignal,
		ExposedPorts: maps.Clone(from.ExposedPorts), Volumes: maps.Clone(from.Volumes),
		StopTimeout: from.StopTimeout, Shell: from.Shell, Healthcheck: from.Healthcheck,
	}
	if p.Login != nil { // --userns keep-id
		n.User = from.User
	}
	if n.WorkingDir == "/" && from.WorkingDir == "" {
		n.WorkingDir = ""
	}
	if h := c.Health; h != nil {
		n.Healthcheck = &image.Healthcheck{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	for _, kv := range p.Env {
		if kv != "container=rbox" && (kv != "HOSTNAME="+c.Plan.Hostname || slices.Contains(from.Env, kv)) {
			n.Env = append(n.Env, kv)
		}
	}
	n.Entrypoint, n.Cmd = committedCommand(c, from)
	return n
}

// committedCommand splits what the container ran into entry point and command.
func committedCommand(c *container.Config, from *image.ContainerConfig) (entry, command image.Words) {
	args := c.Plan.Process.Args
	if len(c.Entrypoint)+len(c.Command) == len(args) {
		return c.Entrypoint, c.Command
	}
	if n := len(from.Entrypoint); n > 0 && len(args) >= n && slices.Equal(args[:n], from.Entrypoint) {
		return from.Entrypoint, args[n:]
	}
	return nil, args
}
