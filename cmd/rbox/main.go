//go:build !front

// Command rbox runs containers for users without root.

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// version is set by the linker.
var version = "dev"

// grammar is the command line, in help order.
type grammar struct {
	Help helpFlag `help:"Show help."`

	Run        RunCmd        `cmd:"" group:"Containers" help:"Run a command in a new container."`
	Create     CreateCmd     `cmd:"" group:"Containers" help:"Make a container that start runs."`
	Start      StartCmd      `cmd:"" group:"Containers" help:"Start containers."`
	Stop       StopCmd       `cmd:"" group:"Containers" help:"End containers in order."`
	Restart    RestartCmd    `cmd:"" group:"Containers" help:"Stop containers and start them again."`
	Kill       KillCmd       `cmd:"" group:"Containers" help:"Send a signal to containers."`
	Pause      PauseCmd      `cmd:"" group:"Containers" help:"Freeze containers."`
	Unpause    UnpauseCmd    `cmd:"" group:"Containers" help:"Thaw paused containers."`
	Update     UpdateCmd     `cmd:"" group:"Containers" help:"Change the limits or the restart policy of containers."`
	Stats      StatsCmd      `cmd:"" group:"Containers" help:"Show what running containers use."`
	Exec       ExecCmd       `cmd:"" group:"Containers" help:"Run a command in a running container."`
	Attach     AttachCmd     `cmd:"" group:"Containers" help:"Connect to what a container shows and reads."`
	Logs       LogsCmd       `cmd:"" group:"Containers" help:"Show what a container wrote."`
	Ps         PsCmd         `cmd:"" group:"Containers" aliases:"list,ls" help:"List containers."`
	Port       PortCmd       `cmd:"" group:"Containers" help:"Show which ports of this host lead to a container."`
	Top        TopCmd        `cmd:"" group:"Containers" help:"Show the processes of a container."`
	Inspect    InspectCmd    `cmd:"" group:"Containers" help:"Show all about containers, images, volumes and networks, as JSON."`
	Wait       WaitCmd       `cmd:"" group:"Containers" help:"Wait until containers end, and print their exit statuses."`
	Rename     RenameCmd     `cmd:"" group:"Containers" help:"Give a container another name."`
	Rm         RmCmd         `cmd:"" group:"Containers" help:"Remove containers."`
	Cp         CpCmd         `cmd:"" group:"Containers" help:"Copy files between a container and here."`
	Diff       DiffCmd       `cmd:"" group:"Containers" help:"Show what a container has changed in its image's files."`
	Export     ExportCmd     `cmd:"" group:"Containers" help:"Write a container's files to an archive."`
	Commit     CommitCmd     `cmd:"" group:"Containers" help:"Make an image of what a container has changed."`
	Container  ContainerCmd  `cmd:"" group:"Containers" help:"The commands about containers, and prune."`
	Pull       PullCmd       `cmd:"" group:"Images" help:"Get images from a registry."`
	Images     ImagesCmd     `cmd:"" group:"Images" help:"List images."`
	Rmi        RmiCmd        `cmd:"" group:"Images" help:"Remove images."`
	Tag        TagCmd        `cmd:"" group:"Images" help:"Give an image another name."`
	Import     ImportCmd     `cmd:"" group:"Images" help:"Make an image from the archive of a root file system."`
	Load       LoadCmd       `cmd:"" group:"Images" help:"Load images from an archive."`
	Save       SaveCmd       `cmd:"" group:"Images" help:"Save images to an archive."`
	History    HistoryCmd    `cmd:"" group:"Images" help:"Show how an image was built."`
	Image      ImageCmd      `cmd:"" group:"Images" help:"Inspect, list and change images."`
	Login      LoginCmd      `cmd:"" group:"Images" help:"Keep the credentials for a registry."`
	Logout     LogoutCmd     `cmd:"" group:"Images" help:"Forget the credentials for a registry."`
	Volume     VolumeCmd     `cmd:"" group:"Volumes" help:"Make, list, inspect and remove volumes."`
	Network    NetworkCmd    `cmd:"" group:"Networks" help:"Make, list, inspect and remove networks, and connect containers to them."`
	Events     EventsCmd     `cmd:"" group:"System" help:"Show what happens to containers, images, volumes and networks."`
	System     SystemCmd     `cmd:"" group:"System" help:"Show, prune and check all that rbox keeps."`
	Info       InfoCmd       `cmd:"" group:"System" help:"Show where rbox keeps what, and what this host grants."`
	Generate   GenerateCmd   `cmd:"" group:"System" help:"Make files for other programs: units for systemd."`
	Unshare    UnshareCmd    `cmd:"" group:"Host" help:"Run a command where all your ids are: root of what containers own."`
	Doctor     DoctorCmd     `cmd:"" group:"Host" help:"Tell what this host grants to containers, and what would cure the rest."`
	Completion CompletionCmd `cmd:"" group:"Host" help:"Print what completes rbox's commands in bash, zsh or fish."`
	Version    VersionCmd    `cmd:"" group:"Host" help:"Show the version."`
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
		if word != "" && slices.Contains(names, word) {
			help, _ := all.FieldByName("Help")
			return reflect.New(reflect.StructOf([]reflect.StructField{help, f})).Interface()
		}
	}
	return new(grammar)
}

// VersionCmd prints the version.
type VersionCmd struct {
	Format string `short:"f" placeholder:"TEMPLATE" help:"json, or a Go template with .Version, .Client.Version and .Server.Version."`
}

// Run prints one line.
func (c *VersionCmd) Run(app *App) error {
	if c.Format != "" {
		type one struct{ Version, GoVersion, Os, Arch string }
		v := one{version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
		all := struct {
			Version        string
			Client, Server one
		}{version, v, v}
		if c.Format == "json" {
			return printJSON(app.Stdout, all, "")
		}
		return printTemplate(app.Stdout, c.Format, []any{all})
	}
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

func main() {
	switch os.Args[0] { // what rbox starts of itself, in the outer user namespace
	case probeName:
		os.Exit(probeMain(os.Args[1:]))
	case unpackName:
		os.Exit(unpackMain())
	case filesName:
		os.Exit(filesMain())
	}
	os.Exit(run(newApp(), os.Args[1:]))
}

// run carries out one command line and returns the exit status.
func run(app *App, args []string) int {
	if len(args) == 0 || args[0] == "-h" || args[0] == "help" {
		args = append(args[min(len(args), 1):], "--help")
	}
	if args[0] == "--version" || args[0] == "-v" {
		args = []string{"version"}
	}
	if args = shorter(args); args[0] == "run" {
		app.early = startEarly(app)
	}
	if cmd := quickCommand(args[0]); cmd != nil && quickParse(cmd, args[1:]) {
		return app.report(app.orLone(cmd.Run(app)))
	}
	parser, err := kong.New(grammarFor(args[0]),
		kong.Name("rbox"),
		kong.Description("rbox runs containers for users without root."),
		kong.NoDefaultHelp(),
		kong.Help(printHelp),
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
	return app.report(app.orLone(ctx.Run()))
}
