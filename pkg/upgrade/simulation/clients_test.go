package simulation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applydiscovery "k8s.io/client-go/applyconfigurations/discovery/v1"
	applypolicy "k8s.io/client-go/applyconfigurations/policy/v1"
	"k8s.io/client-go/kubernetes"
	typedapps "k8s.io/client-go/kubernetes/typed/apps/v1"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	typeddiscovery "k8s.io/client-go/kubernetes/typed/discovery/v1"
	typedevents "k8s.io/client-go/kubernetes/typed/events/v1"
	typedpolicy "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/client-go/metadata"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	applyemqx "github.com/emqx-bg/emqx-bg-operator/pkg/generated/applyconfiguration/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned"
	typedemqx "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/typed/apps/v2beta1"
)

// The clients of client-go, as far as the operator uses them: what it does not use is a nil interface, and panics. The
// fakes of client-go would not do: they hold a lock over a request, and copy everything several times.

// plainLists says that lists do not come as watches.
type plainLists struct{}

func (plainLists) IsWatchListSemanticsUnSupported() bool { return true }

// client is that of one kind: T its objects, L their list, A what is applied.
type client[T object, L runtime.Object, A any] struct {
	by       *operator
	resource schema.GroupVersionResource
	fresh    func() T
	listOf   func(metav1.ListMeta, []T) L
}

func (c client[T, L, A]) server() *apiserver { return c.by.w.kube }

func (c client[T, L, A]) view(options metav1.ListOptions) (view, error) {
	selector, err := labels.Parse(options.LabelSelector)
	return view{selector: selector, project: func(o object) runtime.Object { return o.DeepCopyObject() }}, err
}

func (c client[T, L, A]) List(ctx context.Context, options metav1.ListOptions) (list L, err error) {
	v, err := c.view(options)
	if err != nil {
		return list, err
	}
	items, meta, err := c.server().list(ctx, c.by, c.resource, v)
	typed := make([]T, len(items))
	for i, item := range items {
		typed[i] = item.(T)
	}
	return c.listOf(meta, typed), err
}

func (c client[T, L, A]) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	v, err := c.view(options)
	if err != nil {
		return nil, err
	}
	return c.server().watch(ctx, c.by, c.resource, v, options)
}

func (c client[T, L, A]) Get(ctx context.Context, name string, _ metav1.GetOptions) (found T, err error) {
	asked := c.by.w.desk.ask(ctx, c.by, false, "get "+c.resource.Resource+" "+name, func() time.Duration {
		existing, ok := get[T](c.server(), c.resource, name)
		switch {
		case c.by.dead:
			err = errDead
		case !ok:
			err = apierrors.NewNotFound(c.resource.GroupResource(), name)
		default:
			found = existing.DeepCopyObject().(T)
		}
		return 0
	})
	return found, errors.Join(asked, err)
}

func (c client[T, L, A]) Create(ctx context.Context, o T, _ metav1.CreateOptions) (created T, err error) {
	err = c.server().write(ctx, c.by, "create", c.resource, o.GetName(), "", func() error {
		if _, exists := get[T](c.server(), c.resource, o.GetName()); exists {
			return apierrors.NewAlreadyExists(c.resource.GroupResource(), o.GetName())
		}
		created = o.DeepCopyObject().(T)
		c.server().put(c.resource, created)
		created = created.DeepCopyObject().(T)
		return nil
	})
	return created, err
}

func (c client[T, L, A]) Update(ctx context.Context, o T, _ metav1.UpdateOptions) (updated T, err error) {
	err = c.server().write(ctx, c.by, "update", c.resource, o.GetName(), "", func() error {
		existing, exists := get[T](c.server(), c.resource, o.GetName())
		if !exists {
			return apierrors.NewNotFound(c.resource.GroupResource(), o.GetName())
		}
		if err := checkPreconditions(c.resource, existing, o.GetUID(), o.GetResourceVersion()); err != nil {
			return err
		}
		updated = o.DeepCopyObject().(T)
		c.server().put(c.resource, updated)
		updated = updated.DeepCopyObject().(T)
		return nil
	})
	return updated, err
}

