//go:build !front

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"rbox/idmap"
	"rbox/userns/container"
)

// GenerateCmd holds the commands that make files for other programs.
type GenerateCmd struct {
	Systemd GenerateSystemdCmd `cmd:"" help:"Make a unit by which systemd starts a container at boot or login."`
}

// GenerateSystemdCmd makes a unit for `systemctl --user`: its flags are Podman's.
type GenerateSystemdCmd struct {
	Name            bool     `short:"n" help:"Call the container by its name, not its id."`
	New             bool     `help:"Make a new container at each start, as the command line did that made this one, and remove it when it ends."`
	Files           bool     `short:"f" help:"Write the unit to a file in the current directory, and print the file's path."`
	RestartPolicy   string   `help:"When systemd starts it again: no, on-success, on-failure, on-abnormal, on-watchdog, on-abort or always; the container's own policy if there is one, else on-failure." placeholder:"POLICY"`
	RestartSec      *int     `help:"Seconds that systemd waits before it starts it again." placeholder:"SECONDS"`
	Time            *seconds `short:"t" aliases:"stop-timeout" help:"Seconds that the program gets to end before it is killed; the container's own if not given; -1: for ever." placeholder:"SECONDS"`
	ContainerPrefix string   `help:"What the unit's name begins with." default:"container" placeholder:"PREFIX"`
	Separator       string   `help:"What stands between that and the container." default:"-" placeholder:"TEXT"`
	NoHeader        bool     `help:"Leave out the lines that tell the version and the time."`
	After           []string `sep:"none" help:"Start it after this unit." placeholder:"UNIT"`
	Wants           []string `sep:"none" help:"Start this unit with it." placeholder:"UNIT"`
	Requires        []string `sep:"none" help:"Start this unit with it, and not without it." placeholder:"UNIT"`
	Container       string   `arg:"" name:"CONTAINER" help:"Name or id."`
}

// Run prints the unit, or where it has written it, and on stderr what to do
// with it.
func (c *GenerateSystemdCmd) Run(app *App) error {
	if err := c.check(); err != nil {
		return err
	}
	return app.each([]string{c.Container}, func(home *container.Home, id, name string) error {
		info, err := home.Inspect(id)
		if err != nil {
			return err
		}
		u, err := c.unit(app, info)
		if err != nil {
			return err
		}
		for _, unit := range c.peers(home, info.Config.Options) {
			u.after, u.wants = append(u.after, unit), append(u.wants, unit)
		}
		var header []string
		if !c.NoHeader {
			header = []string{u.name, "made by rbox " + version + ", " + time.Now().Format(time.RFC1123)}
		}
		if c.Files {
			err = writeUnit(app.Stdout, u.name, u.text(header))
		} else {
			_, err = io.WriteString(app.Stdout, u.text(header))
		}
		if err == nil {
			u.advise(app, c.Files)
		}
		return err
	})
}

// unitWord is what the name of a unit may be made of (systemd.unit(5)), but for
// "@" and "\", which mean something there.
var unitWord = regexp.MustCompile(`^[A-Za-z0-9:_.-]*$`)

// restartPolicies are systemd's own.
var restartPolicies = []string{"no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"}

// check refuses what no unit can have.
func (c *GenerateSystemdCmd) check() error {
	if c.RestartPolicy != "" && !slices.Contains(restartPolicies, c.RestartPolicy) {
		return fmt.Errorf("--restart-policy %s: there are %s", c.RestartPolicy, strings.Join(restartPolicies, ", "))
	}
	if c.RestartSec != nil && *c.RestartSec < 0 {
		return fmt.Errorf("--restart-sec %d: want seconds", *c.RestartSec)
	}
	if c.Time != nil && *c.Time < -1 {
		return fmt.Errorf("--time %d: want seconds", *c.Time)
	}
	for flag, text := range map[string]string{"container-prefix": c.ContainerPrefix, "separator": c.Separator} {
		if !unitWord.MatchString(text) {
			return fmt.Errorf("--%s %q: the name of a unit is made of letters, digits and . : - _", flag, text)
		}
	}
	for _, name := range slices.Concat(c.After, c.Wants, c.Requires) {
		if name == "" || strings.ContainsAny(name, " \t\r\n") {
			return fmt.Errorf("%q is not the name of a unit", name)
		}
	}
	return nil
}

