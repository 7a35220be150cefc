//go:build !front

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rbox/cgroupv2"
	"rbox/idmap"
	"rbox/rootfs/store"
	"rbox/rootfs/volume"
	"rbox/userns/container"
)

// SystemDfCmd shows what takes how much of the disk.
type SystemDfCmd struct {
	Verbose bool   `short:"v" help:"Show each image, container and volume."`
	Format  string `placeholder:"TEMPLATE" help:"json, table, or a Go template over Docker's fields."`
}

// A dfRow is one line of the listing, with Docker's field names.
type dfRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

// usage is all that rbox keeps for one user on one host, with its sizes.
type usage struct {
	images     []*store.Image
	users      map[string][]*container.Info // by image
	containers []*container.Info
	written    []int64 // of each container
	volumes    []volume.Volume
	volumeSize []int64
	mounted    map[string][]string // containers, by volume
}

// Run prints Docker's columns.
func (c *SystemDfCmd) Run(app *App) error {
	u, err := app.usage()
	if err != nil {
		return err
	}
	if c.Verbose && c.Format == "" {
		return u.printAll(app.Stdout)
	}
	l := listing{
		columns:  []column{{"Active", "ACTIVE"}, {"Reclaimable", "RECLAIMABLE"}, {"Size", "SIZE"}, {"TotalCount", "TOTAL"}, {"Type", "TYPE"}},
		standard: []string{"Type", "TotalCount", "Active", "Size", "Reclaimable"},
	}
	return l.print(app.Stdout, c.Format, []any{u.imagesRow(), u.containersRow(), u.volumesRow()})
}

// usage measures.
func (a *App) usage() (u *usage, err error) {
	u = new(usage)
	s, err := a.Images()
	if err != nil {
		return nil, err
	}
	home, err := a.Home()
	if err != nil {
		return nil, err
	}
	if u.images, err = s.List(); err != nil {
		return nil, err
	}
	if u.users, err = a.imageUsers(); err != nil {
		return nil, err
	}
	if u.containers, err = home.Brief(true); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if u.written, err = a.written(ctx, home, u.containers); err != nil {
		return nil, err
	}
	if u.volumes, err = a.Volumes().List(); err != nil {
		return nil, err
	}
	if u.mounted, err = a.volumeUsers(); err != nil {
		return nil, err
	}
	client := &unpackClient{outer: a.Outer}
	defer client.Close()
	for _, v := range u.volumes {
		size := int64(0)
		if v.Device == "" { // else it is none of ours
			if size, err = client.Size(ctx, a.Volumes().Mountpoint(v.Name)); err != nil {
				return nil, err
			}
		}
		u.volumeSize = append(u.volumeSize, size)
	}
	return u, nil
}

func newDfRow(kind string, total, active int, size, reclaimable int64) dfRow {
	row := dfRow{Type: kind, TotalCount: strconv.Itoa(total), Active: strconv.Itoa(active), Size: humanSize(size, 4), Reclaimable: humanSize(reclaimable, 4)}
	if size > 0 {
		row.Reclaimable += fmt.Sprintf(" (%d%%)", reclaimable*100/size)
	}
	return row
}

func (u *usage) imagesRow() dfRow {
	used := slices.DeleteFunc(slices.Clone(u.images), func(m *store.Image) bool { return len(u.users[string(m.ID)]) == 0 })
	size := diskUse(u.images)
	return newDfRow("Images", len(u.images), len(used), size, size-diskUse(used))
}

func (u *usage) containersRow() dfRow {
	var running int
	var size, ended int64
	for i, info := range u.containers {
		size += u.written[i]
		if info.Running {
			running++
		} else {
			ended += u.written[i]
		}
	}
	return newDfRow("Containers", len(u.containers), running, size, ended)
}

func (u *usage) volumesRow() dfRow {
	var active int
	var size, unused int64
	for i, v := range u.volumes {
		size += u.volumeSize[i]
		if len(u.mounted[v.Name]) > 0 {
			active++
		} else {
			unused += u.volumeSize[i]
		}
	}
	return newDfRow("Local Volumes", len(u.volumes), active, size, unused)
}

