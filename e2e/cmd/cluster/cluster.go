package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/agent/images"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// clusterCommands are the commands that run and use a cluster.
func clusterCommands() []*cobra.Command {
	commands := []*cobra.Command{
		upCommand(), downCommand(), statusCommand(), kubeconfigCommand(), kubectlCommand(), logsCommand(),
		signalCommand(), endpointCommand(), nodeAgentCommand(),
	}
	for _, command := range commands {
		if command.Flags().Lookup("dir") == nil {
			command.Flags().String("dir", ".cluster", "the cluster's directory")
		}
	}
	return commands
}

// clusterDir returns the directory that the command is about.
func clusterDir(command *cobra.Command) (state.Dir, error) {
	path, err := command.Flags().GetString("dir")
	if err != nil {
		return "", err
	}
	return state.OpenDir(path)
}

// say prints a line for a person. It does not matter when that fails.
func say(command *cobra.Command, format string, arguments ...any) {
	_, _ = fmt.Fprintf(command.OutOrStdout(), format+"\n", arguments...)
}

func upCommand() *cobra.Command {
	var rows []string
	var wait bool
	command := &cobra.Command{
		Use:   "up --dir DIR [--image 'PATTERN=COMMAND' ...]",
		Short: "Start a cluster",
		Long: `Start a Kubernetes cluster: etcd, kube-apiserver, kube-controller-manager, kube-scheduler and one node.

A pod's containers are run as processes of this machine. The image table says as what: --image adds a row, tried before
the built-in ones for EMQX and the operator. PATTERN is matched against the image as a shell would match a file name,
and a * at its end matches anything. COMMAND is given to a shell, followed by the container's arguments; a container
that has a command of its own runs that instead. Processes find in their environment:

  LOCAL_POD_ADDRESS   the loopback address to listen on; the API shows it as 10.x.y.z in place of 127.x.y.z
  LOCAL_POD_ROOT      a directory with the pod's volumes at their mount paths
  LOCAL_DNS_ADDRESS   the cluster's DNS server, host:port
  HTTP_PROXY          an HTTP proxy that leads to pods and Services; HTTPS_PROXY is the same
  KUBECONFIG          access as the pod's service account, if its token is mounted

On a cluster that is up, the command adds rows to the image table and starts what has died.`,
		Example: `  cluster up --dir /tmp/one
  cluster up --dir /tmp/two --image 'busybox*=/bin/sh' --image 'example/echo*=/opt/echo --listen $LOCAL_POD_ADDRESS:8080'`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			dir, err := clusterDir(command)
			if err != nil {
				return err
			}
			options := localkube.UpOptions{Dir: string(dir), NoWait: !wait}
			if options.Images, err = parseRows(rows); err != nil {
				return err
			}
			if options.ClusterBinary, err = os.Executable(); err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			begun := time.Now()
			options.Progress = func(sentence string) {
				say(command, "[%5.1fs] %s", time.Since(begun).Seconds(), sentence)
			}
			if err := localkube.Up(command.Context(), options); err != nil {
				return err
			}
			say(command, "[%5.1fs] the cluster is up; try: %s kubectl --dir %s -- get nodes",
				time.Since(begun).Seconds(), os.Args[0], dir)
			return nil
		},
	}
	command.Flags().StringArrayVar(&rows, "image", nil, "a row PATTERN=COMMAND of the image table (repeatable)")
	command.Flags().BoolVar(&wait, "wait", true, "wait until the node is ready, and not only the control plane")
	return command
}

func parseRows(texts []string) ([]state.ImageRow, error) {
	rows := make([]state.ImageRow, 0, len(texts))
	for _, text := range texts {
		pattern, command, found := strings.Cut(text, "=")
		row := state.ImageRow{Pattern: pattern, Command: command}
		if !found {
			return nil, fmt.Errorf("--image %q is not PATTERN=COMMAND", text)
		}
		if err := images.Validate(row); err != nil {
			return nil, fmt.Errorf("--image %q: %w", text, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func downCommand() *cobra.Command {
	var purge bool
	command := &cobra.Command{
		Use:   "down --dir DIR",
		Short: "Stop a cluster, with all its processes, and remove its state",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			dir, err := clusterDir(command)
			if err != nil {
				return err
			}
			err = localkube.Down(command.Context(), localkube.DownOptions{Dir: string(dir), Purge: purge})
			if errors.Is(err, localkube.ErrNothingToStop) {
				say(command, "%v", err)
				return nil
			}
			if err != nil {
				return err
			}
			if purge {
				say(command, "the cluster in %s is down, and its logs are removed", dir)
			} else {
				say(command, "the cluster in %s is down; its logs are kept (--purge removes them)", dir)
			}
			return nil
		},
	}
	command.Flags().BoolVar(&purge, "purge", false, "remove the logs too")
	return command
}

func kubeconfigCommand() *cobra.Command {
	var raw bool
	command := &cobra.Command{
		Use:   "kubeconfig --dir DIR",
		Short: "Print the path of a kubeconfig with full rights",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			dir, _, err := running(command)
			if err != nil {
				return err
			}
			if !raw {
				_, err = fmt.Fprintln(command.OutOrStdout(), dir.AdminKubeconfig())
				return err
			}
			content, err := os.ReadFile(dir.AdminKubeconfig())
			if err != nil {
				return fmt.Errorf("read the kubeconfig: %w", err)
			}
			_, err = command.OutOrStdout().Write(content)
			return err
		},
	}
	command.Flags().BoolVar(&raw, "raw", false, "print its content instead")
	return command
}

// running returns the directory and state of the cluster that a command needs.
func running(command *cobra.Command) (state.Dir, *state.State, error) {
	dir, err := clusterDir(command)
	if err != nil {
		return "", nil, err
	}
	s, err := dir.Load()
	return dir, s, err
}

func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "kubectl --dir DIR -- ARGS...",
		Short:   "Run kubectl against the cluster",
		Example: "  cluster kubectl --dir /tmp/one -- get pods -A",
		RunE: func(command *cobra.Command, arguments []string) error {
			dir, s, err := running(command)
			if err != nil {
				return err
			}
			// kubectl takes this program's place, with its terminal and signals.
			err = syscall.Exec(s.KubeBinary, append([]string{s.KubeBinary, "kubectl"}, arguments...), //nolint:gosec // that is its use
				append(os.Environ(), "KUBECONFIG="+dir.AdminKubeconfig()))
			return fmt.Errorf("run kubectl from %s: %w", s.KubeBinary, err)
		},
	}
}

func nodeAgentCommand() *cobra.Command {
	return &cobra.Command{
		Use:    controlplane.AgentCommand,
		Short:  "Run the node agent; `cluster up` does",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			dir, s, err := running(command)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			klog.SetSlogLogger(log)
			ctx, cancel := context.WithCancel(command.Context())
			defer cancel()
			return agent.Run(ctx, agent.Config{Dir: dir, State: s, Log: log})
		},
	}
}
