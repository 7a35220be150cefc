//go:build !front

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
)

// templateFuncs are the functions that Docker's --format templates may use.
func templateFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			err := e.Encode(v)
			return strings.TrimSpace(b.String()), err
		},
		"split": strings.Split,
		"join":  joinAny,
		"title": func(s string) string {
			if s == "" {
				return s
			}
			return strings.ToUpper(s[:1]) + s[1:]
		},
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, before, after int) string {
			if s == "" {
				return s
			}
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string {
			if r := []rune(s); n >= 0 && len(r) > n {
				return string(r[:n])
			}
			return s
		},
		"println": fmt.Sprintln,
	}
}

// joinAny is strings.Join for a list of anything.
func joinAny(list any, separator string) (string, error) {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice {
		return "", fmt.Errorf("join: %T is not a list", list)
	}
	words := make([]string, v.Len())
	for i := range words {
		words[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(words, separator), nil
}

// A formatError reports a --format that is not a template, or not one of what is shown.
type formatError struct {
	text   string
	err    error
	fields []string
}

func (e *formatError) Error() string {
	why := strings.TrimPrefix(e.err.Error(), "template: ")
	return fmt.Sprintf("--format %q: %s", e.text, strings.TrimPrefix(why, "format:"))
}

// Hint names the fields.
func (e *formatError) Hint() string {
	if len(e.fields) == 0 {
		return "a format is a Go template, such as '{{json .}}'"
	}
	return "a format is a Go template with the fields ." + strings.Join(e.fields, " .") + ", or json, or table"
}

// parseFormat reads a --format. Its escapes \t and \n become what they stand for.
func parseFormat(text string) (*template.Template, error) {
	unescaped := strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	t, err := template.New("format").Funcs(templateFuncs()).Parse(unescaped)
	if err != nil {
		return nil, &formatError{text: text, err: err}
	}
	return t, nil
}

// A column is one of a listing: the field of a row, and its heading.
type column struct{ field, heading string }

// A listing prints rows as Docker does: as a table, or by a template that the
// user gives. A row is a struct whose exported fields are strings.
type listing struct {
	columns  []column // what there is for templates, in the order of json
	standard []string // the fields of the table without a format
	noHead   bool     // leave the headings out of the standard table
	head     any      // a row that holds the headings, where templates call its methods
}

// fill makes row, a pointer to a struct, hold the headings.
func (l listing) fill(row any) {
	v := reflect.Indirect(reflect.ValueOf(row))
	for _, c := range l.columns {
		v.FieldByName(c.field).SetString(c.heading)
	}
}

// print writes rows in format: "" for the standard table, "json", "table" and
// a template, or a template alone.
func (l listing) print(w io.Writer, format string, rows []any) error {
	switch text, isTable := strings.CutPrefix(format, "table"); {
	case format == "json":
		format = "{{json .}}"
	case format == "", format == "table":
		return l.standardTable(w, rows)
	case isTable && (text[0] == ' ' || strings.HasPrefix(text, `\t`) || text[0] == '{'):
		return l.table(w, strings.TrimPrefix(strings.TrimPrefix(text, " "), `\t`), rows)
	}
	t, err := parseFormat(format)
	if err != nil {
		return err
	}
	w = forPeople(w)
	for _, row := range rows {
		if err := l.execute(w, t, format, row); err != nil {
			return err
		}
	}
	return nil
}

// execute writes one row and a newline.
func (l listing) execute(w io.Writer, t *template.Template, format string, row any) error {
	var b bytes.Buffer
	if err := t.Execute(&b, row); err != nil {
		return &formatError{text: format, err: err, fields: l.fields()}
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

func (l listing) fields() (names []string) {
	for _, c := range l.columns {
		names = append(names, c.field)
	}
	return names
}

func (l listing) standardTable(w io.Writer, rows []any) error {
	cells := make([]string, len(l.standard))
	for i, field := range l.standard {
		cells[i] = "{{." + field + "}}"
	}
	tw := newTable(w)
	if !l.noHead {
		for i, field := range l.standard {
			fmt.Fprint(tw, l.heading(field), separator(i, len(l.standard)))
		}
	}
	for _, row := range rows {
		v := reflect.Indirect(reflect.ValueOf(row))
		for i, field := range l.standard {
			fmt.Fprint(tw, inCell(v.FieldByName(field).String()), separator(i, len(l.standard)))
		}
	}
	return tw.Flush()
}

func separator(i, n int) string {
	if i == n-1 {
		return "\n"
	}
	return "\t"
}

func (l listing) heading(field string) string {
	for _, c := range l.columns {
		if c.field == field {
			return c.heading
		}
	}
	return strings.ToUpper(field)
}

func newTable(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(visibleWriter{w}, 10, 1, 3, ' ', 0)
}

// table prints rows by a template, under the headings of the fields it uses:
// those are its output for a row that holds headings.
func (l listing) table(w io.Writer, format string, rows []any) error {
	t, err := parseFormat(format)
	if err != nil {
		return err
	}
	head := l.head
	if head == nil {
		headings := map[string]string{}
		for _, c := range l.columns {
			headings[c.field] = c.heading
		}
		head = headings
	}
	tw := newTable(w)
	if err := l.execute(tw, t, format, head); err != nil {
		return err
	}
	for _, row := range rows {
		if err := l.execute(tw, t, format, row); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// printEach writes each of values by a template, or all of them as an indented
// JSON list if format is empty or "json": what inspect commands do.
func printEach[T any](w io.Writer, format string, values []T) error {
	if format == "" {
		return printJSON(w, values, "    ")
	}
	if format == "json" {
		return printJSON(w, values, "")
	}
	return printTemplate(w, format, values)
}

// printTemplate writes each of values by a template.
func printTemplate[T any](w io.Writer, format string, values []T) error {
	t, err := parseFormat(format)
	if err != nil {
		return err
	}
	w = forPeople(w)
	for _, v := range values {
		if err := executeEither(w, t, format, v); err != nil {
			return err
		}
	}
	return nil
}

// executeEither takes fields by their names in JSON where those in Go do not
// serve: Docker knows both .ID and .Id.
func executeEither(w io.Writer, t *template.Template, format string, v any) error {
	err := (listing{}).execute(w, t, format, v)
	if err == nil {
		return nil
	}
	raw, jerr := json.Marshal(v)
	var generic any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber() // else large ones are shown as 1.2e+06
	if jerr != nil || d.Decode(&generic) != nil {
		return err
	}
	if (listing{}).execute(w, t.Option("missingkey=error"), format, generic) == nil {
		return nil
	}
	return err
}

// forPeople is w, which shows nothing harmful if it is a terminal. A program that
// reads what is printed gets it as it is.
func forPeople(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && isTerminal(int(f.Fd())) {
		return visibleWriter{w}
	}
	return w
}
