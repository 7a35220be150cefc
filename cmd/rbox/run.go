package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"rbox/idmap"
	"rbox/rootfs"
	"rbox/rootfs/image"
	"rbox/slirp"
	"rbox/userns"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// RunCmd is `rbox run`: its flags are Docker's and Podman's.
type RunCmd struct {
	Detach      bool `group:"Container" short:"d" help:"Run the container in the background and print its id."`
	attachFlags `group:"Container"`
	createFlags
	Words []string `arg:"" passthrough:"partial" name:"IMAGE [COMMAND [ARG...]]" help:"The image, and the command to run in place of its own. The image \"host\" is this machine's own files."`

	create bool         // it is `rbox create`
	choice slirp.Choice // of networks, by the flags
}

// createFlags describe a container.
type createFlags struct {
	Interactive bool `group:"Program" short:"i" help:"Connect stdin."`
	TTY         bool `group:"Program" short:"t" name:"tty" help:"Give the container a terminal."`
	Rm          bool `group:"Container" help:"Remove the container when it ends."`

	Restart             string  `group:"Container" help:"Start it again when it ends: no, on-failure[:TIMES], always or unless-stopped." default:"no" placeholder:"POLICY"`
	Replace             bool    `group:"Container" help:"Remove the container that has the name."`
	StopSignal          string  `group:"Container" help:"Signal that asks the program to end." placeholder:"SIGNAL"`
	StopTimeout         seconds `group:"Container" help:"Seconds that stop grants before it kills; -1: for ever." default:"10" placeholder:"SECONDS"`
	Timeout             int     `group:"Container" help:"Seconds after which the container is killed; 0: never." placeholder:"SECONDS"`
	HealthCmd           string  `group:"Health" help:"Command, for the image's shell, that tells whether the container is healthy; none: do not check." placeholder:"COMMAND"`
	HealthInterval      string  `group:"Health" help:"Time between checks." placeholder:"DURATION"`
	HealthTimeout       string  `group:"Health" help:"Time that one check may take." placeholder:"DURATION"`
	HealthStartPeriod   string  `group:"Health" help:"Time in which failures do not count at first." placeholder:"DURATION"`
	HealthStartInterval string  `group:"Health" help:"Time between checks in the start period." placeholder:"DURATION"`
	HealthRetries       int     `group:"Health" help:"Failures in a row that make it unhealthy." placeholder:"N"`
	NoHealthcheck       bool    `group:"Health" help:"Do not check, even if the image says how."`

	LogDriver string   `group:"Container" help:"Where output goes: file, none, or passthrough (to rbox's own streams)." placeholder:"DRIVER"`
	LogOpt    []string `group:"Container" sep:"none" help:"max-size=SIZE of one log file, max-file=NUMBER of them." placeholder:"NAME=VALUE"`

	Name       string   `group:"Container" help:"Name of the container." placeholder:"NAME"`
	Hostname   string   `group:"Namespaces" help:"Host name inside." short:"h" placeholder:"NAME"`
	Env        []string `group:"Program" short:"e" sep:"none" help:"Set an environment variable; without =VALUE, take it from here." placeholder:"NAME[=VALUE]"`
	EnvFile    []string `group:"Program" sep:"none" help:"Read environment variables from a file." placeholder:"FILE"`
	Workdir    string   `group:"Program" short:"w" help:"Working directory inside." placeholder:"DIR"`
	User       string   `group:"Program" short:"u" help:"Run as this user and group of the image." placeholder:"USER[:GROUP]"`
	Entrypoint *string  `group:"Program" help:"Replace the image's entry point." placeholder:"COMMAND"`
	GroupAdd   []string `group:"Program" sep:"none" help:"Add supplementary groups; keep-groups keeps yours." placeholder:"GROUP"`

	Volume   []string `group:"Files" short:"v" sep:"none" help:"Mount a volume by its name, or bind a file or directory; :ro after it makes it read-only. TARGET alone is a new volume." placeholder:"SOURCE:TARGET"`
	Mount    []string `group:"Files" sep:"none" help:"Mount: type=bind,source=…,target=…[,readonly], type=volume,source=…,target=…[,volume-nocopy] or type=tmpfs,target=…[,tmpfs-size=…]." placeholder:"SPEC"`
	Tmpfs    []string `group:"Files" sep:"none" help:"Mount an empty tmpfs; :size=SIZE,mode=MODE and other options may follow." placeholder:"TARGET"`
	ReadOnly bool     `group:"Files" help:"Make the root file system read-only."`
	ShmSize  string   `group:"Files" help:"Size of /dev/shm." default:"64m" placeholder:"SIZE"`

	Network      []string `group:"Network" aliases:"net" sep:"none" help:"Network: private (the default), none, host, container:ID, ns:PATH, or one by its name, which may be given again; options may follow a colon." placeholder:"NETWORK"`
	Publish      []string `group:"Network" short:"p" sep:"none" help:"Let a port of this host lead to one of the container." placeholder:"[IP:][PORT:]PORT[/PROTOCOL]"`
	PublishAll   bool     `group:"Network" short:"P" help:"Let a port of this host lead to each one that the image or --expose names."`
	Expose       []string `group:"Network" sep:"none" help:"Name a port that the container serves." placeholder:"PORT[/PROTOCOL]"`
	NetworkAlias []string `group:"Network" aliases:"net-alias" sep:"none" help:"Another name of the container on its networks." placeholder:"NAME"`
	IP           string   `group:"Network" name:"ip" help:"Address on its network." placeholder:"IP"`
	IP6          string   `group:"Network" name:"ip6" help:"IPv6 address on its network." placeholder:"IP"`
	MacAddress   string   `group:"Network" help:"Ethernet address on its network." placeholder:"MAC"`
	DNS          []string `group:"Network" name:"dns" sep:"none" help:"Name server to ask in place of this host's." placeholder:"IP"`
	DNSSearch    []string `group:"Network" name:"dns-search" sep:"none" help:"Domain to look for names in, in place of this host's; a dot: none." placeholder:"DOMAIN"`
	DNSOption    []string `group:"Network" name:"dns-option" aliases:"dns-opt" sep:"none" help:"Option of /etc/resolv.conf, in place of this host's." placeholder:"OPTION"`
	AddHost      []string `group:"Network" sep:"none" help:"Add a line to /etc/hosts; the IP host-gateway is this host." placeholder:"NAME:IP"`

	Userns     string   `group:"Namespaces" help:"Ids: host-default, keep-id (you are yourself inside), or container:ID." default:"host-default" placeholder:"MODE"`
	Pid        string   `group:"Namespaces" help:"Processes: private, host, or container:ID to share another container's." default:"private" placeholder:"MODE"`
	Ipc        string   `group:"Namespaces" help:"Shared memory and queues: private, host, or container:ID to share another container's." default:"private" placeholder:"MODE"`
	Uts        string   `group:"Namespaces" help:"Host name: private, host, or container:ID to share another container's." default:"private" placeholder:"MODE"`
	TimeOffset []string `group:"Namespaces" sep:"none" help:"Shift a clock: boottime=SECONDS or monotonic=SECONDS." placeholder:"CLOCK=SECONDS"`
	Ulimit     []string `group:"Program" sep:"none" help:"Set a resource limit." placeholder:"NAME=SOFT[:HARD]"`

	confineFlags

	Init        bool     `group:"Program" help:"Keep an init as process 1 that reaps orphans and hands on signals."`
	PreserveFDs int      `group:"Program" name:"preserve-fds" help:"Keep so many descriptors beyond 0 to 2." placeholder:"N"`
	Label       []string `group:"Container" short:"l" sep:"none" help:"Label the container." placeholder:"NAME=VALUE"`
	LabelFile   []string `group:"Container" sep:"none" help:"Read labels from a file, a line each." placeholder:"FILE"`
	Annotation  []string `group:"Container" sep:"none" help:"Annotate the container." placeholder:"NAME=VALUE"`
	Cidfile     string   `group:"Container" help:"Write the container's id to a file." placeholder:"FILE"`
	Pidfile     string   `group:"Container" help:"Write the pid of the container's first process to a file while it runs." placeholder:"FILE"`

	cgroupFlags

	Pull          string `group:"Image" help:"When to pull: always, missing, never, newer." enum:"always,missing,never,newer" default:"missing" placeholder:"WHEN"`
	Platform      string `group:"Image" help:"Platform of the image, as linux/arm64." placeholder:"OS/ARCH"`
	Quiet         bool   `group:"Image" short:"q" help:"Show no progress of a pull."`
	registryFlags `group:"Registry"`
	Rootfs        bool `group:"Image" help:"IMAGE is a directory: use it as root file system, as it is."`
}

