// Command emqx is the EMQX stand-in alone, as it lies in an image.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/command"
)

// gcPercent is that of the command cluster, for its reason.
const gcPercent = 400

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "emqx:", err)
		os.Exit(1)
	}
}

func run() error {
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return command.New().ExecuteContext(ctx)
}
