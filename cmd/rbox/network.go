//go:build !front

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rbox/slirp"
	"rbox/slirp/network"
	"rbox/userns/container"
	"rbox/userns/container/events"
)

// NetworkCmd holds the commands about networks.
type NetworkCmd struct {
	Create     NetworkCreateCmd     `cmd:"" help:"Make a network and print its name."`
	Ls         NetworkLsCmd         `cmd:"" aliases:"list" help:"List networks."`
	Inspect    NetworkInspectCmd    `cmd:"" help:"Show all about networks, as JSON."`
	Connect    NetworkConnectCmd    `cmd:"" help:"Connect a container to a network."`
	Disconnect NetworkDisconnectCmd `cmd:"" help:"Take a container off a network."`
	Exists     NetworkExistsCmd     `cmd:"" help:"Tell by the exit status, 0 or 1, whether there is a network."`
	Rm         NetworkRmCmd         `cmd:"" aliases:"remove" help:"Remove networks."`
	Prune      NetworkPruneCmd      `cmd:"" help:"Remove networks that no container uses."`
}

// bridgeDriver is the only kind of network there is.
const bridgeDriver = "bridge"

// NetworkCreateCmd makes a network.
type NetworkCreateCmd struct {
	Driver   string   `short:"d" enum:"bridge" default:"bridge" help:"Driver: there is bridge alone." placeholder:"DRIVER"`
	Subnet   []string `sep:"none" help:"Subnet, IPv4 or IPv6, as 10.89.7.0/24; may be given once for each." placeholder:"CIDR"`
	Gateway  []string `sep:"none" help:"Address of the gateway in a subnet; the first if not given." placeholder:"IP"`
	IPRange  []string `name:"ip-range" sep:"none" help:"Part of a subnet in which addresses of containers are chosen." placeholder:"CIDR"`
	IPv6     bool     `name:"ipv6" help:"Have IPv6, too."`
	Internal bool     `help:"Let nothing out: containers reach each other alone."`
	Label    []string `sep:"none" help:"Label the network." placeholder:"NAME[=VALUE]"`
	Opt      []string `short:"o" sep:"none" help:"mtu=BYTES." placeholder:"NAME=VALUE"`
	DNS      []string `name:"dns" sep:"none" help:"Name server for its containers to ask in place of this host's." placeholder:"IP"`
	Ignore   bool     `help:"Say nothing if there is one of that name."`
	Name     string   `arg:"" name:"NAME" help:"Name of the network."`
}

// Run prints the name.
func (c *NetworkCreateCmd) Run(app *App) error {
	n, err := c.network()
	if err != nil {
		return err
	}
	made, err := app.Networks().Create(n, app.look().Routes)
	switch {
	case errors.As(err, new(*network.ExistsError)) && c.Ignore:
	case err != nil:
		return err
	default:
		app.recordNetwork("create", made)
	}
	_, err = fmt.Fprintln(app.Stdout, c.Name)
	return err
}

// network is what the flags say.
func (c *NetworkCreateCmd) network() (n network.Network, err error) {
	n.Name = c.Name
	p := &n.Plan
	p.Internal, p.IPv4Only = c.Internal, !c.IPv6
	if len(c.Label) > 0 {
		if n.Labels, err = pairs("label", c.Label); err != nil {
			return n, err
		}
	}
	if err := c.addresses(p); err != nil {
		return n, err
	}
	for _, o := range c.Opt {
		k, v, _ := strings.Cut(o, "=")
		if k != "mtu" && k != "com.docker.network.driver.mtu" {
			return n, &adviceError{fmt.Errorf("--opt %s: there is no such option", o), "options are mtu=BYTES"}
		}
		if p.MTU, err = slirp.ParseMTU(v); err != nil {
			return n, fmt.Errorf("--opt %s%w", o, err)
		}
		n.Options = map[string]string{k: v}
	}
	p.Resolver.Servers = c.DNS
	return n, checkNames(nil, c.DNS)
}

