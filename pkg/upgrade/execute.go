package upgrade

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// What the executor does to objects. Secrets are created and read, and only that of the API keys is changed; sets are created, and
// afterwards only their number of pods and the operator's own annotations are applied, and the template of one whose node is replaced
// in place.
//
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=get;create;patch;delete
// +kubebuilder:rbac:groups="",resources=services,verbs=create;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps,verbs=create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=create;patch;delete
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;create;update
// +kubebuilder:rbac:groups="",resources=pods,verbs=delete;patch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=patch;delete
// +kubebuilder:rbac:groups="",resources=pods/status,verbs=patch

// FieldManager is the name under which the operator writes.
const FieldManager = "emqx-bg-operator"

// writeTimeout bounds one request to the API server.
const writeTimeout = 10 * time.Second

// executor carries out actions.
type executor struct {
	kube    kubernetes.Interface
	emqx    versioned.Interface
	writes  *writes
	observe func(action string, err error)
	// tell tells an event about an object.
	tell func(regarding runtime.Object, event machine.Event)
	// taken is the operator's API key that EMQX took last; nil when that is not known.
	taken func(*v2beta1.EMQX) *resources.OperatorKey
}

// execute carries out the groups, each by itself and up to its first action that fails, and returns the errors of all.
// Each action may be repeated. No more is tried when the time of ctx is over.
func (e *executor) execute(ctx context.Context, s machine.Snapshot, groups []machine.Group) []error {
	var failures []error
	for _, group := range groups {
		for _, action := range group {
			err := e.do(ctx, s, action)
			name := machine.NameOf(action)
			e.observe(name, err)
			if err != nil {
				failures = append(failures, fmt.Errorf("%s: %w", machine.Describe(s, action), err))
				break
			}
			klog.FromContext(ctx).V(2).Info("Carried out an action", "action", name, "details", action)
		}
	}
	return failures
}

// final reports whether an error is a refusal that trying again does not change: only a person can.
func final(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err) || errors.Is(err, errMissingReference) || errors.Is(err, errInvalidReference)
}

// errMissingReference: something that the specification names does not exist.
var errMissingReference = errors.New("it does not exist")

// errInvalidReference: what the specification names exists and cannot be used.
var errInvalidReference = errors.New("it cannot be used")

// overtaken reports whether an error tells that the object is not as it was seen: the caches will show what it is like.
func overtaken(err error) bool { return apierrors.IsConflict(err) }

func (e *executor) do(ctx context.Context, s machine.Snapshot, action machine.Action) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	switch a := action.(type) {
	case machine.CreateCookieSecret:
		return e.createSecret(ctx, s, resources.NodeCookieSecret(s.EMQX, s.Config.CookieOr(randomText())))
	case machine.WriteKeysSecret:
		return e.writeKeysSecret(ctx, s)
	case machine.ApplyConfigMap:
		return e.applyConfigMap(ctx, s, a)
	case machine.DeleteConfigMap:
		return ignoreGone(e.kube.CoreV1().ConfigMaps(s.EMQX.Namespace).Delete(ctx, a.Name, metav1.DeleteOptions{}))
	case machine.ApplyHeadlessService:
		return e.applyService(ctx, s, resources.HeadlessService(s.EMQX), s.Headless != machine.Missing)
	case machine.InheritService:
		return e.inheritService(ctx, s, a)
	case machine.ApplyService:
		service, err := resources.Service(s.EMQX, a.Kind, a.Revision, a.Ports)
		if err != nil {
			return err
		}
		_, ours := s.Services[a.Kind]
		return e.applyService(ctx, s, service, ours)
	case machine.DeleteService:
		name := resources.ServiceName(s.EMQX, a.Kind)
		return ignoreGone(e.kube.CoreV1().Services(s.EMQX.Namespace).Delete(ctx, name, metav1.DeleteOptions{}))
	case machine.ApplyBudget, machine.InheritBudget, machine.DeleteBudget:
		return e.doBudget(ctx, s, action)
	case machine.FinalizeRebalance, machine.TellRebalance:
		return e.doRebalance(ctx, s, action)
	case machine.DeletePod:
		return ignoreGone(e.kube.CoreV1().Pods(s.EMQX.Namespace).Delete(ctx, a.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(a.UID))}))
	case machine.LetGo:
		return e.letGo(ctx, s, a)
	case machine.DeleteClaim:
		return e.deleteClaim(ctx, s, a)
	case machine.BindClaim:
		return e.bindClaim(ctx, s, a)
	case machine.SetGate:
		return e.setGate(ctx, s, a)
	case machine.SetSiteCondition:
		return e.setCondition(ctx, s, FieldManager+"-storage", podRef{a.Pod, a.UID}, applycore.PodCondition().
			WithType(v2beta1.ConditionDSReplicationSite).WithStatus(corev1.ConditionStatus(a.Status)).WithReason("DurableStorage"))
	case machine.CreateSet, machine.ReplaceTemplate, machine.ScaleSet, machine.RelabelSet, machine.NoteCookie, machine.AdoptSet, machine.MarkServing, machine.DeleteSet:
		return e.doSet(ctx, s, action)
	}
	return fmt.Errorf("there is no action %T", action)
}

