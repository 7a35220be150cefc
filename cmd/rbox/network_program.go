//go:build !front

package main

import (
	"embed"
	"os"
)

// networkFiles holds the network process; its hash is among stageFiles.
//
//go:embed networkbin
var networkFiles embed.FS

// networkProgram opens the network process's executable. One of another version
// goes on to serve the containers that it was started for.
func (a *App) networkProgram() (*os.File, error) {
	path, err := a.carried(stageFiles, networkSum, networkFiles, "networkbin/network", networkExe)
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}
