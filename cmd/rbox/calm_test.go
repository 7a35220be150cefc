package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestCalmWriter(t *testing.T) {
	for in, want := range map[string]string{
		"plain\tä\r\n":                           "plain\tä\r\n",
		"\x1b[31;1mred\x1b[m\x1b[K":              "\x1b[31;1mred\x1b[m\x1b[K",
		"\x1b[38:2::1:2:3mtrue color":            "\x1b[38:2::1:2:3mtrue color",
		"\x1b]0;OWNED\a":                         `\u001b]0;OWNED\u0007`,
		"\x1b]52;c;eA==\x1b\\":                   `\u001b]52;c;eA==\u001b\`,
		"\x1b[6n\x1b[c\x1bZ\x1bc":                `\u001b[6n\u001b[c\u001bZ\u001bc`,
		"\x1b[2J\x1b[1;1H":                       `\u001b[2J\u001b[1;1H`,
		"\x1bP+q544e\x1b\\":                      `\u001bP+q544e\u001b\`,
		"\x1b\x1b[31m":                           `\u001b` + "\x1b[31m",
		"\u009b6n \u202e":                        `\u009b6n \u202e`,
		"\x9b6n \xff \xe4":                       `\x9b6n ` + "\xff \xe4", // the last may be the first byte of a character
		"cut \x1b[3":                             `cut \u001b[3`,
		"cut \x1b":                               `cut \u001b`,
		"\x1b[" + strings.Repeat("1", 100) + "m": `\u001b[` + strings.Repeat("1", 100) + "m",
	} {
		for size := 1; size <= len(in); size++ { // however it comes
			var out bytes.Buffer
			w := &calmWriter{w: &out}
			for rest := in; rest != ""; {
				n, err := w.Write([]byte(rest[:min(size, len(rest))]))
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if out.String() != want {
				t.Errorf("%q, %d bytes at a time: %q, want %q", in, size, out.String(), want)
				break
			}
		}
	}
}

// FuzzCalm: a terminal gets no escape but for what is harmless, and the same
// however the bytes come.
func FuzzCalm(f *testing.F) {
	f.Add([]byte("a\x1b[31mb\x1b]0;x\a\x9b\xc2"), 3)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		at = min(max(at, 0), len(in))
		var whole, parts bytes.Buffer
		for _, c := range []struct {
			out *bytes.Buffer
			in  [][]byte
		}{{&whole, [][]byte{in}}, {&parts, [][]byte{in[:at], in[at:]}}} {
			w := &calmWriter{w: c.out}
			for _, b := range c.in {
				if _, err := w.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
		}
		if !bytes.Equal(whole.Bytes(), parts.Bytes()) {
			t.Errorf("%q in two parts is %q", whole.Bytes(), parts.Bytes())
		}
		for b := whole.Bytes(); len(b) > 0; b = b[1:] {
			if b[0] == '\x1b' && harmless(b) <= 0 || b[0] < ' ' && !bytes.ContainsRune([]byte("\x1b\t\n\r"), rune(b[0])) {
				t.Errorf("%q shows %q", in, b)
			}
		}
	})
}
