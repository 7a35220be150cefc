package main

import "rbox/userns/container/events"

// recordVolume records what was done to a volume.
func (a *App) recordVolume(action, name string) {
	a.record(events.Event{Type: "volume", Action: action, ID: name, Attributes: map[string]string{"driver": localDriver}})
}

// localDriver is the only kind of volume there is.
const localDriver = "local"

// record adds to what rbox events shows. That it cannot is no reason for what
// was done to fail.
func (a *App) record(e events.Event) {
	if home, err := a.Home(); err == nil {
		events.Append(home.Dir, e)
	}
}
