//go:build !front

package main

import "rbox/rootfs/store"

// beyond is for the front, which cannot do everything.
func beyond(_ bool, err error) error { return err }

// Unpacking has it chosen where layers lie, and returns how images are unpacked for containers that have all ids
// of the outer user namespace as they are. The unpacking process is started
// when it is first needed and ended by done.
func (a *App) Unpacking() (u store.Unpacking, done func(), err error) {
	outer, err := a.Outer()
	if err != nil {
		return store.Unpacking{}, nil, err
	}
	if _, err := a.Storage(); err != nil {
		return store.Unpacking{}, nil, err
	}
	client := &unpackClient{outer: a.Outer}
	mapping := store.Mapping{Key: outer.Maps.Key(), Single: outer.Maps.Single}
	return store.Unpacking{Mapping: mapping, Unpacker: client}, client.Close, nil
}
