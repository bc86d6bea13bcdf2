package upgrade

import (
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubetesting "k8s.io/client-go/testing"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// violate reports that an invariant was broken.
func (w *simWorld) violate(format string, args ...any) {
	w.note("VIOLATION: "+format, args...)
	w.t.Errorf(format+"\n%s", append(args, strings.Join(w.history, "\n"))...)
}

// checkWrite holds what the operator is about to write against the invariants.
func (w *simWorld) checkWrite(action kubetesting.Action) {
	patch, ok := action.(kubetesting.PatchAction)
	switch {
	case ok && action.GetResource().Resource == "services" && !strings.Contains(patch.GetName(), "headless"):
		revision := between(string(patch.GetPatch()), `"apps.emqx.io/pod-template-hash":"`, `"`)
		w.checkSwitch(patch.GetName(), revision)
	case ok && action.GetSubresource() == "status" && action.GetResource().Resource == "pods" && strings.Contains(string(patch.GetPatch()), `"False"`):
		if node := w.nodes[w.nodeName(patch.GetName())]; node == nil || w.now().Sub(node.bootAt) > 10*time.Second {
			w.violate("closed the gate of %s, which is in the cluster", patch.GetName())
		}
	}
}

// oldestView is how old the view of a node may be that nobody knows to be silent: asked every second, answered in four.
const oldestView = 6 * time.Second

// checkSwitch is invariant 1: a Service is only ever pointed at a revision whose pods are all ready and whose nodes all
// run in the one cluster.
func (w *simWorld) checkSwitch(service, revision string) {
	exists := false
	for _, existing := range w.services() {
		if existing.Name == service {
			exists = true
			if existing.Spec.Selector[v2beta1.LabelPodTemplateHash] == "" && w.leadsToOnly(existing, revision) {
				return // It is adopted, and leads where it led.
			}
			if existing.Spec.Selector[v2beta1.LabelPodTemplateHash] == revision {
				return // It is being kept up, not pointed.
			}
		}
	}
	if !exists && revision == w.resource().Status.CoreNodesStatus.CurrentRevision {
		return // It was lost, and is put back as it was.
	}
	for _, set := range w.sets() {
		if set.Labels[v2beta1.LabelPodTemplateHash] != revision {
			continue
		}
		ready := int32(0)
		for _, pod := range w.pods() {
			node := w.nodes[w.nodeName(pod.Name)]
			// A node may have died since the operator asked it last.
			lately := node != nil && node.dead && w.now().Sub(node.diedAt) < oldestView
			if metav1.IsControlledBy(&pod, &set) && conditionOf(pod, v2beta1.ConditionOnServing) && node != nil && (node.joined || lately || w.vouches(node)) {
				ready++
			}
		}
		if ready < *set.Spec.Replicas {
			w.violate("Service %s was pointed at revision %s, of which %d of %d nodes run in the cluster", service, revision, ready, *set.Spec.Replicas)
		}
		if set.Annotations[v2beta1.AnnotationServingSince] == "" {
			w.violate("Service %s was pointed at a set that is not marked as serving", service)
		}
	}
}

// vouches reports whether a node is alone in its cluster, so that there is nothing to join.
func (w *simWorld) vouches(node *simNode) bool {
	for _, other := range w.nodes {
		if other != node && !other.dead {
			return false
		}
	}
	return node.up(w.now())
}

// leadsToOnly reports whether all ready endpoints of a Service are pods of the revision.
func (w *simWorld) leadsToOnly(service corev1.Service, revision string) bool {
	for _, slice := range w.slices() {
		if slice.Labels[discoveryv1.LabelServiceName] != service.Name {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if *endpoint.Conditions.Ready && !strings.HasPrefix(endpoint.TargetRef.Name, w.template.CoreSetName(revision)+"-") {
				return false
			}
		}
	}
	return true
}

// checkStart is invariants 2 and 4: no eviction before the slices hold the update revision alone, and never more than
// the rates that were asked for.
func (w *simWorld) checkStart(n *simNode, evacuation emqx.Evacuation) {
	w.note("evacuation of %s starts: %d/s to %v", n.name, evacuation.ConnEvictRate, evacuation.Recipients)
	for _, slice := range w.slices() {
		for _, endpoint := range slice.Endpoints {
			if strings.HasSuffix(slice.Name, "-listeners-slice") && w.nodeName(endpoint.TargetRef.Name) == n.name {
				w.violate("%s is evacuated while the listeners Service leads to it", n.name)
			}
		}
	}
	strategy := w.resource().Spec.UpdateStrategy.EvacuationStrategy
	var conn, sess int32
	for _, other := range w.nodes {
		if other.evac == nil || other.dead || w.sessions(other) == 0 {
			continue
		}
		sess += other.evac.sess
		if other.evac.state == emqx.StateEvictingConns || other.evac.state == emqx.StateWaitingHealthCheck {
			conn += other.evac.conn
		}
	}
	if conn > strategy.ConnEvictRate || sess > strategy.SessEvictRate {
		w.violate("evictions of %d/s and %d/s are asked for, of %d/s and %d/s allowed", conn, sess, strategy.ConnEvictRate, strategy.SessEvictRate)
	}
	if slices.Contains(evacuation.Recipients, n.name) || len(evacuation.Recipients) == 0 {
		w.violate("%s is evacuated to %v", n.name, evacuation.Recipients)
	}
}

// checkRemoval is invariant 3, by what is true and not by what was noted: no pod is removed while its node has clients or
// sessions.
func (w *simWorld) checkRemoval(pod corev1.Pod, set appsv1.StatefulSet) {
	node := w.nodes[w.nodeName(pod.Name)]
	if node == nil || node.dead || node.ip != pod.Status.PodIP {
		return
	}
	if live, sessions := w.live(node), w.sessions(node); live > 0 || sessions > 0 {
		w.violate("pod %s of set %s is removed while its node has %d clients and %d sessions", pod.Name, set.Name, live, sessions)
	}
}

// checkLoss is that nobody came back to a pod between its removal and its end. What a stranger deletes is no doing of the
// operator's.
func (w *simWorld) checkLoss(pod *corev1.Pod, node *simNode) {
	if sessions := w.sessions(node); sessions > 0 && !w.strangers[pod.UID] {
		w.violate("pod %s ends with %d sessions", pod.Name, sessions)
	}
}

// unsupervised is how long after the start of an operator evacuations may run as one before it left them.
const unsupervised = 8 * time.Second

// checkAway is invariant 12 by the clients themselves: never more of those that the broker told to go are away at once than
// may be. While there is no operator, or it has just begun, nobody follows them.
func (w *simWorld) checkAway() {
	away, all := 0, 0
	for _, c := range w.clients {
		if c.gone {
			continue
		}
		all++
		if c.node == nil && c.evicted {
			away++
		}
	}
	// Who was away when the clients were counted may come back unseen.
	limit := w.limit(len(w.clients))
	uncounted := w.uncounted
	if upgrade := w.resource().Status.Upgrade; upgrade != nil && upgrade.ClientsTotalTime != nil {
		uncounted = max(0, all-int(upgrade.ClientsTotal))
	}
	w.uncounted = max(w.uncounted, uncounted)
	if away <= limit { // Only now it is sure that none of them is away any more.
		w.excused, w.uncounted = 0, uncounted
	}
	limit += w.excused + w.uncounted
	if w.operator.dead || w.now().Sub(w.operator.began) < unsupervised {
		return
	}
	w.mostAway = max(w.mostAway, float64(away)/float64(limit))
	if away > limit {
		w.violate("%d clients of %d are away, of %d allowed", away, all, limit)
	}
}

// limit is how many of so many clients may be away.
func (w *simWorld) limit(clients int) int {
	if w.resource().Spec.UpdateStrategy.EvacuationStrategy.MaxUnavailableClients != nil {
		return clients
	}
	return max(1, (clients+9)/10)
}

// outageGrace is how long Kubernetes and the operator may take to lead clients to nodes that could serve them.
const outageGrace = time.Minute

// checkServing is invariant 13: while a set that has served is whole, clients are led to somebody.
func (w *simWorld) checkServing() {
	whole := false
	for _, set := range w.sets() {
		ready := int32(0)
		for _, pod := range w.pods() {
			if metav1.IsControlledBy(&pod, &set) && conditionOf(pod, corev1.PodReady) && pod.DeletionTimestamp.IsZero() {
				ready++
			}
		}
		whole = whole || set.Annotations[v2beta1.AnnotationServingSince] != "" && ready > 0 && ready == *set.Spec.Replicas
	}
	// While a node that may have clients is frozen, a switch is held, and so is the way to those who could serve.
	frozen := false
	for _, n := range w.nodes {
		frozen = frozen || !n.dead && w.now().Before(n.frozen.Add(10*time.Second))
	}
	if !whole || frozen || w.pick() != "" || w.operator.dead {
		w.outage = time.Time{}
		return
	}
	if w.outage.IsZero() {
		w.outage = w.now()
	}
	if w.now().Sub(w.outage) > outageGrace {
		w.violate("for %s no client is led to anybody, although a set is whole", w.now().Sub(w.outage))
		w.outage = w.now()
	}
}

// checkEnd is invariants 7 and 9: nothing is left behind.
func (w *simWorld) checkEnd() {
	w.mu.Lock()
	defer w.mu.Unlock()
	emqx := w.resource()
	replicas := int(*emqx.Spec.CoreTemplate.Spec.Replicas)
	sets := w.sets()
	if len(sets) != 1 {
		w.violate("%d sets are left", len(sets))
		return
	}
	if pods := w.pods(); len(pods) != replicas {
		w.violate("%d pods are left, of %d", len(pods), replicas)
	}
	if len(w.members) != replicas {
		w.violate("EMQX has %d members, of %d: %v", len(w.members), replicas, w.members)
	}
	for _, name := range w.configMaps() {
		if name != emqx.ConfigMapName() && name != emqx.RevisionConfigMapName(sets[0].Labels[v2beta1.LabelPodTemplateHash]) {
			w.violate("ConfigMap %s is left", name)
		}
	}
	for _, n := range w.nodes {
		if !n.dead && n.evac != nil {
			w.violate("an evacuation of %s is left", n.name)
		}
	}
	for _, kind := range resources.ServiceKinds() {
		name, revision := resources.ServiceName(emqx, kind), sets[0].Labels[v2beta1.LabelPodTemplateHash]
		if !slices.ContainsFunc(w.services(), func(service corev1.Service) bool {
			return service.Name == name && service.Spec.Selector[v2beta1.LabelPodTemplateHash] == revision
		}) {
			w.violate("Service %s is gone or selects another revision", name)
		}
	}
}

// dump is the world in words.
func (w *simWorld) dump() string {
	var b strings.Builder
	for _, set := range w.sets() {
		fmt.Fprintf(&b, "set %s: %d replicas, %v\n", set.Name, *set.Spec.Replicas, set.Annotations[v2beta1.AnnotationServingSince])
	}
	for _, pod := range w.pods() {
		fmt.Fprintf(&b, "pod %s %s deleting=%v: ready=%v containers=%v gate=%v\n", pod.Name, pod.Status.PodIP, pod.DeletionTimestamp != nil,
			conditionOf(pod, corev1.PodReady), conditionOf(pod, corev1.ContainersReady), conditionOf(pod, v2beta1.ConditionOnServing))
	}
	for _, service := range w.services() {
		fmt.Fprintf(&b, "service %s: %v\n", service.Name, service.Spec.Selector[v2beta1.LabelPodTemplateHash])
	}
	for _, slice := range w.slices() {
		for _, endpoint := range slice.Endpoints {
			fmt.Fprintf(&b, "endpoint %s: %s ready=%v\n", slice.Name, endpoint.TargetRef.Name, *endpoint.Conditions.Ready)
		}
	}
	for _, n := range w.nodes {
		fmt.Fprintf(&b, "node %s: joined=%v dead=%v frozen until %s, %d clients, %d sessions, evacuation %+v\n", n.name, n.joined, n.dead,
			n.frozen.Format("04:05"), w.live(n), w.sessions(n), n.evac)
	}
	fmt.Fprintf(&b, "members %v\n", w.members)
	fmt.Fprintf(&b, "operator since %s, writes that its caches have not seen: %v\n", w.operator.began.Format("04:05.000"), w.operator.controller.writes.all)
	return b.String()
}
