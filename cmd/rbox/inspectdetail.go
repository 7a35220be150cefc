package main

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"rbox/cgroupv2"
	"rbox/rootfs"
	"rbox/slirp"
	"rbox/userns/container"
	"rbox/userns/stage"
)

// A containerDetail is Docker's answer about one container (Engine API,
// ContainerInspect). What rbox has no use for has the value that Docker gives
// it where it is unused.
type containerDetail struct {
	ID              string `json:"Id"`
	Created         string
	Path            string
	Args            []string
	State           detailState
	Image           string
	ResolvConfPath  string
	HostnamePath    string
	HostsPath       string
	LogPath         string
	Name            string
	RestartCount    int
	Driver          string
	Platform        string
	MountLabel      string
	ProcessLabel    string
	AppArmorProfile string
	EffectiveCaps   []string // this and the next are Podman's
	BoundingCaps    []string
	ExecIDs         []string
	HostConfig      detailHost
	GraphDriver     detailGraph
	SizeRw          *int64 `json:",omitempty"`
	SizeRootFs      *int64 `json:",omitempty"`
	Mounts          []mountPoint
	Config          detailConfig
	NetworkSettings detailNetwork
}

// Id is ID, by the name that it has in JSON: templates call it both.
func (d *containerDetail) Id() string { return d.ID }

type detailState struct {
	Status     string
	Running    bool
	Paused     bool
	Restarting bool
	OOMKilled  bool
	Dead       bool
	Pid        int
	ExitCode   int
	Error      string
	StartedAt  string
	FinishedAt string
	MemoryPeak int64                        `json:",omitempty"` // bytes, of the last run
	CPUSeconds float64                      `json:",omitempty"`
	CgroupPath string                       `json:",omitempty"`
	Pressure   map[string]cgroupv2.Pressure `json:",omitempty"`
	Health     *detailHealth                `json:",omitempty"`
	// Confinement is what the kernel says of the first process.
	Confinement *Confinement        `json:",omitempty"`
	Monitor     *ProcessConfinement `json:",omitempty"`
}

type detailHealth struct {
	Status        string
	FailingStreak int
	Log           []container.HealthResult
}

type detailHost struct {
	Annotations       map[string]string `json:",omitempty"`
	Binds             []string
	ContainerIDFile   string
	LogConfig         detailLog
	NetworkMode       string
	PortBindings      map[string][]slirp.Binding
	RestartPolicy     detailRestart
	AutoRemove        bool
	VolumeDriver      string
	VolumesFrom       []string
	CapAdd            []string
	CapDrop           []string
	CgroupnsMode      string
	DNS               []string `json:"Dns"`
	DNSOptions        []string `json:"DnsOptions"`
	DNSSearch         []string `json:"DnsSearch"`
	ExtraHosts        []string
	GroupAdd          []string
	IpcMode           string
	PidMode           string
	Privileged        bool
	PublishAllPorts   bool
	ReadonlyRootfs    bool
	SecurityOpt       []string
	Tmpfs             map[string]string `json:",omitempty"`
	UTSMode           string
	UsernsMode        string
	ShmSize           int64
	Sysctls           map[string]string `json:",omitempty"`
	Runtime           string
	Memory            int64
	MemorySwap        int64
	NanoCpus          int64
	CPUShares         int64 `json:"CpuShares"`
	CPUQuota          int64 `json:"CpuQuota"`
	CPUPeriod         int64 `json:"CpuPeriod"`
	CpusetCpus        string
	CpusetMems        string
	MemoryReservation int64
	BlkioWeight       int64
	CgroupParent      string
	OomScoreAdj       int
	PidsLimit         *int64
	OomKillDisable    *bool
	Devices           []detailDevice
	Ulimits           []detailUlimit
	MaskedPaths       []string
	ReadonlyPaths     []string
	Init              *bool `json:",omitempty"`
}

type detailLog struct {
	Type   string
	Config map[string]string
}

type detailRestart struct {
	Name              string
	MaximumRetryCount int
}

type detailDevice struct{ PathOnHost, PathInContainer, CgroupPermissions string }

type detailUlimit struct {
	Name       string
	Hard, Soft int64 // -1: no limit
}

type detailGraph struct {
	Name string
	Data map[string]string
}

