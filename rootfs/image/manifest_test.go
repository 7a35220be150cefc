package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const someDigest = "sha256:" + hexDigits

func manifestJSON(config, layer string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},
		"layers":[{"mediaType":%q,"digest":%q,"size":3}]}`, OCIManifest, config, someDigest, layer, someDigest)
}

func indexJSON() string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":2,
		"platform":{"os":"linux","architecture":"arm","variant":"v7"}}]}`, DockerIndex, DockerManifest, someDigest)
}

func TestDecode(t *testing.T) {
	for name, tc := range map[string]struct {
		in, mediaType string
		want          string // "index", "manifest", or part of the error
		unsupported   bool
	}{
		"oci manifest":          {in: manifestJSON(OCIConfig, OCILayerGzip), want: "manifest"},
		"zstd":                  {in: manifestJSON(OCIConfig, OCILayerZstd), want: "manifest"},
		"docker manifest":       {in: manifestJSON(DockerConfig, DockerLayerGzip), want: "manifest"},
		"index":                 {in: indexJSON(), want: "index"},
		"type only from header": {in: `{"schemaVersion":2,"manifests":[]}`, mediaType: OCIIndex, want: "index"},
		"no type at all":        {in: `{"schemaVersion":2,"manifests":[]}`, want: "index"},
		"body beats header":     {in: manifestJSON(OCIConfig, OCILayer), mediaType: OCIIndex, want: "manifest"},
		"ambiguous":             {in: `{"schemaVersion":2,"manifests":[],"layers":[]}`, want: "ambiguous"},
		"type contradicts":      {in: `{"schemaVersion":2,"manifests":[]}`, mediaType: OCIManifest, want: "does not match"},
		"neither":               {in: `{"schemaVersion":2}`, want: "does not match"},
		"schema 1":              {in: `{"schemaVersion":1,"fsLayers":[]}`, want: "schema 1", unsupported: true},
		"schema 1 by header":    {in: `{}`, mediaType: dockerSchema1Signed, want: "schema 1", unsupported: true},
		"schema 3":              {in: `{"schemaVersion":3,"layers":[]}`, want: "schemaVersion is 3"},
		"chart":                 {in: manifestJSON("application/vnd.cncf.helm.config.v1+json", OCILayer), want: "no container image", unsupported: true},
		"foreign layer":         {in: manifestJSON(DockerConfig, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), want: "foreign layer", unsupported: true},
		"encrypted layer":       {in: manifestJSON(OCIConfig, OCILayerGzip+"+encrypted"), want: "encrypted", unsupported: true},
		"unknown layer":         {in: manifestJSON(OCIConfig, "text/html"), want: "not a layer's", unsupported: true},
		"bad digest":            {in: strings.ReplaceAll(manifestJSON(OCIConfig, OCILayer), hexDigits, "../../x"), want: "digest"},
		"empty digest":          {in: strings.ReplaceAll(manifestJSON(OCIConfig, OCILayer), someDigest, ""), want: "no algorithm"},
		"negative size":         {in: strings.ReplaceAll(manifestJSON(OCIConfig, OCILayer), `"size":3`, `"size":-3`), want: "-3 bytes"},
		"huge config":           {in: strings.ReplaceAll(manifestJSON(OCIConfig, OCILayer), `"size":2`, `"size":1073741824`), want: "1073741824 bytes"},
		"huge total": {in: strings.ReplaceAll(manifestJSON(OCIConfig, OCILayer), `"layers":[`,
			fmt.Sprintf(`"layers":[{"mediaType":%q,"digest":%q,"size":9223372036854775807},`, OCILayer, someDigest)), want: "add up"},
		"too many layers": {in: strings.ReplaceAll(manifestJSON(OCIConfig, OCILayer), `"layers":[`,
			`"layers":[`+strings.Repeat(`{},`, MaxLayers)), want: "4097 layers"},
		"too large":   {in: strings.Repeat(" ", MaxManifestSize+1), want: "larger than"},
		"empty":       {in: "", want: "is empty"},
		"a web page":  {in: "<html>", want: "not a JSON object"},
		"truncated":   {in: manifestJSON(OCIConfig, OCILayer)[:40], want: "not valid"},
		"wrong types": {in: `{"schemaVersion":2,"layers":7}`, want: "not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			x, m, err := Decode([]byte(tc.in), tc.mediaType)
			var unsupported *UnsupportedError
			switch {
			case tc.want == "index":
				if x == nil || m != nil || err != nil {
					t.Errorf("got %v, %v, %v; want an index", x, m, err)
				}
			case tc.want == "manifest":
				if x != nil || m == nil || err != nil {
					t.Errorf("got %v, %v, %v; want a manifest", x, m, err)
				}
			case err == nil || !strings.Contains(err.Error(), tc.want):
				t.Errorf("got %v, %v, %v; want an error with %q", x, m, err, tc.want)
			case errors.As(err, &unsupported) != tc.unsupported:
				t.Errorf("%v: *UnsupportedError is %v", err, !tc.unsupported)
			}
		})
	}
}