// printAll is -v.
func (u *usage) printAll(w io.Writer) error {
	fmt.Fprint(w, "Images space usage:\n\n")
	t := newTable(w)
	fmt.Fprintln(t, "REPOSITORY\tTAG\tIMAGE ID\tCREATED\tSIZE\tSHARED SIZE\tUNIQUE SIZE\tCONTAINERS")
	for i, m := range u.images {
		others := slices.Delete(slices.Clone(u.images), i, i+1)
		unique := diskUse(u.images) - diskUse(others)
		size := diskUse([]*store.Image{m})
		for _, row := range imageRows(m, everyImage) {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", row.Repository, row.Tag, shortID(row.ID), row.CreatedSince,
				humanSize(size, 4), humanSize(size-unique, 4), humanSize(unique, 4), len(u.users[string(m.ID)]))
		}
	}
	t.Flush()
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	fmt.Fprintln(t, "CONTAINER ID\tIMAGE\tCOMMAND\tLOCAL VOLUMES\tSIZE\tCREATED\tSTATUS\tNAMES")
	now, ps := time.Now(), new(PsCmd)
	for i, info := range u.containers {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", ps.id(info), ps.image(info), ps.command(info), len(info.Config.Volumes),
			humanSize(u.written[i], 3), humanDuration(now.Sub(info.Config.Created))+" ago", statusText(info, now), info.Name())
	}
	t.Flush()
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	fmt.Fprintln(t, "VOLUME NAME\tLINKS\tSIZE")
	for i, v := range u.volumes {
		fmt.Fprintf(t, "%s\t%d\t%s\n", v.Name, len(u.mounted[v.Name]), humanSize(u.volumeSize[i], 4))
	}
	return t.Flush()
}

// SystemPruneCmd removes what nothing uses.
type SystemPruneCmd struct {
	All     bool     `short:"a" help:"Remove all images that no container uses, not those without a name only."`
	Volumes bool     `help:"Remove anonymous volumes that no container uses, too."`
	Force   bool     `short:"f" help:"Do not ask."`
	Filter  []string `sep:"none" placeholder:"KEY=VALUE" help:"Only what was made before until=TIME (a date, or a duration such as 24h), with label=NAME[=VALUE] or without label!=NAME[=VALUE]."`
}

// Run asks, then prints what it removed and the space that is free again.
func (c *SystemPruneCmd) Run(app *App) error {
	wanted, err := parsePruneFilters(c.Filter)
	if err != nil {
		return err
	}
	if !c.Force && !confirm(app, c.warning()) {
		return nil
	}
	removed, freed, failed := app.pruneContainers(wanted)
	printPruned(app, "Deleted Containers", removed)
	if c.Volumes {
		names, bytes, err := app.pruneVolumes(func(v volume.Volume) bool { return v.Anonymous && wanted.keeps(v.CreatedAt, volumeLabels(v)) })
		failed = errors.Join(failed, err)
		printPruned(app, "Deleted Volumes", names)
		freed += bytes
	}
	names, err := app.pruneNetworks(wanted)
	failed = errors.Join(failed, err)
	printPruned(app, "Deleted Networks", names)
	lines, bytes, err := app.pruneImages(c.All, wanted)
	failed = errors.Join(failed, err, app.tidyPlaces(context.Background()))
	printPruned(app, "Deleted Images", lines)
	fmt.Fprintln(app.Stdout, "Total reclaimed space:", humanSize(freed+bytes, 4))
	return failed
}

func (c *SystemPruneCmd) warning() string {
	what := []string{"all stopped containers", "all networks not used by at least one container"}
	if c.Volumes {
		what = append(what, "all anonymous volumes not used by at least one container")
	}
	if c.All {
		what = append(what, "all images without at least one container associated to them")
	} else {
		what = append(what, "all dangling images")
	}
	text := "This will remove:"
	for _, w := range what {
		text += "\n  - " + w
	}
	return text + "\n"
}

// InfoCmd shows where rbox keeps what, and what this host grants.
type InfoCmd struct {
	Format string `short:"f" placeholder:"TEMPLATE" help:"json, or a Go template over Docker's fields."`
}

// An infoDetail is what docker info tells, as far as there is an answer.
type infoDetail struct {
	Containers        int
	ContainersRunning int
	ContainersPaused  int
	ContainersStopped int
	Images            int
	Volumes           int
	Driver            string
	CgroupVersion     string
	CgroupControllers []string
	KernelVersion     string
	OSType            string
	Architecture      string
	NCPU              int
	Name              string
	DockerRootDir     string
	LayersDir         string // where layers lie, and what containers write
	RuntimeDir        string
	HTTPProxy         string `json:"HttpProxy"`
	HTTPSProxy        string `json:"HttpsProxy"`
	NoProxy           string
	ServerVersion     string
	SecurityOptions   []string
	UIDMap, GIDMap    []idmap.Mapping
}

