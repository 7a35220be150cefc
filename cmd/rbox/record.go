//go:build !front

package main

import "rbox/userns/container/events"

// recordImage records what was done to an image, by one of its names, or "".
func (a *App) recordImage(action, id, name string) {
	attributes := map[string]string{}
	if name != "" {
		attributes["name"] = name
	}
	a.record(events.Event{Type: "image", Action: action, ID: id, Attributes: attributes})
}

// record adds to what rbox events shows. That it cannot is no reason for what
// was done to fail.
func (a *App) record(e events.Event) {
	if home, err := a.Home(); err == nil {
		events.Append(home.Dir, e)
	}
}