// A base is what a container starts from: a root file system and its defaults.
type base struct {
	image  string // as the user wrote it
	id     string // of the image
	config image.ContainerConfig
	root   stage.Root
	place  string // of what the container writes; "" is its folder
	mounts []rootfs.Mount
	layers *os.File // lock of the layers
}

// Run starts the container and, unless it is to be left alone, ends with its
// exit status.
func (c *RunCmd) Run(app *App) error {
	if err := c.check(app.early.open); err != nil {
		return err
	}
	keys, err := container.ParseKeys(c.DetachKeys)
	if err != nil {
		return err
	}
	outer, err := app.Outer()
	if err != nil {
		return err
	}
	launch, err := c.launch(app, outer, app.early.id)
	if err != nil {
		return err // the monitor ends when it sees that we did
	}
	launch.Keys = keys
	monitor, err := app.early.monitor()
	if err != nil {
		launch.Folder.Discard()
		return err
	}
	status, err := monitor.Run(launch)
	if errors.Is(err, container.ErrDetached) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.Detach {
		_, err := fmt.Fprintln(app.Stdout, launch.Config.ID)
		return err
	}
	return exitStatus(status)
}

// launch finds what to run and makes the container's folder.
func (c *RunCmd) launch(app *App, outer *userns.Outer, id string) (*container.Launch, error) {
	home, err := app.Home()
	if err != nil {
		return nil, err
	}
	stagePath, err := app.Stage()
	if err != nil {
		return nil, err
	}
	if err := container.Sweep(home, outer, stagePath); err != nil {
		app.Notice(err.Error())
	}
	ids, err := c.namespaces(home, outer)
	if err != nil {
		return nil, err
	}
	from, err := c.base(app, outer, ids)
	if err != nil {
		return nil, err
	}
	launch := &container.Launch{Layers: from.layers, Notice: app.Notice, Preserve: inherited(c.PreserveFDs), Fresh: true, Detach: c.Detach}
	if err := c.prepare(app, launch, home, from, ids, id); err != nil {
		return nil, err
	}
	launch.Streams = container.Streams{
		Input: c.Interactive && !c.Detach, Output: true, Terminal: c.TTY, Signals: c.SigProxy,
		Direct: launch.Config.Log.Driver == passthrough && !c.Detach,
	}
	return launch, nil
}

