package container

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// scanConfig reads config.json into c as far as Brief tells. It does in
// microseconds what takes encoding/json ten times as long, most of it over a
// plan that no listing shows. It returns false for what is no whole object.
func scanConfig(text string, c *Config) bool {
	j := scanner{b: text}
	j.object(func(key string) {
		switch key {
		case "ID":
			c.ID = j.text()
		case "Name":
			c.Name = j.text()
		case "Image":
			c.Image = j.text()
		case "ImageID":
			c.ImageID = j.text()
		case "Created":
			c.Created = j.time()
		case "Labels":
			c.Labels = map[string]string{}
			j.object(func(key string) { c.Labels[key] = j.text() })
		case "Entrypoint":
			c.Entrypoint = j.texts()
		case "Command":
			c.Command = j.texts()
		case "AutoRemove":
			c.AutoRemove = j.word() == "true"
		case "Volumes":
			c.Volumes = scanVolumes(&j)
		case "Options":
			j.object(func(key string) {
				switch key {
				case "Network":
					c.Options.Network = j.text()
				case "Exposed":
					c.Options.Exposed = j.texts()
				default:
					j.skip()
				}
			})
		case "Plan":
			// The last and by far the largest.
			if len(c.Entrypoint)+len(c.Command) > 0 {
				j.done = true
				return
			}
			c.Command = scanArgs(&j)
		default:
			j.skip()
		}
	})
	return !j.bad && c.ID != ""
}

// headOf is the shortest text of which scanConfig makes c, one line.
func headOf(c *Config) string {
	type options struct {
		Network string
		Exposed []string `json:",omitempty"`
	}
	b, err := json.Marshal(struct {
		ID, Name, Image, ImageID string
		Created                  time.Time
		Labels                   map[string]string `json:",omitempty"`
		Entrypoint, Command      []string          `json:",omitempty"`
		AutoRemove               bool              `json:",omitempty"`
		Volumes                  []VolumeUse       `json:",omitempty"`
		Options                  options
	}{c.ID, c.Name, c.Image, c.ImageID, c.Created, c.Labels, c.Entrypoint, c.Command, c.AutoRemove, c.Volumes, options{c.Options.Network, c.Options.Exposed}})
	if err != nil {
		return ""
	}
	return string(b)
}

func scanVolumes(j *scanner) (list []VolumeUse) {
	j.array(func() {
		var v VolumeUse
		j.object(func(key string) {
			switch key {
			case "Name":
				v.Name = j.text()
			case "Target":
				v.Target = j.text()
			case "Anonymous":
				v.Anonymous = j.word() == "true"
			default:
				j.skip()
			}
		})
		list = append(list, v)
	})
	return list
}

// scanArgs finds Plan.Process.Args.
func scanArgs(j *scanner) (args []string) {
	j.object(func(key string) {
		if key != "Process" {
			j.skip()
			return
		}
		j.object(func(key string) {
			if key == "Args" {
				args = j.texts()
			} else {
				j.skip()
			}
		})
	})
	return args
}

// scanState is scanConfig for state.json.
func scanState(text string, s *State) bool {
	j := scanner{b: text}
	j.object(func(key string) {
		switch key {
		case "Name":
			s.Name = j.text()
		case "Pid":
			s.Pid = int(j.number())
		case "StartTime":
			s.StartTime = uint64(j.number())
		case "BootID":
			s.BootID = j.text()
		case "Monitor":
			s.Monitor = int(j.number())
		case "Started":
			s.Started = j.time()
		case "Finished":
			s.Finished = j.time()
		case "ExitStatus":
			s.ExitStatus = int(j.number())
		case "Error":
			s.Error = j.text()
		case "Paused":
			s.Paused = j.word() == "true"
		case "Restarting":
			s.Restarting = j.word() == "true"
		case "Health":
			s.Health = scanHealth(&j)
		case "Networks":
			s.Networks = scanAttachments(&j)
		case "Wanted":
			s.Wanted = scanWanted(&j)
		default:
			j.skip()
		}
	})
	return !j.bad
}