// doBudget is do for the actions on the PodDisruptionBudget.
func (e *executor) doBudget(ctx context.Context, s machine.Snapshot, action machine.Action) error {
	budgets, name := e.kube.PolicyV1().PodDisruptionBudgets(s.EMQX.Namespace), s.EMQX.CoreBudgetName()
	var written *policyv1.PodDisruptionBudget
	var err error
	switch a := action.(type) { //nolint:gochecksumtype // The others are in do.
	case machine.ApplyBudget:
		written, err = budgets.Apply(ctx, resources.Budget(s.EMQX, a.Revision), force(s.Budget.State != machine.Missing))
	case machine.InheritBudget:
		written, err = budgets.Patch(ctx, name, types.JSONPatchType, a.Patch, metav1.PatchOptions{FieldManager: FieldManager})
	case machine.DeleteBudget:
		return ignoreGone(budgets.Delete(ctx, name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(a.UID))}))
	default:
		return fmt.Errorf("%T is no action on a budget", action)
	}
	if err == nil {
		e.wrote(s, "PodDisruptionBudget", written.ResourceVersion)
	}
	return err
}

// doSet is do for the actions on sets. All but the first write only to the set that the decision saw, as it saw it.
func (e *executor) doSet(ctx context.Context, s machine.Snapshot, action machine.Action) error {
	switch a := action.(type) { //nolint:gochecksumtype // The others are in do.
	case machine.CreateSet:
		return e.createSet(ctx, s, a)
	case machine.ReplaceTemplate:
		return e.replaceTemplate(ctx, s, a)
	case machine.ScaleSet:
		return e.applySet(ctx, s, FieldManager, a.SetRef, applyapps.StatefulSet(a.Name, s.EMQX.Namespace).
			WithAnnotations(map[string]string{
				v2beta1.AnnotationNodeCount: strconv.Itoa(int(a.NodeCount)), v2beta1.AnnotationReplicas: strconv.Itoa(int(a.Replicas)),
			}).
			WithSpec(applyapps.StatefulSetSpec().WithReplicas(a.Replicas)))
	case machine.RelabelSet:
		return e.applySet(ctx, s, FieldManager+"-labels", a.SetRef, applyapps.StatefulSet(a.Name, s.EMQX.Namespace).
			WithLabels(resources.CoreRevisionLabels(s.EMQX, a.Revision)).WithOwnerReferences(resources.ApplyOwnerReference(s.EMQX)))
	case machine.NoteCookie:
		return e.applySet(ctx, s, FieldManager+"-cookie", a.SetRef, applyapps.StatefulSet(a.Name, s.EMQX.Namespace).
			WithAnnotations(map[string]string{resources.AnnotationCookieDigest: a.Digest}))
	case machine.AdoptSet:
		return e.adoptSet(ctx, s, a)
	case machine.MarkServing:
		return e.applySet(ctx, s, FieldManager+"-serving", a.SetRef, applyapps.StatefulSet(a.Name, s.EMQX.Namespace).
			WithAnnotations(map[string]string{v2beta1.AnnotationServingSince: a.At.UTC().Format(time.RFC3339Nano)}))
	case machine.DeleteSet:
		options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(a.UID))}
		options.Preconditions.ResourceVersion = &a.ResourceVersion
		err := e.kube.AppsV1().StatefulSets(s.EMQX.Namespace).Delete(ctx, a.Name, options)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	return fmt.Errorf("%T is no action on a set", action)
}

