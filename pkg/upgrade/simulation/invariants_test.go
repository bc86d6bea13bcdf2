package simulation

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// truth is what the operator is judged by.
type truth struct {
	blindUntil   time.Time // Until when the operator cannot know what is so: its watches lag, or two of it are there.
	unprotected  time.Time // Since when the budget is not that of the revision that serves; zero for not.
	outage       time.Time // Since when nobody is led to anybody although somebody could be; zero for not.
	excused      int       // Clients that nodes evicted which nobody could stop.
	uncounted    int       // Clients that were away when they were counted.
	countedAt    time.Time // When the operator counted them last.
	departed     int       // Clients that left on their own since.
	limit        int       // The largest limit of late.
	refusedUntil time.Time // Until when the API server refused a kind of write: it is tried again within a minute.
	deadline     bool      // A user asked to give up evacuations after a time.
}

// blind notes that the operator cannot know what is so.
func (t *truth) blind(until time.Time) {
	if until = until.Add(oldestView); until.After(t.blindUntil) {
		t.blindUntil = until
	}
}

// oldestView is how old the view of a node may be that nobody knows to be silent: asked every second, answered in four.
const oldestView = 6 * time.Second

// unsupervised is how long after the start of an operator evacuations may run as one before it left them.
const unsupervised = 8 * time.Second

// sighted reports whether an operator is there and can know what is so.
func (w *world) sighted() bool {
	o := w.leader()
	return !o.dead && w.now().Sub(o.began) >= unsupervised && !w.now().Before(w.truth.blindUntil)
}

// violate reports that an invariant was broken.
func (w *world) violate(format string, args ...any) {
	w.t.Helper()
	w.note("VIOLATION: "+format, args...)
	w.t.Errorf(format+"\n%s", append(args, strings.Join(w.history, "\n"))...)
}

// checkAlways holds the world against the invariants at every step.
func (w *world) checkAlways() {
	w.checkAway()
	if w.now().Sub(w.now().Truncate(time.Second)) < tick {
		w.checkServing()
		w.checkBudget()
	}
}

// checkWrite holds what the operator writes against the invariants.
func (w *world) checkWrite(before, after object) {
	switch after := after.(type) {
	case *corev1.Service:
		if after.Name != w.names.HeadlessServiceName() {
			w.checkSwitch(before.(*corev1.Service), after)
		}
	case *corev1.Pod:
		b := w.brokers[after.Name]
		closes := isTrue(before.(*corev1.Pod), v2beta1.ConditionOnServing) && !isTrue(after, v2beta1.ConditionOnServing) &&
			!startedAgain(before.(*corev1.Pod))
		moved := w.moves() && w.isDrained(after.Name)
		if closes && !moved && b != nil && !b.dead && b.joined && !b.isGivenUp(w.now()) && w.now().Sub(b.bootAt) > 10*time.Second && len(w.cuts) == 0 && w.sighted() {
			w.violate("closed the gate of %s, which is in the cluster", after.Name)
		}
	}
}

// startedAgain reports whether a gate was opened for another container than the one that runs.
func startedAgain(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == v2beta1.ConditionOnServing && len(pod.Status.ContainerStatuses) > 0 {
			return !strings.HasSuffix(pod.Status.ContainerStatuses[0].ContainerID, strings.TrimPrefix(condition.Reason, "Container"))
		}
	}
	return false
}

// checkStatus is that no status contradicts itself.
func (w *world) checkStatus(emqx *v2beta1.EMQX) {
	conditions := emqx.Status.Conditions
	if meta.IsStatusConditionTrue(conditions, v2beta1.ConditionReady) && !meta.IsStatusConditionTrue(conditions, v2beta1.ConditionAvailable) {
		w.violate("Ready without Available: %+v", conditions)
	}
	if upgrade := emqx.Status.Upgrade; upgrade != nil && upgrade.HeldReason != "" {
		w.happen("held: " + upgrade.HeldReason)
	}
	if stalled := meta.FindStatusCondition(conditions, v2beta1.ConditionStalled); stalled != nil && stalled.Status == metav1.ConditionTrue {
		w.happen("stalled: " + stalled.Reason)
	}
}

