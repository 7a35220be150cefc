// Package wire passes values between rbox and its stage executable, which are
// of one build and know the same types, and reads and writes the files of each
// start. encoding/json would spend most of that on learning those types.
//
// A value is written as its parts in order: integers as varints, a bool as one
// byte, text and lists after their length, a pointer after a byte that tells
// whether it is nil, a map as its keys and values, an address of netip as its
// bytes. Fields that are not exported and the methods of other types play no part.
package wire

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
)

// ErrShort says that the data ended within a value, or did not end after it.
var ErrShort = errors.New("wire: the data is not a whole value")

// Append appends v to b. It panics on a type that it does not know: channels,
// functions, interfaces.
func Append(b []byte, v any) []byte { return appendValue(b, reflect.ValueOf(v)) }

func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return binary.AppendUvarint(b, v.Uint())
	case reflect.String:
		return append(binary.AppendUvarint(b, uint64(v.Len())), v.String()...)
	case reflect.Slice:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append(b, v.Bytes()...)
		}
		return appendElems(b, v)
	case reflect.Array:
		return appendElems(b, v)
	case reflect.Struct:
		if isAddress(v.Type()) {
			raw, _ := v.Interface().(encoding.BinaryMarshaler).MarshalBinary() // never fails
			return append(binary.AppendUvarint(b, uint64(len(raw))), raw...)
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				b = appendValue(b, v.Field(i))
			}
		}
		return b
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return appendValue(append(b, 1), v.Elem())
	case reflect.Map:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		for _, k := range v.MapKeys() {
			b = appendValue(appendValue(b, k), v.MapIndex(k))
		}
		return b
	}
	panic("wire: cannot pass a " + v.Type().String())
}

// isAddress tells whether t, whose fields are hidden, is one of netip's types.
func isAddress(t reflect.Type) bool {
	return t == reflect.TypeFor[netip.Addr]() || t == reflect.TypeFor[netip.Prefix]()
}

func appendElems(b []byte, v reflect.Value) []byte {
	for i := range v.Len() {
		b = appendValue(b, v.Index(i))
	}
	return b
}

// Read reads all of b into the value that v points to. It never allocates more
// than b warrants. The error wraps ErrShort if b is not what Append made of
// that type.
func Read(b []byte, v any) (err error) {
	r := reader{b}
	if err := r.value(reflect.ValueOf(v).Elem()); err != nil {
		return err
	}
	if len(r.b) > 0 {
		return ErrShort
	}
	return nil
}

type reader struct{ b []byte }

func (r *reader) value(v reflect.Value) error {
	switch v.Kind() {
	case reflect.Bool:
		n, err := r.uint(1)
		v.SetBool(n == 1)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, size := binary.Varint(r.b)
		if size <= 0 || v.OverflowInt(n) {
			return ErrShort
		}
		r.b = r.b[size:]
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n, err := r.uint(math.MaxUint64)
		if err != nil || v.OverflowUint(n) {
			return ErrShort
		}
		v.SetUint(n)
	case reflect.String:
		b, err := r.bytes()
		v.SetString(string(b))
		return err
	case reflect.Slice:
		return r.slice(v)
	case reflect.Array:
		return r.elems(v)
	case reflect.Struct:
		if isAddress(v.Type()) {
			return r.address(v)
		}
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				continue
			}
			if err := r.value(v.Field(i)); err != nil {
				return err
			}
		}
	case reflect.Pointer:
		n, err := r.uint(1)
		if err != nil || n == 0 {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return r.value(v.Elem())
	case reflect.Map:
		return r.pairs(v)
	default:
		return fmt.Errorf("wire: cannot pass a %s", v.Type())
	}
	return nil
}

func (r *reader) uint(most uint64) (uint64, error) {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || n > most {
		return 0, ErrShort
	}
	r.b = r.b[size:]
	return n, nil
}

func (r *reader) bytes() ([]byte, error) {
	n, err := r.uint(math.MaxInt)
	if err != nil || n > uint64(len(r.b)) {
		return nil, ErrShort
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b, nil
}

func (r *reader) address(v reflect.Value) error {
	b, err := r.bytes()
	if err == nil && v.Addr().Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary(b) != nil {
		err = ErrShort
	}
	return err
}

func (r *reader) slice(v reflect.Value) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		b, err := r.bytes()
		if len(b) > 0 {
			v.SetBytes(slices.Clone(b))
		}
		return err
	}
	n, err := r.uint(uint64(len(r.b))) // an element takes a byte at least, but for empty structs
	if err != nil || n == 0 {
		return err
	}
	v.Set(reflect.MakeSlice(v.Type(), int(n), int(n)))
	return r.elems(v)
}

func (r *reader) elems(v reflect.Value) error {
	for i := range v.Len() {
		if err := r.value(v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) pairs(v reflect.Value) error {
	n, err := r.uint(uint64(len(r.b)))
	if err != nil || n == 0 {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	for range n {
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if err := r.value(key); err != nil {
			return err
		}
		if err := r.value(elem); err != nil {
			return err
		}
		v.SetMapIndex(key, elem)
	}
	return nil
}
