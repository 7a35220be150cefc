package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// makePayload makes file, a file system with all that the guest runs: the
// checkout as far as tests look at it, with their binaries in place of sources,
// and the programs run and job, which run them in two ways (guest/rbox-tests).
// Beside the checkout lies the folder shared, where this machine has it.
func makePayload(scratch string, s []suite) (file string, err error) {
	tree := filepath.Join(scratch, "payload")
	if err := os.MkdirAll(filepath.Join(tree, "rbox/bin"), 0o755); err != nil {
		return "", err
	}
	if err := copyFile("bin/rbox", filepath.Join(tree, "rbox/bin/rbox")); err != nil {
		return "", err
	}
	// Builds from source, since toolchains bring no test2json that runs by itself.
	if err := goCommand("build", "-o", filepath.Join(tree, "test2json"), "cmd/test2json"); err != nil {
		return "", err
	}
	scripts := map[string]string{}
	for _, one := range s {
		if err := one.install(tree); err != nil {
			return "", err
		}
		scripts[one.script()] += one.command()
	}
	if scripts["run"] == "" {
		scripts["run"] = "exit 0\n"
	}
	for name, commands := range scripts {
		text := fmt.Sprintf("#!/bin/sh\nexport RBOX_TESTS_PATIENCE=%d\nstatus=0\n%sexit $status\n", slowness, commands)
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o755); err != nil {
			return "", err
		}
	}
	const shared = "../shared/images"
	if archives, _ := filepath.Glob(shared + "/*.tar.gz"); len(archives) > 0 {
		if err := os.CopyFS(filepath.Join(tree, "shared/images"), os.DirFS(shared)); err != nil {
			return "", err
		}
	}
	size, err := sizeOf(tree)
	if err != nil {
		return "", err
	}
	file = filepath.Join(scratch, "payload.ext4")
	return file, makeFileSystem(tree, file, fmt.Sprintf("%dM", size>>20+size>>23+16), "payload")
}

// install puts the suite's test binary where its package is, with its test data,
// unless another suite of the package has done so.
func (s suite) install(tree string) error {
	dir := filepath.Join(tree, "rbox", s.pkg)
	binary := filepath.Join(dir, "tests")
	if _, err := os.Stat(binary); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data := filepath.Join(s.pkg, "testdata")
	if _, err := os.Stat(data); err == nil {
		if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS(data)); err != nil {
			return err
		}
	}
	if s.program != "" {
		return goCommand("build", "-o", binary, "./"+s.pkg)
	}
	return goCommand("test", "-c", "-o", binary, "./"+s.pkg)
}

// script is the program of the guest that runs the suite.
func (s suite) script() string {
	if s.job {
		return "job"
	}
	return "run"
}

// name is the suite's package, or in a job something below it.
func (s suite) name() string {
	if s.job {
		return s.pkg + "/job"
	}
	return s.pkg
}

// command runs the suite in the guest, printing the events that `go test -json` would.
func (s suite) command() string {
	if s.program != "" {
		return fmt.Sprintf("cd /rbox/rbox && %s/tests %s || status=1\n", s.pkg, s.program)
	}
	args := []string{
		"../" + strings.Repeat("../", strings.Count(s.pkg, "/")) + "../test2json", "-t", "-p", "guest/rbox/" + s.name(),
		"./tests", "-test.v=test2json", "-test.parallel=4", fmt.Sprintf("-test.timeout=%v", suiteLimit), "-test.run=" + s.run,
	}
	for i, a := range args {
		args[i] = quote(a)
	}
	return fmt.Sprintf("cd /rbox/rbox/%s && %s || status=1\n", s.pkg, strings.Join(args, " "))
}

// quote makes word one word of the shell's.
func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func goCommand(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	_, err := output(cmd)
	return err
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not built: run make", from)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// sizeOf adds up the files below dir.
func sizeOf(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}

// slowness is about how many times longer than elsewhere things take in the guest.
const slowness = 10

// suiteLimit ends a suite that hangs; the guest as a whole has guestLimit.
const (
	suiteLimit = 9 * time.Minute
	guestLimit = 12 * time.Minute
)
