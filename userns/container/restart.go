package container

import "time"

const (
	firstBackOff = 100 * time.Millisecond // between an end and the next start
	maxBackOff   = time.Minute
	steady       = 10 * time.Second // a run so long starts the back-off anew
)

// backOff returns the pause after a run of that length, given the one before it:
// Docker's, which doubles.
func backOff(before, ran time.Duration) time.Duration {
	if before == 0 || ran >= steady {
		return firstBackOff
	}
	return min(2*before, maxBackOff)
}

// wantsRestart tells whether the policy starts a container again that ended
// with status.
func (m *monitor) wantsRestart(status int) bool {
	if m.state.Stopped {
		return false
	}
	switch m.Restart.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return status != 0 && (m.Restart.Limit == 0 || m.state.Restarts < m.Restart.Limit)
	}
	return false
}

// setRestart changes the policy. It is asked at the container's next end.
func (m *monitor) setRestart(p RestartPolicy) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.Name != "" && m.once {
		return &Failure{
			Text: "the container cannot be started again by itself: it has the streams or descriptors of the command that started it", Status: 125,
			Advice: "rbox update --restart POLICY once it is stopped, then rbox start",
		}
	}
	m.Restart, m.state.Restart = p, &p
	m.event("update", nil)
	return m.saveState()
}

// restarts tells whether there is a policy that may start the container again.
func (m *monitor) restarts() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Restart.Name != ""
}

// rest waits for the next start. It returns false if the user stops the
// container meanwhile.
func (m *monitor) rest(pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		m.mu.Lock()
		defer m.mu.Unlock()
		return !m.state.Stopped
	case <-m.stop:
		return false
	}
}

// settle is the end of a container that was stopped between two runs.
func (m *monitor) settle() {
	m.mu.Lock()
	m.state.Restarting = false
	status := m.state.ExitStatus
	if !m.AutoRemove {
		m.saveState()
	}
	m.wasStopped()
	m.mu.Unlock()
	if m.console != nil {
		m.console.finish(nil)
	}
	m.doom()
	m.tell(message{Ended: &ended{Status: status}})
}
