package simulation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
	"github.com/emqx-bg/emqx-bg-operator/pkg/upgrade/machine"
)

// create makes the resource, as a user does.
func (w *world) create(emqx *v2beta1.EMQX) {
	w.kube.put(emqxes, emqx)
	w.owner, w.most = emqx.UID, max(w.most, *emqx.Spec.CoreTemplate.Spec.Replicas)
}

// plan draws what will happen: an upgrade, and a minute at most in which anything may.
func (w *world) plan() {
	w.edit("upgrade to image 2", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:2" })
	w.leader().killAfter = w.rng.IntN(60)
	w.calmAt = w.now().Add(time.Duration(w.rng.IntN(60)) * time.Second)
}

// disturb has something happen now and then, until it gets calm.
func (w *world) disturb() {
	if !w.reborn.IsZero() && !w.now().Before(w.reborn) {
		w.reborn = time.Time{}
		w.note("user: the resource is made again")
		emqx := w.names.DeepCopy()
		if nodes := int32(1 + w.rng.IntN(3)); !w.unlicensed {
			emqx.Spec.CoreTemplate.Spec.Replicas = &nodes
		}
		w.create(emqx)
	}
	if !w.cookies.IsZero() && !w.now().Before(w.cookies) {
		w.putCookieBack()
	}
	w.deleteFormerClaims()
	w.tickRebalanceUsers()
	switch {
	case w.calm:
		w.help()
	case w.calmAt.IsZero():
	case !w.now().Before(w.calmAt):
		w.calmDown()
	case w.rng.IntN(12) == 0:
		w.draw()
	}
}

// draw has one thing happen.
func (w *world) draw() {
	total := 0
	for _, e := range happenings {
		total += e.weight
	}
	drawn := w.rng.IntN(total)
	for _, e := range happenings {
		if drawn -= e.weight; drawn < 0 {
			if e.do(w) {
				w.happen(e.what)
			}
			return
		}
	}
}

// calmDown ends every fault, and has users ask for what can be had.
func (w *world) calmDown() {
	if w.refused != "" {
		w.truth.refusedUntil = w.now()
	}
	w.calm, w.refused = true, ""
	w.note("it gets calm")
	w.stopByHand()
	clear(w.cuts)
	w.unschedulable = w.now()
	for _, h := range w.machines {
		h.down = w.now()
	}
	if !w.reborn.IsZero() {
		w.reborn = w.now()
	}
	if !w.cookies.IsZero() {
		w.cookies = w.now()
	}
	emqx := w.resource()
	if emqx == nil {
		return
	}
	if emqx.Spec.UpdateStrategy.Paused {
		w.edit("unpause", func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = false })
	}
	if strings.Contains(emqx.Spec.Image, "bad") {
		w.edit("correct the image", func(spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:5" })
	}
	if emqx.Spec.Config.Data == badConfig {
		w.edit("correct the configuration", func(spec *v2beta1.EMQXSpec) { spec.Config.Data = "" })
	}
}

// mostAsked is how often a person asks for what can be had without a licence before he follows the other advice.
const mostAsked = 20

// help is what a person does about what only a person can mend.
func (w *world) help() {
	emqx := w.resource()
	if emqx != nil && machine.StalledReason(emqx.Status) == "LicenceAllowsOneNode" && emqx.Status.ObservedGeneration == emqx.Generation {
		if w.asked++; w.asked > mostAsked {
			w.note("user: gives EMQX a licence")
			w.happen("a licence that was bought")
			w.unlicensed = false
		}
		w.edit("ask for what can be had without a licence", w.buyNothing)
		return
	}
	if emqx == nil || *emqx.Spec.CoreTemplate.Spec.Replicas == w.most || w.unlicensed {
		return
	}
	if stalled := meta.FindStatusCondition(emqx.Status.Conditions, v2beta1.ConditionStalled); stalled != nil && stalled.Reason == "Unsupported" {
		w.edit("ask for as many nodes as before", func(spec *v2beta1.EMQXSpec) { spec.CoreTemplate.Spec.Replicas = ptr.To(w.most) })
	}
}

// happening is something that may happen; do reports whether it did.
type happening struct {
	what   string
	weight int
	do     func(*world) bool
}

const badConfig = "listeners {"

var happenings = slices.Concat(edits(), volumeEdits(), faults(), doings())

// edits are what users do to the resource: some do it to every field that means something.
func edits() []happening {
	edit := func(weight int, what string, change func(*world, *v2beta1.EMQXSpec)) happening {
		return happening{what, weight, func(w *world) bool {
			return w.edit(what, func(spec *v2beta1.EMQXSpec) { change(w, spec) })
		}}
	}
	core := func(spec *v2beta1.EMQXSpec) *v2beta1.EMQXReplicantTemplateSpec {
		return &spec.CoreTemplate.Spec.EMQXReplicantTemplateSpec
	}
	evacuation := func(spec *v2beta1.EMQXSpec) *v2beta1.EvacuationStrategy {
		return &spec.UpdateStrategy.EvacuationStrategy
	}
	toggle := func(template **v2beta1.ServiceTemplate) {
		if *template == nil {
			*template = &v2beta1.ServiceTemplate{}
		}
		(*template).Enabled = ptr.To(!ptr.Deref((*template).Enabled, true))
	}
	return []happening{
		edit(4, "another revision in mid-upgrade", func(_ *world, spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:3" }),
		edit(5, "a revert", func(_ *world, spec *v2beta1.EMQXSpec) { spec.Image = "emqx/emqx:1" }),
		edit(2, "a bad image", func(_ *world, spec *v2beta1.EMQXSpec) { spec.Image = "emqx/bad:4" }),
		edit(1, "a bad configuration", func(_ *world, spec *v2beta1.EMQXSpec) { spec.Config.Data = badConfig }),
		edit(2, "another configuration", func(w *world, spec *v2beta1.EMQXSpec) {
			spec.Config.Data = fmt.Sprintf("listeners.tcp.default.bind = %d", 1883+w.rng.IntN(3))
		}),
		edit(4, "a pause, or its end", func(_ *world, spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = !spec.UpdateStrategy.Paused }),
		edit(3, "other rates", func(w *world, spec *v2beta1.EMQXSpec) {
			evacuation(spec).ConnEvictRate, evacuation(spec).SessEvictRate = w.anyRate(), w.anyRate()
		}),
		edit(1, "rates a bit higher", func(_ *world, spec *v2beta1.EMQXSpec) {
			evacuation(spec).ConnEvictRate++
			evacuation(spec).SessEvictRate++
		}),
		edit(1, "another limit", func(w *world, spec *v2beta1.EMQXSpec) {
			evacuation(spec).MaxUnavailableClients = ptr.To(intstr.FromString(fmt.Sprintf("%d%%", 5+w.rng.IntN(40))))
		}),
		edit(1, "another takeover time", func(w *world, spec *v2beta1.EMQXSpec) { evacuation(spec).WaitTakeover = int32(w.rng.IntN(6)) }),
		edit(1, "a deadline for evacuations", func(w *world, spec *v2beta1.EMQXSpec) {
			evacuation(spec).DeadlineSeconds = ptr.To(int32(30 + w.rng.IntN(90)))
			w.truth.deadline = true
		}),
		edit(1, "another deadline for progress", func(_ *world, spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.ProgressDeadlineSeconds = ptr.To(int32(20))
		}),
		edit(1, "another delay", func(w *world, spec *v2beta1.EMQXSpec) {
			spec.UpdateStrategy.InitialDelaySeconds = int32(w.rng.IntN(10))
		}),
		edit(1, "another environment", func(w *world, spec *v2beta1.EMQXSpec) {
			core(spec).Env = []corev1.EnvVar{{Name: "ANY", Value: strconv.Itoa(w.rng.IntN(3))}}
		}),
		edit(1, "other resources", func(_ *world, spec *v2beta1.EMQXSpec) {
			core(spec).Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")}
		}),
		edit(1, "other labels of pods", func(_ *world, spec *v2beta1.EMQXSpec) {
			spec.CoreTemplate.ObjectMeta.Labels = map[string]string{"team": "any"}
		}),
		edit(2, "other API keys", func(w *world, spec *v2beta1.EMQXSpec) {
			spec.BootstrapAPIKeys = []v2beta1.BootstrapAPIKey{{Key: "user", Secret: fmt.Sprint("secret", w.rng.Uint32())}}
		}),
		edit(1, "another domain", func(_ *world, spec *v2beta1.EMQXSpec) { spec.ClusterDomain = "other.local" }),
		edit(1, "another pull policy", func(_ *world, spec *v2beta1.EMQXSpec) { spec.ImagePullPolicy = corev1.PullAlways }),
		edit(1, "more nodes", func(w *world, spec *v2beta1.EMQXSpec) {
			core(spec).Replicas = ptr.To(min(5, *core(spec).Replicas+1))
			w.most = max(w.most, *core(spec).Replicas)
		}),
		edit(1, "fewer nodes with other pods", func(w *world, spec *v2beta1.EMQXSpec) {
			core(spec).Replicas = ptr.To(max(1, *core(spec).Replicas-1))
			core(spec).Env = []corev1.EnvVar{{Name: "FEWER", Value: strconv.Itoa(w.rng.IntN(100))}}
		}),
		edit(1, "another budget", func(w *world, spec *v2beta1.EMQXSpec) {
			core(spec).MinAvailable, core(spec).MaxUnavailable = nil, nil
			switch w.rng.IntN(3) {
			case 0:
				core(spec).MinAvailable = ptr.To(intstr.FromInt32(1))
			case 1:
				core(spec).MaxUnavailable = ptr.To(intstr.FromString("50%"))
			}
		}),
		edit(1, "listeners Service on or off", func(_ *world, spec *v2beta1.EMQXSpec) { toggle(&spec.ListenersServiceTemplate) }),
		edit(1, "dashboard Service on or off", func(_ *world, spec *v2beta1.EMQXSpec) { toggle(&spec.DashboardServiceTemplate) }),
		edit(1, "another port of the Service", func(_ *world, spec *v2beta1.EMQXSpec) {
			enabled := (*bool)(nil)
			if spec.ListenersServiceTemplate != nil {
				enabled = spec.ListenersServiceTemplate.Enabled
			}
			spec.ListenersServiceTemplate = &v2beta1.ServiceTemplate{Enabled: enabled, Spec: corev1.ServiceSpec{
				Ports: []corev1.ServicePort{{Name: "extra", Port: 8885, TargetPort: intstr.FromInt32(1885)}},
			}}
		}),
		{"deleted and made again", 1, (*world).recreate},
		{"an evacuation by hand", 2, (*world).evacuateByHand},
	}
}

// recreate deletes the resource, which is made again soon.
func (w *world) recreate() bool {
	if w.resource() == nil || w.lives == 0 {
		return false
	}
	w.note("user: the resource is deleted")
	w.kube.remove(emqxes, name)
	clear(w.members)
	w.openStorage()
	w.owner = ""
	w.reborn = w.now().Add(time.Duration(w.rng.IntN(20000)) * time.Millisecond)
	w.truth.blind(w.reborn.Add(unsupervised)) // Nobody follows the clients meanwhile.
	return true
}

// faults are what happens to machines, networks and processes.
func faults() []happening {
	return []happening{
		{"a frozen node", 6, func(w *world) bool {
			b := w.anyBroker()
			if b == nil {
				return false
			}
			b.frozen = w.now().Add(w.upTo(time.Minute))
			w.note("%s is frozen until %s", b.name, b.frozen.Format("04:05"))
			return true
		}},
		{"a frozen node that the others give up", 1, func(w *world) bool {
			b := w.anyBroker()
			if b == nil || !b.givenUp.IsZero() {
				return false
			}
			b.givenUp = w.now().Add(30 * time.Second) // Some two minutes in EMQX, unless it is told otherwise.
			b.frozen = b.givenUp.Add(w.upTo(time.Minute))
			w.note("%s is frozen until %s, and given up at %s", b.name, b.frozen.Format("04:05"), b.givenUp.Format("04:05"))
			return true
		}},
		{"a crash", 4, func(w *world) bool {
			b := w.anyBroker()
			if b == nil {
				return false
			}
			w.note("%s crashes", b.name)
			w.die(b)
			return true
		}},
		{"two nodes that do not see each other", 2, func(w *world) bool {
			a, b := w.anyBroker(), w.anyBroker()
			if a == nil || a == b {
				return false
			}
			until := w.now().Add(w.upTo(30 * time.Second))
			w.cuts[[2]string{min(a.name, b.name), max(a.name, b.name)}] = until
			w.note("%s and %s do not see each other until %s", a.name, b.name, until.Format("04:05"))
			return true
		}},
		{"a dead kubelet", 2, func(w *world) bool { return w.lose(false) }},
		{"a machine that is off", 1, func(w *world) bool { return w.lose(true) }},
		{"pods that find no machine", 2, func(w *world) bool {
			w.unschedulable = w.now().Add(w.upTo(40 * time.Second))
			w.note("no machine takes a pod until %s", w.unschedulable.Format("04:05"))
			return true
		}},
		{"a kill of the operator planned", 4, func(w *world) bool {
			if !w.hasKeys() {
				return false
			}
			w.leader().killAfter = 1 + w.rng.IntN(10)
			return true
		}},
		{"overlapping leaders", 2, (*world).overlap},
		{"a watch that lags", 4, func(w *world) bool {
			o, late := w.leader(), w.anyResource()
			o.late[late] = w.now().Add(w.upTo(8 * time.Second))
			w.note("operator %d does not learn of %s until %s", o.life, late.Resource, o.late[late].Format("04:05.000"))
			if late != emqxes { // What it wrote itself it knows, and what the user wrote may wait for so long.
				w.truth.blind(o.late[late])
			}
			return true
		}},
		{"a watch that is broken off", 3, func(w *world) bool {
			of := w.anyResource()
			for _, watch := range w.kube.collections[of].watches {
				if watch.by == w.leader() {
					w.note("a watch of %s is broken off", of.Resource)
					watch.breakOff()
					return true
				}
			}
			return false
		}},
		{"a relist", 3, (*world).expire},
		{"a kind of write that is refused", 1, func(w *world) bool {
			refused := []string{
				"apply services", "create statefulsets", "apply configmaps", "apply statefulsets", "apply status of pods", "delete statefulsets",
				"apply poddisruptionbudgets", "delete persistentvolumeclaims",
			}
			w.refused = refused[w.rng.IntN(len(refused))]
			w.note("the API server refuses to %s", w.refused)
			return true
		}},
	}
}

// upTo is a time that is drawn.
func (w *world) upTo(most time.Duration) time.Duration {
	return time.Second + time.Duration(w.rng.Int64N(int64(most)))
}

// hasKeys reports whether the Secret has the operator's API key that the nodes know: lost, it can be put back only by an operator that
// lives.
func (w *world) hasKeys() bool {
	secret, exists := get[*corev1.Secret](w.kube, secrets, w.names.BootstrapAPIKeySecretName())
	if !exists {
		return false
	}
	own, previous := resources.OperatorKeys(secret.Data)
	if own != nil {
		previous = append(previous, *own)
	}
	return slices.Contains(previous, resources.OperatorKey{Secret: w.password})
}

// lose takes a machine away for a while.
func (w *world) lose(off bool) bool {
	h := w.machines[w.rng.IntN(len(w.machines))]
	if h.isDown(w.now()) {
		return false
	}
	h.since, h.down, h.off = w.now(), w.now().Add(w.upTo(50*time.Second)), off
	w.note("%s is lost until %s, off: %v", h.name, h.down.Format("04:05"), off)
	return true
}

// overlap has the leader sleep through its lease and wake up beside its successor, for up to a second.
func (w *world) overlap() bool {
	o := w.leader()
	if o.dead || w.now().Before(o.asleep) || !w.hasKeys() {
		return false
	}
	taken := w.now().Add(12*time.Second + w.upTo(4*time.Second))
	o.asleep = taken.Add(w.upTo(4 * time.Second))
	o.diesAt = o.asleep.Add(time.Duration(w.rng.IntN(1000)) * time.Millisecond)
	w.nextLife = taken
	w.note("operator %d sleeps until %s", o.life, o.asleep.Format("04:05.000"))
	w.truth.blind(o.diesAt)
	return true
}

// expire has a watch end, and what happened meanwhile be known from a list only. Informers draw how long they wait before
// they list: the list is held until all of them would.
func (w *world) expire() bool {
	o, of := w.leader(), w.anyResource()
	if o.expired[of] > 0 || o.dead {
		return false
	}
	o.relist[of] = w.now().Add(3*time.Second + w.upTo(4*time.Second))
	o.late[of] = o.relist[of]
	o.expired[of] = w.kube.version + 1
	w.note("operator %d must list %s again at %s", o.life, of.Resource, o.relist[of].Format("04:05.000"))
	w.truth.blind(o.relist[of].Add(2 * time.Second))
	for _, watch := range w.kube.collections[of].watches {
		if watch.by == o {
			watch.breakOff()
		}
	}
	return true
}

func (w *world) anyResource() schema.GroupVersionResource {
	of := []schema.GroupVersionResource{statefulSets, pods, services, configMaps, endpointSlices, budgets, emqxes, volumeClaims}
	return of[w.rng.IntN(len(of))]
}

func (w *world) anyBroker() *broker {
	running := slices.DeleteFunc(ordered(w.brokers), func(b *broker) bool { return !b.joined || b.dead })
	if len(running) == 0 {
		return nil
	}
	return running[w.rng.IntN(len(running))]
}

// doings are what strangers do to what is not theirs, and clients to themselves.
func doings() []happening {
	return []happening{
		{"clients that leave", 2, (*world).depart},
		{"a stranger deletes a pod", 2, func(w *world) bool {
			existing := all[*corev1.Pod](w.kube, pods)
			if len(existing) == 0 {
				return false
			}
			w.evictPod(existing[w.rng.IntN(len(existing))])
			return true
		}},
		{"a machine is drained", 3, func(w *world) bool {
			if w.watchesNodes {
				return w.drain()
			}
			h := w.machines[w.rng.IntN(len(w.machines))]
			for _, pod := range all[*corev1.Pod](w.kube, pods) {
				if pod.Spec.NodeName == h.name {
					w.evictPod(pod)
				}
			}
			return true
		}},
		{"a stranger scales a set", 2, func(w *world) bool {
			return w.meddle("scales a set", func(set *appsv1.StatefulSet) {
				set.Spec.Replicas = ptr.To(*set.Spec.Replicas + 1)
				set.Generation++
			})
		}},
		{"a stranger takes the labels off a set", 1, func(w *world) bool {
			return w.meddle("takes the labels off a set", func(set *appsv1.StatefulSet) { set.Labels = nil })
		}},
		{"a stranger narrows the listeners Service", 1, func(w *world) bool {
			service, exists := get[*corev1.Service](w.kube, services, w.names.ListenersServiceName())
			if !exists {
				return false
			}
			w.note("a stranger adds to the selector of the listeners Service")
			service = service.DeepCopy()
			service.Spec.Selector = labels.Merge(service.Spec.Selector, map[string]string{"nobody": "has"})
			w.kube.put(services, service)
			return true
		}},
		{"a lost listeners Service", 1, func(w *world) bool { return w.vanish(services, w.names.ListenersServiceName()) }},
		{"a lost headless Service", 1, func(w *world) bool { return w.vanish(services, w.names.HeadlessServiceName()) }},
		{"a lost budget", 1, func(w *world) bool { return w.vanish(budgets, w.names.CoreBudgetName()) }},
		{"a stranger widens the budget", 1, func(w *world) bool {
			budget, exists := get[*policyv1.PodDisruptionBudget](w.kube, budgets, w.names.CoreBudgetName())
			if !exists {
				return false
			}
			w.note("a stranger has the budget protect all nodes")
			budget = budget.DeepCopy()
			delete(budget.Spec.Selector.MatchLabels, v2beta1.LabelPodTemplateHash)
			w.kube.put(budgets, budget)
			return true
		}},
		{"a lost ConfigMap", 1, func(w *world) bool {
			existing := all[*corev1.ConfigMap](w.kube, configMaps)
			return len(existing) > 0 && w.vanish(configMaps, existing[w.rng.IntN(len(existing))].Name)
		}},
		{"a changed cookie", 1, (*world).changeCookie},
		{"a lost Secret of API keys", 1, func(w *world) bool {
			return w.meddleWithKeys() && w.vanish(secrets, w.names.BootstrapAPIKeySecretName())
		}},
		{"an emptied Secret of API keys", 1, func(w *world) bool { return w.writeKeys(nil) }},
		{"another password of the operator, by hand", 1, func(w *world) bool {
			return w.writeKeys(resources.KeysData{Own: resources.OperatorKey{Secret: fmt.Sprint("by hand ", w.rng.Uint32())}}.Entries())
		}},
	}
}

// meddleWithKeys reports whether somebody may change the Secret of the API keys now: an operator that knows the key of the nodes puts
// it back, and with one that does not, a person must help.
func (w *world) meddleWithKeys() bool {
	o := w.leader()
	if o.dead || o.took != w.password || len(w.living()) > 1 || w.now().Before(o.asleep) {
		return false
	}
	o.killAfter = 0
	return true
}

// writeKeys has a person write the Secret of the API keys.
func (w *world) writeKeys(entries map[string][]byte) bool {
	secret, exists := get[*corev1.Secret](w.kube, secrets, w.names.BootstrapAPIKeySecretName())
	if !exists || !w.meddleWithKeys() {
		return false
	}
	w.note("a person writes the Secret of the API keys")
	secret = secret.DeepCopy()
	secret.Data = entries
	w.kube.put(secrets, secret)
	return true
}

// changeCookie has a stranger change the cookie, who puts it back soon.
func (w *world) changeCookie() bool {
	secret, exists := get[*corev1.Secret](w.kube, secrets, w.names.NodeCookieSecretName())
	if !exists || !w.cookies.IsZero() {
		return false
	}
	w.changed = secret
	w.writeCookie(secret, "changed")
	w.cookies = w.now().Add(w.upTo(40 * time.Second))
	w.note("a stranger changes the cookie until %s", w.cookies.Format("04:05"))
	return true
}

// putCookieBack puts the cookie back, and takes away who started with the other.
func (w *world) putCookieBack() {
	w.cookies = time.Time{}
	secret, exists := get[*corev1.Secret](w.kube, secrets, w.names.NodeCookieSecretName())
	if !exists || secret.UID != w.changed.UID {
		return
	}
	w.note("the cookie is put back")
	cookie := string(w.changed.Data[resources.NodeCookieKey])
	w.writeCookie(secret, cookie)
	for _, pod := range all[*corev1.Pod](w.kube, pods) {
		if b := w.brokers[pod.Name]; b != nil && !b.dead && b.cookie != cookie {
			w.evictPod(pod)
		}
	}
}

func (w *world) writeCookie(secret *corev1.Secret, cookie string) {
	secret = secret.DeepCopy()
	secret.Data = map[string][]byte{resources.NodeCookieKey: []byte(cookie)}
	secret.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "stranger", Time: ptr.To(metav1.NewTime(w.now().Truncate(time.Second))), FieldsV1: metav1.NewFieldsV1(`{"f:data":{}}`)}}
	w.kube.put(secrets, secret)
}

// evictPod deletes a pod over the operator's head: its clients are not the operator's to answer for.
func (w *world) evictPod(pod *corev1.Pod) {
	w.note("a stranger deletes pod %s", pod.Name)
	w.strangers[pod.UID] = true
	w.terminate(pod, nil)
}

// meddle has a stranger change a set.
func (w *world) meddle(what string, change func(*appsv1.StatefulSet)) bool {
	sets := all[*appsv1.StatefulSet](w.kube, statefulSets)
	if len(sets) == 0 {
		return false
	}
	set := sets[w.rng.IntN(len(sets))].DeepCopy()
	w.note("a stranger %s: %s", what, set.Name)
	change(set)
	w.kube.put(statefulSets, set)
	return true
}

// vanish deletes an object as somebody does who should not.
func (w *world) vanish(resource schema.GroupVersionResource, object string) bool {
	if _, exists := w.kube.collections[resource].objects[object]; !exists || w.resource() == nil {
		return false
	}
	w.note("somebody deletes %s %s", resource.Resource, object)
	w.kube.remove(resource, object)
	return true
}

// isOurs reports whether an object belongs to the resource as it is now.
func (w *world) isOurs(o metav1.Object) bool {
	controller := metav1.GetControllerOfNoCopy(o)
	return controller != nil && controller.UID == w.owner
}
