package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/rootfs/image"
	"rbox/userns/container"
)

// Log drivers.
const (
	passthrough = "passthrough"
	logFile     = "file"
	logNone     = "none"
)

// describe fills in what the flags say of the container rather than of what
// runs in it.
func (c *RunCmd) describe(config *container.Config, from image.ContainerConfig) (err error) {
	if config.Labels, err = c.labels(from.Labels); err != nil {
		return err
	}
	if config.Annotations, err = pairs("annotation", c.Annotation); err != nil {
		return err
	}
	if config.Restart, err = parseRestart(c.Restart); err != nil {
		return err
	}
	if config.Restart.Name != "" && c.Rm {
		return errors.New("conflicting options: --restart and --rm")
	}
	if config.Cgroup, err = c.cgroup(); err != nil {
		return err
	}
	if config.Log, err = c.log(config.Restart.Name != ""); err != nil {
		return err
	}
	if c.StopTimeout < -1 || c.Timeout < 0 {
		return fmt.Errorf("--stop-timeout %d, --timeout %d: want seconds", c.StopTimeout, c.Timeout)
	}
	config.StopTimeout, config.Timeout = int(c.StopTimeout), c.Timeout
	config.StopSignal = from.StopSignal
	if c.StopSignal != "" {
		config.StopSignal = c.StopSignal
		_, err = parseSignal(c.StopSignal)
	}
	config.Entrypoint, config.Command = c.entrypoint(from)
	if err == nil {
		config.Health, err = c.health(from.Healthcheck)
	}
	return err
}

// health is the image's check with what the flags change of it, nil for none.
func (c *RunCmd) health(from *image.Healthcheck) (*container.Healthcheck, error) {
	h := container.Healthcheck{}
	if from != nil {
		h = container.Healthcheck{
			Test: from.Test, Interval: from.Interval, Timeout: from.Timeout,
			StartPeriod: from.StartPeriod, StartInterval: from.StartInterval, Retries: from.Retries,
		}
	}
	if err := c.healthTimes(&h); err != nil {
		return nil, err
	}
	switch {
	case c.NoHealthcheck && c.HealthCmd != "":
		return nil, errors.New("conflicting options: --no-healthcheck and --health-cmd")
	case c.NoHealthcheck || c.HealthCmd == "none":
		return nil, nil
	case c.HealthCmd != "":
		h.Test = []string{"CMD-SHELL", c.HealthCmd}
		var words []string // as Podman has it; a shell has a command [, too
		if json.Unmarshal([]byte(c.HealthCmd), &words) == nil && len(words) > 0 {
			h.Test = append([]string{"CMD"}, words...)
		}
	}
	if len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil, nil
	}
	return &h, nil
}

// healthTimes changes h by the flags that are numbers.
func (c *RunCmd) healthTimes(h *container.Healthcheck) error {
	for _, f := range []struct {
		flag, text string
		to         *time.Duration
	}{
		{"interval", c.HealthInterval, &h.Interval}, {"timeout", c.HealthTimeout, &h.Timeout},
		{"start-period", c.HealthStartPeriod, &h.StartPeriod}, {"start-interval", c.HealthStartInterval, &h.StartInterval},
	} {
		if f.text == "" {
			continue
		}
		d, err := time.ParseDuration(f.text)
		if err != nil || d < 0 {
			return fmt.Errorf("--health-%s %s: want a duration such as 30s", f.flag, f.text)
		}
		*f.to = d
	}
	if c.HealthRetries < 0 {
		return fmt.Errorf("--health-retries %d: cannot be negative", c.HealthRetries)
	}
	if c.HealthRetries > 0 {
		h.Retries = c.HealthRetries
	}
	return nil
}

// labels are the image's, those of files and those given, the later winning.
func (c *RunCmd) labels(fromImage map[string]string) (map[string]string, error) {
	var given []string
	for _, file := range c.LabelFile {
		lines, err := labelLines(file)
		if err != nil {
			return nil, err
		}
		given = append(given, lines...)
	}
	all, err := pairs("label", append(given, c.Label...))
	if err != nil {
		return nil, err
	}
	for k, v := range fromImage {
		if _, ok := all[k]; !ok {
			all[k] = v
		}
	}
	return all, nil
}

// labelLines reads a file of labels: empty lines and those with # do not count.
func labelLines(path string) (lines []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--label-file: %w", err)
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		if line := strings.TrimSpace(scan.Text()); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines, scan.Err()
}

// pairs reads NAME=VALUE words; NAME alone has an empty value.
func pairs(what string, words []string) (map[string]string, error) {
	all := map[string]string{}
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		if k == "" {
			return nil, fmt.Errorf("invalid %s %q: it has no name", what, w)
		}
		all[k] = v
	}
	return all, nil
}

// parseRestart reads --restart.
func parseRestart(text string) (p container.RestartPolicy, err error) {
	name, limit, limited := strings.Cut(text, ":")
	switch {
	case name == "no" && !limited || text == "":
		return p, nil
	case name == "on-failure":
		if limited {
			if p.Limit, err = strconv.Atoi(limit); err != nil || p.Limit < 0 {
				return p, fmt.Errorf("--restart %s: %q is not a number of times", text, limit)
			}
		}
	case (name == "always" || name == "unless-stopped") && !limited:
	default:
		return p, fmt.Errorf("--restart %s: there are no, on-failure[:TIMES], always and unless-stopped", text)
	}
	p.Name = name
	return p, nil
}

// log decides where output goes. In the foreground the program has rbox's own
// streams unless it is asked otherwise, or there is a terminal to share.
func (c *RunCmd) log(restarts bool) (l container.LogConfig, err error) {
	background := c.Detach || c.create
	switch c.LogDriver {
	case "":
		switch {
		case background || restarts || c.TTY && !c.Rm:
			l.Driver = logFile
		case c.TTY:
			l.Driver = logNone
		default:
			l.Driver = passthrough
		}
	case logFile, "k8s-file", "json-file", "local":
		l.Driver = logFile
	case logNone:
		l.Driver = logNone
	case passthrough:
		if c.Detach || c.TTY || restarts {
			return l, errors.New("--log-driver passthrough: not with -d, -t or --restart, where rbox's own streams do not last")
		}
		l.Driver = passthrough
	default:
		return l, fmt.Errorf("--log-driver %s: there are file, none and passthrough", c.LogDriver)
	}
	for _, o := range c.LogOpt {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "max-size":
			l.MaxSize, err = parseSize(value)
		case "max-file":
			l.MaxFile, err = strconv.Atoi(value)
		default:
			err = errors.New("there are max-size and max-file")
		}
		if err != nil {
			return l, fmt.Errorf("--log-opt %s: %w", o, err)
		}
	}
	return l, nil
}

// parseSignal reads a signal's name, with or without SIG, or its number.
func parseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n < 65 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n, ok := strings.CutPrefix(name, "SIGRTMIN+"); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i <= 30 {
			return unix.Signal(34 + i), nil
		}
	}
	if n, ok := strings.CutPrefix(name, "SIGRTMAX-"); ok {
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i <= 30 {
			return unix.Signal(64 - i), nil
		}
	}
	switch name {
	case "SIGRTMIN":
		return 34, nil
	case "SIGRTMAX":
		return 64, nil
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("invalid signal: %s", text)
}
