package image

import (
	"errors"
	"strings"
	"testing"
)

const hexDigits = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseReference(t *testing.T) {
	for in, tc := range map[string]struct {
		want     Reference
		familiar string
	}{
		"alpine":                     {Reference{"docker.io", "library/alpine", "latest", ""}, "alpine:latest"},
		"alpine:3.20":                {Reference{"docker.io", "library/alpine", "3.20", ""}, "alpine:3.20"},
		"docker://alpine":            {Reference{"docker.io", "library/alpine", "latest", ""}, "alpine:latest"},
		"docker.io/alpine":           {Reference{"docker.io", "library/alpine", "latest", ""}, "alpine:latest"},
		"index.docker.io/alpine":     {Reference{"docker.io", "library/alpine", "latest", ""}, "alpine:latest"},
		"docker.io/library/alpine":   {Reference{"docker.io", "library/alpine", "latest", ""}, "alpine:latest"},
		"kim/tool":                   {Reference{"docker.io", "kim/tool", "latest", ""}, "kim/tool:latest"},
		"library/a/b":                {Reference{"docker.io", "library/a/b", "latest", ""}, "library/a/b:latest"},
		"localhost/x":                {Reference{"localhost", "x", "latest", ""}, "localhost/x:latest"},
		"localhost:5000/x":           {Reference{"localhost:5000", "x", "latest", ""}, "localhost:5000/x:latest"},
		"127.0.0.1:5000/a/b:v1":      {Reference{"127.0.0.1:5000", "a/b", "v1", ""}, "127.0.0.1:5000/a/b:v1"},
		"[::1]:5000/x":               {Reference{"[::1]:5000", "x", "latest", ""}, "[::1]:5000/x:latest"},
		"[fd00::1]/x":                {Reference{"[fd00::1]", "x", "latest", ""}, "[fd00::1]/x:latest"},
		"NODE1/x":                    {Reference{"NODE1", "x", "latest", ""}, "NODE1/x:latest"},
		"quay.io/a__b/c--d.e":        {Reference{"quay.io", "a__b/c--d.e", "latest", ""}, "quay.io/a__b/c--d.e:latest"},
		"a:_x.Y-z":                   {Reference{"docker.io", "library/a", "_x.Y-z", ""}, "a:_x.Y-z"},
		"a@sha256:" + hexDigits:      {Reference{"docker.io", "library/a", "", "sha256:" + hexDigits}, "a@sha256:" + hexDigits},
		"a:1@sha256:" + hexDigits:    {Reference{"docker.io", "library/a", "1", "sha256:" + hexDigits}, "a:1@sha256:" + hexDigits},
		"localhost:1/a/" + hexDigits: {Reference{"localhost:1", "a/" + hexDigits, "latest", ""}, "localhost:1/a/" + hexDigits + ":latest"},
		"x.io/a:" + hexDigits[:63]:   {Reference{"x.io", "a", hexDigits[:63], ""}, "x.io/a:" + hexDigits[:63]},
		"docker.io/localhost/x":      {Reference{"docker.io", "localhost/x", "latest", ""}, "docker.io/localhost/x:latest"},
		"a@sha512:" + hexDigits + hexDigits: {Reference{"docker.io", "library/a", "", "sha512:" + hexDigits + hexDigits},
			"a@sha512:" + hexDigits + hexDigits},
	} {
		t.Run(in, func(t *testing.T) {
			got, err := ParseReference(in)
			if err != nil || got != tc.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
			}
			if got.Familiar() != tc.familiar {
				t.Errorf("familiar %q, want %q", got.Familiar(), tc.familiar)
			}
			for _, s := range []string{got.String(), got.Familiar()} {
				if again, err := ParseReference(s); again != got || err != nil {
					t.Errorf("%q reads back as %+v, %v", s, again, err)
				}
			}
		})
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "is empty",
		"Alpine":                                 "all lower case",
		"docker.io/Alpine":                       "all lower case",
		"quay.io/":                               "component of the name is empty",
		"a//b":                                   "component of the name is empty",
		"a/":                                     "component of the name is empty",
		"a:":                                     "tag after the colon is empty",
		"a:b:c":                                  "may hold only",
		"a:-x":                                   "the tag",
		"a:x y":                                  "the tag",
		"a___b":                                  "may hold only",
		"a._b":                                   "may hold only",
		"-a":                                     "dash",
		"_a":                                     "may hold only",
		"a-":                                     "may hold only",
		"a b":                                    "may hold only",
		"a\x00b":                                 "may hold only",
		"ä":                                      "may hold only",
		"a@sha256:12":                            "2 digits, not 64",
		"a@md5:12":                               "neither sha256 nor sha512",
		"a@12":                                   "no algorithm",
		"a@":                                     "no algorithm",
		"a@sha256:" + strings.ToUpper(hexDigits): "lower-case hexadecimal",
		hexDigits:                                "by id",
		"https://quay.io/a":                      "no scheme",
		"./rootfs":                               "a path",
		"x.io:99999/a":                           "host[:port]",
		"x.io:/a":                                "host[:port]",
		":5000/a":                                "host[:port]",
		"-x.io/a":                                "dash",
		"x..io/a":                                "host[:port]",
		"[::1/a":                                 "host[:port]",
		"[x]:1/a":                                "host[:port]",
		"a/" + strings.Repeat("b", 255):          "bytes long",
		"a:" + strings.Repeat("b", 129):          "the tag is 129 bytes",
		"../../etc/passwd":                       "a path",
		"x.io/../a":                              "may hold only",
		"x.io/a\x1b[31m":                         "may hold only",
	} {
		t.Run(in, func(t *testing.T) {
			got, err := ParseReference(in)
			var bad *ReferenceError
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
				t.Fatalf("got %+v, %v; want an error with %q", got, err, want)
			}
			if bad.Hint() == "" || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Errorf("error %q, hint %q", err, bad.Hint())
			}
		})
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{
		"alpine", "a/b:c", "localhost:5000/x@sha256:" + hexDigits, "[::1]:5000/x", "A", "a:b@c", "docker://docker.io/x",
		"docker.io/localhost/x", "a__b---c.d", "docker.io/library/x/y", "index.docker.io/A.b/c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Errorf("%q: raw control characters in %q", s, err)
			}
			return
		}
		if r.Tag == "" && r.Digest == "" || r.Registry == "" || r.Repository == "" {
			t.Fatalf("%q: incomplete %+v", s, r)
		}
		for _, form := range []string{r.String(), r.Familiar()} {
			if again, err := ParseReference(form); err != nil || again != r {
				t.Fatalf("%q: %q reads back as %+v, %v; want %+v", s, form, again, err, r)
			}
		}
		if strings.Contains("/"+r.Repository+"/", "/../") || strings.ContainsAny(r.String(), " \\\x00") {
			t.Fatalf("%q: unsafe %+v", s, r)
		}
	})
}
