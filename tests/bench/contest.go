package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// contestant is a program that does the measured thing.
type contestant struct {
	name    string
	missing error                         // why it takes no part
	every   int                           // takes part in each every-th round; 0 is 1
	once    func() (time.Duration, error) // does it and says how long it took
	times   []time.Duration
}

// measure has the contestants take turns. The first round warms caches and does
// not count; who fails is out.
func measure(rounds int, all []*contestant) {
	for round := range rounds + 1 {
		for _, c := range all {
			if c.missing != nil || round > 0 && c.every > 1 && round%c.every != 0 {
				continue
			}
			took, err := c.once()
			if err != nil {
				c.missing = err
				continue
			}
			if round > 0 {
				c.times = append(c.times, took)
			}
		}
	}
}

// median is the middle time, 0 if there is none.
func (c *contestant) median() time.Duration {
	if c.missing != nil || len(c.times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(c.times))
	return sorted[len(sorted)/2]
}

// bar is a promise: rbox's time is at most atMost times that of the contestant against.
type bar struct {
	against string
	atMost  float64
	text    string
}

// table prints the contestants, rbox first, and whether the bars are met.
func table(w io.Writer, title string, all []*contestant, bars []bar) {
	fmt.Fprintf(w, "%-44s %5s %10s %10s\n", title, "runs", "median", "of rbox's")
	rbox := all[0].median()
	for _, c := range all {
		if c.missing != nil {
			reason, _, _ := strings.Cut(c.missing.Error(), "\n")
			fmt.Fprintf(w, "  %-42s %5s %10s   %s\n", c.name, "-", "-", reason)
			continue
		}
		ratio := "-"
		if rbox > 0 {
			ratio = fmt.Sprintf("%.2f", float64(c.median())/float64(rbox))
		}
		fmt.Fprintf(w, "  %-42s %5d %10s %10s\n", c.name, len(c.times), format(c.median()), ratio)
	}
	for _, b := range bars {
		fmt.Fprintf(w, "  %-42s %s\n", b.text, b.verdict(all))
	}
	fmt.Fprintln(w)
}

func (b bar) verdict(all []*contestant) string {
	rbox := all[0].median()
	for _, c := range all[1:] {
		if c.name != b.against {
			continue
		}
		other := c.median()
		if rbox == 0 || other == 0 {
			return "not measured"
		}
		return fmt.Sprintf("%s (%.3f)", met(float64(rbox)/float64(other) <= b.atMost), float64(rbox)/float64(other))
	}
	return "not measured"
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "NOT MET"
}

func format(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
