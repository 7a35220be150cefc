package layer

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestSpeed unpacks $RBOX_LAYER, an archive, for a look at how long it takes.
func TestSpeed(t *testing.T) {
	name := os.Getenv("RBOX_LAYER")
	if name == "" {
		t.Skip("RBOX_LAYER names no archive")
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	start := time.Now()
	r, err := Apply(context.Background(), dir, f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v in %v", r, time.Since(start))
	start = time.Now()
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	t.Logf("deleted in %v", time.Since(start))
}
