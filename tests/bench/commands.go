package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// commands measures what people and scripts type again and again, each with
// the same containers and images on both sides.
func (b *bench) commands(rounds int) error {
	const running = "bench"
	noRbox := b.furnish(b.rbox, "alpine", running, nil)
	noPodman := b.noPodman
	if noPodman == nil {
		noPodman = b.furnish("podman", podmanImage, running, b.podman())
	}
	for _, args := range [][]string{
		{"exec", running, "true"},
		{"ps"},
		{"logs", running},
		{"images"},
		{"inspect", running},
	} {
		rbox := b.starter("rbox "+args[0], "", b.rbox, args...)
		rbox.missing = noRbox
		podman := b.starter("podman "+args[0], "", "podman", b.podman(args...)...)
		podman.every, podman.missing = 5, noPodman
		all := []*contestant{rbox, podman}
		measure(rounds, all)
		table(os.Stdout, titles[args[0]], all, []bar{{podman.name, 1.0 / 10, "rbox 10 times faster than podman"}})
	}
	b.endRbox()
	if b.noPodman == nil {
		b.run("podman", b.podman("rm", "-f", "-a", "-t", "0")...)
	}
	return nil
}

// titles are those of the tables of commands.
var titles = map[string]string{
	"exec":    "run true in a running container",
	"ps":      "list one running container of four",
	"logs":    "show a log of 100 lines",
	"images":  "list four images",
	"inspect": "show all about a running container",
}

// furnish gives prog one running container with 100 lines in its log, three
// that have ended, and four images.
func (b *bench) furnish(prog, image, running string, options []string) error {
	command := func(args ...string) error {
		_, err := b.run(prog, append(options[:len(options):len(options)], args...)...)
		return err
	}
	for i := range 3 {
		if err := command("import", "--change", fmt.Sprintf("LABEL number=%d", i), b.alpine, fmt.Sprintf("%s:%d", image, i)); err != nil {
			return err
		}
		if err := command("run", "--name", fmt.Sprintf("ended%d", i), "--network", "none", image, "true"); err != nil {
			return err
		}
	}
	script := "seq 100; exec sleep 86400"
	return command("run", "-d", "--name", running, "--network", "none", "--log-driver", logDriver(prog), image, "sh", "-c", script)
}

// logDriver is the one that writes the same file format with both.
func logDriver(prog string) string {
	if prog == "podman" {
		return "k8s-file"
	}
	return "file"
}

// fewListed is how many containers there are in the list that one of many is held against.
const fewListed = 10

// listing measures a list of many containers beside one of few. They lie in
// data folders of their own and were all made by `rbox create`.
func (b *bench) listing(rounds, many int) error {
	create := []string{"create", "--network", "none", "alpine", "true"}
	all := []*contestant{b.lister(many, create, "ps", "-a"), b.lister(fewListed, create, "ps", "-a")}
	measure(rounds, all)
	listingTable(fmt.Sprintf("list %d created containers", many), all)
	return nil
}

func listingTable(title string, all []*contestant) {
	table(os.Stdout, title, all, []bar{{all[1].name, 5, fmt.Sprintf("within 5 times the list of %d", fewListed)}})
}

// lister runs ps in a data folder of its own, where it makes n containers.
func (b *bench) lister(n int, command []string, ps ...string) *contestant {
	store, err := b.newStore()
	root := "RBOX_ROOT=" + store + "/root"
	if err == nil {
		err = b.silent(root, b.rbox, "import", b.alpine, "alpine")
	}
	if err == nil {
		err = errors.Join(inParallel(n, func() error { return b.silent(root, b.rbox, command...) })...)
	}
	c := b.listerOf(n, root, ps)
	c.missing = err
	return c
}

// listerOf runs ps where there are n containers.
func (b *bench) listerOf(n int, root string, ps []string) *contestant {
	return &contestant{
		name: fmt.Sprintf("rbox %s of %d", strings.Join(ps, " "), n),
		once: func() (time.Duration, error) { return b.timedIn(root, b.rbox, ps...) },
	}
}
