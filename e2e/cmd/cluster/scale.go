package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/emqx-bg/emqx-bg-operator/e2e/scale"
)

func scaleCommand() *cobra.Command {
	var config scale.Config
	var check bool
	command := &cobra.Command{
		Use:   "bench-scale --dir DIR",
		Short: "Measure the operator with many clusters",
		Long: `Starts etcd and kube-apiserver, fakes everything else but the operator, and measures the operator's program with 1, 10,
100 and 1,000 clusters of three nodes: memory, processor time, connections, requests, how long it takes to know all nodes after
a start, how soon it answers a change, and upgrades. docs/scale.md says what each figure means. Profiles, logs and all figures
are left in the directory.`,
		Example: "  cluster bench-scale --dir .cluster/scale\n  cluster bench-scale --dir .cluster/scale --clusters 100 --upgrades 1,20",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			binary, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			config.ClusterBinary, config.Out = binary, cmd.ErrOrStderr()
			results, err := scale.Run(cmd.Context(), config)
			if len(results) > 0 {
				say(cmd, "%s\n%s", scale.Table(results), scale.Goals(results))
			}
			if err != nil {
				return err
			}
			figures, err := json.MarshalIndent(results, "", "  ")
			if err != nil {
				return fmt.Errorf("write the figures: %w", err)
			}
			if err := os.WriteFile(filepath.Join(config.Dir, "figures.json"), figures, 0o600); err != nil {
				return fmt.Errorf("write the figures: %w", err)
			}
			if missed := scale.Missed(results[len(results)-1]); check && len(missed) > 0 {
				return fmt.Errorf("goals were missed: %s", strings.Join(missed, "; "))
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.Dir, "dir", ".cluster/scale", "a directory for the control plane, logs and profiles")
	flags.StringVar(&config.Manifests, "manifests", "manifests", "the operator's manifests")
	flags.IntSliceVar(&config.Sizes, "clusters", []int{1, 10, 100, 1000}, "numbers of clusters, rising")
	flags.IntVar(&config.Nodes, "nodes", 3, "nodes of a cluster")
	flags.IntVar(&config.Clients, "clients", 300, "clients of a cluster")
	flags.IntSliceVar(&config.Upgrades, "upgrades", []int{1, 20, 100}, "numbers of upgrades at once, rising; those above the number of clusters are left out")
	flags.IntVar(&config.Probes, "changes", 50, "changes of a resource to time")
	flags.DurationVar(&config.Window, "window", 0, "how long a look at the operator at rest takes (default 30s)")
	flags.DurationVar(&config.Rest, "rest", 0, "how long to wait for the operator to come to rest (default 7m)")
	flags.StringArrayVar(&config.OperatorFlags, "operator-flag", nil, "a flag to measure the operator with (repeatable)")
	flags.BoolVar(&check, "check", false, "fail when the largest number of clusters misses a goal")
	flags.BoolVar(&config.Keep, "keep", false, "leave the control plane running at the end")
	return command
}
