package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

// fuzzed is a package with fuzz targets.
type fuzzed struct {
	dir     string
	targets []string
}

// A finding is how a target's time ended: why is "" if nothing was found.
type finding struct{ target, why string }

// runFuzz lets each fuzz target look for what its corpus does not have, each for
// as long as each says (go doc testing, "Fuzzing"). What one finds, it leaves in
// testdata/fuzz, for a test to stay.
func runFuzz(total *tally, each string) {
	start := time.Now()
	packages, err := fuzzedPackages(sourceDirs())
	if err != nil {
		total.fail("fuzz", err.Error())
		return
	}
	work, findings := make(chan fuzzed), make(chan finding)
	var workers sync.WaitGroup
	for range runtime.NumCPU() {
		workers.Go(func() {
			for p := range work {
				p.run(each, findings)
			}
		})
	}
	go func() {
		for _, p := range packages {
			work <- p
		}
		close(work)
		workers.Wait()
		close(findings)
	}()
	n, failed := 0, total.failed
	for f := range findings {
		if f.why != "" {
			total.fail("fuzz "+f.target, f.why)
			continue
		}
		total.passed++
		n++
	}
	if total.failed == failed {
		fmt.Printf("ok    %-28s %6.1fs  %d targets, %s each\n", "fuzz", time.Since(start).Seconds(), n, each)
	}
}

var targetLine = regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z0-9]*)\(`)

// fuzzedPackages finds the fuzz targets below dirs.
func fuzzedPackages(dirs []string) (list []fuzzed, err error) {
	for _, dir := range dirs {
		err = errors.Join(err, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range targetLine.FindAllStringSubmatch(string(text), -1) {
				pkg := filepath.Dir(path)
				if n := len(list); n == 0 || list[n-1].dir != pkg { // a folder's files come one after the other
					list = append(list, fuzzed{dir: pkg})
				}
				list[len(list)-1].targets = append(list[len(list)-1].targets, m[1])
			}
			return err
		}))
	}
	return list, err
}

// run builds p's tests, once for all of its targets, and runs these.
func (p fuzzed) run(each string, findings chan<- finding) {
	scratch, err := os.MkdirTemp("", "rbox-fuzz-")
	if err != nil {
		findings <- finding{p.dir, err.Error()}
		return
	}
	defer os.RemoveAll(scratch)
	program := filepath.Join(scratch, "test")
	if out, err := tool("go", "test", "-c", "-fuzz", ".", "-o", program, "./"+p.dir).CombinedOutput(); err != nil {
		findings <- finding{p.dir, string(out) + err.Error()}
		return
	}
	for _, target := range p.targets {
		cmd := exec.Command(program, "-test.run", "^$", "-test.fuzz", "^"+target+"$", "-test.fuzztime", each,
			"-test.fuzzminimizetime", "100x", "-test.fuzzcachedir", filepath.Join(scratch, "corpus"), "-test.parallel", "1")
		cmd.Dir = p.dir
		out, err := cmd.CombinedOutput()
		findings <- finding{p.dir + " " + target, whyFuzz(p.dir, string(out), err)}
	}
}

var findingLine = regexp.MustCompile(`(?m)^\s*Failing input written to (\S+)$`)

// whyFuzz is what a target has found. Its time may also end with an error that
// says so.
func whyFuzz(dir, out string, err error) string {
	m := findingLine.FindStringSubmatch(out)
	var exit *exec.ExitError
	switch {
	case err == nil, m == nil && errors.As(err, &exit) && strings.Contains(out, "context deadline exceeded"):
		return ""
	case m == nil:
		return out + err.Error()
	}
	input, _ := os.ReadFile(filepath.Join(dir, m[1]))
	return out + string(input)
}
