package dns

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"rbox/slirp"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want Config
	}{
		"empty":        {"", Config{}},
		"usual":        {"nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan example.com.\n", Config{addrs("127.0.0.53"), []string{"lan", "example.com"}, []string{"edns0", "trust-ad"}}},
		"comments":     {"# a\n; b\nnameserver 10.0.0.1 # c\n", Config{Servers: addrs("10.0.0.1")}},
		"indented":     {" nameserver 10.0.0.1\n\tnameserver 10.0.0.2\n", Config{}},
		"tabs":         {"nameserver\t10.0.0.1\n", Config{Servers: addrs("10.0.0.1")}},
		"zone":         {"nameserver fe80::1%eth0\n", Config{Servers: addrs("fe80::1%eth0")}},
		"three":        {"nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n", Config{Servers: addrs("1.1.1.1", "1.1.1.2", "1.1.1.3")}},
		"no address":   {"nameserver dns.example.com\nnameserver\nnameserver 1.1.1.1", Config{Servers: addrs("1.1.1.1")}},
		"last search":  {"search a b\ndomain c d\n", Config{Search: []string{"c"}}},
		"last domain":  {"domain c\nsearch a b\n", Config{Search: []string{"a", "b"}}},
		"root":         {"search .\n", Config{}},
		"more options": {"options a\noptions b c\n", Config{Options: []string{"a", "b", "c"}}},
		"unknown":      {"sortlist 1.2.3.4\nlookup file\n", Config{}},
		"CRLF":         {"nameserver 10.0.0.1\r\n", Config{Servers: addrs("10.0.0.1")}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Parse([]byte(tc.in)); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestTimeout(t *testing.T) {
	for options, want := range map[string]time.Duration{
		"": 5 * time.Second, "timeout:2": 2 * time.Second, "timeout:0": time.Second,
		"timeout:900": 30 * time.Second, "timeout:x": 5 * time.Second,
	} {
		if got := (Config{Options: []string{options}}).timeout(); got != want {
			t.Errorf("%s: %v, want %v", options, got, want)
		}
	}
}

// FuzzParse holds that what is written is read as the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte("nameserver 127.0.0.53\noptions edns0\nsearch lan.\n"))
	f.Add([]byte("nameserver fe80::1%eth0\n;x\ndomain a b\noptions ndots:3 timeout:9\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		Parse(text)
		once := slirp.ParseResolvConf(text).Text()
		if twice := slirp.ParseResolvConf(once).Text(); !bytes.Equal(once, twice) && !bytes.Contains(once, []byte("..")) {
			t.Errorf("%q is read as %q", once, twice)
		}
	})
}

func TestHostFollowsChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "resolv.conf")
	host := Follow(path)
	expect := func(when string, want ...string) {
		t.Helper()
		if got := host.Config().Servers; !reflect.DeepEqual(got, addrs(want...)) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	write := func(name, server string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("nameserver "+server+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("missing")
	write("resolv.conf", "10.0.0.1")
	expect("made", "10.0.0.1")
	write("resolv.conf", "10.0.0.12")
	expect("rewritten", "10.0.0.12")
	write("new", "10.0.0.13")
	do(os.Rename(filepath.Join(dir, "new"), path))
	expect("renamed over", "10.0.0.13")
	do(os.Remove(path))
	expect("missing for a moment", "10.0.0.13")
	write("one", "10.0.0.14")
	do(os.Symlink("one", path))
	expect("a link", "10.0.0.14")
	write("one", "10.0.0.155")
	expect("rewritten behind the link", "10.0.0.155")
	write("two", "10.0.0.16")
	do(os.Symlink("two", path+"~"))
	do(os.Rename(path+"~", path))
	expect("another link", "10.0.0.16")
}
