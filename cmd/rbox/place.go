//go:build !front

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rbox/rootfs"
	"rbox/rootfs/store"
	"rbox/userns"
	"rbox/userns/container"
)

// Where the file system of the data directory does not take what layers have,
// they lie, with what containers write, in a place of this host's own: a
// private directory on another file system. places/ in the folder of the
// host's containers has a link to each place, made before it is.

// leastRoom is what a place must have to be taken, bytes: a small image and
// what its containers write.
const leastRoom = 256 << 20

// A chooser finds where layers lie. Tests swap what it does to the host.
type chooser struct {
	data   string   // the folder that would have them
	links  string   // has a link to each place
	wanted string   // $RBOX_LAYERS
	dirs   []string // to make a place in, best first

	try    func(dir string) (rootfs.Choice, error) // dir as the place of layers
	parent func(dir string) (string, error)        // rootfs.SafeParent
	room   func(dir string) (int64, error)
	noexec func(dir string) bool
}

// A NoPlaceError reports that layers can lie nowhere.
type NoPlaceError struct {
	Why   string   // the data directory does not serve
	Tried []string // other directories, and why not
	Lone  bool     // it takes layers of one id
}

func (e *NoPlaceError) Error() string {
	text := "no place for layers: " + e.Why
	for _, t := range e.Tried {
		text += "; " + t
	}
	return text
}

// Hint names a place.
func (e *NoPlaceError) Hint() string {
	return "export RBOX_LAYERS=/a/directory/on/a/local/disk (ext4, XFS or btrfs); rbox doctor"
}

// choose finds where layers lie, tells the user if that is not the data
// directory, and keeps the choice.
func (a *App) choose(outer *userns.Outer, home *container.Home, stamp string) (rootfs.Choice, error) {
	file := driverFile(home.Dir)
	if lock, err := os.OpenFile(file+".lock", os.O_RDWR|os.O_CREATE, 0o600); err == nil {
		defer lock.Close()
		unix.Flock(int(lock.Fd()), unix.LOCK_EX) // one makes a place, others take it
		if c, ok := usableChoice(file, stamp); ok {
			return c, nil
		}
	}
	c, notices, err := a.chooser(outer, home, stamp).choose()
	if none := (*NoPlaceError)(nil); errors.As(err, &none) {
		none.Why = strings.ReplaceAll(none.Why, home.Dir, a.Root)
	}
	if err != nil {
		return c, err
	}
	for _, n := range notices {
		a.Notice(strings.ReplaceAll(n, home.Dir, a.Root))
	}
	if c.Driver != rootfs.Overlay && len(c.Skipped) > 0 && os.Getenv("RBOX_STORAGE_DRIVER") == "" {
		a.Notice(fmt.Sprintf("using the storage driver %s, since %s", c.Driver, c.Skipped[0]))
	}
	if c.Unfit != "" && c.Place == "" && outer.Maps.Single {
		a.Notice("images lose the owners of their files, since " + c.Unfit)
	}
	if err := c.Write(file); err != nil {
		return c, &RootError{a.Root, err}
	}
	return c, nil
}

// orLone starts this program again, to go on with the user's own id alone, if
// err is that layers can lie nowhere else. It returns only with an error.
func (a *App) orLone(err error) error {
	var none *NoPlaceError
	if !errors.As(err, &none) || !none.Lone || a.lone() {
		return err
	}
	home, err := a.Home()
	if err != nil {
		return err
	}
	a.Notice("containers of images get your own id alone, and owners are kept in xattrs: " + none.Error())
	if err := os.WriteFile(loneFile(home.Dir), []byte(loneStamp()), 0o600); err != nil {
		return &RootError{a.Root, err}
	}
	if a.early != nil {
		a.early.abandon()
	}
	if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		return fmt.Errorf("start rbox again: %w", err)
	}
	return nil
}

// place returns where layers lie, "" for the data directory.
func (a *App) place() (string, error) {
	c, err := a.Storage()
	return c.Place, err
}

func (a *App) chooser(outer *userns.Outer, home *container.Home, stamp string) *chooser {
	return &chooser{
		data: home.Dir, links: filepath.Join(home.Dir, "places"), wanted: os.Getenv(layersVariable), dirs: placeDirs(os.Getenv),
		try: func(dir string) (rootfs.Choice, error) {
			stage, err := a.Stage()
			if err != nil {
				return rootfs.Choice{}, err
			}
			return container.PickDriver(outer, stage, dir, stamp)
		},
		parent: rootfs.SafeParent, room: rootfs.Room, noexec: noexec,
	}
}

