package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"rbox/slirp"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestCreate(t *testing.T) {
	web := Network{Name: "web", Plan: slirp.Plan{Subnet: prefix("10.89.0.0/24"), Subnet6: prefix("fd12::/64")}}
	for name, tc := range map[string]struct {
		plan    slirp.Plan
		routes  []netip.Prefix
		want    string // subnet, gateway, and those of IPv6
		wantErr string
	}{
		"the next":         {plan: slirp.Plan{IPv4Only: true}, want: "10.89.1.0/24 10.89.1.1 "},
		"past routes":      {plan: slirp.Plan{IPv4Only: true}, routes: []netip.Prefix{prefix("10.89.0.0/22")}, want: "10.89.4.0/24 10.89.4.1 "},
		"past many":        {plan: slirp.Plan{IPv4Only: true}, routes: []netip.Prefix{prefix("10.64.0.0/10"), prefix("10.128.0.0/16")}, want: "10.129.0.0/24 10.129.0.1 "},
		"given":            {plan: slirp.Plan{IPv4Only: true, Subnet: prefix("192.168.7.0/24"), Gateway: netip.MustParseAddr("192.168.7.254")}, want: "192.168.7.0/24 192.168.7.254 "},
		"IPv6 given":       {plan: slirp.Plan{Subnet6: prefix("fd77::/64")}, want: "10.89.1.0/24 10.89.1.1 fd77::/64 fd77::1"},
		"a range":          {plan: slirp.Plan{IPv4Only: true, Subnet: prefix("10.90.0.0/16"), Range: prefix("10.90.5.0/24")}, want: "10.90.0.0/16 10.90.0.1 "},
		"overlaps":         {plan: slirp.Plan{IPv4Only: true, Subnet: prefix("10.88.0.0/15")}, wantErr: "subnet 10.88.0.0/15 overlaps 10.89.0.0/24 of network web"},
		"overlaps, IPv6":   {plan: slirp.Plan{Subnet6: prefix("fd12::/48")}, wantErr: "subnet fd12::/48 overlaps fd12::/64 of network web"},
		"a route":          {plan: slirp.Plan{IPv4Only: true, Subnet: prefix("172.17.0.0/16")}, routes: []netip.Prefix{prefix("172.17.0.0/16")}, wantErr: "subnet 172.17.0.0/16 overlaps 172.17.0.0/16 of this host's routes"},
		"exhausted":        {plan: slirp.Plan{IPv4Only: true}, routes: []netip.Prefix{prefix("10.0.0.0/8")}, wantErr: "all subnets of networks, 10.89.0.0/24 to 10.255.255.0/24, are in use"},
		"a gateway abroad": {plan: slirp.Plan{IPv4Only: true, Subnet: prefix("192.168.7.0/24"), Gateway: netip.MustParseAddr("192.168.8.1")}, wantErr: "gateway 192.168.8.1 is no address of subnet 192.168.7.0/24"},
		"broadcast":        {plan: slirp.Plan{IPv4Only: true, Subnet: prefix("192.168.7.0/24"), Gateway: netip.MustParseAddr("192.168.7.255")}, wantErr: "gateway 192.168.7.255 is no address of subnet 192.168.7.0/24"},
		"a range abroad":   {plan: slirp.Plan{IPv4Only: true, Subnet: prefix("192.168.7.0/24"), Range: prefix("192.168.0.0/16")}, wantErr: "range 192.168.0.0/16 is not in subnet 192.168.7.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Store{t.TempDir()}
			if _, err := s.Create(web, nil); err != nil {
				t.Fatal(err)
			}
			made, err := s.Create(Network{Name: "new", Plan: tc.plan}, tc.routes)
			if text(err) != tc.wantErr {
				t.Fatalf("%v; want %q", err, tc.wantErr)
			}
			read, readErr := s.Get("new")
			if err != nil {
				if !errors.As(readErr, new(*NotFoundError)) {
					t.Errorf("it was made: %+v, %v", read, readErr)
				}
				return
			}
			p := read.Plan
			got := p.Subnet.String() + " " + p.Gateway.String() + " "
			if p.Subnet6.IsValid() {
				got += p.Subnet6.String() + " " + p.Gateway6.String()
			}
			if readErr != nil || got != tc.want || read.ID != made.ID || len(read.ID) != 64 || p.Name != "new" {
				t.Errorf("%q, %+v, %v; want %q", got, read, readErr, tc.want)
			}
		})
	}
}