// addresses takes subnets, gateways and ranges, one of each family.
func (c *NetworkCreateCmd) addresses(p *slirp.Plan) error {
	for _, text := range c.Subnet {
		subnet, err := network.ParseSubnet(text)
		if err != nil {
			return fmt.Errorf("--subnet: %w", err)
		}
		if err := setOnce("--subnet", text, &p.Subnet, &p.Subnet6, subnet, subnet.Addr().Is4()); err != nil {
			return err
		}
		p.IPv4Only = p.IPv4Only && subnet.Addr().Is4()
	}
	for _, text := range c.Gateway {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--gateway %s: not an IP address", text)
		}
		if err := needsSubnet("--gateway", text, p, a.Is4()); err != nil {
			return err
		}
		if err := setOnce("--gateway", text, &p.Gateway, &p.Gateway6, a, a.Is4()); err != nil {
			return err
		}
	}
	for _, text := range c.IPRange {
		r, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("--ip-range %s: not a part of a subnet, as 10.89.7.128/25 is", text)
		}
		if err := needsSubnet("--ip-range", text, p, r.Addr().Is4()); err != nil {
			return err
		}
		if err := setOnce("--ip-range", text, &p.Range, &p.Range6, r.Masked(), r.Addr().Is4()); err != nil {
			return err
		}
	}
	return nil
}

// setOnce sets the one of the family, which must have no value yet.
func setOnce[T interface {
	comparable
	IsValid() bool
}](flag, text string, four, six *T, value T, isFour bool) error {
	to := six
	if isFour {
		to = four
	}
	if (*to).IsValid() {
		return fmt.Errorf("%s %s: a network has one of IPv4 and one of IPv6", flag, text)
	}
	*to = value
	return nil
}

// needsSubnet refuses an address for a subnet that nobody knows yet.
func needsSubnet(flag, text string, p *slirp.Plan, isFour bool) error {
	if isFour && p.Subnet.IsValid() || !isFour && p.Subnet6.IsValid() {
		return nil
	}
	return &adviceError{fmt.Errorf("%s %s: give the subnet, too", flag, text), "--subnet CIDR " + flag + " " + text}
}

// recordNetwork records what was done to a network.
func (a *App) recordNetwork(action string, n network.Network) {
	a.record(events.Event{Type: "network", Action: action, ID: n.ID, Attributes: map[string]string{"name": n.Name, "type": bridgeDriver}})
}

// NetworkLsCmd lists networks.
type NetworkLsCmd struct {
	Quiet   bool     `short:"q" help:"Show ids only."`
	NoTrunc bool     `help:"Show ids in full."`
	Filter  []string `short:"f" sep:"none" placeholder:"KEY=VALUE" help:"Only those with name=PART, id=PART, label=NAME[=VALUE], label!=NAME[=VALUE], driver=bridge or dangling=BOOL: whether no container uses it."`
	Format  string   `placeholder:"TEMPLATE" help:"json, table, or a Go template over Docker's fields."`
}

// A networkRow is one line of the listing, with Docker's field names.
type networkRow struct {
	CreatedAt string
	Driver    string
	ID        string
	IPv4      string
	IPv6      string
	Internal  string
	Labels    string
	Name      string
	Scope     string
	Subnets   string

	labels map[string]string
}

// Label is the value of one label.
func (r networkRow) Label(name string) string { return r.labels[name] }

// Run prints Docker's columns.
func (c *NetworkLsCmd) Run(app *App) error {
	keep, err := app.networkFilters(c.Filter)
	if err != nil {
		return err
	}
	all, err := app.Networks().List()
	if err != nil {
		return err
	}
	var rows []any
	for _, n := range all {
		id := n.ID
		if !c.NoTrunc {
			id = container.Short(id)
		}
		switch {
		case !keep(n):
		case c.Quiet && c.Format == "":
			fmt.Fprintln(app.Stdout, id)
		default:
			rows = append(rows, newNetworkRow(n, id))
		}
	}
	if c.Quiet && c.Format == "" {
		return nil
	}
	return listing{
		columns: []column{
			{"CreatedAt", "CREATED AT"}, {"Driver", "DRIVER"}, {"ID", "NETWORK ID"}, {"IPv4", "IPV4"}, {"IPv6", "IPV6"}, {"Internal", "INTERNAL"},
			{"Labels", "LABELS"}, {"Name", "NAME"}, {"Scope", "SCOPE"}, {"Subnets", "SUBNETS"},
		},
		standard: []string{"ID", "Name", "Driver", "Scope"},
	}.print(app.Stdout, c.Format, rows)
}

func newNetworkRow(n network.Network, id string) networkRow {
	return networkRow{
		CreatedAt: n.Created.Format("2006-01-02 15:04:05.999999999 -0700 MST"), Driver: bridgeDriver, ID: id, IPv4: "true", IPv6: fmt.Sprint(!n.Plan.IPv4Only),
		Internal: fmt.Sprint(n.Plan.Internal), Labels: joinLabels(n.Labels), Name: n.Name, Scope: localDriver, Subnets: strings.Join(subnets(n.Plan), ","), labels: n.Labels,
	}
}