func TestParseConfig(t *testing.T) {
	for name, tc := range map[string]struct{ in, wantErr string }{
		"plain":         {`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + someDigest + `"]},"config":{"Cmd":["sh"]}}`, ""},
		"no layers":     {`{"os":"linux"}`, ""},
		"null command":  {`{"config":{"Cmd":null,"Entrypoint":null}}`, ""},
		"windows":       {`{"os":"windows","architecture":"amd64"}`, `"windows"`},
		"bad diff id":   {`{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}`, "diff id 1"},
		"bad type":      {`{"rootfs":{"type":"tree"}}`, "rootfs.type"},
		"NUL in Cmd":    {`{"config":{"Cmd":["a\u0000b"]}}`, "NUL"},
		"NUL in Env":    {`{"config":{"Env":["a=\u0000b"]}}`, "NUL"},
		"nameless Env":  {`{"config":{"Env":["=x"]}}`, "no name"},
		"bad time":      {`{"created":"yesterday"}`, "not valid"},
		"not an object": {`[]`, "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig([]byte(tc.in))
			if tc.wantErr == "" && err != nil || tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)) {
				t.Errorf("got %v, want %q", err, tc.wantErr)
			}
		})
	}
}

func TestConfigFields(t *testing.T) {
	c, err := ParseConfig([]byte(`{"os":"linux","architecture":"arm64","variant":"v8","created":"2024-01-02T03:04:05Z",
		"config":{"Cmd":"sh","Entrypoint":["/e","x"],"StopSignal":"SIGINT","ExposedPorts":{"80/tcp":{}},
		"Healthcheck":{"Test":["CMD","true"],"Interval":1000000000}},
		"history":[{"created_by":"ADD"},{"created_by":"CMD","empty_layer":true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Config.Cmd) != 1 || c.Config.Cmd[0] != "sh" || len(c.Config.Entrypoint) != 2 {
		t.Errorf("command %q %q", c.Config.Entrypoint, c.Config.Cmd)
	}
	if c.Platform().String() != "linux/arm64" || c.Created.Year() != 2024 || !c.History[1].EmptyLayer {
		t.Errorf("got %+v", c)
	}
	if c.Config.Healthcheck.Interval.Seconds() != 1 {
		t.Errorf("health check %+v", c.Config.Healthcheck)
	}
	if err := CheckLayers(&Manifest{Layers: make([]Descriptor, 1)}, c); err == nil {
		t.Error("one layer and no diff id pass as equal")
	}
}

func TestDigestCheck(t *testing.T) {
	d := DigestOf([]byte("x"))
	if err := d.Check("x", []byte("x")); err != nil {
		t.Error(err)
	}
	var bad *DigestError
	if err := d.Check("layer", []byte("y")); !errors.As(err, &bad) || bad.Want != d || bad.Got != DigestOf([]byte("y")) {
		t.Errorf("got %v", err)
	}
	if err := Digest("md5:00").Check("x", nil); err == nil {
		t.Error("md5 passes")
	}
	if d.Short() != string(d)[7:19] {
		t.Errorf("short form %q", d.Short())
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		manifestJSON(OCIConfig, OCILayerGzip), manifestJSON(DockerConfig, DockerLayer), indexJSON(),
		`{"schemaVersion":1,"fsLayers":[]}`, `{"schemaVersion":2,"manifests":[],"layers":[]}`,
	} {
		f.Add([]byte(s), OCIManifest)
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, raw []byte, mediaType string) {
		x, m, err := Decode(raw, mediaType)
		if (x != nil) == (m != nil) && err == nil || err != nil && (x != nil || m != nil) {
			t.Fatalf("got %v, %v, %v: not exactly one", x, m, err)
		}
		if m != nil {
			for _, d := range append(m.Layers, m.Config) {
				if d.Digest.Validate() != nil || d.Size < 0 {
					t.Fatalf("bad descriptor %+v", d)
				}
			}
			if m.Size() < 0 {
				t.Fatalf("size %d", m.Size())
			}
		}
		if x != nil {
			if d, err := x.Select(Host()); err == nil && d.Digest.Validate() != nil {
				t.Fatalf("selected %+v", d)
			}
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + someDigest + `"]},"config":{"Cmd":"sh","Env":["A=b"]}}`))
	f.Add([]byte(`{"config":{"Healthcheck":{"Test":["NONE"]}},"history":[{"empty_layer":true}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseConfig(raw)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatalf("cannot be written again: %v", err)
		}
		if _, err := ParseConfig(again); err != nil && len(again) <= MaxConfigSize {
			t.Fatalf("written again it is refused: %v\n%s", err, again)
		}
	})
}