func TestUniqueLocal(t *testing.T) {
	s := &Store{t.TempDir()}
	n, err := s.Create(Network{Name: "six"}, nil)
	if err != nil || n.Plan.Subnet6.Bits() != 64 || !prefix("fd00::/8").Overlaps(n.Plan.Subnet6) || n.Plan.DNS6 != slirp.Nth(n.Plan.Subnet6, 1) {
		t.Errorf("%+v, %v", n, err)
	}
}

// Of many at once, each gets a subnet of its own, and a name one network.
func TestCreateAtOnce(t *testing.T) {
	s := &Store{t.TempDir()}
	var all sync.WaitGroup
	results := make([]error, 40)
	for i := range results {
		all.Go(func() {
			_, results[i] = s.Create(Network{Name: fmt.Sprint("n", i/2), Plan: slirp.Plan{IPv4Only: true}}, nil)
		})
	}
	all.Wait()
	made := 0
	for _, err := range results {
		if err == nil {
			made++
		} else if !errors.As(err, new(*ExistsError)) {
			t.Error(err)
		}
	}
	list, err := s.List()
	seen := map[netip.Prefix]bool{}
	for _, n := range list {
		seen[n.Plan.Subnet] = true
	}
	if err != nil || made != 20 || len(list) != 20 || len(seen) != 20 {
		t.Errorf("%d made, %d listed, %d subnets, %v", made, len(list), len(seen), err)
	}
}

func TestRemove(t *testing.T) {
	s := &Store{t.TempDir()}
	if _, err := s.Create(Network{Name: "web"}, nil); err != nil {
		t.Fatal(err)
	}
	_, hold, err := s.Use("web")
	if err != nil {
		t.Fatal(err)
	}
	allow := func() error { return nil }
	if err := s.Remove("web", allow); !errors.As(err, new(*BusyError)) {
		t.Errorf("in use: %v", err)
	}
	hold.Close()
	refused := errors.New("no")
	if err := s.Remove("web", func() error { return refused }); err != refused {
		t.Errorf("refused: %v", err)
	}
	if err := s.Remove("web", allow); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"web", "../web", "host", ""} {
		if _, _, err := s.Use(name); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%s is gone: %v", name, err)
		}
		if err := s.Remove(name, allow); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	s := &Store{t.TempDir()}
	n, err := s.Create(Network{Name: "web"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"web", n.ID, n.ID[:12]} {
		if got, err := s.Find(word); err != nil || got.Name != "web" {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
	}
	for _, word := range []string{"we", "", "host"} {
		if got, err := s.Find(word); !errors.As(err, new(*NotFoundError)) {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
	}
}

func TestNotANetworksFile(t *testing.T) {
	s := &Store{t.TempDir()}
	if err := os.WriteFile(s.path("web"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("web"); err == nil || !strings.Contains(err.Error(), "web.json is not a network's file") {
		t.Error(err)
	}
}

func TestParseSubnet(t *testing.T) {
	for in, want := range map[string]string{"10.89.7.9/24": "10.89.7.0/24", "fd12::5/64": "fd12::/64", "192.168.0.0/30": "192.168.0.0/30"} {
		if got, err := ParseSubnet(in); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for in, why := range map[string]string{
		"": "not a subnet", "10.89.0.0": "not a subnet", "10.89.0.0/33": "not a subnet", "10.89.0.0/31": "no room", "fd00::/127": "no room", "10.0.0.0/7": "too large",
		"127.0.0.0/8": "no addresses of single hosts", "224.0.0.0/8": "no addresses", "169.254.0.0/16": "no addresses", "fe80::/64": "no addresses", "::ffff:10.0.0.0/104": "as IPv4", "240.0.0.0/8": "no addresses",
	} {
		if got, err := ParseSubnet(in); !strings.Contains(text(err), why) {
			t.Errorf("%s: %v, %v; want %q", in, got, err, why)
		}
	}
}
