package container

import (
	"strconv"

	"rbox/userns/container/events"
)

// event records what happened to the container; that this fails is no reason
// to fail anything else.
func (m *monitor) event(action string, more map[string]string) {
	Record(m.home, Info{Config: m.Config, State: m.state}, action, more)
}

// happened is event for those who do not hold m.mu.
func (m *monitor) happened(action string, more map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.event(action, more)
}

// Record records what happened to a container in the events of its host.
func Record(h *Home, i Info, action string, more map[string]string) error {
	attributes := map[string]string{"image": i.Config.Image, "name": i.Name()}
	for _, list := range []map[string]string{i.Config.Labels, more} {
		for k, v := range list {
			attributes[k] = v
		}
	}
	return events.Append(h.Dir, events.Event{Type: "container", Action: action, ID: i.Config.ID, Attributes: attributes})
}

// died records the end of a run.
func (m *monitor) died(status int) {
	m.event("die", map[string]string{"exitCode": strconv.Itoa(status)})
}
