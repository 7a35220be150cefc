package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestHumanSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 5: "5B", 999: "999B", 1000: "1kB", 1234: "1.23kB", 7_792_915: "7.79MB", 662_000_000: "662MB",
		999_950: "1MB", 1_500_000_000_000: "1.5TB",
	} {
		if got := humanSize(n, 3); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
}

func TestListing(t *testing.T) {
	type row struct{ ID, Name string }
	l := listing{columns: []column{{"ID", "THE ID"}, {"Name", "NAME"}}, standard: []string{"Name", "ID"}}
	rows := []any{row{"1", "one"}, row{"2", "two"}}
	for name, tc := range map[string]struct{ format, want, wantErr string }{
		"standard":       {"", "NAME      THE ID\none       1\ntwo       2\n", ""},
		"template":       {"{{.ID}}:{{upper .Name}}", "1:ONE\n2:TWO\n", ""},
		"table":          {"table {{.ID}}\\t{{.Name}}", "THE ID    NAME\n1         one\n2         two\n", ""},
		"table, alone":   {"table", "NAME      THE ID\none       1\ntwo       2\n", ""},
		"json":           {"json", "{\"ID\":\"1\",\"Name\":\"one\"}\n{\"ID\":\"2\",\"Name\":\"two\"}\n", ""},
		"functions":      {`{{join (split .Name "n") "-"}} {{pad .ID 1 1}}|{{truncate .Name 2}}|{{title .Name}}|{{json .Name}}`, "o-e  1 |on|One|\"one\"\ntwo  2 |tw|Two|\"two\"\n", ""},
		"no such field":  {"{{.Nope}}", "", "Nope"},
		"not a template": {"{{.ID", "", "unclosed action"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			err := l.print(&b, tc.format, rows)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Errorf("error %v, want one with %q", err, tc.wantErr)
				}
				return
			}
			if err != nil || b.String() != tc.want {
				t.Errorf("got %q, %v; want %q", b.String(), err, tc.want)
			}
		})
	}
}

func TestPrintEachTakesBothNames(t *testing.T) {
	type value struct {
		ID string `json:"Id"`
	}
	for _, format := range []string{"{{.ID}}", "{{.Id}}"} {
		var b bytes.Buffer
		if err := printEach(&b, format, []value{{"x"}}); err != nil || b.String() != "x\n" {
			t.Errorf("%s: got %q, %v", format, b.String(), err)
		}
	}
	if err := printEach(&bytes.Buffer{}, "{{.Nope}}", []value{{"x"}}); err == nil {
		t.Error("a field that is not there passes")
	}
}
