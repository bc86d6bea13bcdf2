// Command provisioner makes the volumes of the cluster with real nodes.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/volumes"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "provisioner:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	kubeconfig := flag.String("kubeconfig", "", "access to the cluster")
	root := flag.String("root", "", "the directory for volumes")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := volumes.EnsureClass(ctx, client); err != nil {
		return err
	}
	return volumes.Run(ctx, volumes.Config{Client: client, Root: *root, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
}
