//go:build !front

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"rbox/slirp"
	"rbox/slirp/network"
	"rbox/userns/container"
)

// NetworkConnectCmd connects a container to a network.
type NetworkConnectCmd struct {
	Alias      []string `sep:"none" help:"Another name of the container on the network." placeholder:"NAME"`
	IP         string   `name:"ip" help:"Its address there." placeholder:"IP"`
	IP6        string   `name:"ip6" help:"Its IPv6 address there." placeholder:"IP"`
	MacAddress string   `help:"Its Ethernet address there." placeholder:"MAC"`
	Network    string   `arg:"" name:"NETWORK" help:"Name or id."`
	Container  string   `arg:"" name:"CONTAINER" help:"Name or id."`
}

// Run connects it, now if it runs and at each start from now on.
func (c *NetworkConnectCmd) Run(app *App) error {
	n, hold, err := app.useNetwork(c.Network)
	if err != nil {
		return err
	}
	defer hold.Close() // what is written below keeps the network from then on
	wanted, err := slirp.Flags{Network: []string{n.Name}, Alias: c.Alias, IP: c.IP, IP6: c.IP6, MAC: c.MacAddress}.Choose()
	if err != nil {
		return err
	}
	r := wanted.Requests[0]
	return app.changeNetworks(c.Container, func(info container.Info) ([]slirp.Request, error) {
		requests := info.Networks()
		if mode := networkMode(info.Config); len(requests)+len(info.Config.Networks) == 0 && mode != string(slirp.None) || slices.ContainsFunc(requests, private) {
			return nil, &adviceError{
				fmt.Errorf("connect container %s: it has --network %s, which goes with no other", info.Name(), mode),
				"make it on a network: rbox run --network " + n.Name,
			}
		}
		if slices.ContainsFunc(requests, onNetwork(n.Name)) {
			return nil, fmt.Errorf("container %s is on network %s already", info.Name(), n.Name)
		}
		r.Endpoint.Interface = freeInterface(requests)
		if len(requests) == 0 { // it has left the network that published its ports
			r.Endpoint.Ports = askedPorts(info.Config.Networks)
		}
		return append(slices.Clone(requests), r), nil
	})
}

// NetworkDisconnectCmd takes a container off a network.
type NetworkDisconnectCmd struct {
	Force     bool   `short:"f" help:"Say nothing if it is not on the network."`
	Network   string `arg:"" name:"NETWORK" help:"Name or id."`
	Container string `arg:"" name:"CONTAINER" help:"Name or id."`
}

// Run disconnects it, now if it runs and for each start from now on.
func (c *NetworkDisconnectCmd) Run(app *App) error {
	name := c.Network
	if n, err := app.Networks().Find(name); err == nil {
		name = n.Name
	} else if !errors.As(err, new(*network.NotFoundError)) {
		return err
	}
	err := app.changeNetworks(c.Container, func(info container.Info) ([]slirp.Request, error) {
		requests := info.Networks()
		if !slices.ContainsFunc(requests, onNetwork(name)) {
			return nil, &notConnectedError{info.Name(), name}
		}
		return container.Without(requests, name), nil
	})
	if c.Force && errors.As(err, new(*notConnectedError)) {
		return nil
	}
	return err
}

// notConnectedError reports that a container is not on a network.
type notConnectedError struct{ container, network string }

func (e *notConnectedError) Error() string {
	return fmt.Sprintf("container %s is not on network %s", e.container, e.network)
}

// Hint shows those that it is on.
func (e *notConnectedError) Hint() string {
	return "rbox inspect -f '{{json .NetworkSettings.Networks}}' " + e.container
}

func private(r slirp.Request) bool { return r.Plan.Name == "" }

func onNetwork(name string) func(slirp.Request) bool {
	return func(r slirp.Request) bool { return container.RequestName(r) == name }
}

// freeInterface is the first of eth0, eth1 and so on that no request names.
func freeInterface(requests []slirp.Request) string {
	for n := 0; ; n++ {
		name := fmt.Sprint("eth", n)
		if !slices.ContainsFunc(requests, func(r slirp.Request) bool { return r.Endpoint.Interface == name }) {
			return name
		}
	}
}

// askedPorts are the ports to publish on any of the networks asked for.
func askedPorts(requests []slirp.Request) (ports []slirp.Port) {
	for _, r := range requests {
		ports = append(ports, r.Endpoint.Ports...)
	}
	return ports
}

// useNetwork finds a network by its name or id, and sees to it that nobody
// removes it while hold is open.
func (a *App) useNetwork(word string) (n network.Network, hold *os.File, err error) {
	if n, err = a.Networks().Find(word); err != nil {
		return n, nil, err
	}
	return a.Networks().Use(n.Name)
}

// changeNetworks makes the networks that the container is to be on what change
// says of it.
func (a *App) changeNetworks(name string, change func(container.Info) ([]slirp.Request, error)) error {
	return a.each([]string{name}, func(home *container.Home, id, name string) error {
		folder, _, err := home.Reopen(id)
		if errors.As(err, new(*container.RunningError)) {
			return a.changeLive(home, id, name, change)
		}
		if err != nil {
			return err
		}
		defer folder.Close()
		info, err := home.Inspect(id)
		if err != nil {
			return err
		}
		wanted, err := change(info)
		if err != nil {
			return err
		}
		c := info.Config
		c.Networks = wanted
		if err := a.settleNetworks(&c, info.Name()); err != nil { // whether that can be
			return err
		}
		return folder.SetNetworks(wanted)
	})
}

// changeLive is changeNetworks of a container that runs: its monitor carries it out.
func (a *App) changeLive(home *container.Home, id, name string, change func(container.Info) ([]slirp.Request, error)) error {
	info, err := home.Inspect(id)
	if err != nil {
		return err
	}
	wanted, err := change(info)
	if err != nil {
		return err
	}
	client, err := home.Dial(id)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, r := range info.Networks() {
		if !slices.ContainsFunc(wanted, onNetwork(container.RequestName(r))) {
			if err := client.Disconnect(container.RequestName(r)); err != nil {
				return err
			}
		}
	}
	for _, r := range wanted {
		if !slices.ContainsFunc(info.Networks(), onNetwork(container.RequestName(r))) {
			if err := a.connectLive(client, info, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// connectLive connects a container that runs to the network of r.
func (a *App) connectLive(client *container.Client, info container.Info, r slirp.Request) error {
	c := info.Config
	c.Networks = []slirp.Request{r}
	if err := a.settleNetworks(&c, info.Name()); err != nil {
		return err
	}
	executable, err := a.networkProgram()
	if err != nil {
		return err
	}
	defer executable.Close()
	return client.Connect(c.Networks[0], executable)
}
