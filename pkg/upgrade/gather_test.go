package upgrade

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	"k8s.io/client-go/tools/cache"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	emqxfake "github.com/emqx-bg/emqx-bg-operator/pkg/generated/clientset/versioned/fake"
	"github.com/emqx-bg/emqx-bg-operator/pkg/informers"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// cluster is a resource with a set of one node, as this operator makes them.
type cluster struct {
	emqx    *v2beta1.EMQX
	set     *appsv1.StatefulSet
	pod     *corev1.Pod
	service *corev1.Service
	cookie  *metav1.PartialObjectMetadata
	budget  *policyv1.PodDisruptionBudget // Nil for none.
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	emqx := &v2beta1.EMQX{
		ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: "n", UID: "e-uid", Generation: 1},
		Spec:       v2beta1.EMQXSpec{Image: "emqx/emqx:1", ClusterDomain: "old.domain"},
	}
	config, err := resources.ConfigOf(emqx)
	require.NoError(t, err)
	intent, err := machine.IntentOf(emqx, config.Ports)
	require.NoError(t, err)
	set, err := resources.StatefulSet(emqx, resources.CoreSet{
		Revision: "5d8c", Replicas: 1, Ports: config.Ports, Intent: intent, ConfigMap: emqx.RevisionConfigMapName("5d8c"),
	})
	require.NoError(t, err)
	set.UID, set.ResourceVersion = "set-uid", "7"
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: set.Name + "-0", Namespace: "n", UID: "pod-uid", Labels: set.Spec.Template.Labels,
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))},
	}}
	owner := []metav1.OwnerReference{*metav1.NewControllerRef(emqx, v2beta1.SchemeGroupVersion.WithKind(v2beta1.Kind))}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "e-listeners", Namespace: "n", Labels: resources.Labels(emqx), OwnerReferences: owner},
		Spec:       corev1.ServiceSpec{Selector: resources.CoreRevisionLabels(emqx, "5d8c")},
	}
	cookie := &metav1.PartialObjectMetadata{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: "e-node-cookie", Namespace: "n", Labels: resources.Labels(emqx), OwnerReferences: owner},
	}
	return &cluster{emqx: emqx, set: set, pod: pod, service: service, cookie: cookie}
}

// snapshot is what is gathered of the cluster.
func (c *cluster) snapshot(t *testing.T) machine.Snapshot {
	t.Helper()
	objects := []runtime.Object{c.pod, c.service}
	if c.set != nil {
		objects = append(objects, c.set)
	}
	if c.budget != nil {
		objects = append(objects, c.budget)
	}
	caches, err := informers.New(informers.Clients{
		Kube: fake.NewSimpleClientset(objects...), EMQX: emqxfake.NewSimpleClientset(c.emqx),
		Metadata: metadatafake.NewSimpleMetadataClient(metadataScheme(), c.cookie),
	}, nil)
	require.NoError(t, err)
	require.NoError(t, caches.Handle(func(cache.ObjectName, string) {}, func() {}))
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		caches.Wait()
	})
	require.NoError(t, caches.Run(ctx))
	s, err := gather(caches, c.emqx, newConfigs().of(c.emqx), machine.Cookie{}, evacuate.Observation{}, time.Now())
	require.NoError(t, err)
	return s
}

