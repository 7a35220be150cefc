package wire

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// AppendJSON appends what json.Marshal makes of v, but for the escapes that
// HTML needs: of bools, numbers, text, lists, maps from text, pointers,
// structs, also embedded ones, and structs with a MarshalJSON or MarshalText.
// It panics on others.
func AppendJSON(b []byte, v any) []byte { return appendJSON(b, reflect.ValueOf(v)) }

func appendJSON(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.AppendUint(b, v.Uint(), 10)
	case reflect.String:
		return appendText(b, v.String())
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, "null"...)
		}
		return appendJSON(b, v.Elem())
	case reflect.Slice, reflect.Array:
		return appendList(b, v)
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Struct:
		return appendStruct(b, v)
	}
	panic("wire: cannot write a " + v.Type().String())
}

func appendText(b []byte, s string) []byte {
	if !plain(s) {
		text, _ := json.Marshal(s) // never fails for a string
		return append(b, text...)
	}
	return append(append(append(b, '"'), s...), '"')
}

// plain tells whether s stands for itself between the quotes of JSON.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return true
}

func appendList(b []byte, v reflect.Value) []byte {
	if v.Kind() == reflect.Slice && v.IsNil() {
		return append(b, "null"...)
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8 {
		b = base64.StdEncoding.AppendEncode(append(b, '"'), v.Bytes())
		return append(b, '"')
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, v.Index(i))
	}
	return append(b, ']')
}

func appendMap(b []byte, v reflect.Value) []byte {
	if v.IsNil() {
		return append(b, "null"...)
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSON(append(appendText(b, k.String()), ':'), v.MapIndex(k))
	}
	return append(b, '}')
}

func appendStruct(b []byte, v reflect.Value) []byte {
	if v.NumMethod() > 0 { // or it is not worth the copy
		switch m := v.Interface().(type) {
		case json.Marshaler:
			return append(b, must(m.MarshalJSON())...)
		case encoding.TextMarshaler:
			return appendText(b, string(must(m.MarshalText())))
		}
	}
	b = append(b, '{')
	first := true
	for _, f := range fields(nil, v) {
		if f.options == "omitempty" && empty(f.Value) || f.options == "omitzero" && f.IsZero() {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendJSON(append(append(append(b, '"'), f.name...), `":`...), f.Value)
	}
	return append(b, '}')
}

func must(text []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return text
}

// A field is one of a struct as JSON has it.
type field struct {
	reflect.Value
	name, options string // options: what follows the name in its tag
}

// fields appends those of the struct v and of the structs embedded in it.
func fields(list []field, v reflect.Value) []field {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case f.Anonymous && name == "":
			list = fields(list, v.Field(i))
		case name == "":
			list = append(list, field{v.Field(i), f.Name, options})
		default:
			list = append(list, field{v.Field(i), name, options})
		}
	}
	return list
}

// empty is what omitempty leaves out.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// ReadJSON is json.Unmarshal into v, which must point to a zero value. What
// AppendJSON and json.Marshal have written it reads by itself, all else by
// json.Unmarshal.
func ReadJSON(b []byte, v any) error {
	target := reflect.ValueOf(v).Elem()
	j := jsonReader{b: b}
	if j.value(target) && j.next() == 0 && j.i == len(b) {
		return nil
	}
	target.SetZero()
	return json.Unmarshal(b, v)
}

// A jsonReader reads JSON front to back. Its methods return false where they
// meet what they do not know.
type jsonReader struct {
	b []byte
	i int
}

