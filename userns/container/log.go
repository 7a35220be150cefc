package container

import "path/filepath"

// LogPath is the file that the monitor of the container id keeps its output
// in, by package logfile, if Config.Log says so. A container that has written
// nothing has none.
func (h *Home) LogPath(id string) string { return filepath.Join(h.folder(id), "log") }
