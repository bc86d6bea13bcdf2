package scenarios

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode/box"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

const (
	// patience is how long anything may take on a machine that is busy with other things.
	patience = 4 * time.Minute
	poll     = 100 * time.Millisecond

	operatorNamespace = "emqx-bg-operator-system"
	operatorSelector  = "app.kubernetes.io/name=emqx-bg-operator"
	name              = "emqx-ee"
	// insideEnv tells the test's program that it is in the box.
	insideEnv = "REAL_NODES_INSIDE"
)

// world is the cluster that the tests share.
type world struct {
	*realnode.Cluster
	emqx versioned.Interface
}

var (
	shared *world // Nil outside of a box.
	reason string // Why the tests are skipped there.
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "real nodes:", err)
		code = 1
	}
	os.Exit(code)
}

// run runs the tests in a box, in which this program is started again.
func run(m *testing.M) (int, error) {
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		return 1, err
	}
	if os.Getenv(insideEnv) != "" {
		if shared, err = start(bin); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}
	reason = "a cluster is started only without -short"
	if !testing.Short() {
		reason = strings.Join(realnode.Lacking(bin), ", ")
	}
	if reason != "" {
		return m.Run(), nil
	}
	return enter(bin)
}

func enter(bin string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "real-nodes-")
	if err != nil {
		return 1, err
	}
	code, err := realnode.Enter(context.Background(), realnode.Outside{
		Helper: filepath.Join(bin, "cluster"), Dir: dir, Command: append([]string{self}, os.Args[1:]...),
		Streams: box.Streams{Out: os.Stdout, Err: os.Stderr, Env: append(os.Environ(), insideEnv+"=1")},
	})
	if code == 0 && err == nil {
		return 0, os.RemoveAll(dir)
	}
	fmt.Fprintln(os.Stderr, "the logs of the cluster are in", filepath.Join(dir, "logs"))
	return code, err
}

func start(bin string) (*world, error) {
	cluster, err := realnode.Start(context.Background(), realnode.Options{
		Bin: bin, Nodes: 2, Progress: func(sentence string) { fmt.Fprintln(os.Stderr, sentence) },
	})
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Dir.AdminKubeconfig())
	if err != nil {
		return nil, err
	}
	client, err := versioned.NewForConfig(config)
	return &world{Cluster: cluster, emqx: client}, err
}

// nodes is the cluster as it is when a test begins: both nodes are ready.
func nodes(t *testing.T) *world {
	t.Helper()
	if shared == nil {
		t.Skipf("SKIPPED: real nodes need what this machine lacks: %s", reason)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, node := range shared.Nodes {
		require.NoError(t, shared.WaitReady(ctx, node))
	}
	return shared
}

// must runs kubectl.
func (w *world) must(t *testing.T, stdin string, arguments ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	output, err := w.Kubectl(ctx, stdin, arguments...)
	require.NoError(t, err)
	return output
}

// undo runs kubectl at the end of the test, so that the next one finds the cluster as it was.
func (w *world) undo(t *testing.T, arguments ...string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		_, _ = w.Kubectl(ctx, "", arguments...)
	})
}

