package localkube

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/proc"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// upTimeout bounds a start; a few seconds are usual.
const upTimeout = 3 * time.Minute

// UpOptions says what cluster to start.
type UpOptions struct {
	// Dir is the cluster's directory; it is made when it does not exist.
	Dir string
	// Images are rows of the image table, tried before the built-in ones.
	Images []state.ImageRow
	// ClusterBinary is the program that has the node agent's command. The control plane's program `kube` lies beside it.
	ClusterBinary string
	// Progress gets a sentence for every step; nil for nobody.
	Progress func(sentence string)
	// NoWait returns when the programs have started, without waiting for the Node to be ready.
	NoWait bool
	// APIOnly starts etcd and kube-apiserver and nothing else: what acts on objects is up to the caller.
	APIOnly bool
	// Registry keeps clusters apart; empty for the machine's.
	Registry state.Registry
}

// Up starts the cluster of a directory and returns when its Node is ready. On a cluster that is up it changes the
// image table only, and starts the components that have died. When a new cluster fails to start, nothing is left running.
func Up(ctx context.Context, options UpOptions) error {
	u := &upper{options: options}
	if u.options.Progress == nil {
		u.options.Progress = func(string) {}
	}
	if u.options.Registry == "" {
		u.options.Registry = state.DefaultRegistry()
	}
	path, err := state.OpenDir(options.Dir)
	if err != nil {
		return err
	}
	u.dir = directory{path}
	if u.kube, err = findKube(options.ClusterBinary); err != nil {
		return err
	}
	if err := u.dir.checkUse(); err != nil {
		return err
	}
	if err := os.MkdirAll(string(u.dir.Dir), 0o700); err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, upTimeout, fmt.Errorf("the cluster did not start within %s", upTimeout))
	defer cancel()
	release, err := u.dir.Lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	return u.run(ctx)
}

// upper is one run of Up.
type upper struct {
	options UpOptions
	dir     directory
	kube    string
	state   *state.State
	health  *controlplane.Health
}

// directory adds what only Up and Down need.
type directory struct{ state.Dir }

func findKube(clusterBinary string) (string, error) {
	kube := filepath.Join(filepath.Dir(clusterBinary), "kube")
	info, err := os.Stat(kube)
	if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("the control plane's program %s is missing; build it with `make build` (it takes about ten minutes the first time)", kube)
	}
	return kube, nil
}

// ours are the names a cluster's directory may hold before the cluster is up: what `down` leaves.
func ours() []string { return []string{"logs", "audit.log", ".lock"} }

// checkUse refuses a directory that something else lives in.
func (d directory) checkUse() error {
	entries, err := os.ReadDir(string(d.Dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into the directory %s: %w", d.Dir, err)
	}
	if _, err := os.Stat(d.StateFile()); err == nil {
		_, err := d.Load()
		return err
	}
	for _, entry := range entries {
		if !slices.Contains(ours(), entry.Name()) && !strings.HasPrefix(entry.Name(), "audit-") && !isLeftover(entry.Name()) {
			return fmt.Errorf("the directory %s is in use by something else (it holds %s); name an empty or a new one",
				d.Dir, entry.Name())
		}
	}
	return nil
}

// isLeftover names what a start that was killed before it wrote its state may have left.
func isLeftover(name string) bool {
	return slices.Contains(perishable(), name) || strings.HasPrefix(name, "cluster.json.tmp")
}

func (u *upper) run(ctx context.Context) error {
	bootID, err := proc.BootID()
	if err != nil {
		return err
	}
	existing, err := u.dir.Load()
	switch {
	case errors.Is(err, state.ErrNotUp):
	case err != nil:
		return err
	case existing.BootID != bootID:
		u.options.Progress("the machine was restarted since this cluster was started, and its processes are gone; starting afresh")
		if err := u.dir.clean(u.options.Registry, existing); err != nil {
			return err
		}
	default:
		return u.again(ctx, existing)
	}
	return u.fresh(ctx, bootID)
}

// fresh starts a new cluster.
func (u *upper) fresh(ctx context.Context, bootID string) (err error) {
	if err := u.dir.removePerishable(); err != nil {
		return err
	}
	u.state = &state.State{
		ID: rand.Text(), BootID: bootID, Created: time.Now(), Images: u.options.Images,
		ClusterBinary: u.options.ClusterBinary, KubeBinary: u.kube, Processes: map[string]proc.Identity{},
	}
	err = u.options.Registry.Claim(ctx, u.dir.Dir, u.state, func() error {
		if u.state.Ports, err = state.ChoosePorts(u.state.ControlAddress()); err != nil {
			return err
		}
		return u.dir.Save(u.state)
	})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// The context may have ended, but what was started must end, too.
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
			defer cancel()
			err = errors.Join(err, u.dir.stop(cleanup, u.options.Registry, u.state))
		}
	}()
	if err := controlplane.WriteFiles(u.dir.Dir, u.state, time.Now()); err != nil {
		return err
	}
	u.options.Progress(fmt.Sprintf("pods have addresses in %s and listen in 127.%s, Services in %s",
		u.state.Plan().PodPrefix(), strings.TrimPrefix(u.state.Plan().PodPrefix().String(), "10."), u.state.Plan().ServicePrefix()))
	return u.startAll(ctx)
}