// placeDirs lists where a place may be made, disks before memory.
func placeDirs(getenv func(string) string) []string {
	var disks, memory []string
	for _, dir := range []string{getenv("TMPDIR"), "/var/tmp", "/tmp", getenv("XDG_RUNTIME_DIR"), "/dev/shm"} {
		if !filepath.IsAbs(dir) {
			continue
		}
		if kind := rootfs.FileSystem(dir); kind == "tmpfs" || kind == "ramfs" {
			memory = append(memory, filepath.Clean(dir))
		} else {
			disks = append(disks, filepath.Clean(dir))
		}
	}
	return append(disks, memory...)
}

// choose returns the choice, and what to tell the user.
func (f *chooser) choose() (c rootfs.Choice, notices []string, err error) {
	own, err := f.try(f.data)
	if err != nil || own.Unfit == "" && f.wanted == "" {
		return own, nil, err
	}
	var tried []string
	if f.wanted != "" {
		c, err := f.placeIn(f.wanted, filepath.Abs)
		if err == nil {
			return c, []string{"layers and what containers write lie in " + c.Place + " (RBOX_LAYERS)"}, nil
		}
		tried = append(tried, "RBOX_LAYERS="+f.wanted+": "+oneLine(reason(err).Error()))
	}
	if own.Unfit == "" {
		return own, tried, nil
	}
	c, more := f.best()
	tried = append(tried, more...)
	if c.Place != "" {
		c.Unfit = own.Unfit
		return c, []string{f.notice(c)}, nil
	}
	if own.Useless {
		return own, nil, &NoPlaceError{own.Unfit, tried, own.Lone}
	}
	return own, nil, nil
}

// notice says where layers lie and why.
func (f *chooser) notice(c rootfs.Choice) string {
	how := ""
	switch kind := rootfs.FileSystem(c.Place); kind {
	case "tmpfs", "ramfs":
		how = ", in memory,"
	}
	return fmt.Sprintf("layers and what containers write lie in %s%s since %s", c.Place, how, oneLine(c.Unfit))
}

// best returns the first choice that needs no copies, else the first, and why
// others do not serve.
func (f *chooser) best() (best rootfs.Choice, tried []string) {
	for _, dir := range f.dirs {
		c, err := f.placeIn(dir, f.parent)
		if err != nil {
			tried = append(tried, dir+": "+oneLine(reason(err).Error()))
			continue
		}
		if best.Place == "" {
			best = c
		} else if c.Driver != rootfs.Copy {
			f.discard(best.Place)
			return c, tried
		} else {
			f.discard(c.Place)
		}
		if best.Driver != rootfs.Copy {
			break
		}
	}
	return best, tried
}

// placeIn returns the choice for a place in dir: the one there is, or a new one.
func (f *chooser) placeIn(dir string, parent func(string) (string, error)) (c rootfs.Choice, err error) {
	if dir, err = parent(dir); err != nil {
		return c, err
	}
	if room, err := f.room(dir); err != nil {
		return c, err
	} else if room < leastRoom {
		return c, fmt.Errorf("only %s are free", humanSize(room, 3))
	}
	place := f.placeBelow(dir)
	if place == "" {
		if place, err = f.make(dir); err != nil {
			return c, err
		}
	}
	if c, err = f.try(place); err == nil {
		c.Place = place
		switch {
		case c.Unfit != "":
			err = errors.New(c.Unfit)
		case c.Driver == rootfs.Copy && f.noexec(place):
			err = errors.New("it is mounted noexec, and " + strings.Join(append(c.Skipped, "copies cannot run there"), "; "))
		}
	}
	if err != nil {
		f.discard(place)
	}
	return c, err
}

// placeBelow returns the place in dir that there is, "" without one.
func (f *chooser) placeBelow(dir string) string {
	for _, place := range linkedPlaces(f.links) {
		if filepath.Dir(place) == dir && rootfs.OwnPlace(place) == nil {
			return place
		}
	}
	return ""
}

