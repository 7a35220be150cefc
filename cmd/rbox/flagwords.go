//go:build !front

package main

import (
	"fmt"
	"reflect"
	"strconv"
)

// flagWords are the flags that set what differs from the defaults in the
// struct that cmd points to, by its tags: one word each, in the struct's order.
func flagWords(cmd any) []string { return appendFlagWords(nil, reflect.ValueOf(cmd).Elem()) }

func appendFlagWords(words []string, v reflect.Value) []string {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		_, positional := f.Tag.Lookup("arg")
		switch {
		case f.Anonymous:
			words = appendFlagWords(words, v.Field(i))
		case f.IsExported() && !positional:
			words = appendFlag(words, "--"+flagName(f), f.Tag.Get("default"), v.Field(i))
		}
	}
	return words
}

// given is what no value is: the default of a flag that has none.
const given = "\x00"

// appendFlag appends the words that give a flag its value. It panics for a
// kind that no flag has.
func appendFlag(words []string, flag, byDefault string, v reflect.Value) []string {
	switch v.Kind() {
	case reflect.Pointer: // nil: not given
		if v.IsNil() {
			return words
		}
		byDefault, v = given, v.Elem()
	case reflect.Slice:
		for _, one := range v.Seq2() {
			words = append(words, flag+"="+one.String())
		}
		return words
	}
	text := byDefault
	switch v.Kind() {
	case reflect.String:
		text = v.String()
	case reflect.Int:
		if v.Int() != 0 || byDefault != "" {
			text = strconv.FormatInt(v.Int(), 10)
		}
	case reflect.Bool:
		if v.Bool() == (byDefault == "true") && byDefault != given {
			return words
		}
		if v.Bool() {
			return append(words, flag)
		}
		text = "false"
	default:
		panic(fmt.Sprintf("%s: a flag of type %s", flag, v.Type()))
	}
	if text == byDefault {
		return words
	}
	return append(words, flag+"="+text)
}
