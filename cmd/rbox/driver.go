package main

import (
	"fmt"
	"os"
	"path/filepath"

	"rbox/rootfs"
	"rbox/userns/container"
)

// Driver returns how layers become a root file system here: what
// $RBOX_STORAGE_DRIVER says, else the best that was found to work, which is
// tried once per boot.
func (a *App) Driver() (rootfs.Driver, error) {
	if name := os.Getenv("RBOX_STORAGE_DRIVER"); name != "" {
		return rootfs.ParseDriver(name)
	}
	outer, err := a.Outer()
	if err != nil {
		return "", err
	}
	home, err := a.Home()
	if err != nil {
		return "", err
	}
	stamp, err := rootfs.Stamp(home.Dir, outer.Maps.Key())
	if err != nil {
		return "", err
	}
	file := filepath.Join(home.Dir, "driver.json")
	if c, ok := rootfs.ReadChoice(file, stamp); ok {
		return c.Driver, nil
	}
	stage, err := a.Stage()
	if err != nil {
		return "", err
	}
	c, err := container.PickDriver(outer, stage, home.Dir, stamp)
	if err != nil {
		return "", err
	}
	if c.Driver != rootfs.Overlay && len(c.Skipped) > 0 {
		a.Notice(fmt.Sprintf("using the storage driver %s, since %s", c.Driver, c.Skipped[0]))
	}
	if err := c.Write(file); err != nil {
		return "", &RootError{a.Root, err}
	}
	return c.Driver, nil
}
