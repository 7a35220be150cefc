// Package registry fetches images from registries that speak the OCI
// distribution protocol, and logs in to them.
package registry

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"rbox/rootfs/image"
)

// Options say how a Client treats registries. The zero value will do for
// anonymous pulls from a machine without configuration.
type Options struct {
	Config      *Config      // registries.conf; nil is none
	Credentials *Credentials // nil is none
	TLSVerify   *bool        // false: any certificate and plain HTTP will do; true: never; nil: as Config says
	CertDirs    []string     // certs.d directories, as of CertDirs
	UserAgent   string       // sent with each request, as in "rbox/1.0"
	Warn        func(string) // told of long waits and passed-over mirrors; from any goroutine; nil: nobody
	Retries     int          // after a failed attempt that may pass; 0 is the default of 5, negative is none

	backoff time.Duration // first wait between attempts; 0 is half a second
	stall   time.Duration // a body that is silent for so long is asked for again; 0 is 30 s
}

// CertDirs returns the directories in which containers-certs.d(5) and Docker
// look for a registry's certificates, the user's first.
func CertDirs(getenv func(string) string) []string {
	return []string{
		filepath.Join(configHome(getenv), "containers", "certs.d"),
		"/etc/containers/certs.d",
		"/etc/docker/certs.d",
	}
}

// Client talks to registries. Its methods may be called side by side.
type Client struct {
	o                Options
	pace             pace
	secure, insecure *hosts

	mu       sync.Mutex
	sessions map[endpoint]*session
	served   map[string]int // by repository, which endpoint answered last
}

// New returns a Client. It does nothing yet.
func New(o Options) *Client {
	o.Config = cmp.Or(o.Config, new(Config))
	o.Credentials = cmp.Or(o.Credentials, &Credentials{})
	o.UserAgent = cmp.Or(o.UserAgent, "rbox")
	o.Retries = cmp.Or(o.Retries, 5)
	o.backoff = cmp.Or(o.backoff, 500*time.Millisecond)
	o.stall = cmp.Or(o.stall, 30*time.Second)
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return &Client{
		o:        o,
		pace:     pace{retries: o.Retries, base: o.backoff, warn: o.Warn},
		secure:   newHosts(false, o.CertDirs),
		insecure: newHosts(true, o.CertDirs),
		sessions: make(map[endpoint]*session),
		served:   make(map[string]int),
	}
}

// each calls try for the places that may hold ref, until one succeeds, the one
// that served this repository before first. What mirrors fail with is only told.
func (c *Client) each(ctx context.Context, ref image.Reference, try func(endpoint, *session) error) error {
	list, err := c.o.Config.endpoints(ref)
	if err != nil {
		return err
	}
	c.mu.Lock()
	start := c.served[ref.Name()] % len(list)
	c.mu.Unlock()
	var failure error
	for n := range list {
		i := (start + n) % len(list)
		e := list[i]
		s, err := c.session(ctx, e, ref.Familiar())
		if err == nil {
			err = explain(e, ref.Familiar(), s.login, try(e, s))
		}
		if err == nil {
			c.mu.Lock()
			c.served[ref.Name()] = i
			c.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.mirror {
			c.o.Warn(fmt.Sprintf("mirror passed over: %v", err))
		}
		if failure == nil || !e.mirror {
			failure = err
		}
	}
	return failure
}
