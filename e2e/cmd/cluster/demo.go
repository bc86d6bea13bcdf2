package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/emqx-bg/emqx-bg-operator/e2e/demo"
	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/measure"
	"github.com/emqx-bg/emqx-bg-operator/e2e/demo/show"
)

func demoCommands() []*cobra.Command {
	return []*cobra.Command{demoCommand(), graphCommand()}
}

func demoCommand() *cobra.Command {
	var config demo.Config
	var licence string
	command := &cobra.Command{
		Use:   "demo --dir DIR",
		Short: "Upgrade an EMQX cluster under load before your eyes, and measure it",
		Long: `Starts a cluster, installs the operator and the sample, connects MQTT clients, changes imagePullPolicy as EMQX's
documentation does and shows the upgrade: the phases, the clients of each revision, the rate, the estimated end. Then it
compares what it measured with the limits, and fails when one is missed. The cluster is taken down at the end.
Without a licence EMQX allows one node, which the operator replaces in place: --licence none shows that.`,
		Example: "  cluster demo --dir .cluster/demo\n  cluster demo --dir .cluster/demo --clients 300 --conn-evict-rate 50 --keep",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch licence {
			case "key":
			case "none":
				config.NoLicence = true
			default:
				return fmt.Errorf("--licence is key or none, not %q", licence)
			}
			binary, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			config.ClusterBinary, config.Out = binary, cmd.OutOrStdout()
			debug.SetGCPercent(400) // Thousands of clients run in this process; processor time is for what is measured.
			if config.MessagesPerSecond == 0 {
				config.MessagesPerSecond = -1
			}
			figures, err := demo.Run(cmd.Context(), config)
			if err == nil && !figures.OK() {
				err = fmt.Errorf("the upgrade missed its limits: %s", strings.Join(figures.Failed(), "; "))
			}
			return err
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.Dir, "dir", ".cluster/demo", "the cluster's directory")
	flags.BoolVar(&config.Keep, "keep", false, "leave the cluster running at the end, without the clients")
	flags.IntVar(&config.Clients, "clients", 3000, "number of MQTT clients")
	flags.IntVar(&config.MessagesPerSecond, "rate", 100, "messages a second, by all clients together")
	flags.Int32Var(&config.ConnEvictRate, "conn-evict-rate", 0, "clients to move a second (default: what the sample says)")
	flags.StringVar(&licence, "licence", "key", "key for a licence key that allows several nodes, none for what runs without one")
	flags.DurationVar(&config.ReturnDelay, "return-delay", 0, "how long a client that was cut off waits before it comes back (default: up to a quarter of a second)")
	flags.StringVar(&config.Record, "record", "", "write the time series of the run to this file, for `cluster graph`")
	flags.StringVar(&config.Manifests, "manifests", "", "directory of the operator's manifests (default: found in the working directory or beside this program)")
	return command
}

func graphCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "graph FILE",
		Short:   "Draw the clients during an upgrade that `cluster demo --record FILE` has recorded, as SVG",
		Example: "  cluster graph run.json > upgrade.svg",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			record, err := measure.ReadRecord(arguments[0])
			if err != nil {
				return err
			}
			return show.Graph(cmd.OutOrStdout(), record)
		},
	}
}