// makeRoom removes the container that has the name, for --replace.
func (c *RunCmd) makeRoom(app *App, home *container.Home) error {
	if !c.Replace || c.Name == "" {
		return nil
	}
	id, err := home.Find(c.Name)
	if errors.As(err, new(*container.NoContainerError)) {
		return nil
	}
	if err != nil {
		return err
	}
	outer, stage, err := app.outerAndStage()
	if err != nil {
		return err
	}
	return container.Remove(home, outer, stage, id, true)
}

// check refuses what cannot work before anything is made or opened.
func (c *RunCmd) check(open int) (err error) {
	if err := c.checkNetwork(); err != nil {
		return err
	}
	if len(c.Words) > 1 && c.Words[0] == "--" {
		c.Words = c.Words[1:]
	}
	if err := c.takeHostname(); err != nil {
		return err
	}
	if c.Hostname != "" && c.Uts != "private" && c.Uts != "" {
		return fmt.Errorf("conflicting options: --hostname and --uts %s", c.Uts)
	}
	if c.PreserveFDs > open {
		fd := 3 + open
		return &adviceError{fmt.Errorf("--preserve-fds %d: descriptor %d is not open", c.PreserveFDs, fd), fmt.Sprintf("exec %d</dev/null", fd)}
	}
	if c.Name != "" {
		if err := container.CheckName(c.Name); err != nil {
			return err
		}
	}
	if c.Cidfile != "" {
		if _, err := os.Lstat(c.Cidfile); err == nil {
			return &adviceError{fmt.Errorf("container ID file found: %s", c.Cidfile), "make sure that the other container is not running, then: rm " + c.Cidfile}
		}
	}
	if c.Replace && c.Name == "" {
		return &adviceError{errors.New("--replace needs a name"), "rbox run --replace --name NAME …"}
	}
	if c.TTY && c.Interactive && !c.Detach && !c.create && !isTerminal(0) {
		return &adviceError{errors.New("the input device is not a terminal"), "leave out -t, or run rbox in a terminal"}
	}
	return nil
}

// inherited are descriptors 3 and on that the container keeps.
func inherited(n int) (files []*os.File) {
	for i := range n {
		files = append(files, os.NewFile(uintptr(3+i), fmt.Sprintf("descriptor %d", 3+i)))
	}
	return files
}

