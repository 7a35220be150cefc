// Package images makes the container images that tests, the benchmarks and the
// demonstration run.
package images

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// realAlpine is where a machine prepared for the tests keeps Alpine's own root
// file system, seen from the repository's top.
const realAlpine = "../shared/images/alpine-minirootfs-3.20.3-x86_64.tar.gz"

// Alpine returns the path of a root file system as tar.gz that everybody can
// read, in dir: Alpine's own where this machine has it, else a stand-in made of
// Debian's busybox-static with the files of Alpine that tests look at. top is
// the repository.
func Alpine(top, dir string) (file string, real bool, err error) {
	file = filepath.Join(dir, "alpine.tar.gz")
	data, err := os.ReadFile(filepath.Join(top, realAlpine))
	switch {
	case err == nil:
		return file, true, os.WriteFile(file, data, 0o644)
	case !errors.Is(err, os.ErrNotExist):
		return "", false, err
	}
	out, err := os.Create(file)
	if err != nil {
		return "", false, err
	}
	defer out.Close()
	zip := gzip.NewWriter(out)
	err = errors.Join(standIn(zip), zip.Close(), out.Close(), os.Chmod(file, 0o644))
	return file, false, err
}

// standIn writes a small root file system around busybox to w.
func standIn(w io.Writer) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	list, err := exec.Command(busybox, "--list-full").Output()
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, e := range standInEntries(binary) {
		if err := writeEntry(t, e); err != nil {
			return err
		}
	}
	have := map[string]bool{"bin/busybox": true}
	for _, applet := range strings.Fields(string(list)) {
		if dir, _, _ := strings.Cut(applet, "/"); dir == "linuxrc" || have[applet] {
			continue
		}
		have[applet] = true
		if err := writeEntry(t, Entry{Name: applet, Link: "/bin/busybox"}); err != nil {
			return err
		}
	}
	return t.Close()
}

func standInEntries(busybox []byte) []Entry {
	entries := []Entry{
		{Name: "bin/busybox", Mode: 0o755, Data: string(busybox)},
		{Name: "etc/alpine-release", Data: "3.20.3\n"},
		{Name: "etc/os-release", Data: "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME=\"Alpine Linux v3.20 (busybox stand-in)\"\n"},
		{Name: "etc/passwd", Data: "root:x:0:0:root:/root:/bin/sh\nbin:x:1:1:bin:/bin:/sbin/nologin\nguest:x:405:100:guest:/dev/null:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n"},
		{Name: "etc/group", Data: "root:x:0:root\nbin:x:1:root,bin\ntty:x:5:\nwheel:x:10:root\nusers:x:100:\nshadow:x:42:\nnogroup:x:65533:\nnobody:x:65534:\n"},
		{Name: "etc/shadow", Mode: 0o640, GID: 42, Data: "root:*::0:::::\n"},
		{Name: "etc/profile", Data: "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"},
		{Name: "etc/hosts", Data: "127.0.0.1 localhost\n"},
		{Name: "etc/hostname", Data: "localhost\n"},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "var/tmp/", Mode: 0o1777},
		{Name: "root/", Mode: 0o700},
	}
	for _, dir := range []string{"bin", "dev", "etc", "home", "media", "mnt", "opt", "proc", "run", "sbin", "srv", "sys", "usr", "usr/bin", "usr/sbin", "var", "var/log"} {
		entries = append(entries, Entry{Name: dir + "/", Mode: 0o755})
	}
	sort.SliceStable(entries, func(i, j int) bool { return entries[i].Name < entries[j].Name })
	return entries
}