func TestGatherSets(t *testing.T) {
	for _, test := range []struct {
		reason string
		change func(*cluster)
		check  func(*testing.T, machine.Set)
	}{
		{"a set as it was made", func(*cluster) {}, func(t *testing.T, set machine.Set) {
			require.Equal(t, "5d8c", set.Revision)
			require.Equal(t, "7", set.ResourceVersion)
			require.Equal(t, "e-configs-5d8c", set.ConfigMap)
			require.EqualValues(t, 1, set.Asked)
			require.False(t, set.Mislabelled)
			require.Len(t, set.Pods, 1)
		}},
		{"the domain is the set's, not the specification's", func(c *cluster) { c.emqx.Spec.ClusterDomain = "new.domain" }, func(t *testing.T, set machine.Set) {
			require.Equal(t, "emqx@e-core-5d8c-0.e-headless.n.svc.old.domain", set.Pods[0].Node)
		}},
		{"without its labels it is known by its name", func(c *cluster) { c.set.Labels = nil }, func(t *testing.T, set machine.Set) {
			require.Equal(t, "5d8c", set.Revision)
			require.True(t, set.Mislabelled)
		}},
		{"without its owner it is known by its notes", func(c *cluster) { c.set.OwnerReferences = nil }, func(t *testing.T, set machine.Set) {
			require.True(t, set.Mislabelled)
			require.Len(t, set.Pods, 1)
		}},
		{"an annotation that cannot be read stops nothing", func(c *cluster) { c.set.Annotations[v2beta1.AnnotationServicePorts] = "{" }, func(t *testing.T, set machine.Set) {
			require.NotEmpty(t, set.Ports.Dashboard)
			require.NotEmpty(t, set.Ports.Listeners)
		}},
		{"a time that cannot be read is not never", func(c *cluster) {
			c.set.CreationTimestamp, c.set.Annotations[v2beta1.AnnotationServingSince] = metav1.NewTime(time.Unix(7, 0)), "yesterday"
		}, func(t *testing.T, set machine.Set) { require.False(t, set.ServingSince.IsZero()) }},
		{"pods that their set left behind are a set", func(c *cluster) { c.set, c.pod.OwnerReferences = nil, nil }, func(t *testing.T, set machine.Set) {
			require.True(t, set.Orphaned)
			require.Equal(t, "5d8c", set.Revision)
			require.EqualValues(t, 1, set.Replicas)
		}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			c := newCluster(t)
			test.change(c)
			s := c.snapshot(t)
			require.Len(t, s.Sets, 1)
			test.check(t, s.Sets[0])
		})
	}
}

func TestGatherWhatIsTaken(t *testing.T) {
	another := []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "x", Controller: new(bool)}}
	*another[0].Controller = true
	for _, test := range []struct {
		reason string
		change func(*cluster)
		taken  []machine.Taken
		cookie machine.ObjectState
	}{
		{"nothing", func(*cluster) {}, nil, machine.Current},
		{"a Service of somebody else's", func(c *cluster) { c.service.OwnerReferences = another }, []machine.Taken{{Kind: "Service", Name: "e-listeners", Owner: "Deployment web"}}, machine.Current},
		{"one that nothing controls and that is not labelled", func(c *cluster) { c.service.OwnerReferences, c.service.Labels = nil, nil }, []machine.Taken{{Kind: "Service", Name: "e-listeners"}}, machine.Current},
		{"one that a person made again, with labels", func(c *cluster) { c.service.OwnerReferences = nil }, nil, machine.Current},
		{"a Secret that only lost its labels", func(c *cluster) { c.cookie.Labels = nil }, nil, machine.Current},
		{"a Secret that a person made again", func(c *cluster) { c.cookie.Labels, c.cookie.OwnerReferences = nil, nil }, nil, machine.Current},
		{"a Secret of the deleted resource of this name", func(c *cluster) { c.cookie.OwnerReferences[0].UID = "former" },
			[]machine.Taken{{Kind: "Secret", Name: "e-node-cookie", Owner: "EMQX e", Former: true}}, machine.Unavailable},
		{"a set of somebody else's that has our next name", func(c *cluster) {
			c.emqx.Spec.Image = "emqx/emqx:2"
			config, _ := resources.ConfigOf(c.emqx)
			target, _ := machine.TargetOf(&machine.Snapshot{EMQX: c.emqx, Config: config})
			c.set.Name, c.set.OwnerReferences = c.emqx.CoreSetName(target.Revision), another
		}, []machine.Taken{{Kind: "StatefulSet", Name: "e-core-", Owner: "Deployment web"}}, machine.Current},
	} {
		t.Run(test.reason, func(t *testing.T) {
			c := newCluster(t)
			// Two objects share the references that are changed here.
			c.cookie.OwnerReferences = append([]metav1.OwnerReference(nil), c.cookie.OwnerReferences...)
			test.change(c)
			s := c.snapshot(t)
			require.Len(t, s.Taken, len(test.taken))
			for i, want := range test.taken {
				require.Contains(t, s.Taken[i].Name, want.Name)
				want.Name = s.Taken[i].Name
				require.Equal(t, want, s.Taken[i])
			}
			require.Equal(t, test.cookie, s.CookieSecret)
		})
	}
}

