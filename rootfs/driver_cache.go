package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rbox/userns/wire"
)

// Choice is what PickDriver and TakesLayers found, to be kept between runs.
type Choice struct {
	Driver  Driver
	Skipped []string `json:",omitempty"` // why each faster driver was not taken
	Stamp   string   // what the choice rests on, as Stamp gives it

	// Place is where layers and what containers write lie; "" is the data
	// directory, and Unfit then is what they lose there.
	Place   string `json:",omitempty"`
	Unfit   string `json:",omitempty"` // why the data directory does not take them
	Useless bool   `json:",omitempty"` // not at all
	Lone    bool   `json:",omitempty"` // it takes those of one id, with owners in xattrs
}

// Stamp sums up what a choice for the directory dir rests on: kernel, boot,
// file system, the fuse-overlayfs program, and ids, the key of the id mapping.
// A choice with another stamp is stale.
func Stamp(dir, ids string) (string, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = []byte("?")
	}
	fuse := "no fuse-overlayfs"
	if path, err := FusePath(); err == nil {
		fuse = path
		if fi, err := os.Stat(path); err == nil {
			fuse = fmt.Sprintf("%s %d", path, fi.ModTime().UnixNano())
		}
	}
	if unix.Access("/dev/fuse", unix.R_OK|unix.W_OK) != nil {
		fuse += ", no /dev/fuse"
	}
	return fmt.Sprintf("%s|%.36s|%d:%d|%s|%s|%s", unix.ByteSliceToString(uts.Release[:]), boot,
		unix.Major(st.Dev), unix.Minor(st.Dev), FileSystem(dir), fuse, ids), nil
}

// ReadChoice returns the choice kept in file, if it rests on stamp. A file
// that is missing, damaged or stale is no choice.
func ReadChoice(file, stamp string) (c Choice, ok bool) {
	b, err := os.ReadFile(file)
	if err != nil || wire.ReadJSON(b, &c) != nil || c.Stamp != stamp {
		return Choice{}, false
	}
	if _, err := ParseDriver(string(c.Driver)); err != nil {
		return Choice{}, false
	}
	return c, true
}

// Write keeps the choice in file, whole or not at all.
func (c Choice) Write(file string) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".driver-")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Choose tries in the directory scratch what a choice consists of, as
// PickDriver does, and gives it its stamp.
func Choose(scratch, stamp string) Choice {
	c := Choice{Stamp: stamp}
	var skipped []error
	c.Driver, skipped = PickDriver(scratch)
	for _, err := range skipped {
		c.Skipped = append(c.Skipped, err.Error())
	}
	var unfit *UnfitError
	if errors.As(TakesLayers(scratch), &unfit) {
		c.Unfit, c.Useless = unfit.Error(), unfit.Useless
		c.Lone = unfit.Useless && keepsXattrs(scratch) == nil
	}
	return c
}

// LastChoice returns the choice kept in file, whatever it rests on.
func LastChoice(file string) (c Choice) {
	if b, err := os.ReadFile(file); err != nil || json.Unmarshal(b, &c) != nil {
		return Choice{}
	}
	return c
}
