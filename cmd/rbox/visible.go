package main

import (
	"fmt"
	"io"
	"strings"
)

// Text of images, registries and containers may hold control characters: a label
// or a command could type on the user's terminal, or hide what comes after it.

// visible is s with each control character written as \u and its number, but for
// line feeds and tabs; so are those that change the direction of writing.
func visible(s string) string { return escaped(s, harmful) }

// inCell is visible for one line of a table, where a line feed would make another.
func inCell(s string) string {
	return escaped(s, func(r rune) bool { return r == '\n' || r == '\t' || harmful(r) })
}

func escaped(s string, which func(rune) bool) string {
	if !strings.ContainsFunc(s, which) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if which(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// harmful tells whether a terminal may take r for a command: C0 but for two, DEL,
// C1, and the marks and overrides of direction (Unicode, UAX #9).
func harmful(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < ' ', r >= 0x7f && r < 0xa0:
		return true
	}
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// A visibleWriter writes what it is given as visible shows it. Each write is to
// be of whole characters.
type visibleWriter struct{ io.Writer }

func (w visibleWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, visible(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}
