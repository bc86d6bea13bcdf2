// Command kubenode is what Kubernetes runs on a real node, in one binary: kubelet and kube-proxy, each run as
// `kubenode NAME ARGS...`. It is apart from the command kube so that who only wants the local cluster builds neither.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: kubenode kubelet|kube-proxy ARGS...")
		os.Exit(2)
	}
	name := os.Args[1]
	os.Args = append([]string{filepath.Join(filepath.Dir(os.Args[0]), name)}, os.Args[2:]...)
	var command *cobra.Command
	switch name {
	case "kubelet":
		command = kubelet.NewKubeletCommand(context.Background())
	case "kube-proxy":
		command = proxy.NewProxyCommand()
	default:
		fmt.Fprintf(os.Stderr, "kubenode: no program is called %q\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(command))
}
