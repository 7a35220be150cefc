//go:build !front

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rbox/rootfs/volume"
	"rbox/userns/container"
)

// VolumeCmd holds the commands about volumes.
type VolumeCmd struct {
	Create  VolumeCreateCmd  `cmd:"" help:"Make a volume and print its name."`
	Ls      VolumeLsCmd      `cmd:"" aliases:"list" help:"List volumes."`
	Inspect VolumeInspectCmd `cmd:"" help:"Show all about volumes, as JSON."`
	Exists  VolumeExistsCmd  `cmd:"" help:"Tell by the exit status, 0 or 1, whether there is a volume."`
	Rm      VolumeRmCmd      `cmd:"" aliases:"remove" help:"Remove volumes, with what is in them."`
	Prune   VolumePruneCmd   `cmd:"" help:"Remove anonymous volumes that no container uses."`
}

// VolumeCreateCmd makes a volume.
type VolumeCreateCmd struct {
	Driver string   `short:"d" enum:"local" default:"local" help:"Driver: there is local alone." placeholder:"DRIVER"`
	Label  []string `short:"l" sep:"none" help:"Label the volume." placeholder:"NAME[=VALUE]"`
	Opt    []string `short:"o" sep:"none" help:"type=none, o=bind and device=DIR, together, make a directory of yours the volume." placeholder:"NAME=VALUE"`
	Name   string   `arg:"" optional:"" name:"NAME" help:"Name of the volume; 64 random digits without one."`
}

// Run prints the name, be the volume new or not.
func (c *VolumeCreateCmd) Run(app *App) error {
	v := volume.Volume{Name: c.Name, CreatedAt: time.Now(), Anonymous: c.Name == ""}
	if v.Anonymous {
		v.Name = volume.NewName()
	}
	var err error
	if len(c.Label) > 0 {
		if v.Labels, err = pairs("label", c.Label); err != nil {
			return err
		}
	}
	if v.Options, v.Device, err = volumeOptions(c.Opt); err != nil {
		return err
	}
	made, err := app.Volumes().Create(v)
	if err != nil {
		return err
	}
	if made {
		app.recordVolume("create", v.Name)
	}
	_, err = fmt.Fprintln(app.Stdout, v.Name)
	return err
}

// volumeOptions reads the options of Docker's driver local, which are those of
// mount(8), as far as they need no root.
func volumeOptions(given []string) (options map[string]string, device string, err error) {
	if len(given) == 0 {
		return nil, "", nil
	}
	options = map[string]string{}
	for _, o := range given {
		k, v, ok := strings.Cut(o, "=")
		if !ok || k != "type" && k != "o" && k != "device" {
			return nil, "", fmt.Errorf("--opt %s: there are type=none, o=bind and device=DIR", o)
		}
		options[k] = v
	}
	if kind := options["type"]; kind != "none" && kind != "bind" && kind != "" || options["o"] != "bind" && options["o"] != "rbind" {
		return nil, "", &adviceError{
			fmt.Errorf("--opt type=%s --opt o=%s: mounting that takes root", kind, options["o"]),
			"a directory works: --opt type=none --opt o=bind --opt device=DIR",
		}
	}
	device = options["device"]
	if !filepath.IsAbs(device) {
		return nil, "", fmt.Errorf("--opt device=%s: not an absolute path", device)
	}
	if st, err := os.Stat(device); err != nil || !st.IsDir() {
		return nil, "", fmt.Errorf("--opt device=%s: there is no such directory", device)
	}
	return options, filepath.Clean(device), nil
}