type detailConfig struct {
	Hostname     string
	Domainname   string
	User         string
	AttachStdin  bool
	AttachStdout bool
	AttachStderr bool
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Tty          bool
	OpenStdin    bool
	StdinOnce    bool
	Env          []string
	Cmd          []string
	Healthcheck  *container.Healthcheck `json:",omitempty"`
	Image        string
	Volumes      map[string]struct{}
	WorkingDir   string
	Entrypoint   []string
	OnBuild      []string
	Labels       map[string]string
	Annotations  map[string]string `json:",omitempty"`
	StopSignal   string
	StopTimeout  *int `json:",omitempty"`
}

type detailNetwork struct {
	Bridge              string
	SandboxID           string
	SandboxKey          string
	Ports               map[string][]slirp.Binding
	EndpointID          string
	Gateway             string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	IPAddress           string
	IPPrefixLen         int
	IPv6Gateway         string
	MacAddress          string
	Networks            map[string]detailEndpoint
}

type detailEndpoint struct {
	IPAMConfig          *detailIPAM
	Links               []string
	Aliases             []string
	MacAddress          string
	NetworkID           string
	EndpointID          string
	Gateway             string
	IPAddress           string
	IPPrefixLen         int
	IPv6Gateway         string
	GlobalIPv6Address   string
	GlobalIPv6PrefixLen int
	DNSNames            []string
	Process             *ProcessConfinement `json:",omitempty"` // that serves the network
}

// detailIPAM has the addresses that were asked for.
type detailIPAM struct {
	IPv4Address string `json:",omitempty"`
	IPv6Address string `json:",omitempty"`
}

// newContainerDetail is what rbox knows of a container in Docker's words.
func newContainerDetail(app *App, info container.Info) *containerDetail {
	c, p := info.Config, info.Config.Plan
	d := &containerDetail{
		ID: c.ID, Created: c.Created.UTC().Format(time.RFC3339Nano), Args: []string{},
		State: newDetailState(info), Image: c.ImageID, Name: "/" + info.Name(), RestartCount: info.State.Restarts,
		Driver: driverName(p.Root), Platform: "linux", HostConfig: newDetailHost(c), GraphDriver: newDetailGraph(info),
		Mounts: mountPoints(c), Config: newDetailConfig(app, c),
	}
	d.HostConfig.limit(c.Cgroup, info.Limits())
	if args := p.Process.Args; len(args) > 0 {
		d.Path, d.Args = args[0], args[1:]
	}
	d.EffectiveCaps, d.BoundingCaps = capabilitiesOf(info)
	if c.Log.Driver == "file" {
		d.LogPath = filepath.Join(info.Dir, "log")
	}
	d.NetworkSettings = newDetailNetwork(app, info)
	return d
}

// driverName is the storage driver's; a bound directory has none.
func driverName(r stage.Root) string {
	if r.Driver == "dir" && strings.HasSuffix(r.Dir, "/rootfs") {
		return string(rootfs.Copy)
	}
	return r.Driver
}

func newDetailState(info container.Info) detailState {
	s := info.State
	d := detailState{
		Status: info.Status(), Running: info.Running, Paused: info.Running && s.Paused, Restarting: info.Running && s.Restarting,
		OOMKilled: s.OOMKilled, Pid: s.Pid, ExitCode: s.ExitStatus, Error: s.Error,
		StartedAt: s.Started.UTC().Format(time.RFC3339Nano), FinishedAt: s.Finished.UTC().Format(time.RFC3339Nano),
	}
	if s.Usage != nil {
		d.MemoryPeak, d.CPUSeconds = s.Usage.MemoryPeak, s.Usage.CPU.Seconds()
	}
	if info.Running && s.Cgroup != "" {
		d.CgroupPath = s.Cgroup
		d.Pressure = cgroupv2.ReadPressure(s.Cgroup)
	}
	if c, ok := confinementOf(s.Pid); ok && info.Running {
		d.Confinement, d.Monitor = &c, monitorOf(s)
	}
	if s.Health != nil {
		d.Health = &detailHealth{s.Health.Status, s.Health.FailingStreak, s.Health.Log}
	}
	return d
}

