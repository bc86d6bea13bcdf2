package upgrade

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// What the executor does to objects. Secrets are created and read, never changed; sets are created, and afterwards only
// their number of pods and the operator's own annotations are applied.
//
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=create;patch;delete
// +kubebuilder:rbac:groups="",resources=services,verbs=create;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=create;patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;create
// +kubebuilder:rbac:groups="",resources=pods/status,verbs=patch

// FieldManager is the name under which the operator writes.
const FieldManager = "emqx-bg-operator"

// writeTimeout bounds one request to the API server.
const writeTimeout = 10 * time.Second

// executor carries out actions.
type executor struct {
	kube    kubernetes.Interface
	writes  *writes
	observe func(action string, err error)
	// password is that of the operator's API key, as far as it is known: empty when it is not.
	password func(*v2beta1.EMQX) string
}

// execute carries out the actions in their order and stops at the first that fails. Each may be repeated.
func (e *executor) execute(ctx context.Context, s Snapshot, actions []Action) error {
	for _, action := range actions {
		err := e.do(ctx, s, action)
		name := actionName(action)
		e.observe(name, err)
		if err != nil {
			return fmt.Errorf("%s: %w", describe(s, action), err)
		}
		klog.FromContext(ctx).V(2).Info("Carried out an action", "action", name, "details", action)
	}
	return nil
}

func (e *executor) do(ctx context.Context, s Snapshot, action Action) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	switch a := action.(type) {
	case CreateCookieSecret:
		return e.createSecret(ctx, s, resources.NodeCookieSecret(s.EMQX, s.Config.CookieOr(randomText())))
	case CreateKeysSecret:
		return e.createKeysSecret(ctx, s)
	case ApplyConfigMap:
		return e.applyConfigMap(ctx, s)
	case ApplyHeadlessService:
		return e.applyService(ctx, s, resources.HeadlessService(s.EMQX), s.Headless != Missing)
	case InheritService:
		return e.inheritService(ctx, s, a)
	case ApplyService:
		service, err := resources.Service(s.EMQX, a.Kind, a.Revision, a.Ports)
		if err != nil {
			return err
		}
		_, ours := s.Services[a.Kind]
		return e.applyService(ctx, s, service, ours)
	case DeleteService:
		name := resources.ServiceName(s.EMQX, a.Kind)
		return ignoreGone(e.kube.CoreV1().Services(s.EMQX.Namespace).Delete(ctx, name, metav1.DeleteOptions{}))
	case CreateSet:
		return e.createSet(ctx, s, a)
	case ScaleSet:
		return e.applySet(ctx, s, a.UID, applyapps.StatefulSet(a.Name, s.EMQX.Namespace).
			WithAnnotations(map[string]string{v2beta1.AnnotationNodeCount: strconv.Itoa(int(a.NodeCount))}).
			WithSpec(applyapps.StatefulSetSpec().WithReplicas(a.Replicas)))
	case AdoptSet:
		return e.adoptSet(ctx, s, a)
	case MarkServing:
		return e.markServing(ctx, s, a)
	case DeleteSet:
		return ignoreGone(e.kube.AppsV1().StatefulSets(s.EMQX.Namespace).Delete(ctx, a.Name, metav1.DeleteOptions{
			Preconditions: metav1.NewUIDPreconditions(string(a.UID)),
		}))
	case SetGate:
		return e.setGate(ctx, s, a)
	}
	return errors.New("there is no such action")
}

func key(emqx *v2beta1.EMQX) cache.ObjectName { return cache.MetaObjectToName(emqx) }

func (e *executor) wrote(s Snapshot, kind, version string) {
	e.writes.record(key(s.EMQX), kind, version)
}

// createSecret makes a Secret. One that exists stays as it is: its content is random, and running nodes know it.
func (e *executor) createSecret(ctx context.Context, s Snapshot, secret *corev1.Secret) error {
	created, err := e.kube.CoreV1().Secrets(s.EMQX.Namespace).Create(ctx, secret, metav1.CreateOptions{FieldManager: FieldManager})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		e.wrote(s, "Secret", created.ResourceVersion)
	}
	return err
}

func (e *executor) createKeysSecret(ctx context.Context, s Snapshot) error {
	var keys []resources.APIKey
	for i, bootstrap := range s.EMQX.Spec.BootstrapAPIKeys {
		if bootstrap.SecretRef == nil {
			keys = append(keys, resources.APIKey{Key: bootstrap.Key, Secret: bootstrap.Secret})
			continue
		}
		name, err := e.secretValue(ctx, s.EMQX.Namespace, bootstrap.SecretRef.Key)
		if err != nil {
			return fmt.Errorf("spec.bootstrapAPIKeys[%d].secretRef.key: %w", i, err)
		}
		secret, err := e.secretValue(ctx, s.EMQX.Namespace, bootstrap.SecretRef.Secret)
		if err != nil {
			return fmt.Errorf("spec.bootstrapAPIKeys[%d].secretRef.secret: %w", i, err)
		}
		keys = append(keys, resources.APIKey{Key: name, Secret: secret})
	}
	// Nodes that run know the password of a Secret that was lost: another would shut the operator out.
	password := cmp.Or(e.password(s.EMQX), randomText())
	return e.createSecret(ctx, s, resources.BootstrapAPIKeySecret(s.EMQX, keys, password))
}

