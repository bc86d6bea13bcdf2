package informers

import (
	"context"
	"maps"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	kubefake "k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	kubetesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

var (
	emqxes      = v2beta1.SchemeGroupVersion.WithResource("emqxes")
	rebalances  = v2beta1.SchemeGroupVersion.WithResource("rebalances")
	sets        = appsv1.SchemeGroupVersion.WithResource("statefulsets")
	pods        = corev1.SchemeGroupVersion.WithResource("pods")
	nodes       = corev1.SchemeGroupVersion.WithResource("nodes")
	services    = corev1.SchemeGroupVersion.WithResource("services")
	endpoints   = discoveryv1.SchemeGroupVersion.WithResource("endpointslices")
	budgets     = policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")
	metadataFor = map[schema.GroupVersionResource]string{configMapsResource: "ConfigMap", secretsResource: "Secret", claimsResource: "PersistentVolumeClaim"}
)

// world is a Kubernetes with one cluster, e, and who is woken by what changes in it.
type world struct {
	t        *testing.T
	trackers map[schema.GroupVersionResource]kubetesting.ObjectTracker
	objects  map[schema.GroupVersionResource]runtime.Object
	caches   *Caches

	mu    sync.Mutex
	woken []string
}

func newWorld(t *testing.T) *world {
	kube, emqx := kubefake.NewSimpleClientset(), emqxfake.NewSimpleClientset()
	scheme := metadatafake.NewTestScheme()
	require.NoError(t, metav1.AddMetaToScheme(scheme))
	meta := metadatafake.NewSimpleMetadataClient(scheme)
	w := &world{t: t, objects: map[schema.GroupVersionResource]runtime.Object{
		emqxes: &v2beta1.EMQX{ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "e", Generation: 1}},
		rebalances: &v2beta1.Rebalance{
			ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "n", UID: "r", Generation: 1}, Spec: v2beta1.RebalanceSpec{InstanceName: "e"},
		},
		sets:      &appsv1.StatefulSet{ObjectMeta: owned("set", "EMQX", v2beta1.SchemeGroupVersion, "e")},
		pods:      &corev1.Pod{ObjectMeta: owned("pod", "StatefulSet", appsv1.SchemeGroupVersion, "set"), Spec: corev1.PodSpec{NodeName: "k"}},
		nodes:     &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "k"}},
		services:  &corev1.Service{ObjectMeta: owned("service", "EMQX", v2beta1.SchemeGroupVersion, "e"), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"}},
		endpoints: &discoveryv1.EndpointSlice{ObjectMeta: owned("slice", "Service", corev1.SchemeGroupVersion, "service")},
		budgets:   &policyv1.PodDisruptionBudget{ObjectMeta: owned("budget", "EMQX", v2beta1.SchemeGroupVersion, "e")},
	}, trackers: map[schema.GroupVersionResource]kubetesting.ObjectTracker{
		emqxes: emqx.Tracker(), rebalances: emqx.Tracker(), sets: kube.Tracker(), pods: kube.Tracker(), nodes: kube.Tracker(), services: kube.Tracker(), endpoints: kube.Tracker(), budgets: kube.Tracker(),
		configMapsResource: meta.Tracker(), secretsResource: meta.Tracker(), claimsResource: meta.Tracker(),
	}}
	for resource, kind := range metadataFor {
		w.objects[resource] = &metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: kind}, ObjectMeta: owned(kind, "EMQX", v2beta1.SchemeGroupVersion, "e"),
		}
	}
	caches, err := New(Clients{Kube: kube, EMQX: emqx, Metadata: meta}, nil)
	require.NoError(t, err)
	require.False(t, caches.NodesWatched())
	require.NoError(t, caches.WatchNodes(kube))
	require.True(t, caches.NodesWatched())
	w.caches = caches
	require.NoError(t, caches.Handle(func(key cache.ObjectName, kind string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.woken = append(w.woken, kind+" wakes "+key.String())
	}, func() { t.Error("a handler panicked") }))
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		caches.Wait()
	})
	require.NoError(t, caches.Run(ctx))
	synctest.Wait()
	return w
}

