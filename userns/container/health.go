package container

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"rbox/userns"
	"rbox/userns/stage"
)

// Docker's, for what a health check does not say.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3

	healthOutput  = 4096 // bytes kept of what a check says
	healthResults = 5    // checks remembered
)

// What health checks can find.
const (
	Starting  = "starting"
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
)

// withDefaults fills in what h leaves open.
func (h Healthcheck) withDefaults() Healthcheck {
	for field, standard := range map[*time.Duration]time.Duration{
		&h.Interval: healthInterval, &h.Timeout: healthTimeout, &h.StartInterval: healthStartInterval,
	} {
		if *field <= 0 {
			*field = standard
		}
	}
	if h.Retries <= 0 {
		h.Retries = healthRetries
	}
	return h
}

// args is the command of h, nil if it has none.
func (h *Healthcheck) args() []string {
	switch {
	case h == nil || len(h.Test) < 2:
		return nil
	case h.Test[0] == "CMD-SHELL":
		return []string{"/bin/sh", "-c", h.Test[1]}
	case h.Test[0] == "CMD":
		return h.Test[1:]
	}
	return nil
}

// note counts the result of one check, begun so long after the container's start.
func (s *Health) note(h Healthcheck, r HealthResult, since time.Duration) {
	s.Log = append(s.Log, r)
	if len(s.Log) > healthResults {
		s.Log = s.Log[len(s.Log)-healthResults:]
	}
	switch {
	case r.ExitCode == 0:
		s.FailingStreak, s.Status = 0, Healthy
	case s.Status == Starting && since < h.StartPeriod: // it does not count yet
	default:
		if s.FailingStreak++; s.FailingStreak >= h.Retries {
			s.Status = Unhealthy
		}
	}
}

// checkHealth runs the container's health checks until over is closed, which
// is when this run of its program ends.
func (m *monitor) checkHealth(over <-chan struct{}) {
	h := m.Health.withDefaults()
	begun := time.Now()
	for {
		pause := h.Interval
		if m.healthNow() == Starting && time.Since(begun) < h.StartPeriod {
			pause = min(pause, h.StartInterval)
		}
		timer := time.NewTimer(pause)
		select {
		case <-over:
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := m.admit(); err == errPaused {
			continue
		} else if err != nil {
			return
		}
		since := time.Since(begun)
		result := m.check(h)
		select {
		case <-over: // it was killed with the container
			m.guests.Done()
			return
		default:
			m.noteHealth(h, result, since)
			m.guests.Done() // not before: the container's folder may go then
		}
	}
}

func (m *monitor) healthNow() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Health.Status
}

// noteHealth records a result.
func (m *monitor) noteHealth(h Healthcheck, r HealthResult, since time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.state.Health
	health := Health{Status: old.Status, FailingStreak: old.FailingStreak, Log: append([]HealthResult(nil), old.Log...)}
	health.note(h, r, since)
	m.state.Health = &health
	m.saveState()
	if health.Status != old.Status {
		m.event("health_status: "+health.Status, nil)
	}
}

// check runs the command once.
func (m *monitor) check(h Healthcheck) (r HealthResult) {
	r.Start, r.ExitCode = time.Now(), -1
	defer func() { r.End = time.Now() }()
	read, write, err := pipe(true, false)
	if err != nil {
		r.Output = err.Error()
		return r
	}
	defer read.Close()
	child, err := m.startCheck(h.args(), write)
	write.Close()
	if err != nil {
		r.Output = err.Error()
		return r
	}
	output := make(chan string, 1)
	go func() {
		b := make([]byte, healthOutput)
		n, _ := io.ReadFull(read, b)
		io.Copy(io.Discard, read)
		output <- string(b[:n])
	}()
	ended := make(chan struct{})
	late := time.AfterFunc(h.Timeout, func() {
		unix.Kill(child.Pid, unix.SIGKILL)
		close(ended)
	})
	child.AwaitEnd()
	timedOut := !late.Stop()
	if timedOut {
		<-ended // its pid is not to be another's by then
	}
	if ws, err := child.Wait(); err == nil && !timedOut {
		if r.ExitCode = ws.ExitStatus(); ws.Signaled() {
			r.ExitCode = 128 + int(ws.Signal())
		}
	}
	read.SetReadDeadline(time.Now().Add(time.Second)) // what it left behind may hold the pipe
	r.Output = <-output
	if timedOut {
		r.Output = "Health check exceeded timeout (" + h.Timeout.String() + ")"
	}
	return r
}

// startCheck starts a command as the container's own program's user.
func (m *monitor) startCheck(args []string, output *os.File) (*userns.Child, error) {
	plan, account, err := m.execPlan(ExecRequest{Args: args})
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	m.mu.Lock()
	pid := m.state.Pid
	m.mu.Unlock()
	out := int(output.Fd())
	ready := stage.Ready{Account: account, Streams: []int{int(null.Fd()), out, out}, InitFile: -1, JoinUser: -1}
	var child *userns.Child
	err = m.onMain(func() (err error) {
		child, err = m.join(plan, ready, pid)
		return err
	})
	return child, err
}
