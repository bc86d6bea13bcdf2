package main

import (
	"github.com/spf13/cobra"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/command"
)

func emqxCommands() []*cobra.Command {
	return []*cobra.Command{command.New(), replayCommand()}
}