func newDetailHost(c container.Config) detailHost {
	p := c.Plan
	h := detailHost{
		Binds: c.Options.Binds, NetworkMode: networkMode(c), PortBindings: portBindings(c), PublishAllPorts: c.Options.PublishAll,
		LogConfig:   detailLog{Type: c.Log.Driver, Config: logOptions(c.Log)},
		Annotations: c.Annotations, RestartPolicy: detailRestart{c.Restart.Name, c.Restart.Limit}, AutoRemove: c.AutoRemove, CgroupnsMode: "private",
		DNS: notNil(c.Options.DNS), DNSOptions: notNil(c.Options.DNSOpts), DNSSearch: notNil(c.Options.Search), ExtraHosts: c.Options.AddHost, GroupAdd: p.Process.Groups,
		IpcMode: c.Options.Ipc, PidMode: c.Options.Pid, UTSMode: c.Options.Uts, UsernsMode: c.Options.Userns,
		ReadonlyRootfs: p.ReadOnly, ShmSize: p.ShmSize, Runtime: "rbox", Devices: []detailDevice{}, Ulimits: []detailUlimit{},
		MaskedPaths: notNil(p.Masked), ReadonlyPaths: notNil(p.Locked), CapAdd: c.Options.CapAdd, CapDrop: c.Options.CapDrop,
		Privileged: c.Options.Privileged, Sysctls: sysctlMap(p), SecurityOpt: c.Options.SecurityOpt,
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = "no"
	}
	if h.IpcMode == "" {
		h.IpcMode = "private"
	}
	if p.Process.KeepGroups {
		h.GroupAdd = append(slices.Clone(h.GroupAdd), "keep-groups")
	}
	if p.Process.Init {
		h.Init = &p.Process.Init
	}
	for _, d := range p.Devices {
		h.Devices = append(h.Devices, detailDevice{d.Source, d.Target, "rwm"})
	}
	for _, l := range p.Process.Rlimits {
		h.Ulimits = append(h.Ulimits, detailUlimit{stage.RlimitName(l.Resource), int64(l.Hard), int64(l.Soft)})
	}
	for _, m := range p.Mounts {
		if m.Type == "tmpfs" {
			if h.Tmpfs == nil {
				h.Tmpfs = map[string]string{}
			}
			h.Tmpfs[m.Target] = tmpfsOptions(m)
		}
	}
	return h
}

// newDetailNetwork says which networks the container is on or, while it does not
// run, is to be on.
func newDetailNetwork(app *App, info container.Info) detailNetwork {
	d := detailNetwork{Ports: map[string][]slirp.Binding{}, Networks: map[string]detailEndpoint{}}
	for _, name := range info.NetworkNames() {
		d.Networks[name] = detailEndpoint{}
	}
	if info.Running && len(info.State.Networks) > 0 {
		d.SandboxID, d.SandboxKey = info.Config.ID, "/proc/"+strconv.Itoa(info.State.Pid)+"/ns/net"
		d.Ports = slirp.PortMap(publishedPorts(&info), info.Config.Options.Exposed)
		for _, a := range info.State.Networks {
			d.Networks[a.Network] = newDetailEndpoint(app, a)
		}
		first := d.Networks[info.State.Networks[0].Network]
		d.EndpointID, d.MacAddress = first.EndpointID, first.MacAddress
		d.Gateway, d.IPAddress, d.IPPrefixLen = first.Gateway, first.IPAddress, first.IPPrefixLen
		d.IPv6Gateway, d.GlobalIPv6Address, d.GlobalIPv6PrefixLen = first.IPv6Gateway, first.GlobalIPv6Address, first.GlobalIPv6PrefixLen
	}
	for _, r := range info.Networks() {
		name := container.RequestName(r)
		e := d.Networks[name]
		if r.Plan.Name != "" && (r.Endpoint.IP.IsValid() || r.Endpoint.IP6.IsValid()) {
			e.IPAMConfig = &detailIPAM{addressText(r.Endpoint.IP), addressText(r.Endpoint.IP6)}
			d.Networks[name] = e
		}
	}
	return d
}

func newDetailEndpoint(app *App, a container.Attachment) detailEndpoint {
	e := detailEndpoint{
		Aliases: notNil(a.Names), DNSNames: notNil(a.Names), MacAddress: a.MAC, EndpointID: a.Container,
		Gateway: addressText(a.Gateway), IPAddress: addressText(a.IP), IPPrefixLen: a.Bits,
		IPv6Gateway: addressText(a.Gateway6), GlobalIPv6Address: addressText(a.IP6), GlobalIPv6PrefixLen: a.Bits6,
		Process: serverOf(a),
	}
	if n, err := app.Networks().Get(a.Network); err == nil {
		e.NetworkID = n.ID
	}
	return e
}

