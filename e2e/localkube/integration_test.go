package localkube_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/controlplane"
	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// patience is how long anything may take on a machine that is busy with other things.
const patience = 90 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(serverEnv) != "" {
		serverMain()
		return
	}
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the tests' cluster:", err)
		code = 1
	}
	os.Exit(code)
}

// shared is the one cluster that most tests use; tests keep apart by namespaces.
var shared sharedCluster //nolint:gochecknoglobals // it takes seconds to start and ends with the test program

type sharedCluster struct {
	once   sync.Once
	binDir string
	fixture
	err error
}

// fixture is a cluster under test.
type fixture struct {
	binary string
	dir    state.Dir
	client kubernetes.Interface
}

// requireBinaries builds the `cluster` program into a directory of its own, with the control plane's beside it.
func requireBinaries(t *testing.T) {
	t.Helper()
	kube, err := filepath.Abs("../../bin/kube")
	require.NoError(t, err)
	if _, err := os.Stat(kube); err != nil {
		t.Skipf("SKIPPED: the control plane is not built (%v); `make build` builds it", err)
	}
	if testing.Short() {
		t.Skip("SKIPPED: a cluster is started only without -short")
	}
	shared.once.Do(func() { shared.err = shared.build(kube) })
	require.NoError(t, shared.err)
}

func (s *sharedCluster) build(kube string) error {
	var err error
	if s.binDir, err = os.MkdirTemp("", "cluster-test-"); err != nil {
		return err
	}
	if err := os.Symlink(kube, filepath.Join(s.binDir, "kube")); err != nil {
		return err
	}
	s.binary = filepath.Join(s.binDir, "cluster")
	arguments := append(append([]string{"build"}, raceFlags()...), "-o", s.binary, "../cmd/cluster")
	if output, err := exec.Command("go", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the cluster program: %w\n%s", err, output)
	}
	return nil
}

func (s *sharedCluster) stop() error {
	if s.binDir == "" {
		return nil
	}
	var err error
	if s.dir != "" {
		err = errors.Join(agentTrouble(s.dir), localkube.Down(context.Background(), localkube.DownOptions{Dir: string(s.dir)}))
	}
	return errors.Join(err, os.RemoveAll(s.binDir))
}

// agentTrouble finds what the node agent of the tests' cluster must never have said.
func agentTrouble(dir state.Dir) error {
	log, err := os.ReadFile(dir.ComponentLog(controlplane.Agent))
	if err != nil {
		return err
	}
	for _, trouble := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if at := bytes.Index(log, []byte(trouble)); at >= 0 {
			return fmt.Errorf("the node agent's log says:\n%s", log[at:min(len(log), at+4000)])
		}
	}
	return nil
}

// useCluster returns the shared cluster, started when the first test asks for it.
func useCluster(t *testing.T) *fixture {
	t.Helper()
	requireBinaries(t)
	if shared.client == nil {
		require.NoError(t, shared.err)
		f, err := start(t, filepath.Join(shared.binDir, "one"))
		shared.err = err
		require.NoError(t, err)
		shared.fixture = *f
	}
	return &shared.fixture
}

// start starts a cluster in the directory with the images of these tests.
func start(t *testing.T, path string) (*fixture, error) {
	t.Helper()
	dir, err := state.OpenDir(path)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &fixture{binary: shared.binary, dir: dir}
	output, err := f.try(t, "up", "--dir", path, "--image", "test/shell*=/bin/sh -c",
		"--image", fmt.Sprintf("test/server*=env %s=1 '%s'", serverEnv, self))
	t.Log(output)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, output)
	}
	f.client, err = localkube.Client(dir)
	return f, err
}

// try runs the cluster program and returns all it prints.
func (f *fixture) try(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	output, err := exec.CommandContext(ctx, f.binary, arguments...).CombinedOutput()
	return string(output), err
}

// run runs a command of the cluster program against the fixture's directory and returns what it prints.
func (f *fixture) run(t *testing.T, command string, arguments ...string) string {
	t.Helper()
	output, err := f.try(t, append([]string{command, "--dir", string(f.dir)}, arguments...)...)
	require.NoError(t, err, output)
	return strings.TrimSpace(output)
}

func (f *fixture) kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	return f.run(t, "kubectl", append([]string{"--"}, arguments...)...)
}

// apply gives a manifest to kubectl.
func (f *fixture) apply(t *testing.T, namespace, manifest string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	require.NoError(t, os.WriteFile(path, []byte(manifest), 0o600))
	f.kubectl(t, "apply", "-n", namespace, "-f", path)
}

// namespace makes a namespace for the test in which pods can be created, and deletes it at the end.
func (f *fixture) namespace(t *testing.T) string {
	t.Helper()
	created, err := f.client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	name := created.Name
	t.Cleanup(func() {
		now := int64(0)
		// The namespace's pods may be made not to end on their own.
		ctx := context.Background()
		_ = f.client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{})
		_ = f.client.CoreV1().Pods(name).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{})
	})
	eventually(t, "the namespace's service account and certificate", func() string {
		_, accountErr := f.client.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		_, certificateErr := f.client.CoreV1().ConfigMaps(name).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
		return text(errors.Join(accountErr, certificateErr))
	})
	return name
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// eventually waits until the function returns no reason for why something is not so.
func eventually(t *testing.T, what string, reason func() string) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		why := reason()
		if why == "" {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			require.Fail(t, "waited in vain", "%s: %s", what, why)
		}
	}
}

// pod waits until the pod is as the function wants it, and returns it. The function says what is missing.
func (f *fixture) pod(t *testing.T, namespace, name string, reason func(*corev1.Pod) string) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	eventually(t, "pod "+name, func() string {
		var err error
		if found, err = f.client.CoreV1().Pods(namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			return err.Error()
		}
		if why := reason(found); why != "" {
			return fmt.Sprintf("%s; its status is %s", why, bytes.TrimSpace([]byte(found.Status.String())))
		}
		return ""
	})
	return found
}

func ready(pod *corev1.Pod) string {
	if isReady(pod) {
		return ""
	}
	return "it is not ready"
}

func unready(pod *corev1.Pod) string {
	if isReady(pod) {
		return "it is ready"
	}
	return ""
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// waits wants the pod's first container to wait for the reason.
func waits(reason string) func(*corev1.Pod) string {
	return func(pod *corev1.Pod) string {
		if len(pod.Status.ContainerStatuses) > 0 {
			if waiting := pod.Status.ContainerStatuses[0].State.Waiting; waiting != nil && waiting.Reason == reason {
				return ""
			}
		}
		return "it does not wait for " + reason
	}
}

// restarted wants the pod's first container to have been restarted so often or more.
func restarted(times int32) func(*corev1.Pod) string {
	return func(pod *corev1.Pod) string {
		if len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].RestartCount >= times {
			return ""
		}
		return fmt.Sprintf("it was not restarted %d times", times)
	}
}

// event waits for an event of the namespace with the reason and a message that has the text in it.
func (f *fixture) event(t *testing.T, namespace, reason, message string) {
	t.Helper()
	eventually(t, fmt.Sprintf("event %s %q", reason, message), func() string {
		list, err := f.client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		var seen []string
		for i := range list.Items {
			if list.Items[i].Reason == reason && strings.Contains(list.Items[i].Message, message) {
				return ""
			}
			seen = append(seen, list.Items[i].Reason+": "+list.Items[i].Message)
		}
		return "there is only " + strings.Join(seen, "; ")
	})
}
