// Runner is what `make test` runs: the checks that read the source, the quick
// unit tests, each fuzz target for a moment, then tests/ end to end, here and in
// a guest with an older kernel (tests/vm). It shows what failed, and ends in one line that counts what ran:
// N passed, N failed, N skipped.
//
// Each check, each fuzz target and each test function counts as one, and so does each subtest
// that has no subtests of its own in place of its parent. A package that does
// not build counts as one failure. With CI=true a skip is a failure unless the
// skips file lists it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	skipsFile := flag.String("skips", "tests/skips.txt", "tests that may be skipped under CI=true, each with its reason")
	summary := flag.String("summary", "", "write the closing line to this file instead of to stdout")
	guest := flag.Bool("guest", false, "run only the tests in the guest")
	onlyFuzz := flag.Bool("fuzz", false, "run only the fuzz targets")
	fuzzTime := flag.String("fuzztime", "2s", "how long each fuzz target runs")
	flag.Parse()

	allowed, err := readSkips(*skipsFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(2)
	}
	total := &tally{allowed: allowed, strict: os.Getenv("CI") == "true", out: os.Stdout}
	inGuest := phase{"in the guest", []string{"go", "run", "./tests/vm", "-json"}}
	switch {
	case *onlyFuzz:
		runFuzz(total, *fuzzTime)
	case *guest:
		runTests(total, inGuest)
	default:
		for _, c := range checks() {
			runCheck(total, c)
		}
		runTests(total, phase{"unit tests", append([]string{"go", "test", "-json", "-timeout=10m"}, packages(false)...)})
		runFuzz(total, *fuzzTime)
		runTests(total, phase{"end to end", append([]string{"go", "test", "-json", "-count=1", "-timeout=25m", "-parallel=4"}, packages(true)...)})
		runTests(total, inGuest)
	}

	if err := report(total, *summary); err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(2)
	}
	if total.failed > 0 {
		os.Exit(1)
	}
}

func report(total *tally, file string) error {
	if file != "" {
		return os.WriteFile(file, []byte(total.String()+"\n"), 0o666)
	}
	_, err := fmt.Println(total)
	return err
}

// check is a command that reads the source: what it prints on stdout is wrong with it.
type check struct {
	name string
	args []string
}

func checks() []check {
	return []check{
		{"gofmt", append([]string{"gofmt", "-l"}, sourceDirs()...)},
		{"go vet", []string{"go", "vet", "./..."}},
		{"staticcheck", []string{"go", "tool", "-modfile=tests/tools.mod", "staticcheck", "./..."}},
		{"staticcheck of the front", []string{"go", "tool", "-modfile=tests/tools.mod", "staticcheck", "-tests=false", "-tags", "front", "./cmd/rbox"}},
		{"go mod verify", []string{"go", "mod", "verify"}},
	}
}

// sourceDirs lists the folders of the top level that may hold Go files.
func sourceDirs() (dirs []string) {
	entries, _ := os.ReadDir(".")
	for _, e := range entries {
		if e.IsDir() && e.Name()[0] != '.' && e.Name() != "bin" {
			dirs = append(dirs, e.Name())
		}
	}
	return dirs
}

func runCheck(total *tally, c check) {
	start := time.Now()
	cmd := tool(c.args...)
	var stderr strings.Builder // also what go has to say of its downloads
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	text := strings.TrimSpace(string(out))
	if err == nil && (text == "" || text == "all modules verified") {
		total.passed++
		fmt.Printf("ok    %-28s %6.1fs\n", c.name, time.Since(start).Seconds())
		return
	}
	if err != nil {
		text += "\n" + stderr.String() + err.Error()
	}
	total.fail(c.name, text)
}

// tool is the command of the Go distribution that runs this program.
func tool(args ...string) *exec.Cmd {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if bin := filepath.Join(strings.TrimSpace(string(root)), "bin", args[0]); err == nil {
		return exec.Command(bin, args[1:]...)
	}
	return exec.Command(args[0], args[1:]...)
}

// packages lists the module's packages, those of tests/ that go end to end or the others.
func packages(endToEnd bool) []string {
	out, err := tool("go", "list", "./...").Output()
	if err != nil {
		return []string{"./..."} // go test says what is wrong
	}
	var list []string
	for _, p := range strings.Fields(string(out)) {
		if (p == "rbox/tests") == endToEnd {
			list = append(list, p)
		}
	}
	return list
}

// phase is a command that runs tests and prints the events of `go test -json`.
type phase struct {
	name string
	args []string
}

// runTests adds to total what p ran.
func runTests(total *tally, p phase) {
	if err := p.run(total); err != nil {
		total.fail(p.name, err.Error())
	}
}

func (p phase) run(total *tally) error {
	start := time.Now()
	before := *total
	cmd := tool(p.args...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := total.read(events)
	io.Copy(io.Discard, events)
	// The status repeats what the events said, unless they said nothing.
	if err := cmd.Wait(); err != nil && total.failed == before.failed {
		return err
	}
	if readErr == nil && total.failed == before.failed {
		fmt.Printf("ok    %-28s %6.1fs  %d tests\n", p.name, time.Since(start).Seconds(), total.passed-before.passed)
	}
	return readErr
}
