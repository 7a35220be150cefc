//go:build !front

package main

// TagCmd gives an image another name.
type TagCmd struct {
	Image string   `arg:"" name:"IMAGE" help:"Name or id of the image."`
	Names []string `arg:"" name:"NAME[:TAG]" help:"The new names, taken from other images that have them."`
}

// Run prints nothing.
func (c *TagCmd) Run(app *App) error {
	s, err := app.Images()
	if err != nil {
		return err
	}
	m, err := s.Inspect(c.Image)
	if err != nil {
		return err
	}
	ctx, stop := interruptible()
	defer stop()
	for _, name := range c.Names {
		ref, err := tagName(name)
		if err != nil {
			return err
		}
		if err := s.Tag(ctx, m, ref); err != nil {
			return err
		}
		app.recordImage("tag", string(m.ID), ref.Familiar())
	}
	return nil
}