// owned is the metadata of an object that another controls.
func owned(name, kind string, of schema.GroupVersion, owner string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: name, Namespace: "n", UID: types.UID(name), Labels: map[string]string{discoveryv1.LabelServiceName: owner},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: of.String(), Kind: kind, Name: owner, UID: types.UID(owner), Controller: ptr.To(true)}},
	}
}

// create makes the world's object of a kind.
func (w *world) create(resource schema.GroupVersionResource) {
	w.t.Helper()
	require.NoError(w.t, w.trackers[resource].Create(resource, w.objects[resource].DeepCopyObject(), "n"))
	synctest.Wait()
}

// change updates the world's object of a kind.
func (w *world) change(resource schema.GroupVersionResource, change func(runtime.Object)) {
	w.t.Helper()
	change(w.objects[resource])
	require.NoError(w.t, w.trackers[resource].Update(resource, w.objects[resource].DeepCopyObject(), w.objects[resource].(metav1.Object).GetNamespace()))
}

// woke returns who was woken by f.
func (w *world) woke(f func()) []string {
	w.mu.Lock()
	w.woken = nil
	w.mu.Unlock()
	f()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.woken
}

// as makes a change of a kind's type one of any object.
func as[T runtime.Object](change func(T)) func(runtime.Object) {
	return func(object runtime.Object) { change(object.(T)) }
}

func label(object runtime.Object) {
	labels := map[string]string{"a": "b"}
	maps.Copy(labels, object.(metav1.Object).GetLabels())
	object.(metav1.Object).SetLabels(labels)
}

func finalizer(object runtime.Object) { object.(metav1.Object).SetFinalizers([]string{"a/b"}) }

type changes map[string]func(runtime.Object)