func TestExtraKeyInASelectorIsADifference(t *testing.T) {
	c := newCluster(t)
	config, err := resources.ConfigOf(c.emqx)
	require.NoError(t, err)
	c.service = liveService(t, c.emqx, config.Ports)
	require.Equal(t, machine.Current, c.snapshot(t).Services[resources.Listeners].State)
	c.service.Spec.Selector["nobody"] = "has"
	require.Equal(t, machine.Outdated, c.snapshot(t).Services[resources.Listeners].State)
}

// liveService is the listeners Service as the API server shows it once it was applied.
func liveService(t *testing.T, emqx *v2beta1.EMQX, ports resources.Ports) *corev1.Service {
	t.Helper()
	applied, err := resources.Service(emqx, resources.Listeners, "5d8c", ports)
	require.NoError(t, err)
	data, err := json.Marshal(applied)
	require.NoError(t, err)
	var live corev1.Service
	require.NoError(t, json.Unmarshal(data, &live))
	return &live
}

// metadataScheme knows the metadata of every kind.
func metadataScheme() *runtime.Scheme {
	scheme := metadatafake.NewTestScheme()
	_ = metav1.AddMetaToScheme(scheme) // Cannot fail with these types.
	return scheme
}

// TestLostKubernetesNodes: what Kubernetes itself tells of a pod whose node is lost, as its node controller, taint eviction and
// collector of pods write it.
func TestLostKubernetesNodes(t *testing.T) {
	at := func(seconds int64) metav1.Time { return metav1.NewTime(time.Unix(1000+seconds, 0)) }
	conditions := func(ready, containers, gate corev1.ConditionStatus) []corev1.PodCondition {
		return []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: at(90)},
			{Type: corev1.PodReady, Status: ready, LastTransitionTime: at(30)},
			{Type: corev1.ContainersReady, Status: containers, LastTransitionTime: at(10)},
			{Type: v2beta1.ConditionOnServing, Status: gate, LastTransitionTime: at(20)},
		}
	}
	const yes, no = corev1.ConditionTrue, corev1.ConditionFalse
	due := at(60)
	for _, test := range []struct {
		reason  string
		change  func(*corev1.Pod)
		running bool
		since   metav1.Time
	}{
		{"all is well", func(p *corev1.Pod) { p.Status.Conditions = conditions(yes, yes, yes) }, true, metav1.Time{}},
		{"the node controller says not ready, and no kubelet does", func(p *corev1.Pod) { p.Status.Conditions = conditions(no, yes, yes) }, true, at(30)},
		{"a pod that is not ready for its own reasons", func(p *corev1.Pod) { p.Status.Conditions = conditions(no, no, yes) }, true, metav1.Time{}},
		{"one whose gate is closed", func(p *corev1.Pod) { p.Status.Conditions = conditions(no, yes, no) }, true, metav1.Time{}},
		{"one whose gate was opened a moment ago", func(p *corev1.Pod) {
			p.Status.Conditions = conditions(no, yes, yes)
			p.Status.Conditions[3].LastTransitionTime = at(40)
		}, true, at(40)},
		{"one that was to be gone by now", func(p *corev1.Pod) { p.DeletionTimestamp, p.Finalizers = &due, []string{"them/keep"} }, true, due},
		{"a node that is out of service: its pods have failed, whatever the container's last status", func(p *corev1.Pod) {
			p.Status.Conditions, p.Status.Phase = conditions(no, yes, yes), corev1.PodFailed
		}, false, metav1.Time{}},
	} {
		t.Run(test.reason, func(t *testing.T) {
			c := newCluster(t)
			c.pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: resources.EMQXContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
			test.change(c.pod)
			pod := c.snapshot(t).Sets[0].Pods[0]
			require.Equal(t, test.running, pod.ContainerRunning)
			require.True(t, test.since.Time.Equal(pod.UnreachableSince), pod.UnreachableSince)
		})
	}
}
