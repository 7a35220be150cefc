//go:build !front

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"rbox/rootfs/store"
	"rbox/userns/container"
)

// SystemCheckCmd looks for what is damaged or left over.
type SystemCheckCmd struct {
	Repair bool `short:"r" help:"Mend what can be mended: unpack layers again, delete what is dead."`
	Quiet  bool `short:"q" help:"Print nothing but what is wrong."`
}

// checkFailed is the exit status when something is wrong, and stays so.
const checkFailed = exitStatus(1)

// Run prints a line for each finding. It fails if one is left that does harm.
func (c *SystemCheckCmd) Run(app *App) error {
	ctx, stop := interruptible()
	defer stop()
	left, idle, mended := 0, 0, 0
	found := func(f store.Finding) {
		switch err := c.mend(ctx, f); {
		case err == nil:
			mended++
			fmt.Fprintln(app.Stdout, "mended:", f.What)
		case c.Repair && f.Mend != nil:
			left++
			fmt.Fprintf(app.Stdout, "%s (not mended: %v)\n", f.What, err)
		case f.Idle:
			idle++
			fmt.Fprintln(app.Stdout, f.What)
		default:
			left++
			fmt.Fprintln(app.Stdout, f.What)
			printHint(app.Stderr, f.Hint)
		}
	}
	for _, check := range []func(context.Context, func(store.Finding)) error{app.checkImages, app.checkContainers, app.checkPlaces, app.checkStage} {
		if err := check(ctx, found); err != nil {
			return orInterrupted(ctx, err)
		}
	}
	if left+idle > 0 && !c.Repair {
		printHint(app.Stderr, "rbox system check --repair")
	}
	if left > 0 {
		return checkFailed
	}
	if mended+idle == 0 && !c.Quiet {
		fmt.Fprintln(app.Stdout, "all is well")
	}
	return nil
}

// mend returns an error unless f is mended.
func (c *SystemCheckCmd) mend(ctx context.Context, f store.Finding) error {
	if !c.Repair || f.Mend == nil {
		return errors.New("not asked to")
	}
	return f.Mend(ctx)
}

// checkImages looks at the store of images.
func (a *App) checkImages(ctx context.Context, found func(store.Finding)) error {
	s, err := a.Images()
	if err != nil {
		return err
	}
	u, done, err := a.Unpacking()
	if err != nil {
		return err
	}
	defer done()
	client := u.Unpacker.(*unpackClient)
	return s.Check(ctx, u, func(dir string) (int64, error) { return client.Size(ctx, dir) }, found)
}

// checkContainers looks at this host's containers.
func (a *App) checkContainers(_ context.Context, found func(store.Finding)) error {
	home, err := a.Home()
	if err != nil {
		return err
	}
	list, err := home.Check()
	if err != nil {
		return err
	}
	for _, f := range list {
		finding := store.Finding{What: f.What}
		switch {
		case f.Mend != nil:
			finding.Mend = func(context.Context) error { return f.Mend() }
		case f.Remove != "":
			finding.Mend = func(context.Context) error { return a.removeFolder(home, f.Remove) }
		}
		found(finding)
	}
	return a.checkBases(home, found)
}

// removeFolder deletes the folder of what is no container.
func (a *App) removeFolder(home *container.Home, id string) error {
	outer, stage, err := a.outerAndStage()
	if err != nil {
		return err
	}
	return container.Remove(home, outer, stage, id, false)
}

// checkBases looks for the images of containers.
func (a *App) checkBases(home *container.Home, found func(store.Finding)) error {
	s, err := a.Images()
	if err != nil {
		return err
	}
	list, err := home.Brief(true)
	if err != nil {
		return err
	}
	for _, info := range list {
		if id := info.Config.ImageID; id != "" {
			if _, err := s.Lookup(id); errors.As(err, new(*store.NotFoundError)) || errors.Is(err, fs.ErrNotExist) {
				found(store.Finding{
					What: fmt.Sprintf("container %s has lost its image %s (%s)", info.Name(), info.Config.Image, shortID(id)),
					Hint: "pull or load the image again, or: rbox rm " + info.Name(),
				})
			}
		}
	}
	return nil
}

// checkStage looks for the executables of other versions of rbox that nothing
// runs. Where hosts share the data directory they may run there.
func (a *App) checkStage(_ context.Context, found func(store.Finding)) error {
	if hosts, err := os.ReadDir(filepath.Join(a.Root, "containers")); err != nil || len(hosts) > 1 {
		return err
	}
	dir := filepath.Join(a.Root, "stage")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	used := runningExecutables()
	for _, sum := range []string{"stagebin/stage.sum", networkSum} {
		if own, err := stageFiles.ReadFile(sum); err == nil && len(own) >= 32 {
			used[filepath.Join(dir, string(own[:32]))] = true
		}
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !used[path] {
			found(store.Finding{What: "executables of another version of rbox: " + path, Idle: true, Mend: func(context.Context) error { return os.RemoveAll(path) }})
		}
	}
	return nil
}

// runningExecutables are the folders of the programs that run, as far as we may see.
func runningExecutables() map[string]bool {
	dirs := map[string]bool{}
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil {
			dirs[filepath.Dir(strings.TrimSuffix(path, " (deleted)"))] = true
		}
	}
	return dirs
}
