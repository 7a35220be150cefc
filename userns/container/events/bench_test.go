package events

import "testing"

func BenchmarkAppend(b *testing.B) {
	dir := b.TempDir()
	e := Event{Type: "container", Action: "start", ID: "0123456789", Attributes: map[string]string{"name": "x", "image": "alpine"}}
	for b.Loop() {
		if err := Append(dir, e); err != nil {
			b.Fatal(err)
		}
	}
}
