package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseWhen reads a point in time that the user gave by flag. "" is the zero time.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, ok := readTime(text, now); ok {
		return t, nil
	}
	return time.Time{}, &adviceError{
		fmt.Errorf("%s %s: that is no time", flag, text),
		"such as 2026-11-22T17:00:00, 1795366800 (seconds since 1970) or 10m (ago)",
	}
}

// readTime reads a point in time in one of Docker's forms: RFC 3339, whose
// end may lack, in local time without a zone; seconds since 1970; or how long
// ago it was.
func readTime(text string, now time.Time) (t time.Time, ok bool) {
	if t, ok := parseSeconds(text); ok {
		return t, true
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), true
	}
	date := strings.Replace(text, " ", "T", 1)
	for _, layout := range []string{"2006-01-02", "2006-01-02T15", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, date, time.Local); err == nil {
			return t, true
		}
		if t, err := time.Parse(layout+"Z07:00", date); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// parseSeconds reads seconds since 1970, with at most nine digits after the point.
func parseSeconds(text string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec > math.MaxInt64/int64(time.Second) || sec < 0 || len(fraction) > 9 {
		return time.Time{}, false
	}
	nano, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	return time.Unix(sec, int64(nano)), err == nil
}
