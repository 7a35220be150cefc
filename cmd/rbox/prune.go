//go:build !front

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rbox/rootfs/image"
	"rbox/rootfs/store"
	"rbox/userns/container"
)

// ContainerPruneCmd removes containers that do not run.
type ContainerPruneCmd struct {
	Force  bool     `short:"f" help:"Do not ask."`
	Filter []string `sep:"none" placeholder:"KEY=VALUE" help:"Only those made before until=TIME (a date, or a duration such as 24h), with label=NAME[=VALUE] or without label!=NAME[=VALUE]."`
}

// Run asks, then prints what it removed and the space that is free again.
func (c *ContainerPruneCmd) Run(app *App) error {
	wanted, err := parsePruneFilters(c.Filter)
	if err != nil {
		return err
	}
	if !c.Force && !confirm(app, "This will remove all stopped containers.") {
		return nil
	}
	removed, freed, err := app.pruneContainers(wanted)
	printPruned(app, "Deleted Containers", removed)
	fmt.Fprintln(app.Stdout, "Total reclaimed space:", humanSize(freed, 4))
	return err
}

func printPruned(app *App, heading string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(app.Stdout, "%s:\n%s\n\n", heading, strings.Join(lines, "\n"))
	}
}

// pruneFilters say what prune may remove.
type pruneFilters struct {
	until           time.Time // zero: of any age
	labels, without []string
}

// parsePruneFilters reads the filters of prune.
func parsePruneFilters(filters []string) (f pruneFilters, err error) {
	values, err := filterValues(filters, "until", "label", "label!")
	if err != nil {
		return f, err
	}
	f.labels, f.without = values["label"], values["label!"]
	for _, v := range values["until"] {
		t, ok := readTime(v, time.Now())
		if !ok {
			return f, &filterError{"until=" + v, "that is no time", "such as --filter until=24h or until=2006-01-02T15:04:05"}
		}
		if f.until.IsZero() || t.Before(f.until) {
			f.until = t
		}
	}
	return f, nil
}

// keeps tells whether what was made at this time with these labels is wanted.
func (f pruneFilters) keeps(created time.Time, labels map[string]string) bool {
	return (f.until.IsZero() || created.Before(f.until)) && hasLabels(labels, f.labels) && lacksLabels(labels, f.without)
}

// pruneContainers removes the containers that do not run and are wanted. It
// returns their ids and how many bytes they held.
func (a *App) pruneContainers(wanted pruneFilters) (removed []string, freed int64, err error) {
	home, err := a.Home()
	if err != nil {
		return nil, 0, err
	}
	list, err := home.Brief(true)
	if err != nil {
		return nil, 0, err
	}
	list = slices.DeleteFunc(list, func(info *container.Info) bool {
		return info.Running || !wanted.keeps(info.Config.Created, info.Config.Labels)
	})
	if len(list) == 0 {
		return nil, 0, nil
	}
	sizes, err := a.written(context.Background(), home, list)
	if err != nil {
		return nil, 0, err
	}
	bytes := map[string]int64{}
	var failed error
	r := removal{app: a, home: home}
	for i, info := range list {
		bytes[info.Config.ID] = sizes[i]
		r.add(info.Config.ID) // an error: it runs, or is gone, meanwhile
	}
	err = r.run(func(id string, err error) {
		if err == nil {
			removed, freed = append(removed, id), freed+bytes[id]
		}
		failed = errors.Join(failed, err)
	})
	return removed, freed, errors.Join(failed, err)
}

// ImagePruneCmd removes images that no container uses.
type ImagePruneCmd struct {
	All    bool     `short:"a" help:"Remove all images that no container uses, not those without a name only."`
	Force  bool     `short:"f" help:"Do not ask."`
	Filter []string `sep:"none" placeholder:"KEY=VALUE" help:"Only those built before until=TIME (a date, or a duration such as 24h), with label=NAME[=VALUE] or without label!=NAME[=VALUE]."`
}

// Run asks, then prints what it removed and the space that is free again.
func (c *ImagePruneCmd) Run(app *App) error {
	wanted, err := parsePruneFilters(c.Filter)
	if err != nil {
		return err
	}
	warning := "This will remove all dangling images."
	if c.All {
		warning = "This will remove all images without at least one container associated to them."
	}
	if !c.Force && !confirm(app, warning) {
		return nil
	}
	removed, freed, err := app.pruneImages(c.All, wanted)
	printPruned(app, "Deleted Images", removed)
	fmt.Fprintln(app.Stdout, "Total reclaimed space:", humanSize(freed, 4))
	return err
}

// pruneImages removes the wanted images that no container uses; without all,
// those that have no name. It returns what it did, a line each, and how many
// bytes the images held.
func (a *App) pruneImages(all bool, wanted pruneFilters) (done []string, freed int64, err error) {
	s, err := a.Images()
	if err != nil {
		return nil, 0, err
	}
	images, err := s.List()
	if err != nil {
		return nil, 0, err
	}
	before := diskUse(images)
	client := &unpackClient{outer: a.Outer}
	defer client.Close()
	o := store.RemoveOptions{AllNames: true, Unpacker: client, UsedBy: a.imageUser}
	ctx, stop := interruptible()
	defer stop()
	var failed error
	for _, m := range images {
		if name, _ := a.imageUser(m.ID); name != "" || !all && len(m.Refs) > 0 || !wanted.keeps(m.Created(), m.Config.Config.Labels) {
			continue
		}
		removed, err := s.Remove(ctx, string(m.ID), o)
		if removed != nil {
			done = append(done, a.removedLines(removed)...)
		}
		if !isInUse(err) { // by a container that has been made meanwhile
			failed = errors.Join(failed, err)
		}
	}
	if left, err := s.List(); err == nil {
		freed = max(0, before-diskUse(left))
	}
	return done, freed, failed
}

// removedLines tells what was removed in the words of Docker's prune, and
// records it.
func (a *App) removedLines(removed *store.Removed) (lines []string) {
	for _, r := range removed.Untagged {
		ref := r.Reference()
		lines = append(lines, "untagged: "+ref.Familiar())
		a.recordImage("untag", string(r.ID), ref.Familiar())
	}
	for _, id := range removed.Deleted {
		lines = append(lines, "deleted: "+string(id))
		a.recordImage("delete", string(id), string(id))
	}
	return lines
}

// diskUse is how many bytes images take, packed and unpacked, each layer once.
func diskUse(images []*store.Image) (bytes int64) {
	packed, unpacked := map[image.Digest]int64{}, map[image.Digest]int64{}
	for _, m := range images {
		for _, l := range m.Layers {
			packed[l.Digest], unpacked[l.DiffID] = l.Size, l.Unpacked
		}
	}
	for _, sizes := range []map[image.Digest]int64{packed, unpacked} {
		for _, n := range sizes {
			bytes += n
		}
	}
	return bytes
}

// isInUse tells of an image that a container needs.
func isInUse(err error) bool { return errors.As(err, new(*store.InUseError)) }