// TestHandlers is the table of Handle, row by row: an object is made, changed in ways that matter and in ways that do
// not, and deleted.
func TestHandlers(t *testing.T) {
	ready := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue}
	for _, row := range []struct {
		resource        schema.GroupVersionResource
		after           []schema.GroupVersionResource // Over which the way leads to the key.
		matters, others changes
		wakes           string
	}{
		{emqxes, nil, changes{
			"generation": as(func(e *v2beta1.EMQX) { e.Generation++ }),
			"phase":      as(func(e *v2beta1.EMQX) { e.Status.Phase = v2beta1.PhaseDone }),
			"labels":     label,
		}, changes{
			"the rest of the status": as(func(e *v2beta1.EMQX) { e.Status.Clients = 7 }),
		}, "EMQX wakes n/e"},
		{rebalances, nil, changes{
			"generation": as(func(r *v2beta1.Rebalance) { r.Generation++ }),
			"status":     as(func(r *v2beta1.Rebalance) { r.Status.Phase = v2beta1.RebalanceProcessing }),
			"finalizers": finalizer,
		}, changes{
			"labels": label,
		}, "Rebalance wakes n/e"},
		{sets, nil, changes{
			"generation":     as(func(s *appsv1.StatefulSet) { s.Generation++ }),
			"number of pods": as(func(s *appsv1.StatefulSet) { s.Status.Replicas++ }),
			"observation":    as(func(s *appsv1.StatefulSet) { s.Status.ObservedGeneration++ }),
			"labels":         label,
		}, changes{
			"the rest of the status": as(func(s *appsv1.StatefulSet) { s.Status.ReadyReplicas++ }),
		}, "StatefulSet wakes n/e"},
		{pods, []schema.GroupVersionResource{sets}, changes{
			"conditions": as(func(p *corev1.Pod) { p.Status.Conditions = []corev1.PodCondition{ready} }),
			"containers": as(func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "emqx"}} }),
			"address":    as(func(p *corev1.Pod) { p.Status.PodIP = "10.0.0.2" }),
			"let go":     as(func(p *corev1.Pod) { p.Labels[v2beta1.LabelLetGo] = "true" }),
		}, changes{"labels": label, "finalizers": finalizer}, "Pod wakes n/e"},
		{services, nil, changes{
			"selector": as(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"a": "b"} }),
			"labels":   label,
		}, changes{
			"status": as(func(s *corev1.Service) { s.Status.Conditions = []metav1.Condition{{Type: "a"}} }),
		}, "Service wakes n/e"},
		{endpoints, []schema.GroupVersionResource{services}, changes{
			"endpoints": as(func(s *discoveryv1.EndpointSlice) {
				s.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.2"}}}
			}),
			// A list after a watch that broke off shows what was deleted and made again as changed.
			"another of its name": as(func(s *discoveryv1.EndpointSlice) { s.UID += "-again" }),
		}, changes{"labels": label}, "EndpointSlice wakes n/e"},
		{budgets, nil, changes{
			"numbers": as(func(b *policyv1.PodDisruptionBudget) { b.Spec.MinAvailable = ptr.To(intstr.FromInt32(1)) }),
			"selector": as(func(b *policyv1.PodDisruptionBudget) {
				b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
			}),
			"labels": label,
		}, changes{
			"status": as(func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 1 }),
		}, "PodDisruptionBudget wakes n/e"},
		{configMapsResource, nil, changes{"labels": label}, changes{"finalizers": finalizer}, "ConfigMap wakes n/e"},
		{secretsResource, nil, changes{"labels": label}, changes{"finalizers": finalizer}, "Secret wakes n/e"},
		{claimsResource, nil, changes{"labels": label}, changes{"finalizers": finalizer}, "PersistentVolumeClaim wakes n/e"},
	} {
		t.Run(row.resource.Resource, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for _, resource := range row.after {
					w.create(resource)
				}
				require.Equal(t, []string{row.wakes}, w.woke(func() { w.create(row.resource) }), "created")
				for what, change := range row.matters {
					require.Equal(t, []string{row.wakes}, w.woke(func() { w.change(row.resource, change) }), what)
				}
				for what, change := range row.others {
					require.Empty(t, w.woke(func() { w.change(row.resource, change) }), what)
				}
				name := w.objects[row.resource].(metav1.Object).GetName()
				require.Equal(t, []string{row.wakes}, w.woke(func() {
					require.NoError(t, w.trackers[row.resource].Delete(row.resource, "n", name))
				}), "deleted")
			})
		})
	}
}

// TestWrittenSecretWakes: what is in it matters, and only metadata is known.
func TestWrittenSecretWakes(t *testing.T) {
	before := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "e-node-cookie", ResourceVersion: "1"}}
	after := before.DeepCopy()
	require.False(t, secretChanged(before, after))
	after.ResourceVersion = "2"
	require.True(t, secretChanged(before, after))
}

