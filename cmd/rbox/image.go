//go:build !front

package main

import "rbox/userns/container/events"

// ImageCmd holds the commands about images under Docker's newer names.
type ImageCmd struct {
	Ls      ImagesCmd       `cmd:"" aliases:"list" help:"List images."`
	Exists  ImageExistsCmd  `cmd:"" help:"Tell by the exit status, 0 or 1, whether an image is here."`
	Pull    PullCmd         `cmd:"" help:"Get images from a registry."`
	Inspect ImageInspectCmd `cmd:"" help:"Show all about images, as JSON."`
	History HistoryCmd      `cmd:"" help:"Show how an image was built."`
	Prune   ImagePruneCmd   `cmd:"" help:"Remove images that no container uses."`
	Rm      RmiCmd          `cmd:"" aliases:"remove" help:"Remove images."`
	Tag     TagCmd          `cmd:"" help:"Give an image another name."`
	Import  ImportCmd       `cmd:"" help:"Make an image from the archive of a root file system."`
	Load    LoadCmd         `cmd:"" help:"Load images from an archive."`
	Save    SaveCmd         `cmd:"" help:"Save images to an archive."`
}

// ImageInspectCmd shows all about images.
type ImageInspectCmd struct {
	Format string   `short:"f" placeholder:"TEMPLATE" help:"json, or a Go template over Docker's fields."`
	Images []string `arg:"" name:"IMAGE" help:"Names or ids."`
}

// Run prints a JSON list.
func (c *ImageInspectCmd) Run(app *App) error {
	return (&InspectCmd{Type: "image", Format: c.Format, Names: c.Images}).Run(app)
}

// recordImage records what was done to an image, by one of its names, or "".
func (a *App) recordImage(action, id, name string) {
	attributes := map[string]string{}
	if name != "" {
		attributes["name"] = name
	}
	a.record(events.Event{Type: "image", Action: action, ID: id, Attributes: attributes})
}
