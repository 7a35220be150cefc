package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"rbox/tests/images"
	"rbox/tests/registry"
)

const maxRSS = 100 << 20 // bytes: what rbox promises to stay below in a pull

// pull measures getting an image of this machine's own files from a registry
// on this machine, download and unpacking.
func (b *bench) pull(dir string, pulls, megabytes int) error {
	archive := filepath.Join(dir, "layer.tar.gz")
	if err := writeLayer(archive, int64(megabytes)<<20); err != nil {
		return err
	}
	store := filepath.Join(dir, "registry")
	if err := os.Mkdir(store, 0o755); err != nil {
		return err
	}
	r, err := registry.Start(store, registry.Options{})
	if err != nil {
		return err
	}
	defer r.Close()
	layer, err := tarball.LayerFromFile(archive, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return err
	}
	img, err := images.Image(v1.Config{Cmd: []string{"true"}}, layer)
	if err != nil {
		return err
	}
	if err := r.Push("debian", img); err != nil {
		return err
	}
	digest, err := layer.Digest()
	if err != nil {
		return err
	}
	info, err := os.Stat(archive)
	if err != nil {
		return err
	}
	all := b.pullers(r, digest)
	measure(pulls, all)
	title := fmt.Sprintf("pull %d MB (%d MB compressed)", megabytes, info.Size()>>20)
	table(os.Stdout, title, all, []bar{
		{"podman pull", 1.0 / 3, "rbox in a third of podman's time"},
		{"curl | gzip -d | tar x", 1, "rbox no slower than curl | gzip -d | tar x"},
	})
	peak, err := b.peakRSS(r)
	if err != nil {
		return err
	}
	fmt.Printf("  %-42s %s (%.1f MiB)\n", "rbox and its children below 100 MiB of memory", met(peak < maxRSS), float64(peak)/(1<<20))
	return nil
}

// pullers get the image into a store that is new each time. Nothing is deleted
// between the rounds: ext4 is slow to make files for minutes after it deleted
// many, since it passes over their inodes one by one.
func (b *bench) pullers(r *registry.Registry, blob v1.Hash) []*contestant {
	ref := r.Ref("debian")
	rbox := &contestant{name: "rbox pull", once: func() (time.Duration, error) {
		cmd, err := b.newPull(ref)
		if err != nil {
			return 0, err
		}
		start := time.Now()
		err = cmd.Run()
		return time.Since(start), err
	}}
	podman := &contestant{name: "podman pull", missing: b.lookPath("podman"), once: func() (time.Duration, error) {
		store, err := b.newStore()
		if err != nil {
			return 0, err
		}
		in := func(args ...string) []string {
			return b.podman(append([]string{"--root", store + "/podman"}, args...)...)
		}
		if _, err := b.run("podman", in("images")...); err != nil {
			return 0, err
		}
		return b.timed("podman", in("pull", "-q", "--tls-verify=false", ref)...)
	}}
	script := fmt.Sprintf("set -e; mkdir unpacked; curl -fs http://%s/v2/debian/blobs/%s | gzip -d | tar -x -C unpacked", r.Addr, blob)
	curl := &contestant{name: "curl | gzip -d | tar x", missing: b.lookPath("curl"), once: func() (time.Duration, error) {
		store, err := b.newStore()
		if err != nil {
			return 0, err
		}
		return b.timed("sh", "-c", "cd "+store+" && "+script)
	}}
	return []*contestant{rbox, podman, curl}
}

// newStore makes a new folder of the account's.
func (b *bench) newStore() (string, error) {
	return b.run("mktemp", "-d", "-p", b.Home)
}

// newPull is rbox about to pull ref into a new store.
func (b *bench) newPull(ref string) (*exec.Cmd, error) {
	store, err := b.newStore()
	if err != nil {
		return nil, err
	}
	cmd := b.Command(b.rbox, "images")
	cmd.Env = append(cmd.Env, "RBOX_ROOT="+store+"/root")
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	pull := b.Command(b.rbox, "pull", "-q", ref)
	pull.Env, pull.Stderr = cmd.Env, os.Stderr
	return pull, nil
}

// peakRSS pulls once more and returns the largest sum of the resident memory of
// rbox and all its children, in bytes, looked at every few milliseconds.
func (b *bench) peakRSS(r *registry.Registry) (int64, error) {
	cmd, err := b.newPull(r.Ref("debian"))
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	var peak, done atomic.Int64
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		for done.Load() == 0 {
			peak.Store(max(peak.Load(), treeRSS(cmd.Process.Pid)))
			time.Sleep(3 * time.Millisecond)
		}
	}()
	err = cmd.Wait()
	done.Store(1)
	<-sampled
	return peak.Load(), err
}

// treeRSS sums the resident memory of pid and the processes below it, bytes.
// Pages that they share count in each.
func treeRSS(pid int) (sum int64) {
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid)); err == nil {
		if f := strings.Fields(string(data)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64)
			sum = pages * int64(os.Getpagesize())
		}
	}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		for _, f := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(f); err == nil {
				sum += treeRSS(child)
			}
		}
	}
	return sum
}

// errEnough ends the walk of writeLayer.
var errEnough = errors.New("enough")

// writeLayer writes a layer of about size bytes, uncompressed, of this machine's
// files: programs, libraries and data in the mix that a distribution has. What
// it holds follows from the files alone.
func writeLayer(file string, size int64) error {
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	zip := gzip.NewWriter(out)
	t := tar.NewWriter(zip)
	// A slice of each, so that no kind of file makes up the whole.
	for _, part := range []struct {
		dir   string
		share int64 // hundredths of size
	}{{"/usr/bin", 20}, {"/usr/lib", 50}, {"/usr/share", 20}, {"/etc", 1}, {"/usr/include", 9}} {
		if err := addTree(t, part.dir, size*part.share/100); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), zip.Close(), out.Close())
}

// addTree adds files below dir until they are size bytes, passing over large
// ones and those that not everybody may read.
func addTree(t *tar.Writer, dir string, size int64) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // not ours to see
		}
		if size <= 0 {
			return errEnough
		}
		info, err := d.Info()
		if err != nil || info.Size() > 16<<20 || !d.IsDir() && info.Mode().Perm()&0o004 == 0 {
			return nil
		}
		added, err := addFile(t, path, info)
		size -= added
		return err
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func addFile(t *tar.Writer, path string, info fs.FileInfo) (size int64, err error) {
	var target string
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if target, err = os.Readlink(path); err != nil {
			return 0, err
		}
	case !info.IsDir() && !info.Mode().IsRegular():
		return 0, nil
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return 0, err
	}
	h.Name = strings.TrimPrefix(path, "/")
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return 512, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := io.CopyN(t, f, h.Size)
	return n + 512, err
}