// TestWhoIsWoken has the ways that lead nowhere, and the one that leads over a label.
func TestWhoIsWoken(t *testing.T) {
	for _, test := range []struct {
		reason   string
		resource schema.GroupVersionResource
		after    []schema.GroupVersionResource
		change   func(*world)
		want     []string
	}{
		{"a pod of a set that nobody knows", pods, nil, func(*world) {}, nil},
		{"a pod of another set of that name", pods, []schema.GroupVersionResource{sets}, func(w *world) { w.meta(pods).OwnerReferences[0].UID = "other" }, nil},
		{"a set of somebody else's", sets, nil, func(w *world) { w.meta(sets).OwnerReferences[0].APIVersion = "other/v1" }, nil},
		{"endpoints of the headless Service", endpoints, []schema.GroupVersionResource{services}, func(w *world) {
			w.objects[services].(*corev1.Service).Spec.ClusterIP = corev1.ClusterIPNone
		}, nil},
		{"a Secret that a person made anew", secretsResource, []schema.GroupVersionResource{emqxes}, func(w *world) {
			w.meta(secretsResource).OwnerReferences = nil
			w.meta(secretsResource).Labels[v2beta1.LabelInstance] = "e"
		}, []string{"Secret wakes n/e"}},
		{"a Secret that belongs to no resource that there is", secretsResource, nil, func(w *world) {
			w.meta(secretsResource).OwnerReferences = nil
			w.meta(secretsResource).Labels[v2beta1.LabelInstance] = "e"
		}, nil},
		{"a set that lost its owner and its labels, by its name", sets, []schema.GroupVersionResource{emqxes}, func(w *world) {
			w.meta(sets).OwnerReferences, w.meta(sets).Labels, w.meta(sets).Name = nil, nil, "e-core-5d8c"
		}, []string{"StatefulSet wakes n/e"}},
		{"a Service of somebody else's that stands in the way", services, []schema.GroupVersionResource{emqxes}, func(w *world) {
			w.meta(services).OwnerReferences[0].Kind, w.meta(services).Labels, w.meta(services).Name = "Other", nil, "e-listeners"
		}, []string{"Service wakes n/e"}},
		{"a budget of somebody else's that stands in the way", budgets, []schema.GroupVersionResource{emqxes}, func(w *world) {
			w.meta(budgets).OwnerReferences, w.meta(budgets).Labels, w.meta(budgets).Name = nil, nil, "e-core"
		}, []string{"PodDisruptionBudget wakes n/e"}},
		{"a pod that its set left behind", pods, []schema.GroupVersionResource{emqxes}, func(w *world) {
			w.meta(pods).OwnerReferences, w.meta(pods).Labels = nil, map[string]string{v2beta1.LabelInstance: "e", v2beta1.LabelManagedBy: v2beta1.ManagedBy}
		}, []string{"Pod wakes n/e"}},
		{"a claim by its label", claimsResource, []schema.GroupVersionResource{emqxes}, func(w *world) {
			w.meta(claimsResource).OwnerReferences, w.meta(claimsResource).Labels = nil, map[string]string{v2beta1.LabelInstance: "e", v2beta1.LabelManagedBy: v2beta1.ManagedBy}
		}, []string{"PersistentVolumeClaim wakes n/e"}},
		{"a Secret that a resource reads API keys from", secretsResource, []schema.GroupVersionResource{emqxes}, func(w *world) {
			w.meta(secretsResource).OwnerReferences, w.meta(secretsResource).Name = nil, "keys"
			ref := v2beta1.KeyRef{SecretName: "keys", SecretKey: "k"}
			w.objects[emqxes].(*v2beta1.EMQX).Spec.BootstrapAPIKeys = []v2beta1.BootstrapAPIKey{{SecretRef: &v2beta1.SecretRef{Key: ref, Secret: ref}}}
		}, []string{"Secret wakes n/e"}},
		{"a Secret with the CA that a resource trusts", secretsResource, []schema.GroupVersionResource{emqxes}, func(w *world) {
			w.meta(secretsResource).OwnerReferences, w.meta(secretsResource).Name = nil, "ca"
			w.objects[emqxes].(*v2beta1.EMQX).Spec.APITLS = &v2beta1.APITLS{CASecretName: "ca"}
		}, []string{"Secret wakes n/e"}},
		{"a Secret of nobody's", secretsResource, nil, func(w *world) { w.meta(secretsResource).OwnerReferences = nil }, nil},
		{"a Secret of another controller's", secretsResource, nil, func(w *world) {
			w.meta(secretsResource).OwnerReferences[0].Kind = "Other"
			w.meta(secretsResource).Labels[v2beta1.LabelInstance] = "e"
		}, nil},
	} {
		t.Run(test.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				test.change(w)
				for _, resource := range test.after {
					w.create(resource)
				}
				require.Equal(t, test.want, w.woke(func() { w.create(test.resource) }))
			})
		})
	}
}

// meta is the metadata of the world's object of a kind.
func (w *world) meta(resource schema.GroupVersionResource) *metav1.ObjectMeta {
	return w.objects[resource].(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta)
}