// make makes a place in dir. A name that is taken, by whomever, is passed over.
func (f *chooser) make(dir string) (string, error) {
	if err := os.MkdirAll(f.links, 0o700); err != nil {
		return "", err
	}
	for {
		place := rootfs.NewPlaceName(dir)
		link := filepath.Join(f.links, filepath.Base(place))
		if err := os.Symlink(place, link); err != nil {
			return "", err
		}
		err := rootfs.MakePlace(place)
		if err == nil {
			return place, nil
		}
		os.Remove(link)
		if !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
}

// discard removes a place that is empty.
func (f *chooser) discard(place string) {
	if err := unix.Rmdir(place); err == nil || err == unix.ENOENT {
		os.Remove(filepath.Join(f.links, filepath.Base(place)))
	}
}

// linkedPlaces lists the places that links has.
func linkedPlaces(links string) (places []string) {
	entries, _ := os.ReadDir(links)
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(links, e.Name())); err == nil && filepath.Base(to) == e.Name() {
			places = append(places, to)
		}
	}
	return places
}

// placeRoots lists where layers lie in places of ours.
func (a *App) placeRoots() (roots []string) {
	home, err := a.Home()
	if err != nil {
		return nil
	}
	for _, place := range linkedPlaces(filepath.Join(home.Dir, "places")) {
		if rootfs.OwnPlace(place) == nil {
			roots = append(roots, filepath.Join(place, layersDir))
		}
	}
	return roots
}

// checkPlaces looks for what containers that are gone left in places, and for
// places that nothing uses.
func (a *App) checkPlaces(_ context.Context, found func(store.Finding)) error {
	home, err := a.Home()
	if err != nil {
		return err
	}
	links := filepath.Join(home.Dir, "places")
	for _, place := range linkedPlaces(links) {
		if rootfs.OwnPlace(place) != nil {
			found(store.Finding{What: "a place for layers that is gone: " + place, Mend: func(context.Context) error {
				return os.Remove(filepath.Join(links, filepath.Base(place)))
			}})
			continue
		}
		for _, dir := range home.Orphans(place) {
			found(store.Finding{What: "what a container that is gone wrote: " + dir, Mend: func(ctx context.Context) error { return a.removeDirs(ctx, dir) }})
		}
	}
	return nil
}

// removeDirs deletes dirs, whoever owns what is in them.
func (a *App) removeDirs(ctx context.Context, dirs ...string) error {
	client := &unpackClient{outer: a.Outer}
	defer client.Close()
	return client.Remove(ctx, dirs...)
}

// tidyPlaces removes what nothing uses of places: what containers that are
// gone wrote, layers that no image has, and whole places that are not in use.
func (a *App) tidyPlaces(ctx context.Context) error {
	home, err := a.Home()
	if err != nil {
		return err
	}
	links := filepath.Join(home.Dir, "places")
	places := linkedPlaces(links)
	if len(places) == 0 {
		return nil
	}
	s, err := a.Images()
	if err != nil {
		return err
	}
	client := &unpackClient{outer: a.Outer}
	defer client.Close()
	if err := s.GC(ctx, client); err != nil {
		return err
	}
	used, err := a.usedPlaces(s, home)
	if err != nil {
		return err
	}
	for _, place := range places {
		link := filepath.Join(links, filepath.Base(place))
		if err := rootfs.OwnPlace(place); err != nil {
			os.Remove(link)
			continue
		}
		if dirs := home.Orphans(place); len(dirs) > 0 {
			if err := client.Remove(ctx, dirs...); err != nil {
				return err
			}
		}
		os.Remove(filepath.Join(place, "containers"))
		if slices.Contains(used, place) || len(home.Written(place)) > 0 {
			continue
		}
		if err := client.Remove(ctx, place); err != nil {
			return err
		}
		os.Remove(link)
	}
	return nil
}

// usedPlaces lists the places whose layers somebody uses, or is about to use:
// of running containers, and the chosen one while there are images.
func (a *App) usedPlaces(s *store.Store, home *container.Home) (used []string, err error) {
	images, err := s.List()
	if err != nil {
		return nil, err
	}
	if len(images) > 0 {
		used = append(used, rootfs.LastChoice(driverFile(home.Dir)).Place)
	}
	list, err := home.List()
	for _, info := range list {
		for _, lower := range info.Config.Plan.Root.Lowers {
			if info.Running {
				used = append(used, placeOf(lower))
			}
		}
	}
	return used, err
}

// placeOf is the place of a layer's directory, PLACE/layers/KEY/DIGEST/diff.
func placeOf(lower string) string {
	for range 4 {
		lower = filepath.Dir(lower)
	}
	return lower
}