func subnets(p slirp.Plan) (texts []string) {
	for _, s := range []netip.Prefix{p.Subnet, p.Subnet6} {
		if s.IsValid() {
			texts = append(texts, s.String())
		}
	}
	return texts
}

// networkFilters returns what decides whether a network is shown.
func (a *App) networkFilters(filters []string) (func(network.Network) bool, error) {
	values, err := filterValues(filters, "name", "id", "label", "label!", "driver", "dangling", "type", "scope")
	if err != nil {
		return nil, err
	}
	var users map[string][]string
	dangling := func(bool) bool { return true }
	if given := values["dangling"]; given != nil {
		if dangling, err = boolFilter("dangling", given); err != nil {
			return nil, err
		}
		if users, err = a.networkUsers(); err != nil {
			return nil, err
		}
	}
	among := func(key, have string) bool { return values[key] == nil || slices.Contains(values[key], have) }
	part := func(key, have string) bool {
		return values[key] == nil || slices.ContainsFunc(values[key], func(v string) bool { return strings.Contains(have, v) })
	}
	return func(n network.Network) bool {
		return part("name", n.Name) && part("id", n.ID) && among("driver", bridgeDriver) && among("type", "custom") && among("scope", localDriver) &&
			hasLabels(n.Labels, values["label"]) && lacksLabels(n.Labels, values["label!"]) && dangling(len(users[n.Name]) == 0)
	}, nil
}

// networkUsers are the ids of the containers that are to be on a network, on
// all hosts, by its name.
func (a *App) networkUsers() (map[string][]string, error) {
	if _, err := a.Home(); err != nil { // makes the folder
		return nil, err
	}
	return container.NetworkUsers(filepath.Join(a.Root, "containers"))
}

// NetworkInspectCmd shows all about networks.
type NetworkInspectCmd struct {
	Format   string   `short:"f" placeholder:"TEMPLATE" help:"json, or a Go template over Docker's fields."`
	Networks []string `arg:"" name:"NETWORK" help:"Names or ids."`
}

// A networkDetail is Docker's answer about one network (Engine API, NetworkInspect).
type networkDetail struct {
	Name       string
	ID         string `json:"Id"`
	Created    string
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       networkIPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom struct{ Network string }
	ConfigOnly bool
	Containers map[string]networkMember
	Options    map[string]string
	Labels     map[string]string
}

type networkIPAM struct {
	Driver  string
	Options map[string]string
	Config  []networkSubnet
}

type networkSubnet struct {
	Subnet  string
	IPRange string `json:",omitempty"`
	Gateway string
}

type networkMember struct{ Name, EndpointID, MacAddress, IPv4Address, IPv6Address string }

// Run prints a JSON list of those that are there, then says which is not.
func (c *NetworkInspectCmd) Run(app *App) error {
	details := []networkDetail{}
	var missing error
	for _, name := range c.Networks {
		d, err := app.networkDetail(name)
		if err != nil {
			missing = errors.Join(missing, err)
			continue
		}
		details = append(details, d)
	}
	if err := printEach(app.Stdout, c.Format, details); err != nil {
		return err
	}
	return missing
}

func (a *App) networkDetail(name string) (d networkDetail, err error) {
	n, err := a.Networks().Find(name)
	if err != nil {
		return d, err
	}
	home, err := a.Home()
	if err != nil {
		return d, err
	}
	list, err := home.Brief(false)
	if err != nil {
		return d, err
	}
	d = networkDetail{
		Name: n.Name, ID: n.ID, Created: n.Created.Format(time.RFC3339Nano), Scope: localDriver, Driver: bridgeDriver, EnableIPv4: true, EnableIPv6: !n.Plan.IPv4Only,
		IPAM: newNetworkIPAM(n.Plan), Internal: n.Plan.Internal, Containers: map[string]networkMember{}, Options: n.Options, Labels: n.Labels,
	}
	if d.Options == nil {
		d.Options = map[string]string{}
	}
	if d.Labels == nil {
		d.Labels = map[string]string{}
	}
	for _, info := range list {
		for _, at := range info.State.Networks {
			if at.Network == n.Name {
				d.Containers[info.Config.ID] = networkMember{info.Name(), at.Container, at.MAC, prefixText(at.IP, at.Bits), prefixText(at.IP6, at.Bits6)}
			}
		}
	}
	return d, nil
}

func newNetworkIPAM(p slirp.Plan) networkIPAM {
	i := networkIPAM{Driver: "default", Options: map[string]string{}}
	for _, s := range []struct {
		subnet, within netip.Prefix
		gateway        netip.Addr
	}{{p.Subnet, p.Range, p.Gateway}, {p.Subnet6, p.Range6, p.Gateway6}} {
		if !s.subnet.IsValid() {
			continue
		}
		one := networkSubnet{Subnet: s.subnet.String(), Gateway: addressText(s.gateway)}
		if s.within.IsValid() {
			one.IPRange = s.within.String()
		}
		i.Config = append(i.Config, one)
	}
	return i
}

