// Demo is what `make demo` runs: it shows rbox's main job, a container started
// by an unprivileged account from an image of a registry, and cleans up.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"rbox/tests/account"
	"rbox/tests/images"
	"rbox/tests/registry"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	who, err := account.Ensure(account.Plain)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "rdemo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	r, err := serveAlpine(dir)
	if err != nil {
		return err
	}
	defer r.Close()
	desk, err := account.NewDesk(filepath.Join(dir, "1"), who)
	if err != nil {
		return err
	}
	bin, err := account.CopyBinary(".", dir)
	if err != nil {
		return err
	}
	// The files of the account's subordinate ids are rbox's to delete.
	defer desk.Command(bin, "unshare", "rm", "-rf", desk.Root).Run()

	desk.Env = append(desk.Env, "RBOX_KEEPER_IDLE=3s")
	fmt.Printf("A registry runs at %s with the image alpine in it. All that follows is done by\n%s, uid %d, who is not root.\n\n", r.Addr, who.Name, who.UID)
	return show(desk, bin, r.Ref("alpine"))
}

// serveAlpine starts a registry with its state in dir and puts alpine into it.
func serveAlpine(dir string) (*registry.Registry, error) {
	file, _, err := images.Alpine(".", dir)
	if err != nil {
		return nil, err
	}
	img, err := images.FromTarGz(file, v1.Config{
		Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	})
	if err != nil {
		return nil, err
	}
	store := filepath.Join(dir, "registry")
	if err := os.Mkdir(store, 0o755); err != nil {
		return nil, err
	}
	r, err := registry.Start(store, registry.Options{})
	if err != nil {
		return nil, err
	}
	if err := r.Push("alpine", img); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// show runs the commands of the demonstration, each after a line that says why.
func show(desk *account.Desk, bin, image string) error {
	for _, step := range []struct {
		why  string
		args []string
	}{
		{"Pull the image:", []string{"pull", image}},
		{"Give it a short name:", []string{"tag", image, "alpine"}},
		{"What is there:", []string{"images"}},
		{"A container: another system, its own processes, root in it without being root:",
			[]string{"run", "--rm", "--hostname", "box", "alpine", "sh", "-c", "grep PRETTY /etc/os-release; uname -sn; id; ps; true"}},
		{"All of the account's ids are there, so files have owners, and packages install:",
			[]string{"run", "--rm", "alpine", "sh", "-c", "awk '{n += $3} END {print n, \"ids\"}' /proc/self/uid_map; cd /tmp && touch file && chown 33:33 file && ls -ln file"}},
		{"A folder of the account's, in the container, under its own id:",
			[]string{"run", "--rm", "--userns", "keep-id", "-v", ".:/work", "-w", "/work", "alpine", "sh", "-c", "echo made in a container >file && ls -l file"}},
		{"The exit status is the program's:", []string{"run", "--rm", "alpine", "sh", "-c", "exit 7"}},
	} {
		fmt.Printf("# %s\n$ rbox %s\n", step.why, quoted(step.args))
		cmd := desk.Command(bin, step.args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stdout
		start := time.Now()
		err := cmd.Run()
		took := time.Since(start)
		if _, exited := err.(*exec.ExitError); err != nil && !exited || cmd.ProcessState.ExitCode() == 125 {
			return fmt.Errorf("rbox %s: %w", quoted(step.args), err)
		}
		fmt.Printf("(status %d, %d ms)\n\n", cmd.ProcessState.ExitCode(), took.Milliseconds())
	}
	fmt.Println("Your own: bin/rbox run -it IMAGE sh. Where no registry can be reached: bin/rbox run -it host sh")
	return nil
}

// quoted is args as one types them.
func quoted(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsAny(a, " ;&>'") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out[i] = a
	}
	return strings.Join(out, " ")
}