// checkSwitch is invariant 1: a Service is only ever pointed at a revision whose pods are all ready and whose nodes all
// run in the one cluster.
func (w *world) checkSwitch(before, after *corev1.Service) {
	revision := after.Spec.Selector[v2beta1.LabelPodTemplateHash]
	emqx := w.resource()
	switch {
	case revision == "":
		w.violate("Service %s is pointed at no revision", after.Name)
		return
	case emqx == nil || !w.sighted():
		return
	case before != nil && before.Spec.Selector[v2beta1.LabelPodTemplateHash] == revision:
		return // It is being kept up, not pointed.
	case after.Name == w.names.DashboardServiceName() && w.listenersSelect(revision):
		return // It follows.
	case before != nil && before.Spec.Selector[v2beta1.LabelPodTemplateHash] == "" && w.leadsToOnly(before, revision):
		return // It is adopted, and leads where it led.
	case before == nil && revision == emqx.Status.CoreNodesStatus.CurrentRevision:
		return // It was lost, and is put back as it was.
	}
	for _, set := range all[*appsv1.StatefulSet](w.kube, statefulSets) {
		if set.Name != w.names.CoreSetName(revision) {
			continue
		}
		ready := int32(0)
		for _, pod := range all[*corev1.Pod](w.kube, pods) {
			b := w.brokers[pod.Name]
			// A node may have died since the operator asked it last.
			lately := b != nil && w.now().Sub(b.diedAt) < oldestView
			if metav1.IsControlledBy(pod, set) && isTrue(pod, v2beta1.ConditionOnServing) && b != nil && (b.joined || lately || w.isAlone(b)) {
				ready++
			}
		}
		// What a stranger added just now is not waited for.
		if asked := min(*set.Spec.Replicas, *emqx.Spec.CoreTemplate.Spec.Replicas); ready < asked {
			w.violate("Service %s is pointed at revision %s, of which %d of %d nodes run in the cluster", after.Name, revision, ready, asked)
		}
		if set.Annotations[v2beta1.AnnotationServingSince] == "" {
			w.violate("Service %s is pointed at a set that is not marked as serving", after.Name)
		}
	}
}

// listenersSelect reports whether the listeners Service selects a revision.
func (w *world) listenersSelect(revision string) bool {
	service, exists := get[*corev1.Service](w.kube, services, w.names.ListenersServiceName())
	return exists && service.Spec.Selector[v2beta1.LabelPodTemplateHash] == revision
}

// isAlone reports whether a node has nothing to join.
func (w *world) isAlone(b *broker) bool {
	for _, other := range w.brokers {
		if other != b && !other.dead {
			return false
		}
	}
	return b.up(w.now())
}

// leadsToOnly reports whether all ready endpoints of a Service are pods of the revision.
func (w *world) leadsToOnly(service *corev1.Service, revision string) bool {
	return every(w.endpointsOf(service.Name), func(pod string) bool {
		return strings.HasPrefix(pod, w.names.CoreSetName(revision)+"-")
	})
}

// checkStart is invariants 2 and 4: no eviction before the slices hold the update revision alone, and never more than
// the rates that were asked for.
func (w *world) checkStart(by *operator, b *broker, asked emqx.Evacuation) {
	w.note("operator %d: evacuation of %s starts: %d/s to %v", by.life, b.name, asked.ConnEvictRate, asked.Recipients)
	if slices.Contains(asked.Recipients, b.name) || len(asked.Recipients) == 0 {
		w.violate("%s is evacuated to %v", b.name, asked.Recipients)
	}
	resource := w.resource()
	if resource == nil || !w.sighted() {
		return
	}
	if len(w.rebalances) > 0 {
		w.violate("%s is evacuated while a rebalance runs", b.name)
	}
	if _, exists := get[*corev1.Service](w.kube, services, w.names.ListenersServiceName()); exists {
		for _, pod := range w.endpointsOf(w.names.ListenersServiceName()) {
			if w.brokers[pod] == b {
				w.violate("%s is evacuated while the listeners Service leads to it", b.name)
			}
		}
	}
	var conn, sess int32
	for _, other := range w.brokers {
		if other.evac == nil || other.dead || w.sessions(other) == 0 || !other.evac.byHand.IsZero() {
			continue
		}
		sess += other.evac.sess
		if other.evac.state == emqx.StateEvictingConns || other.evac.state == emqx.StateWaitingHealthCheck {
			conn += other.evac.conn
		}
	}
	if strategy := resource.Spec.UpdateStrategy.EvacuationStrategy; conn > strategy.ConnEvictRate || sess > strategy.SessEvictRate {
		w.violate("evictions of %d/s and %d/s are asked for, of %d/s and %d/s allowed", conn, sess, strategy.ConnEvictRate, strategy.SessEvictRate)
	}
}

