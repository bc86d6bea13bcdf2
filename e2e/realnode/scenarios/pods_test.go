package scenarios

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/e2e/podrules"
	"github.com/emqx-bg/emqx-bg-operator/e2e/realnode"
)

// namespace makes a namespace that goes with the test.
func (w *world) namespace(t *testing.T, name string) {
	t.Helper()
	w.must(t, "", "create", "namespace", name)
	w.eventually(t, "the namespace has its service account", func() error {
		_, err := w.Kube.CoreV1().ServiceAccounts(name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	w.undo(t, "delete", "namespace", name, "--wait=false")
}

// TestKubelet: kubelet does what the node agent of the local cluster is held against.
func TestKubelet(t *testing.T) {
	w := nodes(t)
	w.namespace(t, "rules")
	podrules.Check(t, w.Kube, "rules", realnode.BusyboxImage)
}

// TestOutOfMemory: what takes more than its limit is killed, which only a real node does, and said to be. On a machine that is busy
// with other things containerd may hear of the kill after it has told of the end: then the next one is looked at.
func TestOutOfMemory(t *testing.T) {
	w := nodes(t)
	w.namespace(t, "memory")
	w.must(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"greedy","namespace":"memory"},"spec":{"containers":[{"name":"main",
		"image":"`+realnode.BusyboxImage+`","args":["x=0123456789abcdef; while :; do x=$x$x; done"],"resources":{"limits":{"memory":"32Mi"}}}]}}`, "apply", "-f", "-")
	w.eventually(t, "the pod is killed for its memory", func() error {
		pod, err := w.Kube.CoreV1().Pods("memory").Get(t.Context(), "greedy", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(pod.Status.ContainerStatuses) == 0 {
			return fmt.Errorf("it is %s", pod.Status.Phase)
		}
		status := pod.Status.ContainerStatuses[0]
		ended := cmp.Or(status.State.Terminated, status.LastTerminationState.Terminated)
		if ended == nil {
			return fmt.Errorf("its container has not ended yet: %+v", status.State)
		}
		require.Equal(t, int32(137), ended.ExitCode)
		if ended.Reason != "OOMKilled" {
			return fmt.Errorf("it is said to have ended because of %s", ended.Reason)
		}
		return nil
	})
}

// TestClaimOnTheOtherNode: a pod that is made again on another node finds its volume there, and its volume goes with its claim.
func TestClaimOnTheOtherNode(t *testing.T) {
	w := nodes(t)
	w.namespace(t, "claims")
	w.must(t, "", "label", "namespace", "claims", "pod-security.kubernetes.io/enforce=restricted")
	w.must(t, `{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"keeps","namespace":"claims"},"spec":{"serviceName":"keeps","selector":{"matchLabels":{"app":"keeps"}},
		"template":{"metadata":{"labels":{"app":"keeps"}},"spec":{"terminationGracePeriodSeconds":1,
			"securityContext":{"runAsUser":1000,"runAsNonRoot":true,"fsGroup":1000,"seccompProfile":{"type":"RuntimeDefault"}},
			"containers":[{"name":"main","image":"`+realnode.BusyboxImage+`","args":["echo $NODE >> data/nodes && touch /tmp/done && exec sleep 1000"],
				"env":[{"name":"NODE","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}}],"readinessProbe":{"exec":{"command":["cat","/tmp/done"]},"periodSeconds":1},
				"securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}},"volumeMounts":[{"name":"data","mountPath":"/data"}]}]}},
		"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Mi"}}}}]}}`, "apply", "-f", "-")
	var pod corev1.Pod
	running := func(other string) func() error {
		return func() error {
			pods := w.pods(t, "claims", "app=keeps")
			if len(pods) != 1 || !isReady(&pods[0]) || pods[0].Spec.NodeName == other {
				return fmt.Errorf("there are %d pods, and the pod is not ready", len(pods))
			}
			pod = pods[0]
			return nil
		}
	}
	w.eventually(t, "the pod is ready", running(""))
	first := pod.Spec.NodeName
	w.must(t, "", "cordon", first)
	w.undo(t, "uncordon", first)
	w.must(t, "", "-n", "claims", "delete", "pod", pod.Name)
	w.eventually(t, "the pod is ready on the other node", running(first))
	claim, err := w.Kube.CoreV1().PersistentVolumeClaims("claims").Get(t.Context(), "data-keeps-0", metav1.GetOptions{})
	require.NoError(t, err)
	volume := w.Dir.Path("volumes", claim.Spec.VolumeName)
	written, err := os.ReadFile(volume + "/nodes")
	require.NoError(t, err)
	require.Equal(t, first+"\n"+pod.Spec.NodeName+"\n", string(written))
	w.must(t, "", "-n", "claims", "delete", "statefulset,pvc", "--all")
	w.eventually(t, "the volume is removed", func() error {
		if _, err := os.Stat(volume); !os.IsNotExist(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil
		}
	}
	return false
}

// TestServiceWithoutEndpoints: a connection to a Service that leads to nobody is refused at once, as in the local cluster, and does not
// hang.
func TestServiceWithoutEndpoints(t *testing.T) {
	w := nodes(t)
	w.namespace(t, "nobody")
	w.must(t, "", "-n", "nobody", "create", "service", "clusterip", "empty", "--tcp=80")
	service, err := w.Kube.CoreV1().Services("nobody").Get(t.Context(), "empty", metav1.GetOptions{})
	require.NoError(t, err)
	w.eventually(t, "kube-proxy knows the Service", func() error {
		connection, err := net.DialTimeout("tcp", service.Spec.ClusterIP+":80", time.Second)
		if err == nil {
			_ = connection.Close()
			return errors.New("it is connected with somebody")
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		return nil
	})
}

// TestKubectlReachesContainers: exec, logs and port-forward go through kube-apiserver and kubelet.
func TestKubectlReachesContainers(t *testing.T) {
	w := nodes(t)
	w.namespace(t, "reached")
	w.must(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"one","namespace":"reached"},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"main",
		"image":"`+realnode.BusyboxImage+`","args":["echo words; mkdir -p /tmp/www; echo page > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"],
		"readinessProbe":{"tcpSocket":{"port":8080},"periodSeconds":1}}]}}`, "apply", "-f", "-")
	w.must(t, "", "-n", "reached", "wait", "--for=condition=Ready", "pod/one", "--timeout=120s")
	require.Equal(t, "words\n", w.must(t, "", "-n", "reached", "logs", "one"))
	require.Equal(t, "page\n", w.must(t, "", "-n", "reached", "exec", "one", "--", "cat", "/tmp/www/index.html"))
	forward := exec.CommandContext(t.Context(), w.State.KubeBinary, "kubectl", "--kubeconfig", w.Dir.AdminKubeconfig(), "-n", "reached", "port-forward", "pod/one", "18080:8080")
	require.NoError(t, forward.Start())
	t.Cleanup(func() { _ = forward.Process.Kill(); _ = forward.Wait() })
	client := &http.Client{Timeout: 5 * time.Second}
	w.eventually(t, "the page is read", func() error {
		response, err := client.Get("http://127.0.0.1:18080/")
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		page, err := io.ReadAll(response.Body)
		if err == nil && string(page) != "page\n" {
			err = fmt.Errorf("it says %q", page)
		}
		return err
	})
}
