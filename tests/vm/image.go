package main

import (
	"bytes"
	"compress/gzip"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// guestFiles are the programs of the guest. With this file they are the whole
// recipe of the image, so that an image is named by the hash of them.
//
//go:embed guest image.go cpio.go
var guestFiles embed.FS

// The account of the guest that tests run as, lingering, with 65536 subordinate ids.
const (
	guestUser = "rbox"
	guestUID  = "1000"
)

// packages go into the guest beside the essential ones. usr-is-merged keeps
// usrmerge out, which would bring all of Perl.
var packages = []string{
	"usr-is-merged", "mount",
	"systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "login", "passwd", "kmod", "procps", "iproute2",
	"uidmap", "fuse-overlayfs", "slirp4netns", "passt", "busybox-static", "ca-certificates", "attr", "xz-utils",
	"crun", "podman", // to compare with
}

// kernelPackage depends on the newest kernel of its flavour.
const kernelPackage = "linux-image-cloud-amd64"

// Kernel modules of the guest, with those they depend on: what the initial RAM
// disk loads, and what may be asked for later. The others are left out.
var (
	bootModules  = []string{"virtio_pci", "virtio_blk", "ext4"}
	guestModules = []string{
		"virtio_console", "virtio_rng", "virtio_net", "autofs4", "nls_ascii", "loop",
		"overlay", "fuse", "tun", "veth", "bridge", "dummy", "af_packet", "binfmt_misc",
		"nf_tables", "nft_compat", "nft_chain_nat", "nft_masq", "nft_ct", "xt_MASQUERADE", "xt_conntrack", "bfq",
	}
)

// configuration is what the guest's /etc has beside what its packages bring.
var configuration = map[string]string{
	"hostname":    "guest\n",
	"hosts":       "127.0.0.1 localhost guest\n::1 localhost\n",
	"resolv.conf": "nameserver 127.0.0.1\n",
	"machine-id":  "0123456789abcdef0123456789abcdef\n",
	"fstab":       "LABEL=root / ext4 defaults 0 1\n",
	"subuid":      guestUser + ":100000:65536\n",
	"subgid":      guestUser + ":100000:65536\n",
	// Debian delegates cpu, memory and pids.
	"systemd/system/user@.service.d/delegate.conf": "[Service]\nDelegate=cpu cpuset io memory pids\n",
	"modules-load.d/rbox.conf":                     "overlay\ntun\nfuse\nvirtio_console\n",
}

// masked are units that would only cost time.
var masked = []string{
	"getty@tty1.service", "systemd-timesyncd.service", "systemd-networkd.service", "remote-fs.target",
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer", "e2scrub_all.timer", "e2scrub_reap.service",
	"systemd-pstore.service", "systemd-random-seed.service", "systemd-update-utmp.service", "systemd-journal-flush.service",
	"systemd-sysusers.service", "systemd-tmpfiles-clean.timer", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
	"systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-firstboot.service",
	"systemd-machine-id-commit.service", "systemd-boot-system-token.service", "systemd-remount-fs.service", "ldconfig.service",
	"dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount",
	"modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@loop.service",
	"podman.service", "podman.socket", "podman-auto-update.service", "podman-auto-update.timer", "podman-restart.service",
}

// image is a folder with what qemu boots.
type image struct{ dir string }

func (i image) kernel() string  { return filepath.Join(i.dir, "vmlinuz") }
func (i image) ramdisk() string { return filepath.Join(i.dir, "initrd.gz") }
func (i image) disk() string    { return filepath.Join(i.dir, "root.ext4") }

// builder makes an image out of Debian's packages.
type builder struct {
	image
	sources string // the host's own list of package archives (sources.list(5))
	root    string // the guest's root file system, while it is made
	debs    string // the kernel's package, and what is in it
}

func (b *builder) build() error {
	b.root, b.debs = filepath.Join(b.dir, "root"), filepath.Join(b.dir, "kernel")
	if err := os.Mkdir(b.debs, 0o755); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"install packages", b.bootstrap},
		{"install the kernel", b.installKernel},
		{"configure", b.configure},
		{"initial RAM disk", b.makeRAMDisk},
		{"root file system", b.makeDisk},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return errors.Join(os.RemoveAll(b.root), os.RemoveAll(b.debs))
}

// bootstrap installs packages, and fetches the kernel's without installing it,
// which would make an initial RAM disk for the machine that it is made on.
func (b *builder) bootstrap() error {
	fetch := `cd '` + b.debs + `' && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && ` +
		`apt-get download -q -o APT::Sandbox::User=root "$(apt-cache depends ` + kernelPackage + ` | sed -n 's/^ *Depends: \(linux-image\)/\1/p' | head -n 1)"`
	return command("mmdebstrap", "--quiet", "--mode=root", "--variant=essential",
		"--include="+strings.Join(packages, ","),
		"--dpkgopt=force-unsafe-io", `--aptopt=Acquire::Languages "none"`,
		"--customize-hook="+fetch,
		"bookworm", b.root, b.sources)
}