// checkRemoval is invariant 3, by what is true and not by what was noted: no pod is removed while its node has clients or
// sessions, unless a user asked for it.
func (w *world) checkRemoval(pod *corev1.Pod, set *appsv1.StatefulSet) {
	b := w.brokers[pod.Name]
	// Of a node that never had a client and does not run, or not for long, nobody can ask what it holds.
	site := w.onSite(w.diskOf(pod))
	if w.isOurs(set) && (set.Annotations[v2beta1.AnnotationServingSince] != "" || site != nil && w.now().Sub(site.bootAt) > oldestView) {
		w.checkData(pod)
	}
	if b == nil || b.dead || b.ip != pod.Status.PodIP || w.truth.deadline || !w.isOurs(set) {
		return
	}
	if live, sessions := w.live(b), w.sessions(b); live > 0 || sessions > 0 {
		w.violate("pod %s of set %s is removed while its node has %d clients and %d sessions", pod.Name, set.Name, live, sessions)
	}
}

// checkDeletion is that the pods of a set that is deleted may go with it, which they do.
func (w *world) checkDeletion(set *appsv1.StatefulSet) {
	for _, pod := range all[*corev1.Pod](w.kube, pods) {
		if metav1.IsControlledBy(pod, set) && pod.DeletionTimestamp.IsZero() {
			w.checkRemoval(pod, set)
		}
	}
}

// checkLoss is that nobody came back to a pod between its removal and its end. What a stranger deletes is no doing of the
// operator's.
func (w *world) checkLoss(pod *corev1.Pod, b *broker) {
	if sessions := w.sessions(b); sessions > 0 && !w.strangers[pod.UID] && !w.truth.deadline && b.owner == w.owner && !w.replaced[pod.UID] {
		w.violate("pod %s ends with %d sessions", pod.Name, sessions)
	}
}

// checkAway is invariant 12 by the clients themselves: never more of those that the broker told to go are away at once than
// may be. While nobody can know, nobody follows them.
func (w *world) checkAway() {
	emqx := w.resource()
	if emqx == nil {
		return
	}
	total := w.clients()
	away := int(w.count(func(g *group) bool { return !g.gone && g.node == nil && g.evicted }))
	// Who was away when the clients were counted may come back unseen.
	limit := w.limit(emqx, int(w.count(func(*group) bool { return true })))
	uncounted := w.truth.uncounted
	if upgrade := emqx.Status.Upgrade; upgrade != nil && upgrade.ClientsTotalTime != nil {
		if at := upgrade.ClientsTotalTime.Time; !at.Equal(w.truth.countedAt) {
			w.truth.countedAt, w.truth.departed = at, 0
		}
		uncounted = max(0, total+w.truth.departed-int(upgrade.ClientsTotal))
	}
	if drain := emqx.Status.Drain; drain != nil && drain.ClientsTotalTime != nil {
		if at := drain.ClientsTotalTime.Time; !at.Equal(w.truth.countedAt) {
			w.truth.countedAt, w.truth.departed = at, 0
		}
		uncounted = max(0, total+w.truth.departed-int(drain.ClientsTotal))
	}
	w.truth.uncounted = max(w.truth.uncounted, uncounted)
	w.truth.limit = max(w.truth.limit, limit) // One that was lowered holds for those who are evicted from now on.
	if away <= limit {                        // Only now it is sure that none of them is away any more.
		w.truth.excused, w.truth.uncounted, w.truth.limit = 0, uncounted, limit
	}
	if !w.sighted() {
		w.truth.excused = max(w.truth.excused, away)
		return
	}
	allowed := w.truth.limit + w.truth.excused + w.truth.uncounted
	if 2*away > allowed {
		w.happen("more than half of those away that may be")
	}
	if away > allowed {
		w.violate("%d clients of %d are away, of %d allowed", away, total, allowed)
	}
}

