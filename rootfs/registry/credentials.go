package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"rbox/rootfs/image"
)

// Credentials finds and stores what registries want to know of the user, in
// the files of Podman (containers-auth.json(5)) and Docker.
type Credentials struct {
	files []string // in order of preference
	home  string   // the one that login writes to, unless another holds the registry
	warn  func(string)
}

// FindCredentials returns the credentials of file, or where it is empty of
// $REGISTRY_AUTH_FILE, alone. Where that is empty too they are those of
// $XDG_RUNTIME_DIR/containers/auth.json, $XDG_CONFIG_HOME/containers/auth.json
// and $DOCKER_CONFIG/config.json or ~/.docker/config.json, in this order. New
// ones go to the second: unlike the first it outlives the session and is there
// in a batch job. Nothing is read yet. warn may be nil.
func FindCredentials(file string, getenv func(string) string, warn func(string)) *Credentials {
	if warn == nil {
		warn = func(string) {}
	}
	if file = cmp.Or(file, getenv("REGISTRY_AUTH_FILE")); file != "" {
		return &Credentials{files: []string{file}, home: file, warn: warn}
	}
	c := &Credentials{warn: warn}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		c.files = append(c.files, filepath.Join(dir, "containers", "auth.json"))
	}
	c.home = filepath.Join(configHome(getenv), "containers", "auth.json")
	docker := cmp.Or(getenv("DOCKER_CONFIG"), filepath.Join(getenv("HOME"), ".docker"))
	c.files = append(c.files, c.home, filepath.Join(docker, "config.json"))
	return c
}

// authFile is the part of auth.json and of Docker's config.json that matters.
type authFile struct {
	Auths       map[string]authn.AuthConfig `json:"auths"`
	CredHelpers map[string]string           `json:"credHelpers"`
	CredsStore  string                      `json:"credsStore"`
}

// Lookup returns the credentials for a repository of a registry: those of the
// first file that has any, in it those of the longest key that is the
// repository, a namespace above it, or the registry. Without any it returns
// the zero AuthConfig. A file or helper that fails is passed over with a
// warning, since most images need no credentials.
func (c *Credentials) Lookup(ctx context.Context, registry, repository string) authn.AuthConfig {
	for _, file := range c.files {
		f, err := readAuthFile(file)
		if err != nil {
			c.warn(err.Error())
			continue
		}
		auth, err := f.lookup(ctx, registry, repository)
		if err != nil {
			c.warn(fmt.Sprintf("%s: %v", file, err))
		}
		if auth != (authn.AuthConfig{}) {
			return auth
		}
	}
	return authn.AuthConfig{}
}

func (f *authFile) lookup(ctx context.Context, registry, repository string) (authn.AuthConfig, error) {
	if helper := f.CredHelpers[registry]; helper != "" {
		if auth, err := helperGet(ctx, helper, registry); err != nil || auth != (authn.AuthConfig{}) {
			return auth, err
		}
	}
	for _, key := range authKeys(registry, repository) {
		for written, auth := range f.Auths {
			if normalKey(written) == key && auth != (authn.AuthConfig{}) {
				return auth, nil
			}
		}
	}
	if f.CredsStore != "" {
		return helperGet(ctx, f.CredsStore, registry)
	}
	return authn.AuthConfig{}, nil
}

// authKeys lists the keys that cover a repository, longest first.
func authKeys(registry, repository string) []string {
	var keys []string
	for path := repository; path != ""; {
		keys = append(keys, registry+"/"+path)
		i := strings.LastIndexByte(path, '/')
		path = path[:max(i, 0)]
	}
	return append(keys, registry)
}

// normalKey brings the ways to write a key to one: Docker writes
// "https://index.docker.io/v1/" for Docker Hub, old tools URLs for any.
func normalKey(key string) string {
	bare, isURL := strings.CutPrefix(key, "https://")
	if !isURL {
		bare, isURL = strings.CutPrefix(key, "http://")
	}
	host, path, _ := strings.Cut(bare, "/")
	if isURL || path == "v1/" || path == "v2/" {
		path = ""
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		host = image.DefaultRegistry
	}
	if path = strings.Trim(path, "/"); path != "" {
		return host + "/" + path
	}
	return host
}

func readAuthFile(file string) (*authFile, error) {
	f := new(authFile)
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.TrimSpace(raw)) == 0 {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if err := json.Unmarshal(raw, f); err != nil {
		return nil, fmt.Errorf("credentials: %s: %w", file, err)
	}
	return f, nil
}

// helperServer is the name that credential helpers know a registry by.
func helperServer(registry string) string {
	if registry == image.DefaultRegistry {
		return authn.DefaultAuthKey
	}
	return registry
}

// notFoundByHelper is what all helpers print when they have no entry
// (docker-credential-helpers' credentials/error.go), with status 1.
const notFoundByHelper = "credentials not found in native keychain"

// helperGet asks docker-credential-NAME. No entry is no error.
func helperGet(ctx context.Context, name, registry string) (authn.AuthConfig, error) {
	out, err := runHelper(ctx, name, "get", []byte(helperServer(registry)))
	if err != nil {
		if strings.Contains(err.Error(), notFoundByHelper) {
			err = nil
		}
		return authn.AuthConfig{}, err
	}
	var entry struct{ Username, Secret string }
	if err := json.Unmarshal(out, &entry); err != nil {
		return authn.AuthConfig{}, fmt.Errorf("docker-credential-%s get: %w", name, err)
	}
	if entry.Username == "<token>" {
		return authn.AuthConfig{IdentityToken: entry.Secret}, nil
	}
	return authn.AuthConfig{Username: entry.Username, Password: entry.Secret}, nil
}

