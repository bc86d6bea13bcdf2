package scale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/emqx-bg/emqx-bg-operator/e2e/localkube/state"
	"github.com/emqx-bg/emqx-bg-operator/e2e/scale/gauge"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
)

const (
	// operatorNamespace and operatorAccount are those of the manifests.
	operatorNamespace = "emqx-bg-operator-system"
	operatorAccount   = "emqx-bg-operator"
	// namespace is where the clusters are.
	namespace = metav1.NamespaceDefault
	// timedAccount is whose changes are timed: the audit log has the requests of service accounts only.
	timedAccount = "bench"
	installLimit = time.Minute
)

func userOf(namespace, account string) string {
	return "system:serviceaccount:" + namespace + ":" + account
}

// template is the sample, with a licence, without durable storage and with the number of nodes asked for.
func template(config Config) (*v2beta1.EMQX, error) {
	path := filepath.Join(config.Manifests, "samples", "emqx.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the sample: %w", err)
	}
	emqx := &v2beta1.EMQX{}
	if err := yaml.Unmarshal([]byte(strings.ReplaceAll(string(text), `"..."`, `"official"`)), emqx); err != nil {
		return nil, fmt.Errorf("read the sample %s: %w", path, err)
	}
	emqx.Spec.Config.Data += "mq.enable = false\n"                     // The nodes have no durable storage.
	emqx.Spec.CoreTemplate.Spec.Replicas = ptr.To(int32(config.Nodes)) //nolint:gosec // A cluster has few nodes.
	if config.Quick {
		emqx.Spec.UpdateStrategy.InitialDelaySeconds = 1
		emqx.Spec.UpdateStrategy.EvacuationStrategy.WaitTakeover = 1
		emqx.Spec.UpdateStrategy.EvacuationStrategy.MaxUnavailableClients = ptr.To(intstr.FromString("25%"))
	}
	emqx.Spec.ImagePullPolicy = corev1.PullIfNotPresent
	return emqx, nil
}

// prepare makes clients and installs what the operator needs: its CRD, its rights and its account.
func (r *run) prepare(ctx context.Context, dir string) error {
	var err error
	if r.dir, err = state.OpenDir(dir); err != nil {
		return err
	}
	if r.state, err = r.dir.Load(); err != nil {
		return err
	}
	if r.admin, err = clientcmd.BuildConfigFromFlags("", r.dir.AdminKubeconfig()); err != nil {
		return fmt.Errorf("read the admin's kubeconfig: %w", err)
	}
	r.admin.QPS, r.admin.Proxy = -1, nil
	fast := rest.CopyConfig(r.admin)
	fast.ContentType = "application/vnd.kubernetes.protobuf"
	if r.kube, err = kubernetes.NewForConfig(fast); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if r.emqx, err = versioned.NewForConfig(r.admin); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := r.install(ctx); err != nil {
		return err
	}
	token, err := r.token(ctx, operatorNamespace, operatorAccount)
	if err != nil {
		return err
	}
	if err := r.writeKubeconfig(token); err != nil {
		return err
	}
	if token, err = r.token(ctx, namespace, timedAccount); err != nil {
		return err
	}
	timed := rest.AnonymousClientConfig(r.admin)
	timed.BearerToken, timed.QPS = token, -1
	if r.timed, err = versioned.NewForConfig(timed); err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	r.audit, err = gauge.NewAudit(r.dir.AuditLog())
	return err
}

// install applies the manifests, and makes what a controller manager would.
func (r *run) install(ctx context.Context) error {
	command := exec.CommandContext(ctx, r.config.kube(), "kubectl", "--kubeconfig", r.dir.AdminKubeconfig(), "apply", "-k", r.config.Manifests) //nolint:gosec // Our own program.
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("apply the manifests: %w: %s", err, output)
	}
	err := until(ctx, installLimit, "the kind EMQX", func() (bool, error) {
		_, err := r.emqx.AppsV2beta1().EMQXes(namespace).List(ctx, metav1.ListOptions{Limit: 1})
		return err == nil, nil
	})
	if err != nil {
		return err
	}
	for _, account := range []string{"default", timedAccount} {
		_, err := r.kube.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make the service account %s: %w", account, err)
		}
	}
	_, err = r.kube.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: timedAccount},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: timedAccount}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("give %s its rights: %w", timedAccount, err)
	}
	return nil
}

// tokenSeconds is how long a token is good for: longer than any run.
const tokenSeconds = 24 * 60 * 60

func (r *run) token(ctx context.Context, namespace, account string) (string, error) {
	asked := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(tokenSeconds))}}
	given, err := r.kube.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, asked, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("ask for a token of %s: %w", userOf(namespace, account), err)
	}
	if given.Status.Token == "" {
		return "", errors.New("ask for a token: there is none in the answer")
	}
	return given.Status.Token, nil
}

func (r *run) kubeconfig() string { return filepath.Join(r.config.Dir, "operator.kubeconfig") }

// writeKubeconfig gives the operator the rights of its account and no others.
func (r *run) writeKubeconfig(token string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["bench"] = &clientcmdapi.Cluster{Server: r.admin.Host, CertificateAuthorityData: r.admin.CAData}
	config.AuthInfos["operator"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "operator"}
	config.CurrentContext = "bench"
	if err := clientcmd.WriteToFile(*config, r.kubeconfig()); err != nil {
		return fmt.Errorf("write the operator's kubeconfig: %w", err)
	}
	return nil
}