// ids are a container's id maps and what follows from them.
type ids struct {
	stage.Namespaces
	key  string                     // of unpacked layers that suit
	kept *struct{ uid, gid uint32 } // keep-id: who the user is inside

	options  container.Options // the modes they follow from, with ids for names
	peerName string            // host name of the container that namespaces are shared with
	peer     container.Info    // that whose network is shared
}

// namespaces decides the id maps and clocks, and what is shared with whom.
func (c *RunCmd) namespaces(home *container.Home, outer *userns.Outer) (ids, error) {
	n, err := containerIDs(home, outer, &container.Options{Network: c.choice.Text(), Userns: c.Userns, Pid: c.Pid, Ipc: c.Ipc, Uts: c.Uts})
	if err == nil {
		n.TimeOffsets, err = timeOffsets(c.TimeOffset)
	}
	return n, err
}

// containerIDs decides the id maps: all ids of the outer namespace as they are,
// or shifted so that the user is the same inside, or another container's. A
// container that shares other namespaces with another shares its ids too, since
// those namespaces belong to its user namespace.
func containerIDs(home *container.Home, outer *userns.Outer, o *container.Options) (ids, error) {
	n := ids{key: outer.Maps.Key(), options: *o}
	n.Single = outer.Maps.Single
	n.UIDs, n.GIDs = identity(outer.Maps.UIDs), identity(outer.Maps.GIDs)
	mode, of, _ := strings.Cut(o.Userns, ":")
	switch {
	case mode == "host-default" || mode == "host" || mode == "":
	case mode == "keep-id" && of == "":
		n.keepID(outer)
	case mode == "container" && of != "":
		if _, err := n.join(home, &n.options.Userns); err != nil {
			return n, err
		}
	default:
		return n, fmt.Errorf("--userns %s: there are host-default, keep-id and container:ID", o.Userns)
	}
	if err := n.shareNetwork(home); err != nil {
		return n, err
	}
	return n, n.share(home)
}

// keepID makes the user the same inside.
func (n *ids) keepID(outer *userns.Outer) {
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	nested := idmap.KeepID(outer.Maps, 0, 0, uid, gid)
	n.UIDs, n.GIDs = nested.UIDs, nested.GIDs
	n.kept = &struct{ uid, gid uint32 }{uid, gid}
	if !n.Single {
		n.key = keepKey(n.key, uid, gid)
	}
}

// share takes the modes of --pid, --ipc and --uts.
func (n *ids) share(home *container.Home) error {
	for _, s := range []struct {
		kind string
		mode *string
		host *bool
	}{{"pid", &n.options.Pid, &n.HostPID}, {"ipc", &n.options.Ipc, &n.HostIPC}, {"uts", &n.options.Uts, &n.HostUTS}} {
		mode, of, _ := strings.Cut(*s.mode, ":")
		switch {
		case *s.mode == "private" || *s.mode == "" || s.kind == "ipc" && (*s.mode == "shareable" || *s.mode == "none"):
		case *s.mode == "host":
			*s.host = true
		case mode == "container" && of != "":
			if _, err := n.join(home, s.mode); err != nil {
				return err
			}
			n.Joined = append(n.Joined, s.kind)
		default:
			return fmt.Errorf("--%s %s: there are private, host and container:ID", s.kind, *s.mode)
		}
	}
	return nil
}

// join makes the container whom mode, container:NAME, names the one to share
// with, and writes its id there: names change.
func (n *ids) join(home *container.Home, mode *string) (container.Info, error) {
	_, of, _ := strings.Cut(*mode, ":")
	info, err := findContainer(home, of)
	if err == nil && !info.Running {
		err = &container.NotRunningError{Name: of}
	}
	if err != nil {
		return info, err
	}
	if n.kept != nil || n.JoinUser != 0 && n.JoinUser != info.State.Pid {
		return info, fmt.Errorf("%s: a container shares the namespaces, and the ids, of one other", *mode)
	}
	other := info.Config.Plan.Namespaces
	n.JoinUser, n.UIDs, n.GIDs = info.State.Pid, other.UIDs, other.GIDs
	n.peerName = info.Config.Plan.Hostname
	*mode = "container:" + info.Config.ID
	return info, nil
}

// identity maps every id of the outer namespace to itself.
func identity(outer []idmap.Mapping) (maps []idmap.Mapping) {
	for _, m := range outer {
		maps = append(maps, idmap.Mapping{Inside: m.Inside, Outside: m.Inside, Count: m.Count})
	}
	return maps
}

