package main

import (
	"testing"
	"time"
)

func TestParseWhen(t *testing.T) {
	now := time.Date(2026, 11, 22, 17, 0, 0, 5, time.UTC)
	local := func(h, m, s, ns int) time.Time { return time.Date(2026, 11, 22, h, m, s, ns, time.Local) }
	for text, want := range map[string]time.Time{
		"":                                    {},
		"10m":                                 now.Add(-10 * time.Minute),
		"1h30m":                               now.Add(-90 * time.Minute),
		"-5s":                                 now.Add(5 * time.Second),
		"0":                                   time.Unix(0, 0),
		"1795366800":                          time.Unix(1795366800, 0),
		"1795366800.5":                        time.Unix(1795366800, 500000000),
		"1795366800.000000001":                time.Unix(1795366800, 1),
		"2026-11-22":                          local(0, 0, 0, 0),
		"2026-11-22T13":                       local(13, 0, 0, 0),
		"2026-11-22T13:14":                    local(13, 14, 0, 0),
		"2026-11-22 13:14":                    local(13, 14, 0, 0),
		"2026-11-22T13:14:15":                 local(13, 14, 15, 0),
		"2026-11-22T13:14:15.25":              local(13, 14, 15, 250000000),
		"2026-11-22Z":                         time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC),
		"2026-11-22+02:00":                    time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC),
		"2026-11-22T13Z":                      time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC),
		"2026-11-22T13:14:15.123456789Z":      time.Date(2026, 11, 22, 13, 14, 15, 123456789, time.UTC),
		"2026-11-22T13:14:15.123456789-01:30": time.Date(2026, 11, 22, 14, 44, 15, 123456789, time.UTC),
	} {
		if got, err := parseWhen("--since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "2026", "1.2.3", "1.1234567890", "1.x", "99999999999999999999", "10:00", "2026-13-01"} {
		if got, err := parseWhen("--since", text, now); err == nil && text != "2026" {
			t.Errorf("%q: %v", text, got)
		}
	}
}
