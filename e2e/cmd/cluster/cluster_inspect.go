package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
)

func statusCommand() *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "status --dir DIR",
		Short: "Show the cluster's programs and pods; fails unless all is well",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("-o %q is not known; leave it out or say json", output)
			}
			dir, _, err := running(command)
			if err != nil {
				return err
			}
			status, err := localkube.GetStatus(command.Context(), dir)
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(command.OutOrStdout())
				encoder.SetIndent("", "  ")
				err = encoder.Encode(status)
			} else {
				err = printStatus(command.OutOrStdout(), status)
			}
			if err == nil && !status.Healthy {
				err = fmt.Errorf("not all is well: %s", status.Problem)
			}
			return err
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "json for a machine")
	return command
}

func printStatus(out io.Writer, status *localkube.Status) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(table, "Directory:\t%s\nAPI server:\t%s\nPods:\t%s listening in %s\nServices:\t%s listening in %s\n\n",
		status.Dir, status.APIServer, status.PodCIDR, loopbackNetwork(status.PodCIDR),
		status.ServiceCIDR, loopbackNetwork(status.ServiceCIDR))
	_, _ = fmt.Fprintln(table, "COMPONENT\tPID\tHEALTH")
	for _, component := range status.Components {
		_, _ = fmt.Fprintf(table, "%s\t%d\t%s\n", component.Name, component.PID, component.Health)
	}
	_, _ = fmt.Fprintln(table, "\nNAMESPACE\tPOD\tIP\tLISTENS AT\tPHASE\tREADY\tPIDS")
	for i := range status.Pods {
		pod := &status.Pods[i]
		var pids []string
		for _, container := range pod.Containers {
			if container.PID != 0 {
				pids = append(pids, fmt.Sprintf("%s=%d", container.Name, container.PID))
			}
		}
		phase := string(pod.Phase)
		if pod.Reason != "" {
			phase += " (" + pod.Reason + ")"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%t\t%s\n",
			pod.Namespace, pod.Name, pod.IP, pod.Address, phase, pod.Ready, strings.Join(pids, " "))
	}
	return table.Flush()
}

func loopbackNetwork(cidr string) string { return "127." + strings.TrimPrefix(cidr, "10.") }

func logsCommand() *cobra.Command {
	var options localkube.LogOptions
	command := &cobra.Command{
		Use:   "logs --dir DIR COMPONENT|NAMESPACE/POD",
		Short: "Print the log of a component or of a pod, also after its end",
		Long: `Print the log of a component of the cluster, or what a pod's containers have printed. Logs are kept when a pod
is deleted and when the cluster is down.`,
		Example: "  cluster logs --dir /tmp/one kube-apiserver\n  cluster logs --dir /tmp/one default/web-0 --follow",
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			dir, err := clusterDir(command)
			if err != nil {
				return err
			}
			return localkube.Logs(command.Context(), dir, arguments[0], options, command.OutOrStdout())
		},
	}
	command.Flags().BoolVarP(&options.Follow, "follow", "f", false, "go on printing")
	command.Flags().BoolVarP(&options.Previous, "previous", "p", false, "the run of the container before the last")
	command.Flags().StringVarP(&options.Container, "container", "c", "", "the container; all of them if left out")
	return command
}

func signalCommand() *cobra.Command {
	var container string
	command := &cobra.Command{
		Use:   "signal --dir DIR NAMESPACE/POD STOP|CONT|KILL|TERM",
		Short: "Send a signal to all processes of a pod's container: STOP freezes and CONT thaws it",
		Args:  cobra.ExactArgs(2),
		RunE: func(command *cobra.Command, arguments []string) error {
			dir, s, err := running(command)
			if err != nil {
				return err
			}
			namespace, pod, ok := strings.Cut(arguments[0], "/")
			if !ok {
				return fmt.Errorf("%q is not NAMESPACE/POD", arguments[0])
			}
			group, err := localkube.Signal(command.Context(), dir, s, namespace, pod, container, arguments[1])
			if err != nil {
				return err
			}
			say(command, "sent %s to process group %d", strings.ToUpper(arguments[1]), group)
			return nil
		},
	}
	command.Flags().StringVarP(&container, "container", "c", "", "the container; the first if left out")
	return command
}

func endpointCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "endpoint --dir DIR NAMESPACE/SERVICE PORT",
		Short: "Print where a Service's port, by name or number, can be reached from this machine",
		Args:  cobra.ExactArgs(2),
		RunE: func(command *cobra.Command, arguments []string) error {
			dir, _, err := running(command)
			if err != nil {
				return err
			}
			namespace, service, ok := strings.Cut(arguments[0], "/")
			if !ok {
				return fmt.Errorf("%q is not NAMESPACE/SERVICE", arguments[0])
			}
			address, err := localkube.Endpoint(command.Context(), dir, namespace, service, arguments[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(command.OutOrStdout(), address)
			return err
		},
	}
}
