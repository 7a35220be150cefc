// Command rbox runs containers for users without root.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// version is set by the linker.
var version = "dev"

// grammar is the command line, in help order.
type grammar struct {
	Help helpFlag `help:"Show help."`

	Run     RunCmd     `cmd:"" help:"Run a command in a new container."`
	Pull    PullCmd    `cmd:"" help:"Get an image from a registry."`
	Images  ImagesCmd  `cmd:"" help:"List images."`
	Import  ImportCmd  `cmd:"" help:"Make an image of a root file system's archive."`
	Login   LoginCmd   `cmd:"" help:"Keep the credentials for a registry."`
	Logout  LogoutCmd  `cmd:"" help:"Forget the credentials for a registry."`
	Ps      PsCmd      `cmd:"" aliases:"list,ls" help:"List containers."`
	Rm      RmCmd      `cmd:"" help:"Remove containers."`
	Unshare UnshareCmd `cmd:"" help:"Run a command where all your ids are: root of what containers own."`
	Doctor  DoctorCmd  `cmd:"" help:"Tell what this host grants to containers, and what would cure the rest."`
	Version VersionCmd `cmd:"" help:"Show the version."`
}

// grammarFor returns a new grammar for a command line that begins with word:
// of that command alone if it is one, since kong takes its time over each.
func grammarFor(word string) any {
	all := reflect.TypeFor[grammar]()
	for f := range all.Fields() {
		tag := f.Tag
		if _, ok := tag.Lookup("cmd"); !ok {
			continue
		}
		names := append(strings.Split(tag.Get("aliases"), ","), tag.Get("name"), strings.ToLower(f.Name))
		if slices.Contains(names, word) {
			help, _ := all.FieldByName("Help")
			return reflect.New(reflect.StructOf([]reflect.StructField{help, f})).Interface()
		}
	}
	return new(grammar)
}

// VersionCmd prints the version.
type VersionCmd struct{}

// Run prints one line.
func (VersionCmd) Run(app *App) error {
	_, err := fmt.Fprintln(app.Stdout, "rbox version", version)
	return err
}

// helpFlag shows the help and ends the program.
type helpFlag bool

// BeforeReset is kong's hook for flags that act at once.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	ctx.Kong.Exit(0)
	return nil
}

// exitStatus is the status of a container's program. As an error it carries
// the status to main and says nothing.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func main() {
	switch os.Args[0] { // what rbox starts of itself, in the outer user namespace
	case probeName:
		os.Exit(probeMain(os.Args[1:]))
	case unpackName:
		os.Exit(unpackMain())
	}
	os.Exit(run(newApp(), os.Args[1:]))
}

// run carries out one command line and returns the exit status.
func run(app *App, args []string) int {
	if len(args) == 0 || args[0] == "-h" {
		args = []string{"--help"}
	}
	parser, err := kong.New(grammarFor(args[0]),
		kong.Name("rbox"),
		kong.Description("Containers without root."),
		kong.NoDefaultHelp(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(app.Stdout, app.Stderr),
		kong.Bind(app),
	)
	if err != nil {
		return app.report(err)
	}
	ctx, err := parser.Parse(args)
	if err != nil {
		return app.report(usageError(parser, err))
	}
	return app.report(ctx.Run())
}

// usageError adds where to find help to what kong says of a command line.
func usageError(parser *kong.Kong, err error) error {
	hint := "rbox --help"
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil && parse.Context.Selected() != nil {
		hint = "rbox " + parse.Context.Selected().Path() + " --help"
	}
	return &adviceError{err, hint}
}

// An adviceError is an error with a hint.
type adviceError struct {
	error
	advice string
}

func (e *adviceError) Unwrap() error { return e.error }
func (e *adviceError) Hint() string  { return e.advice }

// report prints err and its hint and returns the exit status it stands for.
func (a *App) report(err error) int {
	if err == nil {
		return 0
	}
	var status exitStatus
	if errors.As(err, &status) {
		return int(status)
	}
	fmt.Fprintln(a.Stderr, "rbox:", err)
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		printHint(a.Stderr, hinted.Hint())
	}
	var failed interface{ ExitStatus() int }
	if errors.As(err, &failed) {
		return failed.ExitStatus()
	}
	return 125
}

func printHint(w io.Writer, hint string) {
	if hint != "" {
		fmt.Fprintln(w, "rbox: hint:", hint)
	}
}