// installed is the cluster with the operator, installed from its manifests, and with restricted Pod Security for EMQX, too.
func installed(t *testing.T) *world {
	t.Helper()
	w := nodes(t)
	w.must(t, "", "label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
	w.must(t, "", "apply", "-k", "../../../manifests")
	w.must(t, "", "-n", operatorNamespace, "rollout", "status", "deployment/emqx-bg-operator", "--timeout=180s")
	return w
}

// serving is the cluster with an EMQX cluster of three nodes that is Ready.
func serving(t *testing.T) *world {
	t.Helper()
	w := installed(t)
	text, err := os.ReadFile("../../../manifests/samples/emqx.yaml")
	require.NoError(t, err)
	sample := strings.NewReplacer(`"..."`, `"official"`, "initialDelaySeconds: 10", "initialDelaySeconds: 2", "waitTakeover: 10", "waitTakeover: 2").Replace(string(text))
	if _, err := w.emqx.AppsV2beta1().EMQXes("default").Get(t.Context(), name, metav1.GetOptions{}); err != nil {
		w.must(t, sample, "apply", "-f", "-")
	}
	w.until(t, "EMQX is Ready", ready)
	return w
}

func ready(emqx *v2beta1.EMQX) bool {
	return emqx.Status.State == "Ready" && emqx.Status.Phase == v2beta1.PhaseDone && emqx.Status.CoreNodesStatus.ReadyReplicas == 3
}

func (w *world) get(t *testing.T) *v2beta1.EMQX {
	t.Helper()
	var emqx *v2beta1.EMQX
	// The API server may be away for a moment, in some tests.
	w.eventually(t, "the resource is read", func() (err error) {
		emqx, err = w.emqx.AppsV2beta1().EMQXes("default").Get(t.Context(), name, metav1.GetOptions{})
		return err
	})
	return emqx
}

// eventually asks until the answer is nil.
func (w *world) eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait until %s: %v", what, err)
		}
		<-ticker.C
	}
}

// until waits until the resource is as wanted.
func (w *world) until(t *testing.T, what string, wanted func(*v2beta1.EMQX) bool) *v2beta1.EMQX {
	t.Helper()
	var emqx *v2beta1.EMQX
	w.eventually(t, what, func() error {
		emqx = w.get(t)
		if emqx.Status.ObservedGeneration == emqx.Generation && wanted(emqx) {
			return nil
		}
		waiting := ""
		if emqx.Status.Upgrade != nil {
			waiting = emqx.Status.Upgrade.WaitingFor
		}
		return fmt.Errorf("%s is %s, in phase %s, with %d ready, and waits for %q", name, emqx.Status.State, emqx.Status.Phase, emqx.Status.CoreNodesStatus.ReadyReplicas, waiting)
	})
	return emqx
}

// change makes an upgrade begin: it names another image.
func (w *world) change(t *testing.T) {
	t.Helper()
	image := "emqx/emqx:6.0.2"
	if w.get(t).Spec.Image == image {
		image = "emqx/emqx:6.0.1"
	}
	w.must(t, "", "patch", "emqx", name, "--type=merge", "-p", `{"spec":{"image":"`+image+`"}}`)
	w.until(t, "the upgrade has begun", func(emqx *v2beta1.EMQX) bool { return emqx.Status.Phase != v2beta1.PhaseDone })
}

// clients connects MQTT clients through the listeners Service. They live as long as the test.
func (w *world) clients(t *testing.T, number int) *load.Load {
	t.Helper()
	address, err := localkube.Endpoint(t.Context(), w.Dir, "default", name+"-listeners", "tcp-default")
	require.NoError(t, err)
	l, err := load.New(load.Config{Address: address, Clients: number, MessagesPerSecond: 50, Prefix: t.Name()})
	require.NoError(t, err)
	connected := make(chan error, 1)
	go func() { connected <- l.Connect(t.Context()) }()
	select {
	case err := <-connected:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("not all clients are connected in time")
	}
	l.Start(t.Context())
	return l
}

// allBack waits until all clients are connected again.
func (w *world) allBack(t *testing.T, l *load.Load, number int) {
	t.Helper()
	w.eventually(t, "all clients are back", func() error {
		if connected := l.Stats().Connected; connected != number {
			return fmt.Errorf("%d of %d are connected", connected, number)
		}
		return nil
	})
}

// pods lists pods.
func (w *world) pods(t *testing.T, namespace, selector string) []corev1.Pod {
	t.Helper()
	pods, err := w.Kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	require.NoError(t, err)
	return pods.Items
}

// leader is the pod that holds the operator's lease.
func (w *world) leader(ctx context.Context) (string, error) {
	lease, err := w.Kube.CoordinationV1().Leases(operatorNamespace).Get(ctx, "emqx-bg-operator", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	if holder == "" {
		return "", errors.New("nobody leads")
	}
	return holder, nil
}
