package realnode

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode/box"
)

// startLimit bounds a start; half a minute is usual.
const startLimit = 4 * time.Minute

// Options says what cluster to start.
type Options struct {
	// Bin is the directory with the programs.
	Bin string
	// Nodes is how many nodes it has.
	Nodes int
	// Progress gets a sentence for every step; nil for nobody.
	Progress func(sentence string)
}

// Cluster is a cluster with real nodes. It ends with the box that it is in.
type Cluster struct {
	// Dir is its directory, as seen in the box.
	Dir state.Dir
	// State is what the control plane was started with.
	State *state.State
	// Kube is a client with full rights.
	Kube kubernetes.Interface
	// Nodes are its nodes.
	Nodes []*Node

	progress func(string)
	begun    time.Time
	health   *controlplane.Health
}

// Start starts a cluster in the box that this process is in, and returns when its nodes are ready and names are resolved.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("the cluster did not start within %s", startLimit))
	defer cancel()
	c := &Cluster{Dir: box.Home, begun: time.Now(), progress: options.Progress}
	if c.progress == nil {
		c.progress = func(string) {}
	}
	if err := c.prepare(options); err != nil {
		return nil, err
	}
	// Images are made, nodes boot and the control plane starts side by side: each waits for what it needs of the others.
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return makeImages(options.Bin, c.Dir.Path(imagesDir)) })
	for _, node := range c.Nodes {
		group.Go(func() error { return node.Start(groupCtx) })
	}
	group.Go(func() error { return c.startControlPlane(groupCtx) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := c.startAddons(ctx); err != nil {
		return nil, err
	}
	for _, node := range c.Nodes {
		if err := c.WaitReady(ctx, node); err != nil {
			return nil, err
		}
	}
	c.say("%d nodes are ready", len(c.Nodes))
	if err := c.waitDNS(ctx); err != nil {
		return nil, err
	}
	c.say("names are resolved")
	return c, nil
}

func (c *Cluster) say(format string, arguments ...any) {
	c.progress(fmt.Sprintf("[%5.1fs] ", time.Since(c.begun).Seconds()) + fmt.Sprintf(format, arguments...))
}

// prepare sets the network up and writes the files.
func (c *Cluster) prepare(options Options) error {
	if os.Getpid() == 1 || !inBox() {
		return errors.New("a cluster with real nodes is started in a box; see Enter")
	}
	bootID, err := proc.BootID()
	if err != nil {
		return err
	}
	bin := c.Dir.Path("bin")
	c.State = &state.State{
		ID: rand.Text(), BootID: bootID, Created: time.Now(), Ports: state.PreferredPorts(),
		ClusterBinary: filepath.Join(bin, "cluster"), KubeBinary: filepath.Join(bin, "kube"), Processes: map[string]proc.Identity{},
	}
	for i := range options.Nodes {
		node := &Node{
			Name: fmt.Sprintf("node-%d", i+1), Address: nodeAddress(i), pods: podPrefix(i), services: i == 0, bin: bin, dir: c.Dir,
		}
		c.Nodes = append(c.Nodes, node)
		c.State.RealNodes = append(c.State.RealNodes, state.Node{Name: node.Name, Address: node.Address})
	}
	if len(c.Nodes) == 0 {
		return errors.New("a cluster needs a node")
	}
	for _, name := range []string{"bin", imagesDir, volumesDir} {
		if err := os.MkdirAll(c.Dir.Path(name), 0o755); err != nil { //nolint:gosec // pods' users pass it
			return fmt.Errorf("make the cluster's directory: %w", err)
		}
	}
	// The programs are found here also where a node hides the place that they really lie in.
	if err := unix.Mount(options.Bin, bin, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show the nodes the programs in %s: %w", options.Bin, err)
	}
	if err := setUpNetwork(); err != nil {
		return err
	}
	return controlplane.WriteFiles(c.Dir, c.State, time.Now())
}

// inBox reports whether this process is in a box of Enter's: its network has no interface but its own.
func inBox() bool {
	name, err := os.Hostname()
	return err == nil && name == controlName
}

// controlName is the host name of the box that Enter makes.
const controlName = "control"

// startControlPlane starts the programs of the control plane.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	var err error
	if c.health, err = controlplane.NewHealth(c.Dir, c.State); err != nil {
		return err
	}
	for _, group := range [][]string{
		{controlplane.Etcd}, {controlplane.APIServer}, {controlplane.ControllerManager, controlplane.Scheduler},
	} {
		for _, name := range group {
			if err := c.StartComponent(ctx, name); err != nil {
				return err
			}
		}
	}
	c.say("the control plane is ready")
	if c.Kube, err = localkube.Client(c.Dir); err != nil {
		return err
	}
	return c.Dir.Save(c.State)
}

// StartComponent starts a program of the control plane and waits until it is ready.
func (c *Cluster) StartComponent(ctx context.Context, name string) error {
	component, err := controlplane.Start(c.Dir, c.State, name)
	if err != nil {
		return err
	}
	c.State.Processes[name] = component.ID
	return component.WaitReady(ctx, func(ctx context.Context) error { return c.health.Check(ctx, name) })
}

// StopComponent asks a program of the control plane to end, and kills it when it has not within its grace, as kubelet does with
// a pod.
func (c *Cluster) StopComponent(ctx context.Context, name string, grace time.Duration) error {
	id := c.State.Processes[name]
	if err := id.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	gentle, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if id.WaitGone(gentle) == nil {
		return nil
	}
	if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, proc.ErrGone) {
		return fmt.Errorf("kill %s: %w", name, err)
	}
	return id.WaitGone(ctx)
}

// WaitReady waits until the node takes pods.
func (c *Cluster) WaitReady(ctx context.Context, node *Node) error {
	err := poll(ctx, func() error {
		object, err := c.Kube.CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, taint := range object.Spec.Taints {
			return fmt.Errorf("it has the taint %s", taint.Key)
		}
		if !NodeIs(object, corev1.ConditionTrue) {
			return errors.New("its condition Ready is not True")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s to be ready; the logs of its programs are %s*: %w", node.Name, c.Dir.Path("logs", node.Name), err)
	}
	return nil
}

// NodeIs reports whether the node's condition Ready has the status.
func NodeIs(node *corev1.Node, status corev1.ConditionStatus) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
		return condition.Type == corev1.NodeReady && condition.Status == status
	})
}

// Kubectl runs kubectl; its output is standard output and standard error together.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, arguments ...string) (string, error) {
	arguments = append([]string{"kubectl", "--kubeconfig", c.Dir.AdminKubeconfig()}, arguments...)
	command := exec.CommandContext(ctx, c.State.KubeBinary, arguments...) //nolint:gosec // our own program
	command.Stdin = strings.NewReader(stdin)
	command.WaitDelay = time.Second
	output, err := command.CombinedOutput()
	if err != nil {
		return string(output), fmt.Errorf("%s: %w: %s", strings.Join(arguments, " "), err, output)
	}
	return string(output), nil
}