// runHelper runs one command of a credential helper. Its errors never hold
// what was sent.
func runHelper(ctx context.Context, name, command string, stdin []byte) ([]byte, error) {
	program := "docker-credential-" + name
	if strings.ContainsRune(name, '/') {
		return nil, fmt.Errorf("credential helper %q: its name holds a slash", name)
	}
	cmd := exec.CommandContext(ctx, program, command)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stdout.String() + " " + stderr.String())
		if said == "" || errors.Is(err, exec.ErrNotFound) {
			said = err.Error()
		}
		return nil, fmt.Errorf("%s %s: %s", program, command, oneLine(said))
	}
	return stdout.Bytes(), nil
}

// Store keeps user and password for key, a registry or a registry with a
// namespace, and returns where: a file's name or a helper's. They replace an
// earlier entry where it is, so that no other is found before them.
func (c *Credentials) Store(ctx context.Context, key, user, password string) (where string, err error) {
	file, err := c.fileFor(key)
	if err != nil {
		return "", err
	}
	f, err := readAuthFile(file)
	if err != nil {
		return "", err
	}
	if helper := cmp.Or(f.CredHelpers[key], f.CredsStore); helper != "" {
		entry := struct{ ServerURL, Username, Secret string }{helperServer(key), user, password}
		in, err := json.Marshal(entry)
		if err != nil {
			return "", err
		}
		_, err = runHelper(ctx, helper, "store", in)
		return "docker-credential-" + helper, err
	}
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return file, editAuths(file, func(auths map[string]json.RawMessage) error {
		dropKey(auths, key)
		entry, err := json.Marshal(map[string]string{"auth": auth})
		auths[key] = entry
		return err
	})
}

// fileFor returns the first file that has an entry for key, else the home.
func (c *Credentials) fileFor(key string) (string, error) {
	for _, file := range c.files {
		f, err := readAuthFile(file)
		if err != nil {
			if file == c.home {
				return "", err
			}
			continue
		}
		if f.has(key) {
			return file, nil
		}
	}
	return c.home, nil
}

func (f *authFile) has(key string) bool {
	if f.CredHelpers[key] != "" {
		return true
	}
	for written := range f.Auths {
		if normalKey(written) == key {
			return true
		}
	}
	return false
}

// Erase forgets key everywhere, and says whether it was anywhere.
func (c *Credentials) Erase(ctx context.Context, key string) (found bool, err error) {
	for _, file := range c.files {
		f, readErr := readAuthFile(file)
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		if helper := cmp.Or(f.CredHelpers[key], f.CredsStore); helper != "" {
			auth, getErr := helperGet(ctx, helper, key)
			if getErr == nil && auth != (authn.AuthConfig{}) {
				found = true
				_, getErr = runHelper(ctx, helper, "erase", []byte(helperServer(key)))
			}
			err = errors.Join(err, getErr)
		}
		if !f.has(key) {
			continue
		}
		err = errors.Join(err, editAuths(file, func(auths map[string]json.RawMessage) error {
			if dropKey(auths, key) {
				found = true
			}
			return nil
		}))
	}
	return found, err
}

// EraseAll forgets every registry of every file, those kept by helpers too.
func (c *Credentials) EraseAll(ctx context.Context) error {
	keys := make(map[string]bool)
	var failed error
	for _, file := range c.files {
		f, err := readAuthFile(file)
		failed = errors.Join(failed, err)
		if err != nil {
			continue
		}
		for key := range f.Auths {
			keys[normalKey(key)] = true
		}
		for key := range f.CredHelpers {
			keys[key] = true
		}
	}
	for key := range keys {
		_, err := c.Erase(ctx, key)
		failed = errors.Join(failed, err)
	}
	return failed
}

// User returns the name that is stored for key itself, or "".
func (c *Credentials) User(ctx context.Context, key string) string {
	registry, repository, _ := strings.Cut(key, "/")
	return c.Lookup(ctx, registry, repository).Username
}

func dropKey(auths map[string]json.RawMessage, key string) (found bool) {
	for written := range auths {
		if normalKey(written) == key {
			delete(auths, written)
			found = true
		}
	}
	return found
}

// editAuths changes the "auths" of file and keeps whatever else is in it. The
// new file is complete or absent, and readable by its owner alone.
func editAuths(file string, edit func(map[string]json.RawMessage) error) error {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target // a link into a repository of dot files stays one
	}
	doc := make(map[string]json.RawMessage)
	raw, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("credentials: %w", err)
	}
	if len(bytes.TrimSpace(raw)) > 0 {
		if err := json.Unmarshal(raw, &doc); err != nil {
			return fmt.Errorf("credentials: %s: %w", file, err)
		}
	}
	auths := make(map[string]json.RawMessage)
	if old := doc["auths"]; old != nil {
		if err := json.Unmarshal(old, &auths); err != nil {
			return fmt.Errorf("credentials: %s: auths: %w", file, err)
		}
	}
	if auths == nil { // "auths": null
		auths = make(map[string]json.RawMessage)
	}
	if err := edit(auths); err != nil {
		return err
	}
	if doc["auths"], err = json.Marshal(auths); err != nil {
		return err
	}
	out, err := json.MarshalIndent(doc, "", "\t")
	if err != nil {
		return err
	}
	if err := replaceFile(file, append(out, '\n')); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	return nil
}

func replaceFile(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".auth-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once it is renamed, as it should
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