func key(emqx *v2beta1.EMQX) cache.ObjectName { return cache.MetaObjectToName(emqx) }

func (e *executor) wrote(s machine.Snapshot, kind, version string) {
	e.writes.record(key(s.EMQX), kind, version)
}

// createSecret makes a Secret. One that exists stays as it is: its content is random, and running nodes know it.
func (e *executor) createSecret(ctx context.Context, s machine.Snapshot, secret *corev1.Secret) error {
	created, err := e.kube.CoreV1().Secrets(s.EMQX.Namespace).Create(ctx, secret, metav1.CreateOptions{FieldManager: FieldManager})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	if err == nil {
		e.wrote(s, "Secret", created.ResourceVersion)
	}
	return err
}

// randomText is a password of 130 random bits.
func randomText() string { return rand.Text() }

func (e *executor) applyConfigMap(ctx context.Context, s machine.Snapshot, a machine.ApplyConfigMap) error {
	_, ours := s.ConfigMaps[a.Name]
	applied, err := e.kube.CoreV1().ConfigMaps(s.EMQX.Namespace).Apply(ctx, resources.ConfigMap(s.EMQX, a.Name, a.Revision), force(ours))
	if err == nil {
		e.wrote(s, "ConfigMap", applied.ResourceVersion)
	}
	return err
}

// applyService writes a Service. Only one that is known to be the operator's is taken from other field managers.
func (e *executor) applyService(ctx context.Context, s machine.Snapshot, service *applycore.ServiceApplyConfiguration, ours bool) error {
	applied, err := e.kube.CoreV1().Services(s.EMQX.Namespace).Apply(ctx, service, force(ours))
	if err == nil {
		e.wrote(s, "Service", applied.ResourceVersion)
	}
	return err
}