func scanHealth(j *scanner) *Health {
	if !j.sees('{') {
		j.skip()
		return nil
	}
	h := new(Health)
	j.object(func(key string) {
		if key == "Status" {
			h.Status = j.text()
		} else {
			j.skip()
		}
	})
	return h
}

// A scanner reads JSON that rbox itself has written, front to back: it tells
// what is cut short from what is whole, and checks no more.
// What it returns is part of the text.
type scanner struct {
	b    string
	i    int
	bad  bool // the text is not what was asked for
	done bool // the rest does not matter
}

// sees tells whether the next character is c.
func (j *scanner) sees(c byte) bool {
	for j.i < len(j.b) && (j.b[j.i] == ' ' || j.b[j.i] == '\n' || j.b[j.i] == '\t' || j.b[j.i] == '\r') {
		j.i++
	}
	return j.i < len(j.b) && j.b[j.i] == c
}

// take passes over c, which must come next.
func (j *scanner) take(c byte) bool {
	if j.bad || !j.sees(c) {
		j.bad = true
		return false
	}
	j.i++
	return true
}

// object calls field at each value of an object, or at none of null.
func (j *scanner) object(field func(key string)) {
	if j.sees('n') {
		j.word()
		return
	}
	if !j.take('{') || j.sees('}') {
		j.i++
		return
	}
	for {
		key := j.text()
		if !j.take(':') {
			return
		}
		field(key)
		if j.done || j.bad {
			return
		}
		if !j.sees(',') {
			j.take('}')
			return
		}
		j.i++
	}
}

// array is object for a list.
func (j *scanner) array(item func()) {
	if j.sees('n') {
		j.word()
		return
	}
	if !j.take('[') || j.sees(']') {
		j.i++
		return
	}
	for {
		item()
		if j.bad {
			return
		}
		if !j.sees(',') {
			j.take(']')
			return
		}
		j.i++
	}
}

func (j *scanner) texts() (list []string) {
	j.array(func() { list = append(list, j.text()) })
	return list
}

// quoted passes over a string and returns it with its quotes.
func (j *scanner) quoted() (raw string, escaped bool) {
	if !j.take('"') {
		return "", false
	}
	from := j.i - 1
	for {
		n := strings.IndexByte(j.b[j.i:], '"')
		if n < 0 {
			j.bad = true
			return "", false
		}
		// A backslash takes the character behind it along.
		slash := strings.IndexByte(j.b[j.i:j.i+n], '\\')
		if slash < 0 {
			j.i += n + 1
			return j.b[from:j.i], escaped
		}
		escaped = true
		j.i += slash + 2
	}
}

func (j *scanner) text() string {
	raw, escaped := j.quoted()
	if j.bad {
		return ""
	}
	if !escaped {
		return raw[1 : len(raw)-1]
	}
	// Of JSON's escapes encoding/json writes only those that Go has, too.
	s, err := strconv.Unquote(raw)
	j.bad = err != nil
	return s
}

// word is a number, true, false or null.
func (j *scanner) word() string {
	j.sees(0)
	from := j.i
	for j.i < len(j.b) && j.b[j.i] != ',' && j.b[j.i] != '}' && j.b[j.i] != ']' && j.b[j.i] > ' ' {
		j.i++
	}
	j.bad = j.bad || from == j.i || j.i == len(j.b)
	return j.b[from:j.i]
}

func (j *scanner) number() int64 {
	n, err := strconv.ParseInt(j.word(), 10, 64)
	j.bad = j.bad || err != nil
	return n
}

func (j *scanner) time() time.Time {
	t, err := time.Parse(time.RFC3339, j.text())
	j.bad = j.bad || err != nil
	return t
}

// skip passes over a value.
func (j *scanner) skip() {
	switch {
	case j.sees('{'):
		j.object(func(string) { j.skip() })
	case j.sees('['):
		j.array(j.skip)
	case j.sees('"'):
		j.quoted()
	default:
		j.word()
	}
}
