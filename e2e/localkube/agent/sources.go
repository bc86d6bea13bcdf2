package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
)

// requestTimeout bounds single requests to the API.
const requestTimeout = 10 * time.Second

// apiSource reads what pods refer to from the API itself and not from a cache: what was written just before the pod
// must be seen.
type apiSource struct{ client kubernetes.Interface }

// Secret implements podenv.Source.
func (s apiSource) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

// ConfigMap implements podenv.Source.
func (s apiSource) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

// apiTokens asks the API for tokens.
type apiTokens struct{ client kubernetes.Interface }

// Token implements podvolume.Tokens.
func (t apiTokens) Token(ctx context.Context, pod *corev1.Pod, audience string, expirationSeconds int64) (string, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &expirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	answer, err := t.client.CoreV1().ServiceAccounts(pod.Namespace).
		CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("ask for a token of service account %q: %w", pod.Spec.ServiceAccountName, err)
	}
	return answer.Status.Token, answer.Status.ExpirationTimestamp.Time, nil
}

// apiClaims finds what claims are bound to.
type apiClaims struct{ client kubernetes.Interface }

// Directory implements podvolume.Claims.
func (c apiClaims) Directory(ctx context.Context, pod *corev1.Pod, volume *corev1.Volume) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// The claim of an ephemeral volume belongs to its pod, and is called after both.
	name := pod.Name + "-" + volume.Name
	if volume.PersistentVolumeClaim != nil {
		name = volume.PersistentVolumeClaim.ClaimName
	}
	claim, err := c.client.CoreV1().PersistentVolumeClaims(pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read claim %q: %w", name, err)
	}
	if volume.Ephemeral != nil && !metav1.IsControlledBy(claim, pod) {
		return "", fmt.Errorf("claim %q was not made for this pod", name)
	}
	if claim.Status.Phase != corev1.ClaimBound {
		return "", fmt.Errorf("claim %q is not bound", name)
	}
	bound, err := c.client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("read the volume of claim %q: %w", name, err)
	}
	if bound.Spec.Local == nil {
		return "", fmt.Errorf("the volume of claim %q is not local, and the local node agent knows no others", name)
	}
	if _, err := os.Stat(bound.Spec.Local.Path); err != nil {
		return "", fmt.Errorf("the volume of claim %q: %w", name, err)
	}
	return bound.Spec.Local.Path, nil
}

// writeTokenKubeconfig writes a kubeconfig for a program in a pod.
func writeTokenKubeconfig(path string, config *Config, namespace, tokenFile string) error {
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["local"] = &clientcmdapi.Cluster{
		Server:               "https://" + config.State.Endpoint(config.State.Ports.APIServer),
		CertificateAuthority: config.Dir.PKI("ca.crt"),
	}
	kubeconfig.AuthInfos["pod"] = &clientcmdapi.AuthInfo{TokenFile: tokenFile}
	kubeconfig.Contexts["local"] = &clientcmdapi.Context{Cluster: "local", AuthInfo: "pod", Namespace: namespace}
	kubeconfig.CurrentContext = "local"
	if err := clientcmd.WriteToFile(*kubeconfig, path); err != nil {
		return fmt.Errorf("write the pod's kubeconfig: %w", err)
	}
	return nil
}

func podLogDir(dir state.Dir, pod *corev1.Pod) string {
	return filepath.Join(dir.PodLogs(), pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// keptLogDirs is how many pods' logs are kept, those of deleted pods included.
const keptLogDirs = 300

// pruneLogs keeps the logs that were written to last and removes the others, but never those of pods that run.
func pruneLogs(dir state.Dir, running map[string]bool) error {
	entries, err := os.ReadDir(dir.PodLogs())
	if err != nil {
		return fmt.Errorf("list the logs of pods: %w", err)
	}
	type aged struct {
		name    string
		written time.Time
	}
	var removable []aged
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && !running[entry.Name()] {
			removable = append(removable, aged{name: entry.Name(), written: info.ModTime()})
		}
	}
	slices.SortFunc(removable, func(a, b aged) int { return a.written.Compare(b.written) })
	for i := range min(max(len(entries)-keptLogDirs, 0), len(removable)) {
		if err := os.RemoveAll(filepath.Join(dir.PodLogs(), removable[i].name)); err != nil {
			return fmt.Errorf("remove old logs: %w", err)
		}
	}
	return nil
}
