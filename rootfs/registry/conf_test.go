package registry

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

// home is an environment with all it names under one new directory.
func home(t *testing.T) (dir string, getenv func(string) string) {
	t.Helper()
	dir = t.TempDir()
	env := map[string]string{"HOME": dir, "XDG_RUNTIME_DIR": filepath.Join(dir, "run")}
	return dir, func(name string) string { return env[name] }
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func credentialsFor(t *testing.T, key, user, password string) *Credentials {
	t.Helper()
	c := FindCredentials(filepath.Join(t.TempDir(), "auth.json"), os.Getenv, func(s string) { t.Log("warning:", s) })
	if _, err := c.Store(context.Background(), key, user, password); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCredentialsLookup(t *testing.T) {
	for name, tc := range map[string]struct {
		files    map[string]string // relative to the home
		registry string
		repo     string
		want     string // user:password
		warned   bool
	}{
		"none":                 {registry: "quay.io", repo: "a/b"},
		"registry":             {files: map[string]string{".config/containers/auth.json": `{"auths":{"quay.io":{"auth":"a2ltOng="}}}`}, registry: "quay.io", repo: "a/b", want: "kim:x"},
		"colon in password":    {files: map[string]string{".config/containers/auth.json": `{"auths":{"quay.io":{"auth":"a2ltOng6eQ=="}}}`}, registry: "quay.io", repo: "a/b", want: "kim:x:y"},
		"longest":              {files: map[string]string{".config/containers/auth.json": `{"auths":{"quay.io":{"auth":"YTph"},"quay.io/a":{"auth":"YjpiCg=="},"quay.io/a/b":{"auth":"Yzpj"}}}`}, registry: "quay.io", repo: "a/b", want: "c:c"},
		"not a part of a name": {files: map[string]string{".config/containers/auth.json": `{"auths":{"quay.io/a/b":{"auth":"Yzpj"}}}`}, registry: "quay.io", repo: "a/bc"},
		"docker hub":           {files: map[string]string{".docker/config.json": `{"auths":{"https://index.docker.io/v1/":{"auth":"a2ltOng="}}}`}, registry: "docker.io", repo: "library/alpine", want: "kim:x"},
		"url":                  {files: map[string]string{".docker/config.json": `{"auths":{"https://reg.example.com:5000/v2/":{"auth":"a2ltOng="}}}`}, registry: "reg.example.com:5000", repo: "x", want: "kim:x"},
		"runtime first": {files: map[string]string{
			"run/containers/auth.json":     `{"auths":{"quay.io":{"auth":"YTph"}}}`,
			".config/containers/auth.json": `{"auths":{"quay.io":{"auth":"Yjpi"}}}`,
		}, registry: "quay.io", repo: "x", want: "a:a"},
		"empty entry passed over": {files: map[string]string{
			"run/containers/auth.json": `{"auths":{"quay.io":{}}}`,
			".docker/config.json":      `{"auths":{"quay.io":{"auth":"Yjpi"}}}`,
		}, registry: "quay.io", repo: "x", want: "b:b"},
		"broken file": {files: map[string]string{
			"run/containers/auth.json": `{"auths":`,
			".docker/config.json":      `{"auths":{"quay.io":{"auth":"Yjpi"}}}`,
		}, registry: "quay.io", repo: "x", want: "b:b", warned: true},
		"empty file":     {files: map[string]string{"run/containers/auth.json": ""}, registry: "quay.io", repo: "x"},
		"missing helper": {files: map[string]string{".docker/config.json": `{"credsStore":"no-such-helper"}`}, registry: "quay.io", repo: "x", warned: true},
		"identity token": {files: map[string]string{".docker/config.json": `{"auths":{"quay.io":{"identitytoken":"tok"}}}`}, registry: "quay.io", repo: "x", want: "token tok"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, getenv := home(t)
			for file, content := range tc.files {
				write(t, filepath.Join(dir, file), content)
			}
			warned := false
			c := FindCredentials("", getenv, func(string) { warned = true })
			got := c.Lookup(context.Background(), tc.registry, tc.repo)
			text := strings.Trim(got.Username+":"+got.Password, ":\n")
			if got.IdentityToken != "" {
				text = "token " + got.IdentityToken
			}
			if text != tc.want || warned != tc.warned {
				t.Errorf("got %q, warned %v; want %q, %v", text, warned, tc.want, tc.warned)
			}
		})
	}
}

func TestCredentialsFileFromEnvironmentIsAlone(t *testing.T) {
	dir, getenv := home(t)
	write(t, filepath.Join(dir, ".docker/config.json"), `{"auths":{"quay.io":{"auth":"YTph"}}}`)
	alone := func(name string) string {
		if name == "REGISTRY_AUTH_FILE" {
			return filepath.Join(dir, "mine.json")
		}
		return getenv(name)
	}
	c := FindCredentials("", alone, nil)
	if got := c.Lookup(context.Background(), "quay.io", "x"); got != (authn.AuthConfig{}) {
		t.Errorf("got %+v", got)
	}
	where, err := c.Store(context.Background(), "quay.io", "kim", "x")
	if err != nil || where != filepath.Join(dir, "mine.json") {
		t.Errorf("stored in %s, %v", where, err)
	}
}

func TestCredentialsStoreAndErase(t *testing.T) {
	dir, getenv := home(t)
	ctx := context.Background()
	docker := filepath.Join(dir, ".docker/config.json")
	write(t, docker, `{"HttpHeaders":{"X":"y"},"auths":{"https://index.docker.io/v1/":{"auth":"YTph"}}}`)
	c := FindCredentials("", getenv, func(s string) { t.Error(s) })

	// A new registry goes to the user's own file, readable by them alone.
	where, err := c.Store(ctx, "quay.io", "kim", "päss:wörd")
	if want := filepath.Join(dir, ".config/containers/auth.json"); err != nil || where != want {
		t.Fatalf("stored in %s, %v; want %s", where, err, want)
	}
	if info, err := os.Stat(where); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if got := c.Lookup(ctx, "quay.io", "x"); got.Username != "kim" || got.Password != "päss:wörd" {
		t.Errorf("got %+v", got)
	}
	// A known one is replaced where it is, and the rest of that file stays.
	if where, err = c.Store(ctx, "docker.io", "lee", "new"); err != nil || where != docker {
		t.Errorf("stored in %s, %v", where, err)
	}
	var doc struct {
		HttpHeaders map[string]string
		Auths       map[string]any
	}
	raw, _ := os.ReadFile(docker)
	if err := json.Unmarshal(raw, &doc); err != nil || doc.HttpHeaders["X"] != "y" || len(doc.Auths) != 1 {
		t.Errorf("%s: %v", raw, err)
	}
	if got := c.User(ctx, "docker.io"); got != "lee" {
		t.Errorf("got %q", got)
	}
	for _, step := range []struct {
		key  string
		want bool
	}{{"docker.io", true}, {"docker.io", false}} {
		if found, err := c.Erase(ctx, step.key); err != nil || found != step.want {
			t.Errorf("erase %s: %v, %v", step.key, found, err)
		}
	}
	if err := c.EraseAll(ctx); err != nil {
		t.Error(err)
	}
	if got := c.Lookup(ctx, "quay.io", "x"); got != (authn.AuthConfig{}) {
		t.Errorf("left %+v", got)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".config/containers/.auth-*"))
	if len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

func TestCredentialsThroughSymlink(t *testing.T) {
	dir, getenv := home(t)
	write(t, filepath.Join(dir, "dotfiles/auth.json"), `{}`)
	link := filepath.Join(dir, ".config/containers/auth.json")
	if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(filepath.Join(dir, "dotfiles/auth.json"), link)); err != nil {
		t.Fatal(err)
	}
	if _, err := FindCredentials("", getenv, nil).Store(context.Background(), "quay.io", "a", "b"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
}

func TestCredentialHelper(t *testing.T) {
	dir, getenv := home(t)
	helper := filepath.Join(dir, "bin/docker-credential-test")
	write(t, helper, `#!/bin/sh
store=`+filepath.Join(dir, "store")+`
case $1 in
store) cat >$store ;;
get) read -r server; grep -q "\"ServerURL\":\"$server\"" $store 2>/dev/null || { echo credentials not found in native keychain; exit 1; }; cat $store ;;
erase) rm $store ;;
esac
`)
	if err := os.Chmod(helper, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(helper)+":"+os.Getenv("PATH"))
	write(t, filepath.Join(dir, ".config/containers/auth.json"), `{"credHelpers":{"docker.io":"test"}}`)
	ctx := context.Background()
	c := FindCredentials("", getenv, func(s string) { t.Error(s) })

	if got := c.Lookup(ctx, "docker.io", "library/alpine"); got != (authn.AuthConfig{}) {
		t.Errorf("got %+v from an empty helper", got)
	}
	if where, err := c.Store(ctx, "docker.io", "kim", "secret"); err != nil || where != "docker-credential-test" {
		t.Fatalf("stored in %s, %v", where, err)
	}
	if raw, _ := os.ReadFile(filepath.Join(dir, ".config/containers/auth.json")); strings.Contains(string(raw), "secret") {
		t.Error("the password is in the file as well")
	}
	if got := c.Lookup(ctx, "docker.io", "library/alpine"); got.Username != "kim" || got.Password != "secret" {
		t.Errorf("got %+v", got)
	}
	if found, err := c.Erase(ctx, "docker.io"); !found || err != nil {
		t.Errorf("erase: %v, %v", found, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "store")); err == nil {
		t.Error("the helper was not told")
	}
}

func TestParseLogin(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "docker.io",
		"quay.io":                     "quay.io",
		"https://quay.io/v2/":         "quay.io",
		"https://index.docker.io/v1/": "docker.io",
		"index.docker.io":             "docker.io",
		"localhost:5000":              "localhost:5000",
		"registry":                    "registry",
		"quay.io/team":                "quay.io/team",
		"quay.io/team/app":            "quay.io/team/app",
		"quay.io/Team":                "",
		"quay.io/team:x y":            "",
		"-x":                          "",
		"a b":                         "",
	} {
		got, err := ParseLogin(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestConfig(t *testing.T) {
	config := new(Config)
	err := config.parse("a.conf", []byte(`
unqualified-search-registries = ["example.com"]
short-name-mode = "enforcing"
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.example.com/hub"
[[registry.mirror]]
location = "digests.example.com"
pull-from-mirror = "digest-only"
insecure = true
[[registry]]
prefix = "old.example.com/a"
location = "new.example.com/b/c"
insecure = true
[[registry]]
prefix = "old.example.com/a/closed"
blocked = true
[[registry]]
prefix = "*.wild.example.com"
insecure = true
[aliases]
tool = "quay.io/team/tool"
"a/b" = "quay.io/x/y"
gone = ""
`))
	if err != nil {
		t.Fatal(err)
	}
	digest := "@sha256:" + strings.Repeat("0", 64)
	for in, want := range map[string]string{
		"alpine":                    "mirror.example.com/hub/library/alpine registry-1.docker.io/library/alpine",
		"alpine" + digest:           "mirror.example.com/hub/library/alpine digests.example.com/library/alpine! registry-1.docker.io/library/alpine",
		"old.example.com/a/x":       "new.example.com/b/c/x!",
		"old.example.com/ab":        "old.example.com/ab",
		"quay.io/x":                 "quay.io/x",
		"r1.wild.example.com:5/x":   "r1.wild.example.com:5/x!",
		"old.example.com/a/closed":  "blocked",
		"old.example.com/a/closed2": "new.example.com/b/c/closed2!",
	} {
		list, err := config.endpoints(parseRef(t, in))
		var got []string
		for _, e := range list {
			s := e.host + "/" + e.repository
			if e.insecure {
				s += "!"
			}
			got = append(got, s)
		}
		var blocked *BlockedError
		if errors.As(err, &blocked) {
			got, err = []string{"blocked"}, nil
		}
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("%s: got %q, %v; want %s", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"tool": "quay.io/team/tool:latest", "tool:v1": "quay.io/team/tool:v1", "a/b": "quay.io/x/y:latest", "gone": "", "alpine": "", "x/tool": "",
	} {
		ref, found, err := config.Alias(in)
		if err != nil || found != (want != "") || found && ref.String() != want {
			t.Errorf("alias %s: got %s, %v, %v; want %q", in, ref, found, err, want)
		}
	}
}

func TestLoadConfig(t *testing.T) {
	dir, getenv := home(t)
	conf := filepath.Join(dir, ".config/containers/registries.conf")
	write(t, conf, "[aliases]\na = 'x.io/a'\nb = 'x.io/b'\n")
	write(t, conf+".d/10.conf", "[aliases]\nb = 'y.io/b'\n")
	write(t, conf+".d/shortnames.conf", "[aliases]\na = 'z.io/a'\n")
	write(t, conf+".d/README", "not read")
	c, err := LoadConfig(getenv)
	if err != nil {
		t.Fatal(err)
	}
	if c.aliases["a"] != "x.io/a" || c.aliases["b"] != "y.io/b" {
		t.Errorf("got %v", c.aliases)
	}
	named := func(name string) string {
		if name == "CONTAINERS_REGISTRIES_CONF" {
			return filepath.Join(dir, "missing.conf")
		}
		return getenv(name)
	}
	_, err = LoadConfig(named)
	checkError(t, err, "missing.conf", "CONTAINERS_REGISTRIES_CONF")
	for name, broken := range map[string]string{
		"syntax":      "[[registry]",
		"no location": "[[registry]]\ninsecure = true\n",
		"wrong type":  "[[registry]]\nlocation = 7\n",
	} {
		t.Run(name, func(t *testing.T) {
			write(t, conf+".d/20.conf", broken)
			_, err := LoadConfig(getenv)
			checkError(t, err, "20.conf", "registries.conf(5)")
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("[[registry]]\nprefix = 'a.b'\nlocation = 'c.d/e'\n[[registry.mirror]]\nlocation = 'x'\n[aliases]\na = 'b'\n", "a.b/c")
	f.Add("[[registry]]\nprefix = '*.b'\n", "a.b/c")
	f.Fuzz(func(t *testing.T, conf, name string) {
		c := new(Config)
		if c.parse("fuzz", []byte(conf)) != nil {
			return
		}
		ref, _, err := c.Alias(name)
		if err != nil || ref.Registry == "" {
			return
		}
		list, err := c.endpoints(ref)
		for _, e := range list {
			if err == nil && (e.host == "" || e.repository == "") {
				t.Errorf("endpoint %+v", e)
			}
		}
	})
}