// installKernel unpacks the kernel and those of its modules that the guest uses.
func (b *builder) installKernel() error {
	packed, err := filepath.Glob(b.debs + "/linux-image-*.deb")
	if err != nil || len(packed) != 1 {
		return fmt.Errorf("want one package in %s, found %q", b.debs, packed)
	}
	tree := filepath.Join(b.debs, "tree")
	if err := command("dpkg-deb", "-x", packed[0], tree); err != nil {
		return err
	}
	kernels, err := filepath.Glob(tree + "/boot/vmlinuz-*")
	if err != nil || len(kernels) != 1 {
		return fmt.Errorf("want one kernel in %s, found %q", packed[0], kernels)
	}
	release := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
	modules := filepath.Join(b.root, "usr/lib/modules", release)
	if err := errors.Join(
		os.Rename(kernels[0], b.kernel()),
		os.MkdirAll(filepath.Dir(modules), 0o755),
		os.Rename(filepath.Join(tree, "lib/modules", release), modules),
	); err != nil {
		return err
	}
	if _, err := b.inGuest("depmod", release); err != nil {
		return err
	}
	keep, err := b.moduleFiles(release, slices.Concat(bootModules, guestModules))
	if err != nil {
		return err
	}
	if err := prune(modules, b.root, keep); err != nil {
		return err
	}
	_, err = b.inGuest("depmod", release)
	return err
}

// moduleFiles returns the files of modules and of all they depend on, in the
// order in which they can be loaded, as paths in the guest. What is built into
// the kernel has none.
func (b *builder) moduleFiles(release string, modules []string) (files []string, err error) {
	for _, m := range modules {
		out, err := b.inGuest("modprobe", "-S", release, "--show-depends", m)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "insmod" {
				continue
			}
			file, err := filepath.Rel(b.root, filepath.Join(b.root, "usr", strings.TrimPrefix(f[1], "/usr")))
			if err != nil {
				return nil, err
			}
			if !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	return files, nil
}

// prune deletes the modules below dir that keep, paths in root, does not name.
func prune(dir, root string, keep []string) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".ko" {
			return err
		}
		if rel, err := filepath.Rel(root, path); err != nil || slices.Contains(keep, rel) {
			return err
		}
		return os.Remove(path)
	})
}

// configure writes the guest's own files.
func (b *builder) configure() error {
	if _, err := b.inGuest("useradd", "--create-home", "--uid", guestUID, "--shell", "/bin/bash", guestUser); err != nil {
		return err
	}
	for name, text := range configuration {
		if err := b.put("etc/"+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := b.put("var/lib/systemd/linger/"+guestUser, nil, 0o644); err != nil {
		return err
	}
	for name, where := range map[string]string{"rbox-tests": "usr/local/sbin", "rbox-tests.service": "etc/systemd/system"} {
		text, err := guestFiles.ReadFile("guest/" + name)
		if err != nil {
			return err
		}
		if err := b.put(filepath.Join(where, name), text, 0o755); err != nil {
			return err
		}
	}
	units := filepath.Join(b.root, "etc/systemd/system")
	for _, unit := range masked {
		os.Remove(filepath.Join(units, unit))
		if err := os.Symlink("/dev/null", filepath.Join(units, unit)); err != nil {
			return err
		}
	}
	if _, err := b.inGuest("systemctl", "enable", "--quiet", "rbox-tests.service"); err != nil {
		return err
	}
	for _, useless := range []string{"var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale"} {
		if err := os.RemoveAll(filepath.Join(b.root, useless)); err != nil {
			return err
		}
	}
	return nil
}

// put writes a file of the guest.
func (b *builder) put(name string, text []byte, mode os.FileMode) error {
	path := filepath.Join(b.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	os.Remove(path) // it may be a link that leads out of the guest
	return os.WriteFile(path, text, mode)
}

// makeRAMDisk packs busybox, the modules that the root file system needs, and a script.
func (b *builder) makeRAMDisk() error {
	release, err := filepath.Glob(b.root + "/usr/lib/modules/*")
	if err != nil || len(release) != 1 {
		return fmt.Errorf("want modules of one kernel, found %q", release)
	}
	modules, err := b.moduleFiles(filepath.Base(release[0]), bootModules)
	if err != nil {
		return err
	}
	busybox, err := os.ReadFile(filepath.Join(b.root, "bin/busybox"))
	if err != nil {
		return err
	}
	script, err := guestFiles.ReadFile("guest/init")
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	archive := &cpio{w: zip}
	for _, dir := range []string{"bin", "proc", "sys", "dev", "root", "modules"} {
		archive.add(dir, modeDir, nil)
	}
	archive.add("init", modeProg, script)
	archive.add("bin/busybox", modeProg, busybox)
	for i, file := range modules {
		data, err := os.ReadFile(filepath.Join(b.root, file))
		if err != nil {
			return err
		}
		archive.add(fmt.Sprintf("modules/%02d-%s", i, filepath.Base(file)), modeProg, data)
	}
	if err := errors.Join(archive.close(), zip.Close()); err != nil {
		return err
	}
	return os.WriteFile(b.ramdisk(), packed.Bytes(), 0o644)
}

// makeDisk makes the root file system, with room for what the tests write; the
// file is sparse.
func (b *builder) makeDisk() error {
	return makeFileSystem(b.root, b.disk(), "3G", "root")
}

// makeFileSystem makes file, of the given size, an ext4 with the tree dir in it.
func makeFileSystem(dir, file, size, label string) error {
	return command("mke2fs", "-q", "-t", "ext4", "-L", label, "-O", "^has_journal", "-m", "0",
		"-E", "lazy_itable_init=1,root_owner=0:0", "-d", dir, file, size)
}

// inGuest runs a program of the guest in its root file system and returns what it prints.
func (b *builder) inGuest(args ...string) (string, error) {
	cmd := exec.Command("/usr/bin/env", args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: b.root}
	return output(cmd)
}

// command runs a program of the host.
func command(name string, args ...string) error {
	_, err := output(exec.Command(name, args...))
	return err
}

// output runs cmd; its error has what it said.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}
