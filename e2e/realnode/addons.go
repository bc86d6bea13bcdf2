package realnode

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	volumesDir = "volumes"
	// provisionerLog is how the provisioner's log is called.
	provisionerLog = "provisioner"
	// dnsNamespace and dnsDeployment are where CoreDNS is.
	dnsNamespace, dnsDeployment = "kube-system", "coredns"
)

//go:embed addons.yaml
var addonsManifest string

// startAddons starts CoreDNS as pods, and the provisioner of volumes beside the control plane.
func (c *Cluster) startAddons(ctx context.Context) error {
	manifest := strings.NewReplacer(
		"DNS_ADDRESS", dnsService().String(), "COREDNS_IMAGE", coreDNSImage,
	).Replace(addonsManifest)
	if _, err := c.Kubectl(ctx, manifest, "apply", "-f", "-"); err != nil {
		return fmt.Errorf("install DNS: %w", err)
	}
	log, err := os.OpenFile(c.Dir.ComponentLog(provisionerLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of the provisioner: %w", err)
	}
	defer func() { _ = log.Close() }() // The program that was started has it, too.
	// It outlives ctx, and ends with the box.
	command := exec.Command(c.Dir.Path("bin", provisionerBinary), //nolint:gosec // our own program
		"--kubeconfig="+c.Dir.AdminKubeconfig(), "--root="+c.Dir.Path(volumesDir))
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start the provisioner: %w", err)
	}
	go func() { _ = command.Wait() }() // How it ended is in its log.
	return nil
}

// waitDNS waits until CoreDNS answers.
func (c *Cluster) waitDNS(ctx context.Context) error {
	err := poll(ctx, func() error {
		deployment, err := c.Kube.AppsV1().Deployments(dnsNamespace).Get(ctx, dnsDeployment, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if deployment.Status.ReadyReplicas == 0 {
			return errors.New("no pod of CoreDNS is ready")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for DNS: %w", err)
	}
	return nil
}