// limit is how many of so many clients may be away.
func (w *world) limit(emqx *v2beta1.EMQX, clients int) int {
	limit := intstr.FromString("10%")
	if asked := emqx.Spec.UpdateStrategy.EvacuationStrategy.MaxUnavailableClients; asked != nil {
		limit = *asked
	}
	value, err := intstr.GetScaledValueFromIntOrPercent(&limit, clients, true)
	if err != nil {
		w.t.Fatalf("limit of clients away: %v", err)
	}
	return max(1, value)
}

// outageGrace is how long Kubernetes and the operator may take to lead clients to nodes that could serve them.
const outageGrace = 30 * time.Second

// checkServing is invariant 13: while a set that has served is whole, clients are led to somebody.
func (w *world) checkServing() {
	whole := false
	for _, set := range all[*appsv1.StatefulSet](w.kube, statefulSets) {
		ready := int32(0)
		for _, pod := range all[*corev1.Pod](w.kube, pods) {
			if metav1.IsControlledBy(pod, set) && isTrue(pod, corev1.PodReady) && pod.DeletionTimestamp.IsZero() {
				ready++
			}
		}
		whole = whole || w.isOurs(set) && set.Annotations[v2beta1.AnnotationServingSince] != "" && ready > 0 && ready == *set.Spec.Replicas
	}
	// While a node that may have clients is frozen, a switch is held, and so is the way to those who could serve.
	frozen := false
	for _, b := range w.brokers {
		frozen = frozen || !b.dead && w.now().Before(b.frozen.Add(10*time.Second))
	}
	if !whole || frozen || len(w.doors()) > 0 || !w.sighted() || w.refused != "" || w.now().Sub(w.truth.refusedUntil) < time.Minute {
		w.truth.outage = time.Time{}
		return
	}
	if w.truth.outage.IsZero() {
		w.truth.outage = w.now()
	}
	if w.now().Sub(w.truth.outage) > outageGrace {
		w.violate("for %s no client is led to anybody, although a set is whole", w.now().Sub(w.truth.outage))
		w.truth.outage = w.now()
	}
}

// budgetGrace is how long the operator may take to have the budget follow the listeners Service.
const budgetGrace = 30 * time.Second

// checkBudget is invariant 16: the budget protects the revision that the listeners Service selects, and no other.
func (w *world) checkBudget() {
	service, switched := get[*corev1.Service](w.kube, services, w.names.ListenersServiceName())
	budget, exists := get[*policyv1.PodDisruptionBudget](w.kube, budgets, w.names.CoreBudgetName())
	if !switched || !exists || w.resource() == nil || !w.isOurs(budget) || !w.sighted() || w.refused != "" || w.now().Sub(w.truth.refusedUntil) < time.Minute {
		w.truth.unprotected = time.Time{}
		return
	}
	serves := service.Spec.Selector[v2beta1.LabelPodTemplateHash]
	protected := serves
	if w.moves() {
		protected = "" // All are.
	}
	_, stands := get[*appsv1.StatefulSet](w.kube, statefulSets, w.names.CoreSetName(serves))
	if serves == "" || !stands || budget.Spec.Selector.MatchLabels[v2beta1.LabelPodTemplateHash] == protected {
		w.truth.unprotected = time.Time{}
		return
	}
	if w.truth.unprotected.IsZero() {
		w.truth.unprotected = w.now()
	}
	if w.now().Sub(w.truth.unprotected) > budgetGrace {
		w.violate("for %s the budget is not that of revision %s, which serves: %v", w.now().Sub(w.truth.unprotected), serves, budget.Spec.Selector)
		w.truth.unprotected = w.now()
	}
}