func (c client[T, L, A]) Delete(ctx context.Context, name string, options metav1.DeleteOptions) error {
	return c.server().write(ctx, c.by, "delete", c.resource, name, "", func() error {
		existing, exists := get[T](c.server(), c.resource, name)
		if !exists {
			return apierrors.NewNotFound(c.resource.GroupResource(), name)
		}
		if wanted := options.Preconditions; wanted != nil {
			var uid types.UID
			var version string
			if wanted.UID != nil {
				uid = *wanted.UID
			}
			if wanted.ResourceVersion != nil {
				version = *wanted.ResourceVersion
			}
			if err := checkPreconditions(c.resource, existing, uid, version); err != nil {
				return err
			}
		}
		c.by.w.deleted(c.resource, existing)
		return nil
	})
}

func (c client[T, L, A]) Apply(ctx context.Context, applied A, _ metav1.ApplyOptions) (T, error) {
	return c.apply(ctx, "apply", applied)
}

func (c client[T, L, A]) ApplyStatus(ctx context.Context, applied A, _ metav1.ApplyOptions) (T, error) {
	return c.apply(ctx, "apply status of", applied)
}

// apply merges what is applied into what is there: less than the server-side apply of the API server, which has tests of
// its own.
func (c client[T, L, A]) apply(ctx context.Context, verb string, applied A) (result T, err error) {
	patch, err := json.Marshal(applied)
	if err != nil {
		return result, err
	}
	fresh := c.fresh()
	if err := json.Unmarshal(patch, fresh); err != nil {
		return result, err
	}
	err = c.server().write(ctx, c.by, verb, c.resource, fresh.GetName(), detailsOf(fresh), func() error {
		existing, exists := get[T](c.server(), c.resource, fresh.GetName())
		switch {
		case !exists && fresh.GetUID() != "":
			return apierrors.NewConflict(c.resource.GroupResource(), fresh.GetName(), errors.New("uid mismatch"))
		case exists:
			if err := checkPreconditions(c.resource, existing, fresh.GetUID(), fresh.GetResourceVersion()); err != nil {
				return err
			}
			if fresh, err = merged(existing, patch, c.fresh()); err != nil {
				return err
			}
			if set, ok := object(fresh).(*appsv1.StatefulSet); ok && *set.Spec.Replicas != *object(existing).(*appsv1.StatefulSet).Spec.Replicas {
				set.Generation++
			}
		}
		c.by.w.checkWrite(existing, fresh)
		c.server().put(c.resource, fresh)
		result = fresh.DeepCopyObject().(T)
		return nil
	})
	return result, err
}

// merged is an object with a patch applied.
func merged[T object](existing T, patch []byte, into T) (T, error) {
	if service, ok := existing.DeepCopyObject().(*corev1.Service); ok {
		service.Spec.Selector = nil // A selector is applied as a whole.
		existing = runtime.Object(service).(T)
	}
	if budget, ok := existing.DeepCopyObject().(*policyv1.PodDisruptionBudget); ok {
		budget.Spec = policyv1.PodDisruptionBudgetSpec{} // Nobody else owns anything of it.
		existing = runtime.Object(budget).(T)
	}
	if pod, ok := existing.DeepCopyObject().(*corev1.Pod); ok && !bytes.Contains(patch, []byte(`"status"`)) {
		pod.Finalizers = nil // Nor of these.
		pod.Labels = maps.Clone(pod.Labels)
		delete(pod.Labels, v2beta1.LabelLetGo)
		existing = runtime.Object(pod).(T)
	}
	before, err := json.Marshal(existing)
	if err != nil {
		return into, err
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, into)
	if err != nil {
		return into, err
	}
	return into, json.Unmarshal(after, into)
}

// detailsOf is what the history tells of an object that is applied.
func detailsOf(o object) string {
	switch o := o.(type) {
	case *corev1.Service:
		return "selector " + o.Spec.Selector[v2beta1.LabelPodTemplateHash]
	case *policyv1.PodDisruptionBudget:
		return "selector " + o.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash]
	case *corev1.Pod:
		for _, condition := range o.Status.Conditions {
			return string(condition.Type) + "=" + string(condition.Status)
		}
	case *appsv1.StatefulSet:
		told := slices.Sorted(maps.Keys(o.Annotations))
		if o.Spec.Replicas != nil {
			told = append([]string{fmt.Sprintf("replicas %d", *o.Spec.Replicas)}, told...)
		}
		return strings.Join(told, " ")
	}
	return ""
}

// kubeClient is kubernetes.Interface.
type kubeClient struct {
	kubernetes.Interface
	plainLists
	by *operator
}

