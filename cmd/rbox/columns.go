package main

import (
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"rbox/userns/container"
)

// writeColumns writes rows of n cells as text/tabwriter does with Docker's
// settings, in a fraction of its time.
func writeColumns(w io.Writer, n int, cells []string) error {
	const least, padding = 10, 3
	widths := make([]int, n)
	for i, cell := range cells {
		cell = inCell(cell)
		cells[i] = cell
		widths[i%n] = max(widths[i%n], least, utf8.RuneCountInString(cell)+padding)
	}
	size := 0
	for _, width := range widths {
		size += width
	}
	b := make([]byte, 0, len(cells)/n*(size+8))
	for i, cell := range cells {
		b = append(b, cell...)
		if i%n == n-1 {
			b = append(b, '\n')
			continue
		}
		for k := utf8.RuneCountInString(cell); k < widths[i%n]; k++ {
			b = append(b, ' ')
		}
	}
	_, err := w.Write(b)
	return err
}

// humanSize is n bytes as Docker writes it: in decimal units, with the given
// number of significant digits.
func humanSize(n int64, digits int) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	size := float64(n)
	for i, unit := range units {
		text := strconv.FormatFloat(size, 'g', digits, 64)
		// What rounding makes 1000 of has an exponent, and is 1 of the next unit.
		if i == len(units)-1 || !strings.Contains(text, "e") {
			return text + unit
		}
		size /= 1000
	}
	panic("no units")
}

// shortID is the first digits of an id or digest, without its algorithm.
func shortID(id string) string {
	_, digits, found := strings.Cut(id, ":")
	if !found {
		digits = id
	}
	return container.Short(digits)
}
