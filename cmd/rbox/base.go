package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"rbox/rootfs"
	"rbox/rootfs/image"
	"rbox/rootfs/store"
	"rbox/userns"
	"rbox/userns/stage"
)

// hostImage is the name of the image that is this machine itself.
const hostImage = "host"

// base finds what the container starts from.
func (c *RunCmd) base(app *App, outer *userns.Outer, n ids) (*base, error) {
	name := c.Words[0]
	switch {
	case c.Rootfs:
		return directoryBase(name)
	case name == hostImage:
		return hostBase(), nil
	}
	m, err := pullIfNeeded(app, pullRequest{registryFlags: c.registryFlags, name: name, policy: c.Pull, platform: c.Platform, quiet: c.Quiet})
	if err != nil {
		return nil, err
	}
	return imageBase(app, m, n, name)
}

// imageBase is an image of the store, its layers unpacked for the container's
// ids and locked against removal.
func imageBase(app *App, m *store.Image, n ids, name string) (*base, error) {
	storage, err := app.Storage()
	if err != nil {
		return nil, err
	}
	driver, err := app.Driver()
	if err != nil {
		return nil, err
	}
	s, err := app.Images()
	if err != nil {
		return nil, err
	}
	unpacking, done, err := app.Unpacking()
	if err != nil {
		return nil, err
	}
	defer done()
	unpacking.Mapping.Key = n.key
	if n.kept != nil && !n.Single {
		unpacking.Mapping.UIDs, unpacking.Mapping.GIDs = layerIDs(n.UIDs), layerIDs(n.GIDs)
	}
	// Listening for signals takes longer than the rest; what Ctrl-C leaves of a
	// layer the next command removes.
	dirs, hold, err := s.Layers(context.Background(), m, unpacking)
	if err := beyond(driver == rootfs.Copy, err); err != nil {
		return nil, err
	}
	return &base{
		image: name, id: string(m.ID), config: m.Config.Config, layers: hold.File,
		root: stage.Root{Driver: string(driver), Lowers: dirs}, place: storage.Place,
	}, nil
}

// directoryBase is --rootfs: a directory as it is.
func directoryBase(dir string) (*base, error) {
	dir = absolute(dir)
	st, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("--rootfs: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("--rootfs: %s is not a directory", dir)
	}
	return &base{image: dir, root: stage.Root{Driver: "dir", Dir: dir}}, nil
}

// hostBase is this machine's own files, read-only but for the home directory
// and places for temporary files.
func hostBase() *base {
	b := &base{image: hostImage, root: stage.Root{Driver: "dir", Dir: "/", ReadOnly: true}}
	b.config = image.ContainerConfig{Cmd: image.Words{"/bin/sh"}, WorkingDir: "/"}
	for _, dir := range []string{"/tmp", "/var/tmp", "/run"} {
		b.mounts = append(b.mounts, rootfs.Mount{Type: "tmpfs", Target: dir, Mode: 0o1777})
	}
	home := homeDir()
	if st, err := os.Stat(home); err == nil && st.IsDir() && home != "/" {
		b.mounts = append(b.mounts, rootfs.Mount{Type: "bind", Source: home, Target: home})
		b.config.Env = []string{"HOME=" + home}
		b.config.WorkingDir = home
		if cwd, err := os.Getwd(); err == nil && strings.HasPrefix(cwd+"/", home+"/") {
			b.config.WorkingDir = cwd
		}
	}
	for _, name := range []string{"PATH", "LANG", "USER", "LOGNAME"} {
		if v, ok := os.LookupEnv(name); ok {
			b.config.Env = append(b.config.Env, name+"="+v)
		}
	}
	return b
}

// randomName makes a name that people can tell apart and type.
func randomName() string {
	first := []string{"amber", "brisk", "calm", "dapper", "eager", "fleet", "gentle", "humble", "ivory", "jolly", "keen", "lively", "mellow", "nimble", "orange", "proud", "quiet", "rapid", "silver", "tidy", "umber", "vivid", "witty", "young"}
	second := []string{"badger", "cedar", "dolphin", "ember", "falcon", "gull", "heron", "ibis", "jay", "kestrel", "lark", "maple", "newt", "otter", "pine", "quail", "raven", "stork", "tern", "urchin", "vole", "willow", "yew", "zebra"}
	return fmt.Sprintf("%s_%s_%04x", first[rand.IntN(len(first))], second[rand.IntN(len(second))], rand.IntN(1<<16))
}