// prepare makes the container's folder and completes launch.
func (c *RunCmd) prepare(app *App, launch *container.Launch, home *container.Home, from *base, n ids, id string) (err error) {
	name := c.Name
	if name == "" {
		name = randomName()
	}
	config := container.Config{
		ID: id, Name: name, Image: from.image, ImageID: from.id, Created: time.Now(),
		AutoRemove: c.Rm, PidFile: absolute(c.Pidfile), OpenStdin: c.Interactive, StdinOnce: c.Interactive && !c.Detach,
		Options: n.options,
	}
	o := &config.Options
	o.AddHost, o.Binds, o.SecurityOpt = c.AddHost, c.Volume, c.SecurityOpt
	o.Args = os.Args[1:]
	if o.Dir, err = os.Getwd(); err != nil { // it was deleted
		o.Dir = ""
	}
	if err := c.describe(&config, from.config); err != nil {
		return err
	}
	if config.Plan, err = c.plan(from, n, id); err != nil {
		return err
	}
	if err = c.confine(app, &config); err != nil {
		return err
	}
	if err = c.secure(&config.Plan); err != nil {
		return err
	}
	if err = c.network(app, &config, n, from.config); err != nil {
		return err
	}
	if launch.Network, err = app.networkProgramOf(&config); err != nil {
		return err
	}
	if launch.Folder, err = home.Create(id, c.Rm && !c.create); err != nil {
		return err
	}
	if err = c.fill(app, launch.Folder, &config.Plan, from.place); err != nil {
		launch.Folder.Discard()
		return err
	}
	volumes := app.nameVolumes(launch.Folder, &config)
	launch.Config = config
	launch.Unwritten = c.Rm && !c.create && !c.Detach && len(volumes) == 0 && len(app.held) == 0
	if !launch.Unwritten { // before volumes are made: should we be killed, the next Sweep knows of them
		err = launch.Folder.Write(config)
	}
	if err == nil {
		err = app.makeVolumes(volumes)
	}
	if err != nil {
		launch.Folder.Discard()
		return err
	}
	if err = c.makeRoom(app, home); err != nil { // now that nothing else can go wrong
		launch.Folder.Discard()
		return err
	}
	if err = launch.Folder.Born(config.Name); err != nil {
		return err
	}
	if !launch.Unwritten {
		container.Record(home, container.Info{Config: config}, "create", nil)
		app.letGo()
	}
	if c.Cidfile == "" {
		return nil
	}
	if err = os.WriteFile(c.Cidfile, []byte(id), 0o644); err != nil {
		launch.Folder.Discard()
	}
	return err
}

// absolute is path from the root, "" if it is empty.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}

// fill makes what the plan expects: the container's writable layer, in place or
// in its folder.
func (c *RunCmd) fill(app *App, f *container.Folder, p *stage.Plan, place string) error {
	r := &p.Root
	if r.Driver == "dir" {
		return nil
	}
	now, then, err := f.MakeWritable(place)
	if err != nil {
		return err
	}
	switch r.Driver {
	case string(rootfs.Overlay), string(rootfs.Fuse):
		r.Volatile = c.Rm && !c.create // nobody starts it a second time
		r.Upper, r.Work = filepath.Join(then, "upper"), filepath.Join(then, "work")
		upper := filepath.Join(now, "upper")
		return errors.Join(os.Mkdir(upper, 0o755), os.Chmod(upper, rootMode(r.Lowers)), os.Mkdir(filepath.Join(now, "work"), 0o755))
	case string(rootfs.Copy):
		ctx, stop := interruptible()
		defer stop()
		client := &unpackClient{outer: app.Outer}
		defer client.Close()
		whole := filepath.Join(now, "rootfs")
		if err := errors.Join(os.Mkdir(whole, 0o755), client.Copy(ctx, whole, r.Lowers)); err != nil {
			return errors.Join(orInterrupted(ctx, err), client.Remove(context.Background(), whole))
		}
		*r = stage.Root{Driver: "dir", Dir: filepath.Join(then, "rootfs")}
	}
	return nil
}

// rootMode is the mode of the topmost layer's root, which is the image's. Our
// umask must not get in its way.
func rootMode(lowers []string) os.FileMode {
	if len(lowers) > 0 {
		if st, err := os.Stat(lowers[len(lowers)-1]); err == nil {
			return st.Mode() & (os.ModePerm | os.ModeSticky)
		}
	}
	return 0o755
}
