package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/emqx-bg/emqx-bg-operator/e2e/replay"
)

const replayHelp = `Sends recorded exchanges to other nodes, in order, and compares status, content type and body: a line a
recording and a count at the end; it fails when an answer differs.

DIR holds recordings in the form of replay/testdata; the addresses in them are mapped to those of --to. The nodes
must listen on EMQX's usual ports and know the API keys opkey:opsecret and viewkey:viewsecret:viewer.

With --start it runs three stand-in nodes on those addresses itself, so that nodes can be stopped, killed and frozen
as in the recording. Without it, recordings that need that are skipped, with the reason. --scale shortens recorded
timeouts of frozen nodes for nodes that --start runs; with 1 those alone take half an hour.

--only replays one part, or one recording by its name or number: what was done before it is done again, as far as it
makes the situation, and nothing else is compared. A recording that cannot be replayed is skipped, with the reason.`

func replayCommand() *cobra.Command {
	var to []string
	var start bool
	var scale float64
	var only string
	cmd := &cobra.Command{
		Use:   "replay DIR --to ADDRESS,ADDRESS,ADDRESS",
		Short: "Send recorded exchanges to EMQX nodes and compare the answers",
		Long:  replayHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg := replay.Config{
				Dir: args[0], Recorded: replay.RecordedAddresses(), Targets: to, Scale: scale, Only: only, Out: cmd.OutOrStdout(),
			}
			if !start {
				return runReplay(cmd, cfg)
			}
			nodes, err := ownNodes(to, scale)
			if err != nil {
				return err
			}
			defer func() {
				_ = nodes.Close()
				_ = os.RemoveAll(nodes.Dir)
			}()
			cfg.Control = nodes
			return runReplay(cmd, cfg)
		},
	}
	set := cmd.Flags()
	set.StringSliceVar(&to, "to", nil, "addresses of the three nodes, in the order of the recorded ones")
	set.BoolVar(&start, "start", false, "run three stand-in nodes on these addresses")
	set.Float64Var(&scale, "scale", 1, "with --start: what recorded timeouts of frozen nodes are multiplied by")
	set.StringVar(&only, "only", "", "replay one recording by its name or number, or one part: "+strings.Join(replay.Groups(), ", "))
	_ = cmd.MarkFlagRequired("to") // it fails only for a flag that is not defined
	return cmd
}

func runReplay(cmd *cobra.Command, cfg replay.Config) error {
	runner, err := replay.New(cfg)
	if err != nil {
		return err
	}
	_, err = runner.Run(cmd.Context())
	return err
}

func ownNodes(addresses []string, scale float64) (*replay.Processes, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "replay-")
	if err != nil {
		return nil, fmt.Errorf("make the directory of the nodes: %w", err)
	}
	extra := []string{"--timeout-scale", fmt.Sprint(scale), "--log-level", "error"}
	return &replay.Processes{Dir: dir, Command: replay.StandIn(addresses, extra, self, "emqx"), Log: os.Stderr}, nil
}
