package main

import (
	"reflect"
	"strconv"
	"strings"
	"unicode"
)

// quickParse reads a command's arguments into the struct that cmd points to, as
// kong would by the same struct's tags, but without learning every flag first:
// that is a tenth of the time it takes to run a container. It knows the common
// forms alone and says false to all else, of which kong then judges with a fresh
// struct.
func quickParse(cmd any, args []string) bool {
	q := quick{reflect.ValueOf(cmd).Elem()}
	if !q.defaults(q.cmd) {
		return false
	}
	words, tag := q.positional()
	passthrough := tag.Get("passthrough") == "partial"
	var taken []string
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--" || arg == "-":
			return false
		case strings.HasPrefix(arg, "--"):
			used := q.long(arg[2:], args[1:])
			if used < 0 {
				return false
			}
			args = args[1+used:]
		case strings.HasPrefix(arg, "-"):
			used := q.short(arg[1:], args[1:])
			if used < 0 {
				return false
			}
			args = args[1+used:]
		case passthrough:
			taken, args = args, nil
		default:
			taken, args = append(taken, arg), args[1:]
		}
	}
	if _, optional := tag.Lookup("optional"); optional && len(taken) == 0 {
		return true
	}
	return q.place(words, taken)
}

type quick struct{ cmd reflect.Value }

// positional is the field for what is no flag: text or a list, the last one
// taking all that follows if it passes through.
func (q quick) positional() (v reflect.Value, tag reflect.StructTag) {
	for i := range q.cmd.NumField() {
		f := q.cmd.Type().Field(i)
		if _, ok := f.Tag.Lookup("arg"); ok {
			return q.cmd.Field(i), f.Tag
		}
	}
	return v, ""
}

// place puts the words into their field.
func (q quick) place(v reflect.Value, words []string) bool {
	if !v.IsValid() {
		return len(words) == 0
	}
	switch v.Kind() {
	case reflect.String:
		if len(words) != 1 {
			return false
		}
		v.SetString(words[0])
	case reflect.Slice:
		if len(words) == 0 {
			return false
		}
		v.Set(reflect.ValueOf(words))
	default:
		return false
	}
	return true
}

// defaults sets what the tags give.
func (q quick) defaults(v reflect.Value) bool {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if !q.defaults(v.Field(i)) {
				return false
			}
			continue
		}
		value, ok := f.Tag.Lookup("default")
		switch {
		case !ok:
		case f.Type.Kind() == reflect.Bool && (value == "true" || value == "false"):
			v.Field(i).SetBool(value == "true")
		case !set(v.Field(i), "", value):
			return false
		}
	}
	return true
}

// long takes NAME or NAME=VALUE, and returns how many of rest it used; -1 if
// it cannot.
func (q quick) long(text string, rest []string) int {
	name, value, has := strings.Cut(text, "=")
	v, tag, ok := find(q.cmd, func(f reflect.StructField) bool {
		return flagName(f) == name || listed(f.Tag.Get("aliases"), name)
	})
	if !ok {
		return -1
	}
	if v.Kind() == reflect.Bool && !has {
		v.SetBool(true)
		return 0
	}
	used := 0
	if !has {
		if len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
			return -1
		}
		value, used = rest[0], 1
	}
	if !set(v, tag, value) {
		return -1
	}
	return used
}

// short takes letters, the last of them perhaps with its value.
func (q quick) short(letters string, rest []string) int {
	for i, letter := range letters {
		v, tag, ok := find(q.cmd, func(f reflect.StructField) bool { return f.Tag.Get("short") == string(letter) })
		if !ok {
			return -1
		}
		if v.Kind() == reflect.Bool {
			v.SetBool(true)
			continue
		}
		value, used := letters[i+len(string(letter)):], 0
		if value == "" {
			if len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
				return -1
			}
			value, used = rest[0], 1
		} else if value[0] == '=' {
			return -1
		}
		if !set(v, tag, value) {
			return -1
		}
		return used
	}
	return 0
}

// find returns the flag that is wanted, of v's fields or those embedded.
func find(v reflect.Value, wanted func(reflect.StructField) bool) (reflect.Value, reflect.StructTag, bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if found, tag, ok := find(v.Field(i), wanted); ok {
				return found, tag, true
			}
		} else if _, positional := f.Tag.Lookup("arg"); f.IsExported() && !positional && wanted(f) {
			return v.Field(i), f.Tag, true
		}
	}
	return reflect.Value{}, "", false
}

// flagName is the name that kong gives a field.
func flagName(f reflect.StructField) string {
	if name := f.Tag.Get("name"); name != "" {
		return name
	}
	var b strings.Builder
	for i, r := range f.Name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// listed tells whether name is in the comma-separated list.
func listed(list, name string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one == name && name != "" {
			return true
		}
	}
	return false
}

// set gives v the value as its type and tag take it.
func set(v reflect.Value, tag reflect.StructTag, value string) bool {
	if enum, ok := tag.Lookup("enum"); ok && !listed(enum, value) {
		return false
	}
	switch v.Interface().(type) {
	case string:
		v.SetString(value)
	case signed:
		v.SetString(value)
	case *string:
		v.Set(reflect.ValueOf(&value))
	case []string:
		if tag.Get("sep") != "none" {
			return false
		}
		v.Set(reflect.Append(v, reflect.ValueOf(value)))
	case seconds:
		n, err := strconv.Atoi(value)
		if err != nil {
			return false
		}
		v.SetInt(int64(n))
	case *seconds:
		n, err := strconv.Atoi(value)
		if err != nil {
			return false
		}
		v.Set(reflect.ValueOf((*seconds)(&n)))
	case int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return false
		}
		v.SetInt(int64(n))
	default:
		return false
	}
	return true
}