func (e *executor) inheritService(ctx context.Context, s machine.Snapshot, a machine.InheritService) error {
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

func (e *executor) createSet(ctx context.Context, s machine.Snapshot, a machine.CreateSet) error {
	digest, err := cookieDigest(ctx, e.kube, s.EMQX)
	if err != nil {
		return err
	}
	a.Set.CookieDigest = digest
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

// replaceTemplate gives a set another template, as it was seen: what is in the way of that is a conflict.
func (e *executor) replaceTemplate(ctx context.Context, s machine.Snapshot, a machine.ReplaceTemplate) error {
	digest, err := cookieDigest(ctx, e.kube, s.EMQX)
	if err != nil {
		return err
	}
	a.Set.CookieDigest = digest
	patch, err := resources.TemplatePatch(s.EMQX, a.UID, a.ResourceVersion, a.Set)
	if err != nil {
		return err
	}
	patched, err := e.kube.AppsV1().StatefulSets(s.EMQX.Namespace).Patch(ctx, a.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
	if err == nil {
		e.wrote(s, "StatefulSet", patched.ResourceVersion)
	}
	return err
}

// applySet applies to a set as it was seen; it never makes one. An apply takes back what its manager applied before and
// does not name again: what is written at different times has a manager of its own.
func (e *executor) applySet(ctx context.Context, s machine.Snapshot, manager string, ref machine.SetRef, set *applyapps.StatefulSetApplyConfiguration) error {
	options := metav1.ApplyOptions{FieldManager: manager, Force: true}
	applied, err := e.kube.AppsV1().StatefulSets(s.EMQX.Namespace).Apply(ctx, set.WithUID(ref.UID).WithResourceVersion(ref.ResourceVersion), options)
	if err == nil {
		e.wrote(s, "StatefulSet", applied.ResourceVersion)
	}
	return err
}

func (e *executor) adoptSet(ctx context.Context, s machine.Snapshot, a machine.AdoptSet) error {
	ports, err := json.Marshal(a.Ports)
	if err != nil {
		return err
	}
	digest, err := cookieDigest(ctx, e.kube, s.EMQX)
	if err != nil {
		return err
	}
	return e.applySet(ctx, s, FieldManager+"-adoption", a.SetRef, applyapps.StatefulSet(a.Name, s.EMQX.Namespace).WithAnnotations(map[string]string{
		v2beta1.AnnotationServicePorts:   string(ports),
		v2beta1.AnnotationConfigHash:     a.ConfigHash,
		v2beta1.AnnotationServingSince:   a.At.UTC().Format(time.RFC3339Nano),
		v2beta1.AnnotationNodeCount:      strconv.Itoa(int(a.NodeCount)),
		v2beta1.AnnotationReplicas:       strconv.Itoa(int(a.NodeCount)),
		resources.AnnotationIntent:       a.Intent,
		resources.AnnotationCookieDigest: digest,
	}))
}

// podRef names a pod as it was seen.
type podRef struct {
	name string
	uid  types.UID
}

// setCondition writes a condition of a pod, as a manager that writes no other.
func (e *executor) setCondition(ctx context.Context, s machine.Snapshot, manager string, ref podRef, condition *applycore.PodConditionApplyConfiguration) error {
	pod := applycore.Pod(ref.name, s.EMQX.Namespace).WithUID(ref.uid).WithStatus(applycore.PodStatus().
		WithConditions(condition.WithLastTransitionTime(metav1.NewTime(s.Now))))
	options := force(true)
	options.FieldManager = manager
	applied, err := e.kube.CoreV1().Pods(s.EMQX.Namespace).ApplyStatus(ctx, pod, options)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // The pod went, or another took its name.
	}
	if err == nil {
		e.wrote(s, "Pod", applied.ResourceVersion)
	}
	return err
}

// setGate opens or closes the readiness gate of a pod.
func (e *executor) setGate(ctx context.Context, s machine.Snapshot, a machine.SetGate) error {
	status := corev1.ConditionFalse
	if a.Serving {
		status = corev1.ConditionTrue
	}
	return e.setCondition(ctx, s, FieldManager, podRef{a.Pod, a.UID}, applycore.PodCondition().WithType(v2beta1.ConditionOnServing).
		WithStatus(status).WithReason(gateReason(a.Container)).WithMessage(a.Message))
}

// letGo marks a pod for who drains its Kubernetes node, or takes the marks off.
func (e *executor) letGo(ctx context.Context, s machine.Snapshot, a machine.LetGo) error {
	pod := applycore.Pod(a.Name, s.EMQX.Namespace).WithUID(a.UID)
	if a.LetGo {
		pod.WithLabels(map[string]string{v2beta1.LabelLetGo: "true"})
	}
	if a.Forget {
		pod.WithFinalizers(v2beta1.FinalizerForgotten)
	}
	applied, err := e.kube.CoreV1().Pods(s.EMQX.Namespace).Apply(ctx, pod, drainOptions())
	if err == nil {
		e.wrote(s, "Pod", applied.ResourceVersion)
	}
	return ignoreGone(err)
}

// release takes the marks of a drain off a pod of no cluster.
func (e *executor) release(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_, err := e.kube.CoreV1().Pods(pod.Namespace).Apply(ctx, applycore.Pod(pod.Name, pod.Namespace).WithUID(pod.UID), drainOptions())
	return ignoreGone(err)
}

func drainOptions() metav1.ApplyOptions {
	options := force(true)
	options.FieldManager = FieldManager + "-drain"
	return options
}

// gateReason tells which container a gate was written for: one word, as reasons are.
func gateReason(container string) string { return gatePrefix + container }

const gatePrefix = "Container"

// ignoreGone takes for success that what is to be deleted is gone, or is another object by now.
func ignoreGone(err error) error {
	var status apierrors.APIStatus
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) && errors.As(err, &status) {
		return nil
	}
	return err
}