func (k kubeClient) CoreV1() typedcore.CoreV1Interface { return coreClient{by: k.by} }
func (k kubeClient) AppsV1() typedapps.AppsV1Interface { return appsClient{by: k.by} }
func (k kubeClient) DiscoveryV1() typeddiscovery.DiscoveryV1Interface {
	return discoveryClient{by: k.by}
}
func (k kubeClient) PolicyV1() typedpolicy.PolicyV1Interface { return policyClient{by: k.by} }
func (k kubeClient) EventsV1() typedevents.EventsV1Interface { return eventsClient{} }

type coreClient struct {
	typedcore.CoreV1Interface
	by *operator
}

// The rest of each interface is one level deeper than what the simulation has, so that the latter is called.
type (
	restOfPods     struct{ typedcore.PodInterface }
	restOfServices struct{ typedcore.ServiceInterface }
	restOfConfigs  struct{ typedcore.ConfigMapInterface }
	restOfSecrets  struct{ typedcore.SecretInterface }
	restOfClaims   struct {
		typedcore.PersistentVolumeClaimInterface
	}
	restOfSets   struct{ typedapps.StatefulSetInterface }
	restOfSlices struct {
		typeddiscovery.EndpointSliceInterface
	}
	restOfBudgets struct {
		typedpolicy.PodDisruptionBudgetInterface
	}
	restOfEMQXes    struct{ typedemqx.EMQXInterface }
	restOfEvents    struct{ typedevents.EventInterface }
	restOfMetadata  struct{ metadata.Getter }
	podsClient      = client[*corev1.Pod, *corev1.PodList, *applycore.PodApplyConfiguration]
	servicesClient  = client[*corev1.Service, *corev1.ServiceList, *applycore.ServiceApplyConfiguration]
	configMapClient = client[*corev1.ConfigMap, *corev1.ConfigMapList, *applycore.ConfigMapApplyConfiguration]
	secretsClient   = client[*corev1.Secret, *corev1.SecretList, *applycore.SecretApplyConfiguration]
	claimsClient    = client[*corev1.PersistentVolumeClaim, *corev1.PersistentVolumeClaimList, *applycore.PersistentVolumeClaimApplyConfiguration]
	setsClient      = client[*appsv1.StatefulSet, *appsv1.StatefulSetList, *applyapps.StatefulSetApplyConfiguration]
	slicesClient    = client[*discoveryv1.EndpointSlice, *discoveryv1.EndpointSliceList, *applydiscovery.EndpointSliceApplyConfiguration]
	budgetsClient   = client[*policyv1.PodDisruptionBudget, *policyv1.PodDisruptionBudgetList, *applypolicy.PodDisruptionBudgetApplyConfiguration]
	emqxesClient    = client[*v2beta1.EMQX, *v2beta1.EMQXList, *applyemqx.EMQXApplyConfiguration]
)

func (c coreClient) Pods(string) typedcore.PodInterface {
	return struct {
		restOfPods
		podsClient
	}{podsClient: podsClient{by: c.by, resource: pods, fresh: func() *corev1.Pod { return &corev1.Pod{} },
		listOf: func(meta metav1.ListMeta, items []*corev1.Pod) *corev1.PodList {
			return &corev1.PodList{ListMeta: meta, Items: values(items)}
		}}}
}

func (c coreClient) Services(string) typedcore.ServiceInterface {
	return servicesOf{servicesClient: servicesClient{by: c.by, resource: services, fresh: func() *corev1.Service { return &corev1.Service{} },
		listOf: func(meta metav1.ListMeta, items []*corev1.Service) *corev1.ServiceList {
			return &corev1.ServiceList{ListMeta: meta, Items: values(items)}
		}}}
}

type servicesOf struct {
	restOfServices
	servicesClient
}

// operation is one of a JSON patch.
type operation struct {
	Path  string
	Value json.RawMessage
}

func operations(patch []byte) (all []operation, err error) {
	err = json.Unmarshal(patch, &all)
	return all, err
}

