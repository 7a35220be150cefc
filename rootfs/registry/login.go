package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"rbox/rootfs/image"
)

// ParseLogin reads what login and logout are given: a registry, a registry
// with a namespace or repository, or a URL of one. Empty is Docker Hub. The
// result is the key of Credentials.
func ParseLogin(s string) (key string, err error) {
	if s == "" {
		return image.DefaultRegistry, nil
	}
	key = normalKey(s)
	host, path, _ := strings.Cut(key, "/")
	if !image.IsRegistry(host) {
		return "", &LoginNameError{Name: s}
	}
	if path != "" {
		if _, err := image.ParseReference("example.com/" + path); err != nil {
			return "", &LoginNameError{Name: s}
		}
	}
	return key, nil
}

// LoginNameError reports an argument of login or logout that names no registry.
type LoginNameError struct{ Name string }

func (e *LoginNameError) Error() string {
	return fmt.Sprintf("%q is not the name of a registry", e.Name)
}

// Hint is what the user can do.
func (e *LoginNameError) Hint() string {
	return "registries look like docker.io, quay.io or registry.example.com:5000"
}

// Login checks user and password with the registry that key, of ParseLogin,
// starts with, and stores them nowhere. A registry that asks for no login
// accepts them all.
func (c *Client) Login(ctx context.Context, key, user, password string) error {
	registry, repository, _ := strings.Cut(key, "/")
	e := newEndpoint(registry, repository)
	if r, found := c.o.Config.match(key); found {
		e.insecure = r.Insecure
	}
	if c.o.TLSVerify != nil {
		e.insecure = !*c.o.TLSVerify
	}
	client, who, err := c.connect(ctx, e, authn.AuthConfig{Username: user, Password: password})
	if err == nil {
		err = ping(ctx, client, e)
	}
	return explain(e, registry, who, err)
}

// ping asks whether the registry lets us in.
func ping(ctx context.Context, client *http.Client, e endpoint) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+e.host+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusOK)
}