// checkBudgetEnd is that there is one budget, of the revision that serves, or none where none is wanted.
func (w *world) checkBudgetEnd(emqx *v2beta1.EMQX, revision string) {
	existing := all[*policyv1.PodDisruptionBudget](w.kube, budgets)
	wanted := 0
	if resources.BudgetWanted(emqx, *emqx.Spec.CoreTemplate.Spec.Replicas) {
		wanted = 1
	}
	if len(existing) != wanted {
		w.violate("there are %d budgets, wanted: %d", len(existing), wanted)
		return
	}
	for _, budget := range existing {
		w.happen("a budget at the end")
		if w.moves() {
			revision = ""
		}
		if !resources.SameBudget(budget, emqx, revision) {
			w.violate("the budget is not that of revision %s as it was asked for: %+v", revision, budget.Spec)
		}
	}
}

// checkEnd is invariants 7 and 9: nothing is left behind.
func (w *world) checkEnd() {
	emqx := w.resource()
	replicas := int(*emqx.Spec.CoreTemplate.Spec.Replicas)
	sets := all[*appsv1.StatefulSet](w.kube, statefulSets)
	if len(sets) != 1 {
		w.violate("%d sets are left", len(sets))
		return
	}
	revision := sets[0].Labels[v2beta1.LabelPodTemplateHash]
	if left := all[*corev1.Pod](w.kube, pods); len(left) != replicas {
		w.violate("%d pods are left, of %d", len(left), replicas)
	}
	if len(w.members) != replicas {
		w.violate("EMQX has %d members, of %d: %v", len(w.members), replicas, w.members)
	}
	template := cmp.Or(sets[0].Annotations[v2beta1.AnnotationRevision], revision)
	for _, configMap := range all[*corev1.ConfigMap](w.kube, configMaps) {
		if configMap.Name != emqx.ConfigMapName() && configMap.Name != emqx.RevisionConfigMapName(template) {
			w.violate("ConfigMap %s is left", configMap.Name)
		}
	}
	w.checkStorageEnd()
	w.checkBudgetEnd(emqx, revision)
	w.checkClaimsEnd(revision, replicas)
	w.checkKeysEnd(emqx)
	for _, b := range w.brokers {
		if !b.dead && b.evac != nil {
			w.violate("an evacuation of %s is left", b.name)
		}
	}
	for _, kind := range resources.ServiceKinds() {
		service, exists := get[*corev1.Service](w.kube, services, resources.ServiceName(emqx, kind))
		switch wanted := resources.ServiceEnabled(emqx, kind); {
		case exists != wanted:
			w.violate("Service %s exists: %v, wanted: %v", resources.ServiceName(emqx, kind), exists, wanted)
		case exists && service.Spec.Selector[v2beta1.LabelPodTemplateHash] != revision:
			w.violate("Service %s selects another revision", service.Name)
		}
	}
}

// dump is the world in words.
func (w *world) dump() string {
	var b strings.Builder
	for _, set := range all[*appsv1.StatefulSet](w.kube, statefulSets) {
		fmt.Fprintf(&b, "set %s: %d replicas, %v\n", set.Name, *set.Spec.Replicas, set.Annotations[v2beta1.AnnotationServingSince])
	}
	for _, pod := range all[*corev1.Pod](w.kube, pods) {
		fmt.Fprintf(&b, "pod %s %s on %s deleting=%v: ready=%v containers=%v gate=%v\n", pod.Name, pod.Status.PodIP, pod.Spec.NodeName, pod.DeletionTimestamp != nil,
			isTrue(pod, corev1.PodReady), isTrue(pod, corev1.ContainersReady), isTrue(pod, v2beta1.ConditionOnServing))
	}
	for _, service := range all[*corev1.Service](w.kube, services) {
		fmt.Fprintf(&b, "service %s: %v, leads to %v\n", service.Name, service.Spec.Selector, w.endpointsOf(service.Name))
	}
	for _, n := range ordered(w.brokers) {
		fmt.Fprintf(&b, "node %s: joined=%v dead=%v frozen until %s, %d clients, %d sessions, evacuation %+v\n", n.name, n.joined, n.dead,
			n.frozen.Format("04:05"), w.live(n), w.sessions(n), n.evac)
	}
	fmt.Fprintf(&b, "members %v\n%d of %d clients connected\n", w.members, w.count(func(g *group) bool { return g.node != nil }), w.clients())
	return b.String()
}
