package container

import (
	"net/netip"
	"strings"

	"rbox/slirp"
)

// Private is what a network is called that is one container's alone.
const Private = "private"

// An Attachment is a network that a container is on, with all that was chosen.
type Attachment struct {
	Network string // Private, or its name
	Driver  string `json:",omitempty"`
	Link    string `json:",omitempty"`

	slirp.Endpoint

	Gateway  netip.Addr
	Gateway6 netip.Addr
	Bits     int `json:",omitempty"` // length of IP's prefix
	Bits6    int `json:",omitempty"`

	Sandbox *slirp.Sandbox `json:",omitempty"` // of the process that serves it
}

// Networks are those that the container is to be on, when it starts and while
// it runs.
func (i Info) Networks() []slirp.Request {
	if i.State.Wanted != nil {
		return *i.State.Wanted
	}
	return i.Config.Networks
}

// NetworkNames are what the container's networks are called: those that it is
// on or, while it does not run, that it is to be on. "host", "none" and others
// that are no networks are called by their modes.
func (i Info) NetworkNames() (names []string) {
	switch {
	case i.Running && len(i.State.Networks) > 0:
		for _, a := range i.State.Networks {
			names = append(names, a.Network)
		}
	case i.State.Wanted != nil:
		for _, r := range *i.State.Wanted {
			names = append(names, RequestName(r))
		}
	case i.Config.Options.Network != "":
		return strings.Split(i.Config.Options.Network, ",")
	case i.Config.Plan.Namespaces.HostNetwork:
		return []string{"host"}
	}
	if len(names) == 0 {
		return []string{"none"}
	}
	return names
}

// RequestName is what the network that r asks for is called.
func RequestName(r slirp.Request) string {
	if r.Plan.Name == "" {
		return Private
	}
	return r.Plan.Name
}

// NetworkUsers tells which containers are to be on a network: their ids by its
// name, of all hosts that keep theirs below dir. One that is being made holds
// the locks of its networks.
func NetworkUsers(dir string) (map[string][]string, error) {
	return usersOf(dir, func(folder string) (names []string) {
		var c struct{ Networks []slirp.Request }
		if readJSON(folder, "config.json", &c) != nil {
			return nil
		}
		if wanted := readState(folder).Wanted; wanted != nil {
			c.Networks = *wanted
		}
		for _, r := range c.Networks {
			if r.Plan.Name != "" {
				names = append(names, r.Plan.Name)
			}
		}
		return names
	})
}

// HostsLines are the lines of /etc/hosts for a container's own addresses.
func HostsLines(hostname string, list []Attachment) string {
	var lines strings.Builder
	for _, a := range list {
		names := []string{hostname}
		for _, name := range a.Names {
			if name != hostname {
				names = append(names, name)
			}
		}
		for _, ip := range []netip.Addr{a.IP, a.IP6} {
			if ip.IsValid() {
				lines.WriteString(ip.String() + "\t" + strings.Join(names, " ") + "\n")
			}
		}
	}
	return lines.String()
}

// scanAttachments is json.Unmarshal for them.
func scanAttachments(j *scanner) (list []Attachment) {
	j.array(func() {
		var a Attachment
		j.object(func(key string) {
			switch key {
			case "Network":
				a.Network = j.text()
			case "Driver":
				a.Driver = j.text()
			case "Link":
				a.Link = j.text()
			case "Container":
				a.Container = j.text()
			case "Interface":
				a.Interface = j.text()
			case "MAC":
				a.MAC = j.text()
			case "IP":
				a.IP = j.addr()
			case "IP6":
				a.IP6 = j.addr()
			case "Gateway":
				a.Gateway = j.addr()
			case "Gateway6":
				a.Gateway6 = j.addr()
			case "Bits":
				a.Bits = int(j.number())
			case "Bits6":
				a.Bits6 = int(j.number())
			case "Names":
				a.Names = j.texts()
			case "Ports":
				a.Ports = scanPorts(j)
			default:
				j.skip()
			}
		})
		list = append(list, a)
	})
	return list
}

func scanPorts(j *scanner) (list []slirp.Port) {
	j.array(func() {
		var p slirp.Port
		j.object(func(key string) {
			switch key {
			case "HostIP":
				p.HostIP = j.addr()
			case "HostPort":
				p.HostPort = uint16(j.number())
			case "ContainerPort":
				p.ContainerPort = uint16(j.number())
			case "Protocol":
				p.Protocol = j.text()
			default:
				j.skip()
			}
		})
		list = append(list, p)
	})
	return list
}

// scanWanted reads of each request what its network is called.
func scanWanted(j *scanner) *[]slirp.Request {
	list := []slirp.Request{}
	if !j.sees('[') {
		j.skip()
		return nil
	}
	j.array(func() {
		var r slirp.Request
		j.object(func(key string) {
			if key != "Network" {
				j.skip()
				return
			}
			j.object(func(key string) {
				if key == "Name" {
					r.Plan.Name = j.text()
				} else {
					j.skip()
				}
			})
		})
		list = append(list, r)
	})
	return &list
}

// addr is an address as netip writes it, "" the zero one.
func (j *scanner) addr() (a netip.Addr) {
	if text := j.text(); text != "" && !j.bad {
		var err error
		a, err = netip.ParseAddr(text)
		j.bad = err != nil
	}
	return a
}
