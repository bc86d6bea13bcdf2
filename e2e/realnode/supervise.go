package realnode

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode/box"
)

// NodeCommand is the hidden command of the program `cluster` that is the first program of a node.
const NodeCommand = "nodes-node"

const (
	// bootLimit bounds the time until containerd answers and has the images; seconds are usual.
	bootLimit = 2 * time.Minute
	// restartDelay is how long a program that has ended is left so, as systemd's units do.
	restartDelay = time.Second
	pollInterval = 20 * time.Millisecond
)

// supervisor is the first program of a node: it starts the others, and starts again what ends.
type supervisor struct {
	nodeProgram
	dir state.Dir
	own string
}

// Supervise is NodeCommand; it returns when ctx ends.
func Supervise(ctx context.Context, encoded string) error {
	s := &supervisor{dir: box.Home}
	if err := json.Unmarshal([]byte(encoded), &s.nodeProgram); err != nil {
		return fmt.Errorf("decode a node: %w", err)
	}
	s.own = s.dir.Path(s.Name)
	var programs sync.WaitGroup
	defer programs.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.boot(ctx, &programs); err != nil {
		return err
	}
	kubenode := s.dir.Path("bin", "kubenode")
	programs.Go(func() { s.keepRunning(ctx, "kubelet", append([]string{kubenode, "kubelet"}, s.kubeletArguments()...)) })
	programs.Go(func() {
		s.keepRunning(ctx, controlplane.KubeProxy, append([]string{kubenode, "kube-proxy"}, s.proxyArguments()...))
	})
	<-ctx.Done()
	return nil
}

// boot waits for the network, starts containerd and imports the images.
func (s *supervisor) boot(ctx context.Context, programs *sync.WaitGroup) error {
	limited, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("%s did not boot within %s", s.Name, bootLimit))
	defer cancel()
	if err := poll(limited, s.plugged); err != nil {
		return fmt.Errorf("wait for the network of %s: %w", s.Name, err)
	}
	programs.Go(func() {
		s.keepRunning(ctx, "containerd", []string{"containerd", "--config", filepath.Join(s.own, containerdFile)})
	})
	err := poll(limited, func() error {
		connection, err := net.DialTimeout("unix", containerdSocket, time.Second)
		if err != nil {
			return err
		}
		return connection.Close()
	})
	if err != nil {
		return fmt.Errorf("wait for containerd of %s: %w", s.Name, err)
	}
	return s.importImages(limited)
}

// plugged returns nil when the node has its interface and its ways.
func (s *supervisor) plugged() error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(routes, func(route netlink.Route) bool { return route.Gw != nil }) {
		return fmt.Errorf("%s has no way out yet", s.Name)
	}
	return nil
}

// importImages gives containerd the images, in the first boot: they stay.
func (s *supervisor) importImages(ctx context.Context) error {
	done := filepath.Join(s.own, "imported")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	var archives []string
	err := poll(ctx, func() (err error) {
		if _, err = os.Stat(s.dir.Path(imagesDir, imagesComplete)); err != nil {
			return err
		}
		archives, err = fs.Glob(os.DirFS(s.dir.Path(imagesDir)), "*.tar")
		return err
	})
	if err != nil {
		return fmt.Errorf("wait for the images: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, archive := range archives {
		group.Go(func() error {
			command := exec.CommandContext(ctx, "ctr", "--address", containerdSocket, "--namespace", "k8s.io", //nolint:gosec // our own file
				"images", "import", s.dir.Path(imagesDir, archive))
			if output, err := command.CombinedOutput(); err != nil {
				return fmt.Errorf("import the image %s on %s: %w: %s", archive, s.Name, err, output)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return os.WriteFile(done, nil, 0o600)
}

func (s *supervisor) kubeletArguments() []string {
	return []string{
		"--config=" + filepath.Join(s.own, kubeletFile), "--kubeconfig=" + s.dir.Kubeconfig(s.Name),
		"--hostname-override=" + s.Name, "--node-ip=" + s.Address.String(), "--root-dir=/var/lib/kubelet",
	}
}

func (s *supervisor) proxyArguments() []string {
	return []string{
		"--kubeconfig=" + s.dir.Kubeconfig(controlplane.KubeProxy), "--hostname-override=" + s.Name, "--proxy-mode=nftables",
		"--cluster-cidr=" + allPods().String(),
		// How many connections the machine keeps in mind is the machine's.
		"--conntrack-max-per-core=0", "--conntrack-min=0",
	}
}

// keepRunning runs a program, again and again until ctx ends.
func (s *supervisor) keepRunning(ctx context.Context, name string, arguments []string) {
	for ctx.Err() == nil {
		err := s.run(ctx, name, arguments)
		if ctx.Err() != nil {
			return
		}
		fmt.Fprintf(os.Stderr, "%s: %s has ended (%v) and is started again in %s\n", s.Name, name, err, restartDelay)
		select {
		case <-ctx.Done():
		case <-time.After(restartDelay):
		}
	}
}

func (s *supervisor) run(ctx context.Context, name string, arguments []string) error {
	log, err := os.OpenFile(s.dir.ComponentLog(s.Name+"-"+name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open a log: %w", err)
	}
	defer func() { _ = log.Close() }()                                  // The program that was started has it, too.
	command := exec.CommandContext(ctx, arguments[0], arguments[1:]...) //nolint:gosec // our own programs
	command.Stdout, command.Stderr = log, log
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = endLimit
	return command.Run()
}

// poll asks until the answer is nil, or ctx ends.
func poll(ctx context.Context, ask func() error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}
