package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// staleAfter is how long an image of another recipe is kept unused.
const staleAfter = 7 * 24 * time.Hour

// cachedImage returns the image of this recipe, from the user's cache directory
// or made now. Others who want it meanwhile wait.
func cachedImage(sources string, say func(string, ...any)) (image, error) {
	top, err := cacheDir()
	if err != nil {
		return image{}, err
	}
	name, err := recipeHash()
	if err != nil {
		return image{}, err
	}
	lock, err := os.OpenFile(filepath.Join(top, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return image{}, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return image{}, &os.PathError{Op: "flock", Path: lock.Name(), Err: err}
	}
	i := image{filepath.Join(top, name)}
	now := time.Now()
	if err := os.Chtimes(i.dir, now, now); err == nil {
		return i, nil
	}
	removeStale(top, now)
	say("making the guest's image in %s", i.dir)
	b := &builder{image: image{filepath.Join(top, "new")}, sources: sources}
	if err := errors.Join(os.RemoveAll(b.dir), os.Mkdir(b.dir, 0o755)); err != nil {
		return i, err
	}
	if err := b.build(); err != nil {
		return i, err
	}
	say("made in %.0f s", time.Since(now).Seconds())
	return i, os.Rename(b.dir, i.dir)
}

// cacheDir is where images lie. The environment of a service may have no home.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		base = "/var/cache"
	}
	dir := filepath.Join(base, "rbox-guest")
	return dir, os.MkdirAll(dir, 0o755)
}

// recipeHash names the image that guestFiles make.
func recipeHash() (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(guestFiles, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := guestFiles.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(text), text)
		return err
	})
	return fmt.Sprintf("%x", sum.Sum(nil)[:8]), err
}

// removeStale deletes images that no run has used for long.
func removeStale(top string, now time.Time) {
	entries, _ := os.ReadDir(top)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && now.Sub(info.ModTime()) > staleAfter {
			os.RemoveAll(filepath.Join(top, e.Name()))
		}
	}
}