// prefixText is an address with its prefix's length, "" for none.
func prefixText(a netip.Addr, bits int) string {
	if !a.IsValid() {
		return ""
	}
	return netip.PrefixFrom(a, bits).String()
}

// NetworkExistsCmd tells by its exit status whether there is a network.
type NetworkExistsCmd struct {
	Name string `arg:"" name:"NETWORK" help:"Name or id."`
}

// Run prints nothing.
func (c *NetworkExistsCmd) Run(app *App) error {
	_, err := app.Networks().Find(c.Name)
	return absent(err, errors.As(err, new(*network.NotFoundError)))
}

// NetworkRmCmd removes networks.
type NetworkRmCmd struct {
	Force    bool     `short:"f" help:"Say nothing of those that do not exist."`
	Networks []string `arg:"" name:"NETWORK" help:"Names or ids."`
}

// networkInUseError reports a network that containers use.
type networkInUseError struct {
	name string
	ids  []string
}

func (e *networkInUseError) Error() string {
	return fmt.Sprintf("remove %s: network is in use - [%s]", e.name, strings.Join(e.ids, ", "))
}

// Hint is how to be rid of the users.
func (e *networkInUseError) Hint() string {
	short := make([]string, len(e.ids))
	for i, id := range e.ids {
		short[i] = container.Short(id)
	}
	return "rbox rm -f " + strings.Join(short, " ") + ", or rbox network disconnect " + e.name + " " + short[0]
}

// Run removes each, goes on after a failure, and prints what is gone.
func (c *NetworkRmCmd) Run(app *App) error {
	if err := app.sweepDead(); err != nil {
		return err
	}
	var failed error
	for _, word := range c.Networks {
		n, err := app.Networks().Find(word)
		if err == nil {
			err = app.removeNetwork(n)
		}
		switch {
		case err == nil, c.Force && errors.As(err, new(*network.NotFoundError)):
			fmt.Fprintln(app.Stdout, word)
		default:
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// sweepDead clears away containers that would count as users.
func (a *App) sweepDead() error {
	home, err := a.Home()
	if err == nil && len(home.Dead()) > 0 {
		err = a.sweep(home)
	}
	return err
}

// removeNetwork removes a network that no container uses.
func (a *App) removeNetwork(n network.Network) error {
	unused := func() error {
		users, err := a.networkUsers()
		if err == nil && len(users[n.Name]) > 0 {
			err = &networkInUseError{n.Name, users[n.Name]}
		}
		return err
	}
	if err := unused(); err != nil { // which names the containers, rather than the command that runs one
		return err
	}
	if err := a.Networks().Remove(n.Name, unused); err != nil {
		return err
	}
	a.recordNetwork("destroy", n)
	return nil
}

// NetworkPruneCmd removes networks that no container uses.
type NetworkPruneCmd struct {
	Filter []string `sep:"none" placeholder:"KEY=VALUE" help:"Only what was made before until=TIME (a date, or a duration such as 24h), with label=NAME[=VALUE] or without label!=NAME[=VALUE]."`
	Force  bool     `short:"f" help:"Do not ask."`
}

// Run asks, then prints what it removed.
func (c *NetworkPruneCmd) Run(app *App) error {
	wanted, err := parsePruneFilters(c.Filter)
	if err != nil {
		return err
	}
	if !c.Force && !confirm(app, "This will remove all networks not used by at least one container.") {
		return nil
	}
	removed, err := app.pruneNetworks(wanted)
	printPruned(app, "Deleted Networks", removed)
	return err
}

// pruneNetworks removes those of the wanted networks that no container uses,
// and returns their names.
func (a *App) pruneNetworks(wanted pruneFilters) (removed []string, err error) {
	if err := a.sweepDead(); err != nil {
		return nil, err
	}
	all, err := a.Networks().List()
	if err != nil {
		return nil, err
	}
	var failed error
	for _, n := range all {
		if !wanted.keeps(n.Created, n.Labels) {
			continue
		}
		err := a.removeNetwork(n)
		switch {
		case err == nil:
			removed = append(removed, n.Name)
		case errors.As(err, new(*networkInUseError)), errors.As(err, new(*network.BusyError)), errors.As(err, new(*network.NotFoundError)):
		default:
			failed = errors.Join(failed, err)
		}
	}
	return removed, failed
}
