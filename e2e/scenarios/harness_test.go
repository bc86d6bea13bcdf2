package scenarios

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/localkubetest"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/secrecy"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

// installed is a cluster with the operator.
type installed struct {
	t      *testing.T
	binary string
	dir    state.Dir
	kube   kubernetes.Interface
	emqx   versioned.Interface
}

// start starts a cluster.
func start(t *testing.T) *installed {
	t.Helper()
	c := &installed{t: t, binary: localkubetest.ClusterBinary(t)}
	path := filepath.Join(t.TempDir(), "cluster")
	require.NoError(t, localkube.Up(t.Context(), localkube.UpOptions{Dir: path, ClusterBinary: c.binary}))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), localkubetest.Patience)
		defer cancel()
		if err := localkube.Down(ctx, localkube.DownOptions{Dir: path}); err != nil {
			t.Error(err)
		}
	})
	var err error
	c.dir, err = state.OpenDir(path)
	require.NoError(t, err)
	c.kube, err = localkube.Client(c.dir)
	require.NoError(t, err)
	keeper, err := secrecy.Keep(t.Context(), c.kube)
	require.NoError(t, err)
	t.Cleanup(func() {
		defer keeper.Close()
		ctx, cancel := context.WithTimeout(context.Background(), localkubetest.Patience)
		defer cancel()
		told, err := keeper.Told(ctx, secrecy.Place{Kube: c.kube, EMQX: c.emqx, Logs: c.dir.PodLogs()})
		if err != nil || len(told) > 0 {
			t.Errorf("secrets that are told: %v, %v", told, err)
		}
	})
	config, err := clientcmd.BuildConfigFromFlags("", c.dir.AdminKubeconfig())
	require.NoError(t, err)
	c.emqx, err = versioned.NewForConfig(config)
	require.NoError(t, err)
	return c
}

// install starts a cluster and installs the operator as the README does. The operator becomes ready when the API server
// serves its resource.
func install(t *testing.T) *installed {
	t.Helper()
	c := start(t)
	t.Cleanup(func() { c.tellWhy(t) })
	c.must("", "apply", "-k", "../../manifests")
	c.must("", "-n", "emqx-bg-operator-system", "rollout", "status", "deployment/emqx-bg-operator", "--timeout=120s")
	return c
}

// tellWhy prints what the operator said, after a failure.
func (c *installed) tellWhy(t *testing.T) {
	t.Helper()
	if !t.Failed() {
		return
	}
	files, err := filepath.Glob(filepath.Join(c.dir.PodLogs(), "emqx-bg-operator-system_*", "*", "*"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		t.Logf("%s:\n%s", file, text)
	}
}

// kubectl runs kubectl; its output is standard output and standard error together.
func (c *installed) kubectl(stdin string, arguments ...string) (string, error) {
	command := exec.CommandContext(c.t.Context(), filepath.Join(filepath.Dir(c.binary), "kube"), append([]string{"kubectl", "--kubeconfig", c.dir.AdminKubeconfig()}, arguments...)...)
	command.Stdin = strings.NewReader(stdin)
	output, err := command.CombinedOutput()
	return string(output), err
}

func (c *installed) must(stdin string, arguments ...string) string {
	c.t.Helper()
	output, err := c.kubectl(stdin, arguments...)
	require.NoError(c.t, err, output)
	return output
}

// sample is the documentation's manifest, with a licence and times that suit a test.
func sample(t *testing.T, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../manifests/samples/emqx.yaml")
	require.NoError(t, err)
	return strings.NewReplacer(append(replace, `"..."`, `"official"`)...).Replace(string(text))
}

const name = "emqx-ee"

func (c *installed) get() *v2beta1.EMQX {
	c.t.Helper()
	emqx, err := c.emqx.AppsV2beta1().EMQXes("default").Get(c.t.Context(), name, metav1.GetOptions{})
	require.NoError(c.t, err)
	return emqx
}

// secret is the content of a Secret; nil when there is none.
func (c *installed) secret(name string) map[string][]byte {
	c.t.Helper()
	secret, err := c.kube.CoreV1().Secrets("default").Get(c.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(c.t, err)
	return secret.Data
}

func (c *installed) patch(patch string) {
	c.t.Helper()
	_, err := c.emqx.AppsV2beta1().EMQXes("default").Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(c.t, err)
}

// until watches the resource until it is as wanted.
func (c *installed) until(what string, wanted func(*v2beta1.EMQX) bool) *v2beta1.EMQX {
	c.t.Helper()
	var emqx *v2beta1.EMQX
	require.Eventually(c.t, func() bool {
		emqx = c.get()
		return emqx.Status.ObservedGeneration == emqx.Generation && wanted(emqx)
	}, localkubetest.Patience, 100*time.Millisecond, what)
	return emqx
}

func ready(emqx *v2beta1.EMQX) bool { return emqx.Status.State == "Ready" }

func condition(emqx *v2beta1.EMQX, kind string) metav1.Condition {
	for _, condition := range emqx.Status.Conditions {
		if condition.Type == kind {
			return condition
		}
	}
	return metav1.Condition{}
}
