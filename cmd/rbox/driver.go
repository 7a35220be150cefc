package main

import (
	"os"
	"path/filepath"

	"rbox/rootfs"
)

// Driver returns how layers become a root file system here: what
// $RBOX_STORAGE_DRIVER says, else the best that was found to work.
func (a *App) Driver() (rootfs.Driver, error) {
	c, err := a.Storage()
	if err != nil {
		return "", err
	}
	if name := os.Getenv("RBOX_STORAGE_DRIVER"); name != "" {
		return rootfs.ParseDriver(name)
	}
	return c.Driver, nil
}

// Storage returns where layers and what containers write lie, and how they
// become a root file system: what was found to work, which is tried once per boot.
func (a *App) Storage() (rootfs.Choice, error) {
	if a.storage != nil {
		return *a.storage, nil
	}
	outer, err := a.Outer()
	if err != nil {
		return rootfs.Choice{}, err
	}
	home, err := a.Home()
	if err != nil {
		return rootfs.Choice{}, err
	}
	stamp, err := rootfs.Stamp(home.Dir, outer.Maps.Key()+"|"+os.Getenv(layersVariable))
	if err != nil {
		return rootfs.Choice{}, err
	}
	c, ok := usableChoice(driverFile(home.Dir), stamp)
	if !ok {
		if c, err = a.choose(outer, home, stamp); err != nil {
			return rootfs.Choice{}, err
		}
	}
	a.storage = &c
	return c, nil
}

// layersVariable names the directory that the user chose for layers and what
// containers write.
const layersVariable = "RBOX_LAYERS"

// driverFile keeps the choice for the containers in dir.
func driverFile(dir string) string { return filepath.Join(dir, "driver.json") }

// usableChoice returns the choice in file if it rests on stamp and its place
// is still there.
func usableChoice(file, stamp string) (rootfs.Choice, bool) {
	c, ok := rootfs.ReadChoice(file, stamp)
	return c, ok && (c.Place == "" || rootfs.OwnPlace(c.Place) == nil)
}

// lone tells whether the user's own id is to be taken alone, since layers can
// lie nowhere otherwise.
func (a *App) lone() bool {
	home, err := a.Home()
	if err != nil {
		return false
	}
	text, err := os.ReadFile(loneFile(home.Dir))
	return err == nil && string(text) == loneStamp()
}

// loneFile is there if lone is to say so.
func loneFile(dir string) string { return filepath.Join(dir, "lone") }

// loneStamp is what that rests on.
func loneStamp() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(boot) + os.Getenv(layersVariable)
}
