package main

import (
	"fmt"
	"io"
	"os"
	"unicode/utf8"
)

// forReader is w for what a container wrote at some time: byte for byte, but to
// a terminal with no more of its control characters than a reader needs.
func forReader(w io.Writer) io.WriteCloser {
	if f, ok := w.(*os.File); ok && isTerminal(int(f.Fd())) {
		return &calmWriter{w: w}
	}
	return &plainWriter{w}
}

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// A calmWriter writes to a terminal what may be after it: other sequences than
// those for colors and for erasing a line could retitle the terminal, fill its
// clipboard, or have it answer as if somebody typed. They are shown, as by
// visible, and so is what ends in the middle of one when the writer is closed.
type calmWriter struct {
	w    io.Writer
	held []byte // the beginning of a sequence, or of a character
}

func (c *calmWriter) Write(p []byte) (int, error) {
	shown, rest := calm(append(c.held, p...))
	c.held = append([]byte(nil), rest...)
	_, err := c.w.Write(shown)
	return len(p), err
}

func (c *calmWriter) Close() error {
	_, err := io.WriteString(c.w, visible(string(c.held)))
	c.held = nil
	return err
}

// calm is b as a terminal may have it, up to rest, of which more must be known.
func calm(b []byte) (shown, rest []byte) {
	for len(b) > 0 {
		n := harmless(b)
		if n < 0 || !utf8.FullRune(b) {
			return shown, b
		}
		if n > 0 {
			shown, b = append(shown, b[:n]...), b[n:]
			continue
		}
		r, size := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && size == 1 && b[0] < 0xa0: // C1 of a terminal of 8 bits
			shown = fmt.Appendf(shown, `\x%02x`, b[0])
		case r != '\r' && harmful(r):
			shown = fmt.Appendf(shown, `\u%04x`, r)
		default:
			shown = append(shown, b[:size]...)
		}
		b = b[size:]
	}
	return shown, nil
}

// maxSequence is longer than any sequence for colors that a program has use for.
const maxSequence = 64

// harmless is the length of the sequence for a color (SGR), or for erasing a line
// (EL), that b begins with (ECMA-48): 0 for none, -1 if b ends before it does.
func harmless(b []byte) int {
	for i, c := range b[:min(len(b), maxSequence)] {
		switch {
		case i == 0 && c == '\x1b', i == 1 && c == '[', i > 1 && c >= '0' && c <= ';': // digits, colon and semicolon
		case i > 1 && (c == 'm' || c == 'K'):
			return i + 1
		default:
			return 0
		}
	}
	if len(b) >= maxSequence {
		return 0
	}
	return -1
}
