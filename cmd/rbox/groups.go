//go:build !front

package main

// ContainerCmd holds the commands about containers under Docker's newer names.
type ContainerCmd struct {
	Attach  AttachCmd           `cmd:"" help:"Connect to what a container shows and reads."`
	Commit  CommitCmd           `cmd:"" help:"Make an image of what a container has changed."`
	Cp      CpCmd               `cmd:"" help:"Copy files between a container and here."`
	Create  CreateCmd           `cmd:"" help:"Make a container that start runs."`
	Diff    DiffCmd             `cmd:"" help:"Show what a container has changed in its image's files."`
	Exec    ExecCmd             `cmd:"" help:"Run a command in a running container."`
	Exists  ContainerExistsCmd  `cmd:"" help:"Tell by the exit status, 0 or 1, whether there is a container."`
	Export  ExportCmd           `cmd:"" help:"Write a container's files to an archive."`
	Inspect ContainerInspectCmd `cmd:"" help:"Show all about containers, as JSON."`
	Kill    KillCmd             `cmd:"" help:"Send a signal to containers."`
	Logs    LogsCmd             `cmd:"" help:"Show what a container wrote."`
	Ls      PsCmd               `cmd:"" aliases:"list,ps" help:"List containers."`
	Pause   PauseCmd            `cmd:"" help:"Freeze containers."`
	Prune   ContainerPruneCmd   `cmd:"" help:"Remove all containers that do not run."`
	Rename  RenameCmd           `cmd:"" help:"Give a container another name."`
	Restart RestartCmd          `cmd:"" help:"Stop containers and start them again."`
	Rm      RmCmd               `cmd:"" aliases:"remove" help:"Remove containers."`
	Run     RunCmd              `cmd:"" help:"Run a command in a new container."`
	Start   StartCmd            `cmd:"" help:"Start containers."`
	Stats   StatsCmd            `cmd:"" help:"Show what running containers use."`
	Stop    StopCmd             `cmd:"" help:"End containers in order."`
	Top     TopCmd              `cmd:"" help:"Show the processes of a container."`
	Unpause UnpauseCmd          `cmd:"" help:"Thaw paused containers."`
	Update  UpdateCmd           `cmd:"" help:"Change the limits or the restart policy of containers."`
	Wait    WaitCmd             `cmd:"" help:"Wait until containers end, and print their exit statuses."`
}

// SystemCmd holds the commands about all that rbox keeps.
type SystemCmd struct {
	Check  SystemCheckCmd `cmd:"" help:"Look for what is damaged or left over, and mend it."`
	Events EventsCmd      `cmd:"" help:"Show what happens to containers, images, volumes and networks."`
	Df     SystemDfCmd    `cmd:"" help:"Show what takes how much of the disk."`
	Info   InfoCmd        `cmd:"" help:"Show where rbox keeps what, and what this host grants."`
	Prune  SystemPruneCmd `cmd:"" help:"Remove what nothing uses."`
}
