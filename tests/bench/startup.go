package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// startup measures a container that runs `true` and is gone.
func (b *bench) startup(rounds int) error {
	bundle, err := b.bundle()
	if err != nil {
		return err
	}
	all := []*contestant{
		b.starter("rbox run --rm --network none", "", b.rbox, "run", "--rm", "--network", "none", "alpine", "true"),
		b.starter("crun run", "crun", "crun", "--cgroup-manager=disabled", "--root", filepath.Join(b.Run, "crun"), "run", "--bundle", bundle, "bench"),
		b.starter("bwrap --unshare-all", "bwrap", "bwrap", "--unshare-all", "--bind", filepath.Join(bundle, "rootfs"), "/", "--proc", "/proc", "--dev", "/dev", "true"),
		b.podmanStarter(),
	}
	measure(rounds, all)
	table(os.Stdout, "start a container", all, []bar{
		{"crun run", 1, "rbox no slower than crun"},
		{"bwrap --unshare-all", 2.5, "rbox within 2.5 times bwrap"},
		{"podman run --rm --network none", 1.0 / 20, "rbox 20 times faster than podman"},
	})
	return nil
}

// starter is a contestant that runs a command; needs is a program it may lack.
func (b *bench) starter(name, needs, prog string, args ...string) *contestant {
	c := &contestant{name: name}
	if needs != "" {
		c.missing = b.lookPath(needs)
	}
	c.once = func() (time.Duration, error) { return b.timed(prog, args...) }
	return c
}

// timed runs a command as the account and returns how long it took.
func (b *bench) timed(prog string, args ...string) (time.Duration, error) {
	return b.timedIn("", prog, args...)
}

// silent is timedIn for a command of which only a failure matters.
func (b *bench) silent(variable, prog string, args ...string) error {
	_, err := b.timedIn(variable, prog, args...)
	return err
}

// timedIn is timed with one more variable in the environment, or with none if it is "".
func (b *bench) timedIn(variable, prog string, args ...string) (time.Duration, error) {
	cmd := b.Command(prog, args...)
	if variable != "" {
		cmd.Env = append(cmd.Env, variable)
	}
	stderr, err := os.CreateTemp("", "rbench-stderr-")
	if err != nil {
		return 0, err
	}
	defer stderr.Close()
	defer os.Remove(stderr.Name())
	cmd.Stderr = stderr
	start := time.Now()
	err = cmd.Run()
	took := time.Since(start)
	if err != nil {
		text, _ := os.ReadFile(stderr.Name())
		return 0, fmt.Errorf("%w: %s", err, text)
	}
	return took, nil
}

// bundle prepares an OCI bundle of alpine for crun, which bwrap shares.
func (b *bench) bundle() (dir string, err error) {
	dir = filepath.Join(b.Home, "bundle")
	if _, err := os.Stat(dir); err == nil { // made for another part
		return dir, nil
	}
	if _, err := b.run("mkdir", "-p", filepath.Join(dir, "rootfs"), filepath.Join(b.Run, "crun")); err != nil {
		return "", err
	}
	if _, err := b.run("tar", "-C", filepath.Join(dir, "rootfs"), "-xzf", b.alpine, "--no-same-owner"); err != nil {
		return "", err
	}
	if b.lookPath("crun") != nil {
		return dir, nil
	}
	if _, err := b.run("sh", "-c", "cd bundle && crun spec --rootless"); err != nil {
		return "", err
	}
	return dir, editConfig(filepath.Join(dir, "config.json"))
}

// editConfig makes crun's own example do what the others do. Without mappings
// crun maps all ids of the user, with newuidmap.
func editConfig(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	process, ok1 := config["process"].(map[string]any)
	linux, ok2 := config["linux"].(map[string]any)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: no process or no linux in it", file)
	}
	process["args"], process["terminal"] = []string{"true"}, false
	linux["uidMappings"], linux["gidMappings"] = nil, nil
	if data, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// podmanStarter takes part in every fifth round, for it takes its time.
func (b *bench) podmanStarter() *contestant {
	c := b.starter("podman run --rm --network none", "", "podman", b.podman("run", "--rm", "--network", "none", "--pull=never", podmanImage, "true")...)
	c.every, c.missing = 5, b.noPodman
	return c
}