// Of a budget no status is kept, of another operator's also who owns which field, and of one of no cluster nothing.
func TestTrimBudget(t *testing.T) {
	budget := func(name string, operation metav1.ManagedFieldsOperationType) *policyv1.PodDisruptionBudget {
		return &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "manager", Operation: operation}}},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr.To(intstr.FromInt32(1))},
			Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1},
		}
	}
	own, foreign, other := budget("e-core", metav1.ManagedFieldsOperationApply), budget("e-core", metav1.ManagedFieldsOperationUpdate), budget("web", metav1.ManagedFieldsOperationUpdate)
	for _, object := range []*policyv1.PodDisruptionBudget{own, foreign, other} {
		_, err := trim(object)
		require.NoError(t, err)
		require.Zero(t, object.Status)
	}
	require.NotNil(t, own.Spec.MinAvailable)
	require.Empty(t, own.ManagedFields)
	require.NotNil(t, foreign.Spec.MinAvailable)
	require.NotEmpty(t, foreign.ManagedFields)
	require.Equal(t, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "n"}}, other)
}

// What is kept is what decisions are made from: of a Service that another operator made, also who owns which field; of what
// has nothing to do with a cluster, only which object it is.
func TestTrim(t *testing.T) {
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Name: name, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "manager", Operation: metav1.ManagedFieldsOperationApply}}, Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"a": "b"},
		}
	}
	own := &corev1.Service{ObjectMeta: meta("e-listeners"), Spec: corev1.ServiceSpec{Selector: map[string]string{v2beta1.LabelPodTemplateHash: "a"}}}
	foreign := &corev1.Service{ObjectMeta: meta("e-listeners"), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"}}
	foreign.ManagedFields[0].Operation = metav1.ManagedFieldsOperationUpdate
	other := &corev1.Service{ObjectMeta: meta("web"), Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1"}}
	domain := corev1.EnvVar{Name: resources.NodeDomainEnv, Value: "x"}
	container := corev1.Container{
		Name: "emqx", Image: "i", Ports: []corev1.ContainerPort{{Name: "dashboard"}}, Command: []string{"dropped"},
		Env: []corev1.EnvVar{{Name: "DROPPED"}, domain},
	}
	config := corev1.Volume{Name: resources.BootstrapConfigVolume}
	set := &appsv1.StatefulSet{ObjectMeta: meta("e-core-5d8c")}
	set.Spec.Template.Spec = corev1.PodSpec{Containers: []corev1.Container{container}, NodeName: "dropped", Volumes: []corev1.Volume{{Name: "dropped"}, config}}
	otherSet := set.DeepCopy()
	otherSet.Name = "database"
	wrote := func(fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{Manager: "kubectl-edit", Operation: metav1.ManagedFieldsOperationUpdate, FieldsV1: metav1.NewFieldsV1(fields)}
	}
	secret := &metav1.PartialObjectMetadata{ObjectMeta: meta("e-node-cookie")}
	secret.ManagedFields = []metav1.ManagedFieldsEntry{wrote(`{"f:metadata":{"f:labels":{}}}`), wrote(`{"f:data":{"f:node_cookie":{}}}`)}
	pod := &corev1.Pod{ObjectMeta: meta("e-core-5d8c-0"), Status: corev1.PodStatus{
		PodIP: "10.0.0.1", HostIP: "dropped", QOSClass: "dropped", ContainerStatuses: []corev1.ContainerStatus{{Name: "emqx", ContainerID: "c", Image: "dropped", Ready: true}},
	}}
	pod.Labels[v2beta1.LabelInstance] = "e"
	ready := true
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta("e-listeners-1"), Ports: []discoveryv1.EndpointPort{{}}, Endpoints: []discoveryv1.Endpoint{
		{Addresses: []string{"dropped"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "dropped", UID: "p"}}, {},
	}}
	slice.Labels[discoveryv1.LabelServiceName] = "e-listeners"
	for _, object := range []any{own, foreign, other, set, otherSet, secret, pod, slice} {
		kept, err := trim(object)
		require.NoError(t, err)
		require.Same(t, object, kept)
	}
	require.Empty(t, own.ManagedFields)
	require.Len(t, foreign.ManagedFields, 1)
	require.Equal(t, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, other)
	require.Empty(t, set.ManagedFields)
	container.Command, container.Env = nil, []corev1.EnvVar{domain}
	require.Equal(t, corev1.PodSpec{Containers: []corev1.Container{container}, Volumes: []corev1.Volume{config}}, set.Spec.Template.Spec)
	require.Empty(t, otherSet.Spec.Template.Spec)
	require.Equal(t, map[string]string{v2beta1.LabelInstance: "e"}, pod.Labels)
	require.Equal(t, corev1.PodStatus{PodIP: "10.0.0.1", ContainerStatuses: []corev1.ContainerStatus{{Name: "emqx", ContainerID: "c"}}}, pod.Status)
	require.Equal(t, map[string]string{discoveryv1.LabelServiceName: "e-listeners"}, slice.Labels)
	require.Equal(t, []discoveryv1.Endpoint{{Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: &corev1.ObjectReference{UID: "p"}}, {}}, slice.Endpoints)
	require.Equal(t, []metav1.ManagedFieldsEntry{{Manager: "kubectl-edit", FieldsV1: metav1.NewFieldsV1(fieldsOfData)}}, secret.ManagedFields, "who wrote the content")
}