func (e *executor) secretValue(ctx context.Context, namespace string, ref v2beta1.KeyRef) (string, error) {
	secret, err := e.kube.CoreV1().Secrets(namespace).Get(ctx, ref.SecretName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	value, ok := secret.Data[ref.SecretKey]
	if !ok {
		return "", fmt.Errorf("secret %q has no entry %q", ref.SecretName, ref.SecretKey)
	}
	return string(value), nil
}

// randomText is a password of 130 random bits.
func randomText() string { return rand.Text() }

func (e *executor) applyConfigMap(ctx context.Context, s Snapshot) error {
	applied, err := e.kube.CoreV1().ConfigMaps(s.EMQX.Namespace).Apply(ctx, resources.ConfigMap(s.EMQX), force(s.ConfigMap != Missing))
	if err == nil {
		e.wrote(s, "ConfigMap", applied.ResourceVersion)
	}
	return err
}

// applyService writes a Service. Only one that is known to be the operator's is taken from other field managers.
func (e *executor) applyService(ctx context.Context, s Snapshot, service *applycore.ServiceApplyConfiguration, ours bool) error {
	applied, err := e.kube.CoreV1().Services(s.EMQX.Namespace).Apply(ctx, service, force(ours))
	if err == nil {
		e.wrote(s, "Service", applied.ResourceVersion)
	}
	return err
}

func (e *executor) inheritService(ctx context.Context, s Snapshot, a InheritService) error {
	name := resources.ServiceName(s.EMQX, a.Kind)
	patched, err := e.kube.CoreV1().Services(s.EMQX.Namespace).Patch(ctx, name, types.JSONPatchType, a.Patch, metav1.PatchOptions{FieldManager: FieldManager})
	if err == nil {
		e.wrote(s, "Service", patched.ResourceVersion)
	}
	return err
}

func force(ours bool) metav1.ApplyOptions {
	return metav1.ApplyOptions{FieldManager: FieldManager, Force: ours}
}

func (e *executor) createSet(ctx context.Context, s Snapshot, a CreateSet) error {
	set, err := resources.StatefulSet(s.EMQX, a.Set)
	if err != nil {
		return err
	}
	created, err := e.kube.AppsV1().StatefulSets(s.EMQX.Namespace).Create(ctx, set, metav1.CreateOptions{FieldManager: FieldManager})
	if apierrors.IsAlreadyExists(err) {
		// It was made by a sync whose cache is not up to date, or it is somebody else's and nothing can be done here.
		return fmt.Errorf("it exists already: %w", err)
	}
	if err == nil {
		e.wrote(s, "StatefulSet", created.ResourceVersion)
	}
	return err
}

// applySet applies to a set that exists; it never makes one.
func (e *executor) applySet(ctx context.Context, s Snapshot, uid types.UID, set *applyapps.StatefulSetApplyConfiguration) error {
	return e.applySetAs(ctx, s, FieldManager, uid, set)
}

// applySetAs applies under another name: an apply takes back what its manager applied before and does not name again.
func (e *executor) applySetAs(ctx context.Context, s Snapshot, manager string, uid types.UID, set *applyapps.StatefulSetApplyConfiguration) error {
	options := metav1.ApplyOptions{FieldManager: manager, Force: true}
	applied, err := e.kube.AppsV1().StatefulSets(s.EMQX.Namespace).Apply(ctx, set.WithUID(uid), options)
	if err == nil {
		e.wrote(s, "StatefulSet", applied.ResourceVersion)
	}
	return err
}

func (e *executor) adoptSet(ctx context.Context, s Snapshot, a AdoptSet) error {
	ports, err := json.Marshal(a.Ports)
	if err != nil {
		return err
	}
	return e.applySetAs(ctx, s, FieldManager+"-adoption", a.UID, applyapps.StatefulSet(a.Name, s.EMQX.Namespace).WithAnnotations(map[string]string{
		v2beta1.AnnotationServicePorts: string(ports),
		v2beta1.AnnotationConfigHash:   a.ConfigHash,
		v2beta1.AnnotationServingSince: a.At.UTC().Format(time.RFC3339),
		resources.AnnotationIntent:     a.Intent,
	}))
}

func (e *executor) markServing(ctx context.Context, s Snapshot, a MarkServing) error {
	return e.applySetAs(ctx, s, FieldManager+"-serving", a.UID, applyapps.StatefulSet(a.Name, s.EMQX.Namespace).
		WithAnnotations(map[string]string{v2beta1.AnnotationServingSince: a.At.UTC().Format(time.RFC3339)}))
}

func (e *executor) setGate(ctx context.Context, s Snapshot, a SetGate) error {
	status := corev1.ConditionFalse
	if a.Serving {
		status = corev1.ConditionTrue
	}
	pod := applycore.Pod(a.Pod, s.EMQX.Namespace).WithUID(a.UID).WithStatus(applycore.PodStatus().WithConditions(
		applycore.PodCondition().WithType(v2beta1.ConditionOnServing).WithStatus(status).
			WithMessage(a.Message).WithLastTransitionTime(metav1.NewTime(s.Now))))
	applied, err := e.kube.CoreV1().Pods(s.EMQX.Namespace).ApplyStatus(ctx, pod, force(true))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // The pod went, or another took its name.
	}
	if err == nil {
		e.wrote(s, "Pod", applied.ResourceVersion)
	}
	return err
}

// ignoreGone takes for success that what is to be deleted is gone, or is another object by now.
func ignoreGone(err error) error {
	var status apierrors.APIStatus
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) && errors.As(err, &status) {
		return nil
	}
	return err
}