// VolumeLsCmd lists volumes.
type VolumeLsCmd struct {
	Quiet  bool     `short:"q" help:"Show names only."`
	Filter []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"Only those with name=PART, label=NAME[=VALUE], label!=NAME[=VALUE], driver=local or dangling=BOOL: whether no container uses it."`
	Format string   `placeholder:"TEMPLATE" help:"json, table, or a Go template over Docker's fields."`
}

// A volumeRow is one line of the listing, with Docker's field names.
type volumeRow struct {
	Availability string
	Driver       string
	Group        string
	Labels       string
	Links        string
	Mountpoint   string
	Name         string
	Scope        string
	Size         string
	Status       string

	labels map[string]string
}

// Label is the value of one label.
func (r volumeRow) Label(name string) string { return r.labels[name] }

// Run prints Docker's columns.
func (c *VolumeLsCmd) Run(app *App) error {
	keep, err := app.volumeFilters(c.Filter)
	if err != nil {
		return err
	}
	store := app.Volumes()
	all, err := store.List()
	if err != nil {
		return err
	}
	var rows []any
	for _, v := range all {
		switch {
		case !keep(v):
		case c.Quiet && c.Format == "":
			fmt.Fprintln(app.Stdout, v.Name)
		default:
			labels := volumeLabels(v)
			rows = append(rows, volumeRow{
				Availability: "N/A", Driver: localDriver, Group: "N/A", Labels: joinLabels(labels), Links: "N/A",
				Mountpoint: store.Mountpoint(v.Name), Name: v.Name, Scope: localDriver, Size: "N/A", Status: "N/A", labels: labels,
			})
		}
	}
	if c.Quiet && c.Format == "" {
		return nil
	}
	return listing{
		columns: []column{
			{"Availability", "AVAILABILITY"}, {"Driver", "DRIVER"}, {"Group", "GROUP"}, {"Labels", "LABELS"}, {"Links", "LINKS"},
			{"Mountpoint", "MOUNTPOINT"}, {"Name", "VOLUME NAME"}, {"Scope", "SCOPE"}, {"Size", "SIZE"}, {"Status", "STATUS"},
		},
		standard: []string{"Driver", "Name"},
	}.print(app.Stdout, c.Format, rows)
}

// volumeLabels are v's and the one by which Docker tells anonymous volumes.
func volumeLabels(v volume.Volume) map[string]string {
	labels := maps.Clone(v.Labels)
	if v.Anonymous {
		if labels == nil {
			labels = map[string]string{}
		}
		labels["com.docker.volume.anonymous"] = ""
	}
	return labels
}

// joinLabels is how listings show labels.
func joinLabels(labels map[string]string) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, k+"="+labels[k])
	}
	return strings.Join(words, ",")
}

// volumeFilters returns what decides whether a volume is shown.
func (a *App) volumeFilters(filters []string) (func(volume.Volume) bool, error) {
	values, err := filterValues(filters, "name", "label", "label!", "driver", "dangling")
	if err != nil {
		return nil, err
	}
	var users map[string][]string
	dangling := func(bool) bool { return true }
	if given := values["dangling"]; given != nil {
		if dangling, err = boolFilter("dangling", given); err != nil {
			return nil, err
		}
		if users, err = a.volumeUsers(); err != nil {
			return nil, err
		}
	}
	names, drivers := values["name"], values["driver"]
	return func(v volume.Volume) bool {
		isPart := func(part string) bool { return strings.Contains(v.Name, part) }
		if names != nil && !slices.ContainsFunc(names, isPart) || drivers != nil && !slices.Contains(drivers, localDriver) {
			return false
		}
		labels := volumeLabels(v)
		return hasLabels(labels, values["label"]) && lacksLabels(labels, values["label!"]) && dangling(len(users[v.Name]) == 0)
	}, nil
}

// volumeUsers are the ids of the containers that use a volume, on all hosts, by
// its name.
func (a *App) volumeUsers() (map[string][]string, error) {
	if _, err := a.Home(); err != nil { // makes the folder
		return nil, err
	}
	return container.VolumeUsers(filepath.Join(a.Root, "containers"))
}

// VolumeInspectCmd shows all about volumes.
type VolumeInspectCmd struct {
	Format  string   `short:"f" placeholder:"TEMPLATE" help:"json, or a Go template over Docker's fields."`
	Volumes []string `arg:"" name:"VOLUME" help:"Names."`
}

// A volumeDetail is Docker's answer about one volume (Engine API, VolumeInspect).
type volumeDetail struct {
	CreatedAt  string
	Driver     string
	Labels     map[string]string
	Mountpoint string
	Name       string
	Options    map[string]string
	Scope      string
}

// Run prints a JSON list of those that are there, then says which is not.
func (c *VolumeInspectCmd) Run(app *App) error {
	store := app.Volumes()
	details := []volumeDetail{}
	var missing error
	for _, name := range c.Volumes {
		v, err := store.Get(name)
		if err != nil {
			missing = errors.Join(missing, err)
			continue
		}
		details = append(details, newVolumeDetail(store, v))
	}
	if err := printEach(app.Stdout, c.Format, details); err != nil {
		return err
	}
	return missing
}

func newVolumeDetail(store *volume.Store, v volume.Volume) volumeDetail {
	return volumeDetail{
		CreatedAt: v.CreatedAt.Format(time.RFC3339), Driver: localDriver, Labels: volumeLabels(v),
		Mountpoint: store.Mountpoint(v.Name), Name: v.Name, Options: v.Options, Scope: localDriver,
	}
}

// VolumeRmCmd removes volumes.
type VolumeRmCmd struct {
	Force   bool     `short:"f" help:"Say nothing of those that do not exist."`
	Volumes []string `arg:"" name:"VOLUME" help:"Names."`
}

// Run removes each, goes on after a failure, and prints what is gone.
func (c *VolumeRmCmd) Run(app *App) error {
	r, err := app.volumeRemover()
	if err != nil {
		return err
	}
	defer r.close()
	var failed error
	for _, name := range c.Volumes {
		err := r.remove(name)
		switch {
		case err == nil, c.Force && errors.As(err, new(*volume.NotFoundError)):
			fmt.Fprintln(app.Stdout, name)
		default:
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// VolumePruneCmd removes volumes that no container uses.
type VolumePruneCmd struct {
	All    bool     `short:"a" help:"Remove all volumes that no container uses, not anonymous ones only."`
	Filter []string `sep:"none" placeholder:"KEY=VALUE" help:"Only those with label=NAME[=VALUE] or without label!=NAME[=VALUE]."`
	Force  bool     `short:"f" help:"Do not ask."`
}

// Run asks, then prints what it removed and the space that is free again.
func (c *VolumePruneCmd) Run(app *App) error {
	values, err := filterValues(c.Filter, "label", "label!")
	if err != nil {
		return err
	}
	wanted := pruneFilters{labels: values["label"], without: values["label!"]}
	which := "anonymous local volumes"
	if c.All {
		which = "all local volumes"
	}
	if !c.Force && !confirm(app, "This will remove "+which+" not used by at least one container.") {
		return nil
	}
	removed, freed, err := app.pruneVolumes(func(v volume.Volume) bool {
		return (c.All || v.Anonymous) && wanted.keeps(v.CreatedAt, volumeLabels(v))
	})
	printPruned(app, "Deleted Volumes", removed)
	fmt.Fprintln(app.Stdout, "Total reclaimed space:", humanSize(freed, 4))
	return err
}

// pruneVolumes removes those volumes among the wanted that no container uses.
// It returns their names and how many bytes they held.
func (a *App) pruneVolumes(wanted func(volume.Volume) bool) (removed []string, freed int64, err error) {
	r, err := a.volumeRemover()
	if err != nil {
		return nil, 0, err
	}
	defer r.close()
	all, err := r.store.List()
	if err != nil {
		return nil, 0, err
	}
	users, err := a.volumeUsers()
	if err != nil {
		return nil, 0, err
	}
	var failed error
	for _, v := range all {
		if !wanted(v) || len(users[v.Name]) > 0 {
			continue
		}
		size, err := r.removeSized(v)
		switch {
		case err == nil:
			removed, freed = append(removed, v.Name), freed+size
		case errors.As(err, new(*volumeInUseError)), errors.As(err, new(*volume.BusyError)), errors.As(err, new(*volume.NotFoundError)):
		default:
			failed = errors.Join(failed, err)
		}
	}
	return removed, freed, failed
}
