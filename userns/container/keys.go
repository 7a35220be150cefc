package container

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// DefaultKeys are Docker's.
const DefaultKeys = "ctrl-p,ctrl-q"

// ParseKeys reads the keys that detach: letters, and ctrl- with a letter or one
// of @ [ \ ] ^ _, with commas between; "" is none.
func ParseKeys(text string) (keys []byte, err error) {
	if text == "" {
		return nil, nil
	}
	for _, key := range strings.Split(text, ",") {
		letter, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case !ctrl && len(key) == 1:
			keys = append(keys, key[0])
		case ctrl && len(letter) == 1 && letter[0] >= 'a' && letter[0] <= 'z':
			keys = append(keys, letter[0]-'a'+1)
		case ctrl && len(letter) == 1 && strings.Contains(`@[\]^_`, letter):
			keys = append(keys, letter[0]&0x1f)
		default:
			return nil, fmt.Errorf("--detach-keys %s: %q is no key: want letters, ctrl-a to ctrl-z, ctrl-@ ctrl-[ ctrl-\\ ctrl-] ctrl-^ ctrl-_", text, key)
		}
	}
	return keys, nil
}

// A keyReader reads what is typed until the keys come. It keeps back those
// that may be the beginning of them until another key shows that they are not.
type keyReader struct {
	r     io.Reader
	keys  []byte
	had   int // keys matched so far
	found bool
	rest  []byte
}

func (k *keyReader) Read(b []byte) (int, error) {
	for {
		if len(k.rest) > 0 {
			n := copy(b, k.rest)
			k.rest = k.rest[n:]
			return n, nil
		}
		if k.found {
			return 0, io.EOF
		}
		typed := make([]byte, max(len(b), 1))
		n, err := k.r.Read(typed)
		k.rest = k.filter(typed[:n])
		if err != nil {
			k.rest = append(k.rest, k.keys[:k.had]...)
			k.had = 0
			if len(k.rest) == 0 {
				return 0, err
			}
		}
	}
}

// filter returns what of typed is for the program.
func (k *keyReader) filter(typed []byte) (out []byte) {
	if len(k.keys) == 0 {
		return typed
	}
	for _, c := range typed {
		held := append(slices.Clone(k.keys[:k.had]), c)
		k.had = len(held)
		for !bytes.HasSuffix(held, k.keys[:k.had]) {
			k.had--
		}
		out = append(out, held[:len(held)-k.had]...)
		if k.had == len(k.keys) {
			k.found = true
			return out
		}
	}
	return out
}
