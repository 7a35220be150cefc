package image

import (
	"errors"
	"strings"
	"testing"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64":      "linux/amd64",
		"amd64":            "linux/amd64",
		"x86_64":           "linux/amd64",
		"linux/x86_64":     "linux/amd64",
		"aarch64":          "linux/arm64",
		"linux/arm64/v8":   "linux/arm64",
		"arm":              "linux/arm/v7",
		"armhf":            "linux/arm/v7",
		"linux/arm/6":      "linux/arm/v6",
		"arm/v6":           "linux/arm/v6",
		"linux/amd64/v3":   "linux/amd64/v3",
		"Linux/S390X":      "linux/s390x",
		"linux":            Host().String(),
		"windows/amd64":    "",
		"":                 "",
		"linux/":           "",
		"linux/pdp11":      "",
		"pdp11":            "",
		"linux/arm64/v8/x": "",
		"linux/a\x1bb":     "",
	} {
		t.Run(in, func(t *testing.T) {
			got, err := ParsePlatform(in)
			var bad *PlatformError
			switch {
			case want == "" && !errors.As(err, &bad):
				t.Errorf("got %v, %v; want a *PlatformError", got, err)
			case want != "" && (err != nil || got.String() != want):
				t.Errorf("got %v, %v; want %s", got, err, want)
			}
		})
	}
}

func TestSelect(t *testing.T) {
	entry := func(platform, mark string) Descriptor {
		d := Descriptor{MediaType: OCIManifest, ArtifactType: "", Annotations: map[string]string{"mark": mark}}
		if platform != "" {
			parts := strings.Split(platform, "/")
			d.Platform = &Platform{OS: parts[0], Arch: parts[1]}
			if len(parts) == 3 {
				d.Platform.Variant = parts[2]
			}
		}
		return d
	}
	nested := func(platform, mark string) Descriptor {
		d := entry(platform, mark)
		d.MediaType = OCIIndex
		return d
	}
	attestation := entry("linux/amd64", "attestation")
	attestation.Annotations["vnd.docker.reference.type"] = "attestation-manifest"

	signature, typed := entry("linux/amd64", "signature"), entry("linux/amd64", "typed")
	signature.ArtifactType, typed.ArtifactType = "application/vnd.example.signature", OCIConfig

	for name, tc := range map[string]struct {
		entries []Descriptor
		want    Platform
		mark    string // empty: none
	}{
		"exact":               {[]Descriptor{entry("linux/arm64", "arm"), entry("linux/amd64", "amd")}, Platform{"linux", "amd64", ""}, "amd"},
		"variant left out":    {[]Descriptor{entry("linux/arm64/v8", "arm")}, Platform{"linux", "arm64", ""}, "arm"},
		"best variant":        {[]Descriptor{entry("linux/arm/v5", "5"), entry("linux/arm/v6", "6")}, Platform{"linux", "arm", "v7"}, "6"},
		"too new":             {[]Descriptor{entry("linux/amd64/v3", "3"), entry("linux/amd64", "1")}, Platform{"linux", "amd64", ""}, "1"},
		"only too new":        {[]Descriptor{entry("linux/amd64/v3", "3")}, Platform{"linux", "amd64", ""}, ""},
		"newer host":          {[]Descriptor{entry("linux/amd64", "1"), entry("linux/amd64/v2", "2")}, Platform{"linux", "amd64", "v3"}, "2"},
		"32-bit sibling":      {[]Descriptor{entry("linux/386", "386"), entry("linux/arm64", "arm")}, Platform{"linux", "amd64", ""}, "386"},
		"first of equals":     {[]Descriptor{entry("linux/amd64", "a"), entry("linux/amd64", "b")}, Platform{"linux", "amd64", ""}, "a"},
		"attestation skipped": {[]Descriptor{attestation, entry("unknown/unknown", "x"), entry("linux/amd64", "a")}, Platform{"linux", "amd64", ""}, "a"},
		"only attestations":   {[]Descriptor{attestation, entry("unknown/unknown", "x")}, Platform{"linux", "amd64", ""}, ""},
		"artifact skipped":    {[]Descriptor{signature, typed}, Platform{"linux", "amd64", ""}, "typed"},
		"silent entry last":   {[]Descriptor{entry("", "silent"), entry("linux/386", "386")}, Platform{"linux", "amd64", ""}, "386"},
		"only a silent entry": {[]Descriptor{entry("", "silent")}, Platform{"linux", "amd64", ""}, "silent"},
		"image before nested": {[]Descriptor{nested("linux/amd64", "nested"), entry("linux/amd64", "a")}, Platform{"linux", "amd64", ""}, "a"},
		"nested":              {[]Descriptor{nested("", "nested")}, Platform{"linux", "amd64", ""}, "nested"},
		"windows":             {[]Descriptor{entry("windows/amd64", "w")}, Platform{"linux", "amd64", ""}, ""},
		"unknown media type":  {[]Descriptor{{MediaType: "x"}}, Platform{"linux", "amd64", ""}, ""},
		"empty":               {nil, Platform{"linux", "amd64", ""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := (&Index{Manifests: tc.entries}).Select(tc.want)
			var none *NoPlatformError
			if tc.mark == "" && (!errors.As(err, &none) || none.Hint() == "") {
				t.Errorf("got %v, %v; want a *NoPlatformError", d, err)
			}
			if d.Annotations["mark"] != tc.mark {
				t.Errorf("got %v, %v; want %q", d, err, tc.mark)
			}
		})
	}
}

func TestRuns(t *testing.T) {
	for _, tc := range []struct {
		machine, built string
		want           bool
	}{
		{"amd64", "x86_64", true},
		{"amd64", "386", true},
		{"amd64", "amd64/v3", false},
		{"amd64/v3", "amd64/v2", true},
		{"arm64", "arm/v7", true},
		{"arm/v6", "arm/v7", false},
		{"amd64", "arm64", false},
	} {
		machine, err1 := ParsePlatform(tc.machine)
		built, err2 := ParsePlatform(tc.built)
		if got := machine.Runs(built); got != tc.want || err1 != nil || err2 != nil {
			t.Errorf("%s runs %s: %v (%v, %v)", tc.machine, tc.built, got, err1, err2)
		}
	}
}
