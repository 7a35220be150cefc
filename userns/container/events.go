package container

import (
	"strconv"
	"strings"

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

// execEvents are those of one further program. Nobody waits for them.
type execEvents struct {
	m       *monitor
	command string
	id      map[string]string
}

func (m *monitor) execEvents(e ExecRequest) execEvents {
	return execEvents{m, strings.Join(e.Args, " "), map[string]string{"execID": NewID()}}
}

// started records that the program was asked for, as Docker does before it is started.
func (e execEvents) started() {
	e.m.happened("exec_create: "+e.command, e.id)
	e.m.happened("exec_start: "+e.command, e.id)
}

func (e execEvents) died(status int) {
	e.m.happened("exec_die", map[string]string{"execID": e.id["execID"], "exitCode": strconv.Itoa(status)})
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
	m.wasStopped()
}

// wasStopped records that the container does not run because it was asked to stop.
func (m *monitor) wasStopped() {
	if m.inOrder {
		m.event("stop", nil)
	}
}