// Patch is a JSON patch with which a Service of another operator is taken over.
func (c servicesOf) Patch(ctx context.Context, name string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (result *corev1.Service, err error) {
	if _, err := operations(data); err != nil {
		return nil, err
	}
	err = c.server().write(ctx, c.by, "patch", services, name, "", func() error {
		existing, exists := get[*corev1.Service](c.server(), services, name)
		if !exists {
			return apierrors.NewNotFound(services.GroupResource(), name)
		}
		result = existing.DeepCopy()
		c.server().put(services, result)
		result = result.DeepCopy()
		return nil
	})
	return result, err
}

func (c coreClient) ConfigMaps(string) typedcore.ConfigMapInterface {
	return struct {
		restOfConfigs
		configMapClient
	}{configMapClient: configMapClient{by: c.by, resource: configMaps, fresh: func() *corev1.ConfigMap { return &corev1.ConfigMap{} }}}
}

func (c coreClient) Secrets(string) typedcore.SecretInterface {
	return struct {
		restOfSecrets
		secretsClient
	}{secretsClient: secretsClient{by: c.by, resource: secrets, fresh: func() *corev1.Secret { return &corev1.Secret{} }}}
}

func (c coreClient) PersistentVolumeClaims(string) typedcore.PersistentVolumeClaimInterface {
	return claimsOf{claimsClient: claimsClient{by: c.by, resource: volumeClaims, fresh: func() *corev1.PersistentVolumeClaim { return &corev1.PersistentVolumeClaim{} }}}
}

type appsClient struct {
	typedapps.AppsV1Interface
	by *operator
}

func (c appsClient) StatefulSets(string) typedapps.StatefulSetInterface {
	return setsOf{setsClient: setsClient{by: c.by, resource: statefulSets, fresh: func() *appsv1.StatefulSet { return &appsv1.StatefulSet{} },
		listOf: func(meta metav1.ListMeta, items []*appsv1.StatefulSet) *appsv1.StatefulSetList {
			return &appsv1.StatefulSetList{ListMeta: meta, Items: values(items)}
		}}}
}

type discoveryClient struct {
	typeddiscovery.DiscoveryV1Interface
	by *operator
}

func (c discoveryClient) EndpointSlices(string) typeddiscovery.EndpointSliceInterface {
	return struct {
		restOfSlices
		slicesClient
	}{slicesClient: slicesClient{by: c.by, resource: endpointSlices,
		listOf: func(meta metav1.ListMeta, items []*discoveryv1.EndpointSlice) *discoveryv1.EndpointSliceList {
			return &discoveryv1.EndpointSliceList{ListMeta: meta, Items: values(items)}
		}}}
}

type policyClient struct {
	typedpolicy.PolicyV1Interface
	by *operator
}

func (c policyClient) PodDisruptionBudgets(string) typedpolicy.PodDisruptionBudgetInterface {
	return struct {
		restOfBudgets
		budgetsClient
	}{budgetsClient: budgetsClient{by: c.by, resource: budgets, fresh: func() *policyv1.PodDisruptionBudget { return &policyv1.PodDisruptionBudget{} },
		listOf: func(meta metav1.ListMeta, items []*policyv1.PodDisruptionBudget) *policyv1.PodDisruptionBudgetList {
			return &policyv1.PodDisruptionBudgetList{ListMeta: meta, Items: values(items)}
		}}}
}

// eventsClient takes every event, and keeps none.
type eventsClient struct{ typedevents.EventsV1Interface }

func (eventsClient) Events(string) typedevents.EventInterface { return eventSink{} }

type eventSink struct{ restOfEvents }

func (eventSink) Create(_ context.Context, event *eventsv1.Event, _ metav1.CreateOptions) (*eventsv1.Event, error) {
	return event, nil
}

// Patch is of an event that is told again.
func (eventSink) Patch(_ context.Context, called string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (*eventsv1.Event, error) {
	event := &eventsv1.Event{}
	err := json.Unmarshal(data, event)
	event.Name, event.Namespace = called, namespace
	return event, err
}

// emqxClient is versioned.Interface.
type emqxClient struct {
	versioned.Interface
	plainLists
	by *operator
}

func (c emqxClient) AppsV2beta1() typedemqx.AppsV2beta1Interface { return emqxGroup{by: c.by} }

type emqxGroup struct {
	typedemqx.AppsV2beta1Interface
	by *operator
}

func (c emqxGroup) EMQXes(string) typedemqx.EMQXInterface {
	return emqxesOf{emqxesClient: emqxesClient{by: c.by, resource: emqxes, fresh: func() *v2beta1.EMQX { return &v2beta1.EMQX{} },
		listOf: func(meta metav1.ListMeta, items []*v2beta1.EMQX) *v2beta1.EMQXList {
			return &v2beta1.EMQXList{ListMeta: meta, Items: values(items)}
		}}}
}

type emqxesOf struct {
	restOfEMQXes
	emqxesClient
}

// ApplyStatus writes the status subresource as a whole: nobody else writes any of it.
func (c emqxesOf) ApplyStatus(ctx context.Context, applied *applyemqx.EMQXApplyConfiguration, _ metav1.ApplyOptions) (*v2beta1.EMQX, error) {
	data, err := json.Marshal(applied)
	if err != nil {
		return nil, err
	}
	var fresh v2beta1.EMQX
	if err := json.Unmarshal(data, &fresh); err != nil {
		return nil, err
	}
	return c.writeStatus(ctx, fresh.Name, fresh.UID, fresh.ResourceVersion, fresh.Status)
}

// Patch is the JSON patch with which a status is replaced or begun anew.
func (c emqxesOf) Patch(ctx context.Context, name string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (*v2beta1.EMQX, error) {
	all, err := operations(data)
	if err != nil {
		return nil, err
	}
	var status v2beta1.EMQXStatus
	var version string
	for _, operation := range all {
		var err error
		switch operation.Path {
		case "/status":
			err = json.Unmarshal(operation.Value, &status)
		case "/metadata/resourceVersion":
			err = json.Unmarshal(operation.Value, &version)
		}
		if err != nil {
			return nil, err
		}
	}
	return c.writeStatus(ctx, name, "", version, status)
}

func (c emqxesOf) writeStatus(ctx context.Context, name string, uid types.UID, version string, status v2beta1.EMQXStatus) (result *v2beta1.EMQX, err error) {
	details := string(status.Phase)
	if status.Upgrade != nil {
		details += ": " + status.Upgrade.WaitingFor
	}
	err = c.server().write(ctx, c.by, "apply status of", emqxes, name, details, func() error {
		existing, exists := get[*v2beta1.EMQX](c.server(), emqxes, name)
		if !exists {
			return apierrors.NewNotFound(emqxes.GroupResource(), name)
		}
		if err := checkPreconditions(emqxes, existing, uid, version); err != nil {
			return err
		}
		result = existing.DeepCopy()
		result.Status = status
		c.server().put(emqxes, result)
		c.by.w.checkStatus(result)
		result = result.DeepCopy()
		return nil
	})
	return result, err
}

// metadataClient is metadata.Interface.
type metadataClient struct {
	plainLists
	by *operator
}

func (c metadataClient) Resource(resource schema.GroupVersionResource) metadata.Getter {
	return metadataOf{by: c.by, resource: resource}
}

type metadataOf struct {
	restOfMetadata
	by       *operator
	resource schema.GroupVersionResource
}

func (c metadataOf) Namespace(string) metadata.ResourceInterface { return c }

func (c metadataOf) view() view {
	kind := map[schema.GroupVersionResource]string{secrets: "Secret", configMaps: "ConfigMap", volumeClaims: "PersistentVolumeClaim"}[c.resource]
	return view{project: func(o object) runtime.Object {
		partial := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind}}
		switch o := o.DeepCopyObject().(type) {
		case *corev1.Secret:
			partial.ObjectMeta = o.ObjectMeta
		case *corev1.ConfigMap:
			partial.ObjectMeta = o.ObjectMeta
		case *corev1.PersistentVolumeClaim:
			partial.ObjectMeta = o.ObjectMeta
		}
		return partial
	}}
}

func (c metadataOf) List(ctx context.Context, options metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	v := c.view()
	selector, err := labels.Parse(options.LabelSelector)
	if err != nil {
		return nil, err
	}
	v.selector = selector
	items, meta, err := c.by.w.kube.list(ctx, c.by, c.resource, v)
	list := &metav1.PartialObjectMetadataList{ListMeta: meta}
	for _, item := range items {
		list.Items = append(list.Items, *item.(*metav1.PartialObjectMetadata))
	}
	return list, err
}

func (c metadataOf) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	v := c.view()
	selector, err := labels.Parse(options.LabelSelector)
	if err != nil {
		return nil, err
	}
	v.selector = selector
	return c.by.w.kube.watch(ctx, c.by, c.resource, v, options)
}

func values[T any](pointers []*T) []T {
	items := make([]T, len(pointers))
	for i, p := range pointers {
		items[i] = *p
	}
	return items
}
