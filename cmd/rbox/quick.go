package main

import "errors"

// errBeyond says that the whole is needed. Nothing has been made by then.
var errBeyond = errors.New("this takes the whole of rbox")

// A command is one of the command line, its flags set.
type command interface{ Run(*App) error }

// shorter is args in the shorter of two forms that mean the same, where that is a
// quick command: run for container run.
func shorter(args []string) []string {
	if len(args) < 2 || args[0] != "container" || args[1] == "inspect" || args[1] == "images" || quickCommand(args[1]) == nil {
		return args
	}
	return args[1:]
}

// quickCommand returns a new one of those commands that must be quick, which
// the front carries out too; nil for another word.
func quickCommand(word string) command {
	switch word {
	case "run":
		return new(RunCmd)
	case "create":
		return new(CreateCmd)
	case "start":
		return new(StartCmd)
	case "stop":
		return new(StopCmd)
	case "kill":
		return new(KillCmd)
	case "exec":
		return new(ExecCmd)
	case "attach":
		return new(AttachCmd)
	case "wait":
		return new(WaitCmd)
	case "logs":
		return new(LogsCmd)
	case "ps", "list", "ls":
		return new(PsCmd)
	case "images":
		return new(ImagesCmd)
	case "inspect":
		return new(InspectCmd)
	}
	return nil
}
