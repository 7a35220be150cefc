package image

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Digest names bytes by their hash, as in "sha256:9f86d0…": an algorithm, a
// colon and lower-case hexadecimal digits. The empty Digest is none.
type Digest string

// ParseDigest returns s as a Digest, or an error that quotes s if it is not
// the full hash of an algorithm that rbox can verify: sha256 or sha512.
func ParseDigest(s string) (Digest, error) {
	d := Digest(s)
	if err := d.Validate(); err != nil {
		return "", err
	}
	return d, nil
}

// DigestOf returns the sha256 digest of b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// DigestFrom returns the digest of the bytes written to h, which came from
// d.Hash: it equals d if they are the bytes that d names.
func (d Digest) DigestFrom(h hash.Hash) Digest {
	return Digest(d.Algorithm() + ":" + hex.EncodeToString(h.Sum(nil)))
}

// Algorithm returns what stands before the colon.
func (d Digest) Algorithm() string {
	algorithm, _, _ := strings.Cut(string(d), ":")
	return algorithm
}

// Hex returns the digits, without the algorithm. It is safe as a file name
// once d is valid.
func (d Digest) Hex() string {
	_, digits, _ := strings.Cut(string(d), ":")
	return digits
}

// Short returns the first twelve digits, as listings show them.
func (d Digest) Short() string {
	digits := d.Hex()
	return digits[:min(12, len(digits))]
}

// Hash returns a new hash of d's algorithm, or nil if d is not valid.
func (d Digest) Hash() hash.Hash {
	switch d.Algorithm() {
	case "sha256":
		return sha256.New()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// Validate returns an error that quotes d unless it is complete and of an
// algorithm that rbox can verify.
func (d Digest) Validate() error {
	algorithm, digits, found := strings.Cut(string(d), ":")
	if !found {
		return fmt.Errorf("digest %s has no algorithm, as in sha256:…", quote(string(d)))
	}
	var want int
	switch algorithm {
	case "sha256":
		want = 2 * sha256.Size
	case "sha512":
		want = 2 * sha512.Size
	default:
		return fmt.Errorf("digest %s is neither sha256 nor sha512", quote(string(d)))
	}
	if len(digits) != want {
		return fmt.Errorf("digest %s has %d digits, not %d", quote(string(d)), len(digits), want)
	}
	if !isLowerHex(digits) {
		return fmt.Errorf("digest %s is not lower-case hexadecimal", quote(string(d)))
	}
	return nil
}

// Check returns a *DigestError unless b hashes to d. what names b in it.
func (d Digest) Check(what string, b []byte) error {
	h := d.Hash()
	if h == nil {
		return d.Validate()
	}
	h.Write(b)
	if got := d.DigestFrom(h); got != d {
		return &DigestError{What: what, Want: d, Got: got}
	}
	return nil
}

// DigestError reports bytes that are not those that a digest names.
type DigestError struct {
	What      string // what the bytes are, as in "manifest of alpine:latest"
	Want, Got Digest
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s: the content is %s, not %s as announced", e.What, e.Got, e.Want)
}

// Hint is what the user can do.
func (e *DigestError) Hint() string {
	return "a proxy or the registry altered the content: try again, or ask whoever runs it"
}

func isLowerHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// quote quotes s for an error, shortened so that hostile input cannot fill the screen.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
