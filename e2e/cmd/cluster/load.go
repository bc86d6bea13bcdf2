package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
)

func loadCommands() []*cobra.Command {
	var config load.Config
	var duration time.Duration
	command := &cobra.Command{
		Use:   "load --to HOST:PORT",
		Short: "Connect MQTT clients, send them numbered messages and count what is lost",
		Long: `Connects clients with persistent sessions, which come back by themselves with jitter, and sends them numbered
QoS 1 messages. Prints connected clients, reconnects, lost and repeated messages, a line a second. Fails when a message
that was acknowledged never arrived.`,
		Example: `  cluster load --to $(cluster endpoint default/emqx-ee-listeners tcp-default) --clients 3000 --rate 500 --duration 1m`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runLoad(cmd, config, duration)
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.Address, "to", "", "host:port to connect to")
	flags.IntVar(&config.Clients, "clients", 100, "number of clients")
	flags.IntVar(&config.MessagesPerSecond, "rate", 100, "messages a second, by all clients together")
	flags.IntVar(&config.ConnectsPerSecond, "connect-rate", 500, "clients that connect a second at the start")
	flags.StringVar(&config.Prefix, "prefix", "load", "beginning of client ids and topics")
	flags.DurationVar(&duration, "duration", 0, "how long to go on; 0 means until interrupted")
	if err := command.MarkFlagRequired("to"); err != nil {
		panic(err) // The flag is defined above.
	}
	return []*cobra.Command{command}
}

// drainLimit is how long messages under way may take to arrive.
const drainLimit = 30 * time.Second

func runLoad(cmd *cobra.Command, config load.Config, duration time.Duration) error {
	l, err := load.New(config)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	// The clients outlive the time of the load: what is under way must arrive.
	clients, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	stop := context.AfterFunc(ctx, disconnect)
	if err := l.Connect(clients); err != nil {
		return err
	}
	stop()
	l.Start(clients)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case <-ticker.C:
			printStats(cmd, l.Stats())
		}
	}
	stats := l.Drain(clients, drainLimit)
	printStats(cmd, stats)
	if stats.Lost > 0 {
		return fmt.Errorf("%d messages that were acknowledged never arrived", stats.Lost)
	}
	if stats.Acked == 0 && config.MessagesPerSecond > 0 {
		return errors.New("no message was acknowledged")
	}
	return nil
}

func printStats(cmd *cobra.Command, stats load.Stats) {
	cmd.Printf("%d connected, %d away (at most %d), %d reconnects (at most %d a client), %d acknowledged, %d arrived, %d missing, %d repeated\n",
		stats.Connected, stats.Away, stats.MaxAway, stats.Disconnects, stats.MaxDisconnects, stats.Acked, stats.Received, stats.Lost, stats.Repeated)
}