// stopExtra is what systemd waits longer than rbox does: for the mounts and
// the folder of the container.
const stopExtra = 60

// unit decides what stands in the unit.
func (c *GenerateSystemdCmd) unit(app *App, info container.Info) (*unit, error) {
	exe, err := idmap.Executable()
	if err != nil {
		return nil, err
	}
	config := &info.Config
	u := &unit{
		exe: exe, after: c.After, wants: c.Wants, requires: c.Requires,
		stopTimeout: int(config.StopTimeout), env: app.unitEnv(),
		cleanStatus: cleanStatuses(config.StopSignal),
	}
	who := config.ID
	if c.Name || c.New {
		who = info.Name()
	}
	u.name = unitName(c.ContainerPrefix, c.Separator, config.ID)
	if c.Name {
		u.name = unitName(c.ContainerPrefix, c.Separator, who)
	}
	if c.Time != nil {
		u.stopTimeout = int(*c.Time)
	}
	u.restart(config.Restart, c.RestartPolicy, c.RestartSec)
	// Without sig-proxy=false: a SIGTERM is for the program, should stop fail.
	u.start = []string{"start", "--attach", "--restart=no", who}
	u.stop = []string{"stop", "--ignore", "--time=" + strconv.Itoa(u.stopTimeout), who}
	switch {
	case c.New:
		if u.dir = config.Options.Dir; u.dir == homeDir() { // systemd's own choice
			u.dir = ""
		}
		u.start, u.env, err = newContainerLine(info, u.env)
	case config.AutoRemove:
		err = &adviceError{fmt.Errorf("container %s is removed when it ends: there is nothing to start again", info.Name()), "rbox generate systemd --new " + info.Name()}
	}
	return u, err
}

// peers are the units, named alike, of the containers whose namespaces this one shares.
func (c *GenerateSystemdCmd) peers(home *container.Home, o container.Options) (units []string) {
	for _, mode := range []string{o.Userns, o.Network, o.Pid, o.Ipc, o.Uts} {
		id, shared := strings.CutPrefix(mode, "container:")
		if !shared {
			continue
		}
		if info, err := home.Inspect(id); err == nil && c.Name {
			id = info.Name()
		}
		if unit := unitName(c.ContainerPrefix, c.Separator, id); !slices.Contains(units, unit) {
			units = append(units, unit)
		}
	}
	return units
}

func unitName(prefix, separator, who string) string {
	if prefix == "" {
		return who + ".service"
	}
	return prefix + separator + who + ".service"
}

// cleanStatuses are the exit statuses of programs that a signal to end has
// ended, where systemd would see the signal if it had sent that itself.
func cleanStatuses(stopSignal string) []int {
	statuses := []int{143}
	if sig, err := parseSignal(stopSignal); err == nil && 128+int(sig) != 143 {
		statuses = append(statuses, 128+int(sig))
	}
	return statuses
}

// restart is when systemd starts the container again: as asked for, else as
// the container's own policy says, which rests under systemd.
func (u *unit) restart(own container.RestartPolicy, asked string, seconds *int) {
	u.restartPolicy, u.restartSec = "on-failure", -1
	switch own.Name {
	case "always", "unless-stopped":
		u.restartPolicy, u.forever, u.restartSec = "always", true, 1
	case "on-failure":
		u.restartPolicy, u.forever, u.restartSec = "on-failure", own.Limit == 0, 1
		u.limit = own.Limit
	}
	if asked != "" {
		u.restartPolicy, u.restartSec, u.forever, u.limit = asked, -1, false, 0
	}
	if seconds != nil {
		u.restartSec = *seconds
	}
}

