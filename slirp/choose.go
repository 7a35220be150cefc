package slirp

import (
	"slices"
	"strconv"
	"strings"
)

// Flags are those of a command line that speak of networks, as they were given.
type Flags struct {
	Network      []string
	Alias        []string // --network-alias
	IP, IP6, MAC string
	Publish      []string
	PublishAll   bool
	Exposed      []string // as ParseExposed returns them
}

// A Choice is what the flags ask for.
type Choice struct {
	Kind     Kind
	Of       string    // the container, or the namespace's file
	Requests []Request // of Private one, of Named one or more
}

// Text is the choice in one word, as inspect shows it: names with commas between.
func (c Choice) Text() string {
	switch c.Kind {
	case Container, Path:
		return string(c.Kind) + ":" + c.Of
	case Named:
		var names []string
		for _, r := range c.Requests {
			names = append(names, r.Plan.Name)
		}
		return strings.Join(names, ",")
	}
	return string(c.Kind)
}

// Choose finds out what the flags ask for, and whether that can be: *InputError
// names the flag that cannot.
func (f Flags) Choose() (c Choice, err error) {
	for _, text := range f.Network {
		m, err := ParseMode(text)
		if err != nil {
			return c, err
		}
		if err := c.add(m, text); err != nil {
			return c, err
		}
	}
	if len(c.Requests) == 0 {
		return c, f.refuse(c)
	}
	if err := f.addresses(c.Requests); err != nil {
		return c, err
	}
	if err := nameInterfaces(c.Requests); err != nil {
		return c, err
	}
	c.Requests[0].Endpoint.Ports, err = publish(f.Publish, f.PublishAll, f.Exposed)
	return c, err
}

// add takes one value of --network.
func (c *Choice) add(m Mode, text string) error {
	if c.Kind != "" && (c.Kind != Named || m.Kind != Named) {
		other := c.Text()
		return &InputError{"--network " + text, "conflicts with --network " + other, "only named networks go together: --network NAME --network OTHER"}
	}
	c.Kind, c.Of = m.Kind, m.Of
	if m.Kind != Private && m.Kind != Named {
		return nil
	}
	for _, r := range c.Requests {
		if r.Plan.Name == m.Request.Plan.Name {
			return &InputError{"--network " + text, "the network is given twice", ""}
		}
	}
	c.Requests = append(c.Requests, m.Request)
	return nil
}

// refuse tells of flags that need a network of the container's own.
func (f Flags) refuse(c Choice) error {
	for _, flag := range []struct {
		name  string
		given bool
	}{
		{"-p", len(f.Publish) > 0}, {"-P", f.PublishAll}, {"--network-alias", len(f.Alias) > 0},
		{"--ip", f.IP != ""}, {"--ip6", f.IP6 != ""}, {"--mac-address", f.MAC != ""},
	} {
		if !flag.given {
			continue
		}
		why, advice := "conflicts with --network "+c.Text(), "--network private"
		switch {
		case c.Kind == Host && flag.name[1] != '-':
			why, advice = "conflicts with --network host: the container's ports are the host's", "leave it out"
		case c.Kind == Container:
			advice = "give it to the container whose network it is"
		}
		return &InputError{flag.name, why, advice}
	}
	return nil
}

// addresses gives the requests what --ip, --ip6, --mac-address and
// --network-alias say.
func (f Flags) addresses(requests []Request) error {
	for _, one := range []struct {
		flag, value, option string
	}{{"--ip", f.IP, "ip"}, {"--ip6", f.IP6, "ip6"}, {"--mac-address", f.MAC, "mac"}} {
		if one.value == "" {
			continue
		}
		if len(requests) > 1 {
			return &InputError{one.flag + " " + one.value, "which of " + strconv.Itoa(len(requests)) + " networks is it for?", "--network " + requests[0].Plan.Name + ":" + one.option + "=" + one.value}
		}
		if err := requests[0].endpointOption(one.option, one.value, true); err != nil {
			return inFlag(one.flag+" "+one.value, err)
		}
	}
	for i := range requests {
		for _, alias := range f.Alias {
			if err := requests[i].endpointOption("alias", alias, true); err != nil {
				return inFlag("--network-alias "+alias, err)
			}
		}
		e := &requests[i].Endpoint
		slices.Sort(e.Names)
		e.Names = slices.Compact(e.Names)
	}
	return nil
}

// nameInterfaces calls the interfaces that nobody named eth0, eth1 and so on.
func nameInterfaces(requests []Request) error {
	taken := map[string]bool{}
	for _, r := range requests {
		name := r.Endpoint.Interface
		if name != "" && taken[name] {
			return &InputError{"--network " + r.Plan.Name + ":interface_name=" + name, "another network's interface has that name", ""}
		}
		taken[name] = true
	}
	n := 0
	for i := range requests {
		e := &requests[i].Endpoint
		for ; e.Interface == ""; n++ {
			if name := "eth" + strconv.Itoa(n); !taken[name] {
				e.Interface = name
			}
		}
	}
	return nil
}