// Run prints a line for each.
func (c *InfoCmd) Run(app *App) error {
	d, err := app.info()
	if err != nil {
		return err
	}
	if c.Format == "json" {
		return printJSON(app.Stdout, d, "")
	}
	if c.Format != "" {
		return printTemplate(app.Stdout, c.Format, []infoDetail{d})
	}
	w := app.Stdout
	fmt.Fprintf(w, "Containers: %d\n Running: %d\n Paused: %d\n Stopped: %d\n", d.Containers, d.ContainersRunning, d.ContainersPaused, d.ContainersStopped)
	fmt.Fprintf(w, "Images: %d\nVolumes: %d\nServer Version: %s\n", d.Images, d.Volumes, d.ServerVersion)
	fmt.Fprintf(w, "Storage Driver: %s\nCgroup Version: %s\n Controllers: %s\n", d.Driver, d.CgroupVersion, strings.Join(d.CgroupControllers, " "))
	fmt.Fprintf(w, "Kernel Version: %s\nOSType: %s\nArchitecture: %s\nCPUs: %d\nName: %s\n", d.KernelVersion, d.OSType, d.Architecture, d.NCPU, d.Name)
	fmt.Fprintf(w, "User ids: %s\nGroup ids: %s\n", mapText(d.UIDMap), mapText(d.GIDMap))
	_, err = fmt.Fprintf(w, "Root Dir: %s\nLayers Dir: %s\nRuntime Dir: %s\n", d.DockerRootDir, d.LayersDir, d.RuntimeDir)
	return err
}

// mapText shows id maps as /proc/PID/uid_map does.
func mapText(maps []idmap.Mapping) string {
	var parts []string
	for _, m := range maps {
		parts = append(parts, fmt.Sprintf("%d:%d:%d", m.Inside, m.Outside, m.Count))
	}
	return strings.Join(parts, " ")
}

func (a *App) info() (d infoDetail, err error) {
	home, err := a.Home()
	if err != nil {
		return d, err
	}
	list, err := home.Brief(true)
	if err != nil {
		return d, err
	}
	for _, info := range list {
		switch info.Status() {
		case "running", "restarting":
			d.ContainersRunning++
		case "paused":
			d.ContainersPaused++
		default:
			d.ContainersStopped++
		}
	}
	s, err := a.Images()
	if err != nil {
		return d, err
	}
	images, err := s.List()
	if err != nil {
		return d, err
	}
	volumes, err := a.Volumes().List()
	if err != nil {
		return d, err
	}
	outer, err := a.Outer()
	if err != nil {
		return d, err
	}
	driver, err := a.Driver()
	if errors.As(err, new(*NoPlaceError)) {
		a.report(err)
	} else if err != nil {
		return d, err
	}
	d.LayersDir = a.layerRoot()
	if d.LayersDir == "" {
		d.LayersDir = filepath.Join(a.Root, layersDir)
	}
	d.Containers, d.Images, d.Volumes, d.Driver = len(list), len(images), len(volumes), string(driver)
	d.DockerRootDir, d.ServerVersion, d.OSType = a.Root, version, "linux"
	d.UIDMap, d.GIDMap, d.SecurityOptions = outer.Maps.UIDs, outer.Maps.GIDs, []string{"name=rootless"}
	d.HTTPProxy, d.HTTPSProxy, d.NoProxy = os.Getenv("HTTP_PROXY"), os.Getenv("HTTPS_PROXY"), os.Getenv("NO_PROXY")
	describeHost(&d)
	d.RuntimeDir, err = a.runtimeDir()
	return d, err
}

// describeHost fills in what this machine is.
func describeHost(d *infoDetail) {
	d.NCPU, d.Architecture = runtime.NumCPU(), runtime.GOARCH
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		d.KernelVersion, d.Name = unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Nodename[:])
		d.Architecture = unix.ByteSliceToString(u.Machine[:])
	}
	d.CgroupVersion = "none"
	if r, err := cgroupv2.Detect(); err == nil {
		d.CgroupVersion = strings.TrimPrefix(string(r.Mode), "v")
		if r.Delegated() {
			d.CgroupControllers = r.Controllers
		}
	}
}