// unitEnv are the variables that say where rbox keeps its files, as far as the
// user has set them: systemd would not have them.
func (a *App) unitEnv() (env []string) {
	for _, name := range []string{"RBOX_ROOT", "RBOX_RUNTIME", layersVariable, "RBOX_STORAGE_DRIVER", "RBOX_NETWORK_DRIVER", "XDG_DATA_HOME"} {
		value := os.Getenv(name)
		if value == "" {
			continue
		}
		if name == "RBOX_ROOT" || name == "RBOX_RUNTIME" {
			value = absolute(value)
		}
		env = append(env, name+"="+value)
	}
	return env
}

// newContainerLine is the command line that made the container, changed so
// that systemd can give it again and again, and env with the variables that it
// took from its caller.
func newContainerLine(info container.Info, env []string) (line, _ []string, err error) {
	run, err := creator(info.Config.Options.Args)
	if err != nil {
		return nil, nil, &adviceError{fmt.Errorf("cannot use --new on container %s: %w", info.Name(), err), "leave out --new"}
	}
	for _, e := range run.Env {
		for _, had := range info.Config.Plan.Process.Env {
			if strings.HasPrefix(had, e+"=") { // e is a name alone
				env = append(env, had)
			}
		}
	}
	asService(run, info.Name(), info.Config.Log.Driver)
	return slices.Concat([]string{"run"}, flagWords(run), run.Words), env, nil
}

// creator reads the command line that made a container.
func creator(args []string) (*RunCmd, error) {
	if len(args) == 0 {
		return nil, errors.New("the command line that made it is not known")
	}
	parser, err := kong.New(new(grammar), kong.NoDefaultHelp(), kong.Writers(io.Discard, io.Discard))
	if err != nil {
		return nil, err
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		return nil, fmt.Errorf("this version does not know the command line that made it: %w", err)
	}
	var run *RunCmd
	switch cmd := ctx.Selected().Target.Addr().Interface().(type) {
	case *RunCmd:
		run = cmd
	case *CreateCmd:
		run = &RunCmd{attachFlags: attachFlags{detachFlags{defaultKeys}, true}, createFlags: cmd.createFlags, Words: cmd.Words}
	default:
		return nil, fmt.Errorf("%s made it", args[0])
	}
	if len(run.Words) > 1 && run.Words[0] == "--" {
		run.Words = run.Words[1:]
	}
	return run, nil
}

// defaultKeys is the default of --detach-keys.
const defaultKeys = "ctrl-p,ctrl-q"

// asService makes of a command line that made a container one for systemd: the
// container runs in the foreground of rbox, under its name, until it ends. What
// a person at a terminal would want is left out, and so is the restart policy:
// systemd has it.
func asService(run *RunCmd, name, log string) {
	run.Detach, run.DetachKeys, run.SigProxy = false, defaultKeys, true
	run.Interactive, run.PreserveFDs = false, 0
	run.Rm, run.Replace, run.Name = true, true, name
	run.Restart, run.Cidfile = "no", ""
	if run.LogDriver == "" && log == logFile { // the foreground would have none
		run.LogDriver = logFile
	}
}

// writeUnit writes the file name here, and its path to w.
func writeUnit(w io.Writer, name, text string) error {
	path := absolute(name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, path)
	return err
}

// advise tells what makes systemd start the unit.
func (u *unit) advise(app *App, written bool) {
	const units = "~/.config/systemd/user"
	switch {
	case written && absolute(".") == filepath.Join(homeDir(), ".config/systemd/user"):
		app.Notice("systemctl --user daemon-reload")
	case written:
		app.Notice("mkdir -p " + units + " && mv " + u.name + " " + units + " && systemctl --user daemon-reload")
	default:
		app.Notice("write it to " + units + "/" + u.name + ", then: systemctl --user daemon-reload")
	}
	app.Notice("start it now and whenever you log in: systemctl --user enable --now " + u.name)
	if p := here(app); !p.lingers() {
		app.Notice("to start it at boot, and to keep it when you log out: loginctl enable-linger " + p.user)
	}
}
