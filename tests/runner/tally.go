package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// tally counts tests and prints what went wrong.
type tally struct {
	passed, failed, skipped int

	allowed map[string]bool // tests that may be skipped even where strict
	strict  bool            // whether other skips are failures
	out     io.Writer
}

func (c *tally) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

func (c *tally) fail(name, why string) {
	c.failed++
	fmt.Fprintf(c.out, "FAIL  %s\n", name)
	for line := range strings.Lines(strings.TrimSpace(why)) {
		fmt.Fprintf(c.out, "      %s", line)
	}
	fmt.Fprintln(c.out)
}

// event is a line of `go test -json` (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build's output
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

// read counts the tests of the events in r. A test with subtests is counted by
// them, unless it fails and none of them did.
func (c *tally) read(r io.Reader) error {
	var (
		output  = map[string]*strings.Builder{} // by test, package and build
		parents = map[string]bool{}             // tests that had subtests
		guilty  = map[string]bool{}             // parents of a subtest that failed
	)
	text := func(key string) *strings.Builder {
		if output[key] == nil {
			output[key] = new(strings.Builder)
		}
		return output[key]
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintf(c.out, "%s\n", bytes.TrimSpace(lines.Bytes()))
			continue
		}
		key := e.Package + e.ImportPath
		if e.Test != "" {
			key += "." + e.Test
		}
		parent, _, isSub := cutLast(key, "/", e.Test)
		switch e.Action {
		case "run":
			if isSub {
				parents[parent] = true
			}
		case "output", "build-output":
			text(key).WriteString(e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				c.endPackage(e, text(key).String(), text(e.FailedBuild).String(), guilty[e.Package])
				continue
			}
			if e.Action == "fail" {
				guilty[e.Package] = true
				guilty[parent] = guilty[parent] || isSub
			}
			if !parents[key] || e.Action == "fail" && !guilty[key] {
				c.count(e, key, text(key).String())
			}
			delete(output, key)
		}
	}
	return lines.Err()
}

// cutLast splits key around its last separator if name, its end, has one.
func cutLast(key, sep, name string) (before, after string, found bool) {
	if !strings.Contains(name, sep) {
		return key, "", false
	}
	i := strings.LastIndex(key, sep)
	return key[:i], key[i+1:], true
}

// endPackage counts what only the package's own result tells: a failed build,
// a panic, a TestMain that failed.
func (c *tally) endPackage(e event, out, build string, known bool) {
	if e.Action == "fail" && !known {
		c.fail(e.Package, build+out)
	}
	if e.Elapsed > 5 {
		fmt.Fprintf(c.out, "      %-28s %6.1fs\n", strings.TrimPrefix(e.Package, "rbox/"), e.Elapsed)
	}
}

func (c *tally) count(e event, key, out string) {
	switch {
	case e.Action == "pass":
		c.passed++
	case e.Action == "fail":
		c.fail(fmt.Sprintf("%s (%.1fs)", key, e.Elapsed), out)
	case c.strict && !c.allowed[key]:
		c.fail(key, "skipped under CI=true, and tests/skips.txt does not list it:\n"+out)
	default:
		c.skipped++
		fmt.Fprintf(c.out, "skip  %s: %s\n", key, reason(out))
	}
}

// reason is the last thing a skipped test said.
func reason(out string) string {
	last := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			last = line
		}
	}
	return last
}

// readSkips reads lines of `package.Test: reason`; # starts a comment.
func readSkips(file string) (map[string]bool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	allowed := map[string]bool{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		test, why, ok := strings.Cut(line, ": ")
		if !ok || strings.TrimSpace(why) == "" {
			return nil, fmt.Errorf("%s:%d: no reason: want `package.Test: reason`", file, n)
		}
		allowed[test] = true
	}
	return allowed, nil
}