// TestTrimClaim: of a claim it is kept which it is, and whether the operator had it go with the resource.
func TestTrimClaim(t *testing.T) {
	claim := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: "c", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{"a": "b"}, Finalizers: []string{"a/b"},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "other"}, {Manager: ClaimManager, FieldsV1: metav1.NewFieldsV1("{}")}},
	}}
	_, err := trimClaim(claim)
	require.NoError(t, err)
	require.Equal(t, metav1.ObjectMeta{
		Name: "c", Labels: map[string]string{"a": "b"}, Finalizers: []string{"a/b"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: ClaimManager}},
	}, claim.ObjectMeta)
}

// TestHeldPodsWakeTheirResource: also one that is gone, with the set.
func TestHeldPodsWakeTheirResource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		pod := w.meta(pods)
		pod.Labels[v2beta1.LabelInstance], pod.Finalizers = "e", []string{v2beta1.FinalizerForgotten}
		require.Equal(t, []string{"Pod wakes n/e"}, w.woke(func() { w.create(pods) }))
		found, err := w.caches.Held(cache.ObjectName{Namespace: "n", Name: "e"})
		require.NoError(t, err)
		require.Len(t, found, 1)
	})
}

// TestDrainedNodesWakeTheirTenants: who has a pod on a Kubernetes node learns that it is drained, and nothing else of it.
func TestDrainedNodesWakeTheirTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, resource := range []schema.GroupVersionResource{emqxes, sets, pods} {
			w.create(resource)
		}
		w.tenant("k")
		drain := func(change func(*corev1.Node)) []string { return w.woke(func() { w.change(nodes, as(change)) }) }
		wakes := []string{"Node wakes n/e"}
		for reason, taint := range map[string]string{"by Karpenter": "karpenter.sh/disrupted", "by the autoscaler": "ToBeDeletedByClusterAutoscaler"} {
			require.Equal(t, wakes, drain(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: taint}} }), reason)
			require.True(t, w.caches.Drained("k"), reason)
			require.Equal(t, wakes, drain(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "others"}} }), reason)
			require.False(t, w.caches.Drained("k"), reason)
		}
		require.Equal(t, wakes, drain(func(n *corev1.Node) { n.Spec.Unschedulable = true }))
		require.True(t, w.caches.Drained("k"))
		require.Empty(t, drain(func(n *corev1.Node) { n.Labels = map[string]string{"a": "b"} }))
		require.False(t, w.caches.Drained("another"))
	})
}

// tenant makes the Kubernetes node, which belongs to no namespace.
func (w *world) tenant(name string) {
	w.t.Helper()
	require.NoError(w.t, w.trackers[nodes].Create(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, ""))
	synctest.Wait()
}