// next returns the next character that is not space, 0 at the end.
func (j *jsonReader) next() byte {
	for ; j.i < len(j.b); j.i++ {
		if c := j.b[j.i]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

func (j *jsonReader) take(c byte) bool {
	if j.next() != c {
		return false
	}
	j.i++
	return true
}

// word passes over a number, true, false or null.
func (j *jsonReader) word() string {
	j.next()
	from := j.i
	for j.i < len(j.b) && (j.b[j.i] >= '0' && j.b[j.i] <= '9' || j.b[j.i] >= 'a' && j.b[j.i] <= 'z' || j.b[j.i] == '-') {
		j.i++
	}
	return string(j.b[from:j.i])
}

// text passes over a string.
func (j *jsonReader) text() (string, bool) {
	if !j.take('"') {
		return "", false
	}
	end := bytes.IndexByte(j.b[j.i:], '"')
	if end < 0 {
		return "", false
	}
	s := string(j.b[j.i : j.i+end])
	j.i += end + 1
	return s, plain(s)
}

func (j *jsonReader) value(v reflect.Value) bool {
	if j.next() == 'n' {
		return j.word() == "null" // which leaves a zero value as it is
	}
	switch v.Kind() {
	case reflect.Bool:
		w := j.word()
		v.SetBool(w == "true")
		return w == "true" || w == "false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(j.word(), 10, v.Type().Bits())
		v.SetInt(n)
		return err == nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n, err := strconv.ParseUint(j.word(), 10, v.Type().Bits())
		v.SetUint(n)
		return err == nil
	case reflect.String:
		s, ok := j.text()
		v.SetString(s)
		return ok
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return j.value(v.Elem())
	}
	switch u := v.Addr().Interface().(type) {
	case json.Unmarshaler:
		from := j.i
		return j.skip() && u.UnmarshalJSON(j.b[from:j.i]) == nil
	case encoding.TextUnmarshaler:
		s, ok := j.text()
		return ok && u.UnmarshalText([]byte(s)) == nil
	}
	switch v.Kind() {
	case reflect.Slice:
		return j.list(v)
	case reflect.Array:
		return j.array(v)
	case reflect.Map:
		return j.fill(v)
	case reflect.Struct:
		return j.object(v)
	}
	return false
}

// each calls item before each part of a list or an object.
func (j *jsonReader) each(open, end byte, item func() bool) bool {
	if !j.take(open) {
		return false
	}
	if j.take(end) {
		return true
	}
	for item() {
		if !j.take(',') {
			return j.take(end)
		}
	}
	return false
}

func (j *jsonReader) list(v reflect.Value) bool {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		s, ok := j.text()
		raw, err := base64.StdEncoding.DecodeString(s)
		v.SetBytes(raw)
		return ok && err == nil
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, 0)) // which is not nil
	return j.each('[', ']', func() bool {
		v.Grow(1)
		v.SetLen(v.Len() + 1)
		return j.value(v.Index(v.Len() - 1))
	})
}

func (j *jsonReader) array(v reflect.Value) bool {
	n := 0
	ok := j.each('[', ']', func() bool {
		n++
		return n <= v.Len() && j.value(v.Index(n-1))
	})
	return ok && n == v.Len()
}

func (j *jsonReader) fill(v reflect.Value) bool {
	t := v.Type()
	v.Set(reflect.MakeMap(t))
	return j.each('{', '}', func() bool {
		key, ok := j.text()
		elem := reflect.New(t.Elem()).Elem()
		if !ok || !j.take(':') || !j.value(elem) {
			return false
		}
		v.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), elem)
		return true
	})
}

// object reads one whose names come in the order of the struct's fields.
func (j *jsonReader) object(v reflect.Value) bool {
	list := fields(nil, v)
	return j.each('{', '}', func() bool {
		key, ok := j.text()
		if !ok || !j.take(':') {
			return false
		}
		for i, f := range list {
			if f.name == key {
				list = list[i+1:]
				return j.value(f.Value)
			}
		}
		return false
	})
}

// skip passes over a value.
func (j *jsonReader) skip() bool {
	switch j.next() {
	case '"':
		_, ok := j.text()
		return ok
	case '[':
		return j.each('[', ']', j.skip)
	case '{':
		return j.each('{', '}', func() bool {
			_, ok := j.text()
			return ok && j.take(':') && j.skip()
		})
	}
	return j.word() != ""
}
