package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"rbox/rootfs/image"
)

// Limits on lists of tags.
const (
	maxTagsPage = 4 << 20 // bytes
	maxTagPages = 1000
)

// Tags returns all tags of ref's repository, in the registry's order.
func (c *Client) Tags(ctx context.Context, ref image.Reference) ([]string, error) {
	var tags []string
	err := c.each(ctx, ref, func(e endpoint, s *session) error {
		tags = nil
		next := fmt.Sprintf("https://%s/v2/%s/tags/list?n=1000", e.host, e.repository)
		for range maxTagPages {
			page, link, err := tagsPage(ctx, s.http, next)
			if err != nil {
				return err
			}
			tags = append(tags, page...)
			if link == "" || len(page) == 0 {
				return nil
			}
			if next, err = nextPage(e, next, link); err != nil {
				return err
			}
		}
		return fmt.Errorf("the list of tags has more than %d pages", maxTagPages)
	})
	for _, tag := range tags {
		if _, err := image.ParseReference("x:" + tag); err != nil {
			return nil, &ManifestError{Image: ref.Familiar(), err: fmt.Errorf("the registry lists a tag that is none: %w", err)}
		}
	}
	return tags, err
}

func tagsPage(ctx context.Context, client *http.Client, url string) (tags []string, link string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	var page struct{ Tags []string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTagsPage)).Decode(&page); err != nil {
		return nil, "", fmt.Errorf("list of tags: %w", err)
	}
	return page.Tags, resp.Header.Get("Link"), nil
}

// nextPage reads a header like `</v2/x/tags/list?last=b>; rel="next"`. The
// next page must be of the same registry.
func nextPage(e endpoint, current, link string) (string, error) {
	target, _, found := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	base, err := url.Parse(current)
	if err != nil {
		return "", err
	}
	u, err := base.Parse(target)
	if err != nil || !found || u.Host != e.host {
		return "", fmt.Errorf("the list of tags goes on at %q, which is not of this registry", oneLine(link))
	}
	u.Scheme = base.Scheme
	return u.String(), nil
}
