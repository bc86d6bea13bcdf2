package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode/box"
)

// exitError has the program end with the code of another one.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("the program ended with code %d", int(e)) }

// insideEnv tells the program that it is in the box, and which directory it was called from.
const insideEnv = "CLUSTER_NODES_INSIDE"

// nodesCommands are the cluster with real nodes, and the commands that its processes run.
func nodesCommands() []*cobra.Command {
	return []*cobra.Command{
		nodesCommand(),
		hidden(box.JoinCommand, func(_ context.Context, arguments []string) (int, error) { return box.Join(arguments[0]) }, 1),
		hidden(box.InitCommand, func(_ context.Context, arguments []string) (int, error) { return box.Init(arguments[0]) }, 1),
		hidden(realnode.NodeCommand, func(ctx context.Context, arguments []string) (int, error) {
			return 0, realnode.Supervise(ctx, arguments[0])
		}, 1),
		hidden(realnode.KeepCommand, func(ctx context.Context, arguments []string) (int, error) {
			return 0, realnode.Keep(ctx, arguments[0], arguments[1])
		}, 2),
	}
}

func hidden(name string, run func(ctx context.Context, arguments []string) (int, error), arguments int) *cobra.Command {
	return &cobra.Command{
		Use: name, Hidden: true, Args: cobra.ExactArgs(arguments),
		RunE: func(command *cobra.Command, arguments []string) error {
			code, err := run(command.Context(), arguments)
			if err == nil && code != 0 {
				err = exitError(code)
			}
			return err
		},
	}
}

func nodesCommand() *cobra.Command {
	var dir string
	var count int
	command := &cobra.Command{
		Use:   "nodes --dir DIR -- COMMAND...",
		Short: "Run a command beside a cluster with real nodes; needs root and some Debian packages",
		Long: `Start a Kubernetes cluster with real nodes (kubelet, containerd, runc, CNI, kube-proxy, CoreDNS), run the command and, when it
has ended, end everything. The command finds KUBECONFIG in its environment, and bin/ in its PATH; it is in the network of the
control plane, which reaches nodes, pods and Services, and nothing outside of the cluster. Logs are kept in DIR/logs.`,
		Example: "  cluster nodes --dir /tmp/real -- bash",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			if os.Getenv(insideEnv) != "" {
				return runInside(command, count, arguments)
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			if lacking := realnode.Lacking(filepath.Dir(self)); len(lacking) > 0 {
				return errors.New("this machine lacks " + strings.Join(lacking, ", "))
			}
			code, err := realnode.Enter(command.Context(), realnode.Outside{
				Helper: self, Dir: dir, Command: append([]string{self, "nodes", "--nodes", strconv.Itoa(count), "--"}, arguments...),
				Streams: box.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: append(os.Environ(), insideEnv+"=1")},
			})
			if err == nil && code != 0 {
				err = exitError(code)
			}
			return err
		},
	}
	command.Flags().StringVar(&dir, "dir", ".cluster/nodes", "the cluster's directory")
	command.Flags().IntVar(&count, "nodes", 2, "how many nodes")
	return command
}

// runInside starts the cluster in the box and runs the command.
func runInside(command *cobra.Command, count int, arguments []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	bin := filepath.Dir(self)
	cluster, err := realnode.Start(command.Context(), realnode.Options{
		Bin: bin, Nodes: count, Progress: func(sentence string) { _, _ = fmt.Fprintln(command.ErrOrStderr(), sentence) },
	})
	if err != nil {
		return err
	}
	program := exec.CommandContext(command.Context(), arguments[0], arguments[1:]...) //nolint:gosec // what the user wants
	program.Stdin, program.Stdout, program.Stderr = os.Stdin, os.Stdout, os.Stderr
	program.Env = append(os.Environ(), "KUBECONFIG="+cluster.Dir.AdminKubeconfig(), "PATH="+bin+":"+os.Getenv("PATH"))
	program.Cancel = func() error { return program.Process.Signal(syscall.SIGTERM) }
	// A shell on a terminal is interrupted by itself.
	signal.Ignore(os.Interrupt)
	err = program.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exitError(exit.ExitCode())
	}
	return err
}
