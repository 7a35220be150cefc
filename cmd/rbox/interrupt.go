package main

import (
	"context"
	"errors"
	"os/signal"

	"golang.org/x/sys/unix"
)

// interruptible returns a context that the first SIGINT, SIGTERM or SIGHUP
// cancels, so that work in progress is left in order. The second kills.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// interrupted is the status of a command that Ctrl-C ended: 128 and SIGINT.
const interrupted = exitStatus(130)

// orInterrupted returns err, or interrupted if it came of the end of ctx:
// whoever pressed Ctrl-C needs no telling.
func orInterrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return interrupted
	}
	return err
}