// again completes a cluster that is up.
func (u *upper) again(ctx context.Context, existing *state.State) error {
	u.state = existing
	if rows, changed := mergeImages(existing.Images, u.options.Images); changed {
		existing.Images = rows
		if err := u.dir.Save(existing); err != nil {
			return err
		}
		u.options.Progress("the image table has changed; containers started from now on use it")
	}
	missing := []string{}
	for _, name := range controlplane.Names() {
		if !existing.Processes[name].Alive() {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		u.options.Progress(fmt.Sprintf("the cluster in %s is running already", u.dir.Dir))
	} else {
		u.options.Progress(fmt.Sprintf("the cluster in %s is up but for %s", u.dir.Dir, strings.Join(missing, ", ")))
	}
	return u.startAll(ctx)
}

// mergeImages puts new rows before the old ones, replacing rows of the same pattern.
func mergeImages(old, added []state.ImageRow) (rows []state.ImageRow, changed bool) {
	rows = slices.Clone(old)
	var front []state.ImageRow
	for _, row := range added {
		at := slices.IndexFunc(rows, func(r state.ImageRow) bool { return r.Pattern == row.Pattern })
		switch {
		case at < 0:
			front = append(front, row)
			changed = true
		case rows[at].Command != row.Command:
			rows[at].Command = row.Command
			changed = true
		}
	}
	return append(front, rows...), changed
}

// startAll starts the components that do not run and waits for all.
func (u *upper) startAll(ctx context.Context) error {
	health, err := controlplane.NewHealth(u.dir.Dir, u.state)
	if err != nil {
		return err
	}
	defer health.Close()
	u.health = health
	// Each group needs the one before it; within a group they start side by side.
	groups := [][]string{{controlplane.Etcd}, {controlplane.APIServer}}
	if !u.options.APIOnly {
		groups = append(groups, []string{controlplane.ControllerManager, controlplane.Scheduler, controlplane.Agent})
	}
	for _, group := range groups {
		if err := u.startGroup(ctx, group); err != nil {
			return err
		}
	}
	if u.options.NoWait || u.options.APIOnly {
		return nil
	}
	return u.waitNode(ctx)
}

func (u *upper) startGroup(ctx context.Context, names []string) error {
	begun := time.Now()
	var started []*controlplane.Component
	for _, name := range names {
		if u.state.Processes[name].Alive() {
			continue
		}
		component, err := controlplane.Start(u.dir.Dir, u.state, name)
		if err != nil {
			return err
		}
		u.state.Processes[name] = component.ID
		if err := u.dir.Save(u.state); err != nil {
			return err
		}
		started = append(started, component)
	}
	for _, component := range started {
		check := func(ctx context.Context) error { return u.health.Check(ctx, component.Name) }
		if err := component.WaitReady(ctx, check); err != nil {
			return err
		}
		u.options.Progress(fmt.Sprintf("%s is ready after %s", component.Name, time.Since(begun).Round(10*time.Millisecond)))
	}
	return nil
}

// waitNode waits until pods can be run: the Node is ready and the default service account exists.
func (u *upper) waitNode(ctx context.Context) error {
	begun := time.Now()
	client, err := Client(u.dir.Dir)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		reason := nodeUnready(ctx, client)
		if reason == "" {
			u.options.Progress(fmt.Sprintf("node %s is ready after %s", state.NodeName, time.Since(begun).Round(10*time.Millisecond)))
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the node does not become ready (%w): %s; its agent's log is %s",
				context.Cause(ctx), reason, u.dir.ComponentLog(controlplane.Agent))
		case <-ticker.C:
		}
	}
}

func nodeUnready(ctx context.Context, client kubernetes.Interface) string {
	node, err := client.CoreV1().Nodes().Get(ctx, state.NodeName, metav1.GetOptions{})
	if err != nil {
		return err.Error()
	}
	if len(node.Spec.Taints) > 0 {
		return "it has the taint " + node.Spec.Taints[0].Key
	}
	ready := slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	if !ready {
		return "its condition Ready is not True"
	}
	if _, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return err.Error()
	}
	return ""
}

// Client returns a client with full rights for the cluster of the directory.
func Client(dir state.Dir) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", dir.AdminKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the admin's kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 200, 400
	config.Proxy = nil
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return client, nil
}
