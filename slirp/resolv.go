package slirp

import (
	"net/netip"
	"strings"
)

// maxServers is MAXNS of <resolv.h>: the C library reads no more.
const maxServers = 3

// ParseResolvConf reads a resolv.conf as the C library does (resolv.conf(5)):
// keywords begin a line, the last of search and domain counts, and what it does
// not know it passes over. Domains come without their final dots.
func ParseResolvConf(text []byte) (r Resolver) {
	for line := range strings.Lines(string(text)) {
		if line[0] == '#' || line[0] == ';' || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			if _, err := netip.ParseAddr(words[1]); err == nil && len(r.Servers) < maxServers {
				r.Servers = append(r.Servers, words[1])
			}
		case "domain":
			r.Search = domains(words[1:2])
		case "search":
			r.Search = domains(words[1:])
		case "options":
			r.Options = append(r.Options, words[1:]...)
		}
	}
	return r
}

// domains is words without final dots; the root, which is searched anyway, is left out.
func domains(words []string) (list []string) {
	for _, w := range words {
		if w = strings.TrimSuffix(w, "."); w != "" {
			list = append(list, w)
		}
	}
	return list
}

// Text is a resolv.conf that says r.
func (r Resolver) Text() []byte {
	var b []byte
	for _, s := range r.Servers {
		b = append(append(append(b, "nameserver "...), s...), '\n')
	}
	if len(r.Search) > 0 {
		b = append(append(append(b, "search "...), strings.Join(r.Search, " ")...), '\n')
	}
	if len(r.Options) > 0 {
		b = append(append(append(b, "options "...), strings.Join(r.Options, " ")...), '\n')
	}
	return b
}
