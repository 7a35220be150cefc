package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// logLines are the lines of 100 bytes that the writer has in a file, 1 MB.
const logLines = 10000

// logs measures a program in the background that writes lines as fast as they
// are taken, from its start until the last is in its log.
func (b *bench) logs(megabytes int) error {
	const rounds = 3
	// One process writes all, with little work of its own; the last line tells the end.
	script := fmt.Sprintf(`yes %s | head -n %d >/lines; cat $(yes /lines | head -n %d); echo %s`,
		bytes.Repeat([]byte("x"), 99), logLines, megabytes, lastLine)
	args := []string{"run", "-d", "--network", "none", "--log-driver"}
	rbox := &contestant{name: "rbox, driver file", once: func() (time.Duration, error) {
		command := append(args, logDriver("rbox"), "alpine", "sh", "-c", script)
		return b.logged(command, b.rbox, nil, func(id string) string {
			return filepath.Join(b.Root, "containers", "*", "kept", id, "log")
		})
	}}
	podman := &contestant{name: "podman and conmon, driver k8s-file", missing: b.noPodman, once: func() (time.Duration, error) {
		path := filepath.Join(b.Home, "podman.log")
		command := append(args, logDriver("podman"), "--log-opt", "path="+path, "--pull=never", podmanImage, "sh", "-c", script)
		defer os.Remove(path)
		return b.logged(command, "podman", b.podman(), func(string) string { return path })
	}}
	all := []*contestant{rbox, podman}
	measure(rounds, all)
	table(os.Stdout, fmt.Sprintf("log %d MB in lines of 100 bytes", megabytes), all, []bar{
		{podman.name, 1, "rbox no slower than conmon"},
	})
	return nil
}

// lastLine ends the log.
const lastLine = "that-was-all"

// logged runs a command of prog that starts a container, waits for the last
// line in the log, whose path is a pattern, and removes the container.
func (b *bench) logged(args []string, prog string, options []string, path func(id string) string) (time.Duration, error) {
	command := func(args ...string) []string { return append(options[:len(options):len(options)], args...) }
	start := time.Now()
	id, err := b.run(prog, command(args...)...)
	if err != nil {
		return 0, err
	}
	err = awaitLine(path(id), lastLine)
	took := time.Since(start)
	_, removed := b.run(prog, command("rm", "-f", id)...)
	return took, errors.Join(err, removed)
}

// awaitLine waits until the file that matches pattern ends with line. It fails
// once the file has not grown for a while.
func awaitLine(pattern, line string) error {
	const patience = 20 * time.Second
	var size int64
	for grown := time.Now(); time.Since(grown) < patience; time.Sleep(time.Millisecond) {
		paths, _ := filepath.Glob(pattern)
		if len(paths) == 0 {
			continue
		}
		now, end, err := tail(paths[0], len(line)+1)
		if err != nil {
			return err
		}
		if string(end) == line+"\n" {
			return nil
		}
		if now != size {
			size, grown = now, time.Now()
		}
	}
	return fmt.Errorf("%s: no more came after %d bytes", pattern, size)
}

// tail is the size of a file and its last n bytes.
func tail(path string, n int) (size int64, end []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < int64(n) {
		return 0, nil, err
	}
	end = make([]byte, n)
	_, err = f.ReadAt(end, info.Size()-int64(n))
	return info.Size(), end, err
}
