package container

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"rbox/slirp"
)

func TestStateReadsBack(t *testing.T) {
	now := time.Now().UTC()
	for name, s := range map[string]State{
		"zero":    {},
		"running": {Pid: 12, StartTime: 1 << 60, BootID: "b0", Started: now},
		"on networks": {
			Pid: 12, Started: now, Wanted: &[]slirp.Request{{Plan: slirp.Plan{Name: "\"web"}}},
			Networks: []Attachment{
				{Network: "private", Driver: "embedded", Link: "tap"},
				{
					Network: "web", Gateway: netip.MustParseAddr("10.89.0.1"), Gateway6: netip.MustParseAddr("fd00::1"), Bits: 24, Bits6: 64,
					Endpoint: slirp.Endpoint{
						Container: "c", Names: []string{"a", "b\n"}, Interface: "eth1", IP: netip.MustParseAddr("10.89.0.2"), MAC: "02:00:00:00:00:01",
						Ports: []slirp.Port{
							{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
							{HostIP: netip.MustParseAddr("::1"), HostPort: 53, ContainerPort: 53, Protocol: "udp"},
						},
					},
				},
			},
		},
		"on none": {Wanted: &[]slirp.Request{}},
		"ended":   {StartTime: 3, BootID: "b0", Started: now, Finished: now.Add(time.Second), ExitStatus: 137},
	} {
		t.Run(name, func(t *testing.T) {
			var back State
			if err := json.Unmarshal(s.appendJSON(nil), &back); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(s, back) {
				t.Errorf("want %+v, got %+v", s, back)
			}
			var scanned State
			if !scanState(string(s.appendJSON(nil)), &scanned) || !reflect.DeepEqual(s.Networks, scanned.Networks) {
				t.Errorf("scanned %+v", scanned.Networks)
			}
			if w := scanned.Wanted; (w == nil) != (s.Wanted == nil) || w != nil && len(*w) != len(*s.Wanted) {
				t.Errorf("scanned that %+v are wanted", w)
			}
		})
	}
}
