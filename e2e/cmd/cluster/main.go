// Command cluster runs a Kubernetes cluster on this machine without containers, for tests and for trying the
// operator out: a real control plane, a node agent that runs pods as processes, an EMQX stand-in and a client load.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// gcPercent lets the heap grow to five times what is live before it is collected. Thousands of clients reconnect within a
// second on a machine of two cores, which has memory to spare rather than time.
const gcPercent = 400

func main() {
	err := run()
	if code := exitError(0); errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run() error {
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "A Kubernetes cluster on this machine, an EMQX stand-in and a client load",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(clusterCommands()...)
	root.AddCommand(emqxCommands()...)
	root.AddCommand(loadCommands()...)
	root.AddCommand(demoCommands()...)
	root.AddCommand(scaleCommand())
	root.AddCommand(nodesCommands()...)
	return root.ExecuteContext(ctx)
}
