//go:build !front

package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A unit is a service of systemd that runs one container in the foreground of rbox.
type unit struct {
	name                   string // of its file
	exe                    string // rbox
	start, stop            []string
	dir                    string   // where start runs; "" is the home directory
	env                    []string // NAME=VALUE
	after, wants, requires []string
	stopTimeout            int // seconds; negative: no limit
	cleanStatus            []int
	restartPolicy          string
	restartSec             int  // negative: systemd's own
	limit                  int  // restarts, 0: systemd's own limit
	forever                bool // no limit at all
}

// limitTime is the time in which so many restarts are too many, in seconds.
const limitTime = 300

// text is the file. KillMode=mixed: what stop leaves gets SIGTERM through rbox,
// and whatever is left of the monitor and the container after that is killed.
func (u *unit) text(header []string) string {
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + "=" + value + "\n") }
	for _, h := range header {
		b.WriteString("# " + h + "\n")
	}
	if len(header) > 0 {
		b.WriteByte('\n')
	}
	b.WriteString("[Unit]\n")
	line("Description", "rbox "+u.name)
	for _, d := range []struct {
		key   string
		units []string
	}{{"After", u.after}, {"Wants", u.wants}, {"Requires", u.requires}} {
		if len(d.units) > 0 {
			line(d.key, strings.Join(d.units, " "))
		}
	}
	u.limits(line)
	b.WriteString("\n[Service]\nType=exec\n")
	for _, e := range u.env {
		line("Environment", quoteUnit(e, false))
	}
	if u.dir != "" && oneLiner(u.dir) {
		line("WorkingDirectory", "-"+strings.ReplaceAll(u.dir, "%", "%%"))
	}
	line("ExecStart", commandLine(u.exe, u.start))
	line("ExecStop", commandLine(u.exe, u.stop))
	line("Restart", u.restartPolicy)
	if u.restartSec >= 0 {
		line("RestartSec", strconv.Itoa(u.restartSec))
	}
	line("SuccessExitStatus", strings.Trim(fmt.Sprint(u.cleanStatus), "[]"))
	if u.stopTimeout < 0 {
		line("TimeoutStopSec", "infinity")
	} else {
		line("TimeoutStopSec", strconv.Itoa(u.stopTimeout+stopExtra))
	}
	b.WriteString("KillMode=mixed\nDelegate=yes\n\n[Install]\nWantedBy=default.target\n")
	return b.String()
}

// limits is how often systemd restarts it.
func (u *unit) limits(line func(key, value string)) {
	switch {
	case u.forever:
		line("StartLimitIntervalSec", "0")
	case u.limit > 0:
		line("StartLimitIntervalSec", strconv.Itoa(limitTime))
		line("StartLimitBurst", strconv.Itoa(u.limit+1)) // the first start counts
	}
}

// oneLiner tells whether a setting that knows no quotes can hold s.
func oneLiner(s string) bool {
	return utf8.ValidString(s) && strings.TrimSpace(s) == s && !strings.HasSuffix(s, `\`) && !strings.ContainsFunc(s, isControl)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// commandLine is a program and its arguments as ExecStart= takes them
// (systemd.service(5)). The program's own path has no variables in it.
func commandLine(program string, args []string) string {
	var b strings.Builder
	b.WriteString(quoteUnit(program, false))
	for _, a := range args {
		b.WriteByte(' ')
		b.WriteString(quoteUnit(a, true))
	}
	return b.String()
}

// quoteUnit makes s one word of a unit file (systemd.syntax(7)): % begins a
// specifier there, and $ a variable in what is an argument.
func quoteUnit(s string, argument bool) string {
	var b strings.Builder
	plain := s != ""
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1 || isControl(r):
			fmt.Fprintf(&b, `\x%02x`, s[i])
			plain = false
		case r == '\\' || r == '"':
			b.WriteString(`\` + string(r))
			plain = false
		case r == '%':
			b.WriteString("%%")
		case r == '$' && argument:
			b.WriteString("$$")
		default:
			b.WriteString(s[i : i+n])
			plain = plain && !strings.ContainsRune(` ;'`, r)
		}
		i += n
	}
	if plain {
		return b.String()
	}
	return `"` + b.String() + `"`
}