// addressText is "" for no address.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// limit shows the limits as Docker counts them.
func (h *detailHost) limit(c container.Cgroup, l cgroupv2.Limits) {
	h.Memory, h.MemorySwap, h.MemoryReservation = l.Memory, l.MemorySwap, max(l.Reservation, l.MemoryLow)
	h.CPUQuota, h.CPUPeriod, h.CPUShares = l.CPUQuota, l.CPUPeriod, l.CPUShares
	if l.CPUQuota > 0 && l.CPUPeriod > 0 {
		h.NanoCpus = l.CPUQuota * 1e9 / l.CPUPeriod
	}
	h.CpusetCpus, h.CpusetMems, h.BlkioWeight, h.CgroupParent = l.CPUs, l.Mems, l.BlkioWeight, c.Parent
	if c.OOMScore != nil {
		h.OomScoreAdj = *c.OOMScore
	}
	if l.Pids != 0 {
		h.PidsLimit = &l.Pids
	}
}

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// tmpfsOptions are those of --tmpfs.
func tmpfsOptions(m rootfs.Mount) string {
	var o []string
	if m.Size > 0 {
		o = append(o, "size="+strconv.FormatInt(m.Size, 10))
	}
	if m.Mode != 0 {
		o = append(o, "mode="+strconv.FormatUint(uint64(m.Mode), 8))
	}
	if m.Data != "" {
		o = append(o, m.Data)
	}
	return strings.Join(o, ",")
}

func logOptions(l container.LogConfig) map[string]string {
	o := map[string]string{}
	if l.MaxSize > 0 {
		o["max-size"] = strconv.FormatInt(l.MaxSize, 10)
	}
	if l.MaxFile > 0 {
		o["max-file"] = strconv.Itoa(l.MaxFile)
	}
	return o
}

// newDetailGraph says where the container's files are. The merged tree is
// mounted where only the container's processes see it: /proc leads there.
func newDetailGraph(info container.Info) detailGraph {
	r := info.Config.Plan.Root
	g := detailGraph{Name: driverName(r), Data: map[string]string{}}
	if len(r.Lowers) > 0 {
		lowers := slices.Clone(r.Lowers)
		slices.Reverse(lowers)
		g.Data["LowerDir"], g.Data["UpperDir"], g.Data["WorkDir"] = strings.Join(lowers, ":"), r.Upper, r.Work
	}
	if r.Dir != "" {
		g.Data["MergedDir"] = r.Dir
	} else if info.State.Pid != 0 {
		g.Data["MergedDir"] = "/proc/" + strconv.Itoa(info.State.Pid) + "/root"
	}
	return g
}

func newDetailConfig(app *App, c container.Config) detailConfig {
	p := c.Plan.Process
	d := detailConfig{
		Hostname: c.Plan.Hostname, User: p.User, AttachStdin: c.StdinOnce, AttachStdout: true, AttachStderr: true,
		Tty: p.Terminal, OpenStdin: c.OpenStdin, StdinOnce: c.StdinOnce, Env: notNil(p.Env), Cmd: c.Command, Healthcheck: c.Health,
		Image: c.Image, WorkingDir: p.Cwd, Entrypoint: c.Entrypoint, Labels: c.Labels, Annotations: c.Annotations, StopSignal: c.StopSignal,
		StopTimeout: &c.StopTimeout,
	}
	if len(c.Entrypoint)+len(c.Command) == 0 {
		d.Cmd = p.Args
	}
	if d.Labels == nil {
		d.Labels = map[string]string{}
	}
	if c.StopSignal == "" {
		d.StopSignal = "SIGTERM"
	}
	if len(c.Options.Exposed) > 0 {
		d.ExposedPorts = map[string]struct{}{}
		for _, port := range c.Options.Exposed {
			d.ExposedPorts[port] = struct{}{}
		}
	}
	if c.ImageID == "" {
		return d
	}
	// What the image declares is not kept with the container: the image is, as
	// long as the container is there.
	if s, err := app.Images(); err == nil {
		if m, err := s.Lookup(c.ImageID); err == nil {
			d.Volumes = m.Config.Config.Volumes
		}
	}
	return d
}
