package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// The nodes of the pods of the set that serves.
const (
	node0 = "emqx@e-core-green-0.pods"
	node1 = "emqx@e-core-green-1.pods"
)

// resting is a Snapshot of a cluster of two nodes, green, where nothing is under way.
func resting(change ...func(*Snapshot)) Snapshot {
	return upgrading(v2beta1.PhaseDone, append([]func(*Snapshot){without("blue"), withCurrent("green")}, change...)...)
}

// with adds a Rebalance, of the given age in minutes.
func with(name string, age int, change ...func(*v2beta1.Rebalance)) func(*Snapshot) {
	return func(s *Snapshot) {
		r := &v2beta1.Rebalance{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Namespace: "n", UID: types.UID(name), ResourceVersion: "7", Finalizers: []string{v2beta1.FinalizerRebalance},
				CreationTimestamp: metav1.NewTime(testNow.Add(-time.Duration(age) * time.Minute)),
			},
			Spec: v2beta1.RebalanceSpec{InstanceName: "e", RebalanceStrategy: v2beta1.RebalanceStrategy{
				ConnEvictRate: 5, SessEvictRate: 6, WaitTakeover: 7, WaitHealthCheck: 8, AbsConnThreshold: 9, AbsSessThreshold: 10, RelConnThreshold: "1.1", RelSessThreshold: "1.2",
			}},
		}
		for _, c := range change {
			c(r)
		}
		s.Rebalances = append(s.Rebalances, r)
	}
}

func unkept(r *v2beta1.Rebalance) { r.Finalizers = nil }

func deletedFor(age time.Duration) func(*v2beta1.Rebalance) {
	return func(r *v2beta1.Rebalance) {
		at := metav1.NewTime(testNow.Add(-age))
		r.DeletionTimestamp = &at
	}
}

// on has a Rebalance be noted to run on a node.
func on(node string) func(*v2beta1.Rebalance) {
	return func(r *v2beta1.Rebalance) {
		r.Status.Phase = v2beta1.RebalanceProcessing
		r.Status.RebalanceStates = []v2beta1.RebalanceState{{State: "disabled", Node: node, CoordinatorNode: node}}
	}
}

func inPhaseOf(phase v2beta1.RebalancePhase) func(*v2beta1.Rebalance) {
	return func(r *v2beta1.Rebalance) { r.Status.Phase = phase }
}

func undecodable2(r *v2beta1.Rebalance) {
	r.Annotations = map[string]string{v2beta1.AnnotationUndecodable: "no number"}
}

// donates has a node give clients to a rebalance.
func donates(pod, coordinator string) func(*Snapshot) {
	return withNode(pod, func(n *evacuate.NodeObservation) {
		n.Donation = &emqx.Donation{State: emqx.RebalanceEvictingConns, Coordinator: coordinator, Recipients: []string{node1}}
		n.Available = false
	})
}

func outcome(observed evacuate.RebalanceObservation) func(*Snapshot) {
	return func(s *Snapshot) {
		observed.ID = "r"
		s.Observation.Rebalance = observed
	}
}

// step is what is decided of a Rebalance, in one line.
func step(d Decision, name string) string {
	for _, action := range d.Rebalances {
		switch a := action.(type) { //nolint:gochecksumtype // There are no others.
		case FinalizeRebalance:
			if a.Name == name && len(a.Finalizers) > 0 {
				return "kept"
			}
			if a.Name == name {
				return "let go"
			}
		case TellRebalance:
			if a.Name != name {
				continue
			}
			for _, c := range a.Status.Conditions {
				if c.Type == a.Status.Phase {
					return string(a.Status.Phase) + " " + c.Reason
				}
			}
		}
	}
	return ""
}

// TestRebalance has what is decided of a Rebalance r in each situation, and what EMQX shall do: run it, stop it, or nothing.
func TestRebalance(t *testing.T) {
	const run, stop, nothing = "run", "stop", ""
	silent := withNode(green1, silentNode)
	another := func(s *Snapshot) {
		s.Wanted = map[Role]Target{Core: {Revision: "red", Intent: `{"image":"c"}`, Replicas: 2}}
	}
	evacuated := withNode(green1, state(emqx.StateEvictingConns))
	watched := func(s *Snapshot) { s.NodesWatched = true }
	toldOfGreen := func(s *Snapshot) { s.EMQX.Status.CoreNodes = []v2beta1.EMQXNode{{Node: node1, PodUID: "green-1"}} }
	paused := withSpec(func(spec *v2beta1.EMQXSpec) { spec.UpdateStrategy.Paused = true })
	for _, test := range []struct {
		reason string
		change []func(*Snapshot)
		step   string
		goal   string
	}{
		{"a new one is kept first", []func(*Snapshot){with("r", 1, unkept)}, "kept", nothing},
		{"then its coordinator is noted", []func(*Snapshot){with("r", 1)}, "Processing Starting", nothing},
		{"then it is started", []func(*Snapshot){with("r", 1, on(node0))}, "Processing Starting", run},
		{"its donors refuse clients, and that is no fault", []func(*Snapshot){with("r", 1, on(node0)), donates(green0, node0)}, "Processing Rebalancing", run},
		{"EMQX finds nothing to do", []func(*Snapshot){with("r", 1, on(node0)), outcome(evacuate.RebalanceObservation{Even: true})}, "Completed WithinThresholds", nothing},
		{"EMQX will never take it", []func(*Snapshot){with("r", 1, on(node0)), outcome(evacuate.RebalanceObservation{Invalid: "no"})}, "Failed Refused", nothing},
		{"EMQX does not take it now", []func(*Snapshot){with("r", 1, on(node0)), outcome(evacuate.RebalanceObservation{Failure: "no"})}, "Processing Starting", run},
		{"what is completed is let go", []func(*Snapshot){with("r", 1, inPhaseOf(v2beta1.RebalanceCompleted))}, "let go", nothing},
		{"what has failed is let go", []func(*Snapshot){with("r", 1, inPhaseOf(v2beta1.RebalanceFailed))}, "let go", nothing},
		{"what is over stays as it is", []func(*Snapshot){with("r", 1, unkept, inPhaseOf(v2beta1.RebalanceCompleted))}, "", nothing},
		{"an unknown phase is none", []func(*Snapshot){with("r", 1, inPhaseOf("Strange"))}, "Processing Starting", nothing},
		{"its coordinator is no node any more", []func(*Snapshot){with("r", 1, on("emqx@gone"))}, "Processing Starting", nothing},

		{"it waits for an older one", []func(*Snapshot){with("q", 2), with("r", 1)}, "Processing Queued", nothing},
		{"and for a younger one that runs", []func(*Snapshot){with("r", 2), with("q", 1, on(node0))}, "Processing Queued", stop},
		{"not for one that is over", []func(*Snapshot){with("q", 2, inPhaseOf(v2beta1.RebalanceFailed)), with("r", 1)}, "Processing Starting", nothing},
		{"nor for one that cannot be decoded", []func(*Snapshot){with("q", 2, undecodable2), with("r", 1)}, "Processing Starting", nothing},
		{"it cannot be decoded", []func(*Snapshot){with("r", 1, undecodable2)}, "Processing Undecodable", nothing},

		{"an upgrade is about to begin", []func(*Snapshot){another, with("r", 1)}, "Processing UpgradeUnderWay", nothing},
		{"an upgrade that begins stops it", []func(*Snapshot){another, with("r", 1, on(node0)), donates(green0, node0)}, "Processing UpgradeUnderWay", stop},
		{"a drain that begins stops it", []func(*Snapshot){with("r", 1, on(node0)), donates(green0, node0), onDrained(green1), watched}, "Processing NodeDrained", stop},
		{"a pause stops it", []func(*Snapshot){paused, with("r", 1, on(node0))}, "Processing Paused", stop},
		{"a silent node stops it", []func(*Snapshot){silent, with("r", 1, on(node0))}, "Processing MemberSilent", stop},
		{"so does a pod that is not ready", []func(*Snapshot){withPod(green1, func(p *Pod) { p.ContainersReady = false }), with("r", 1, on(node0))}, "Processing PodStarting", stop},
		{"who has just begun leaves it alone", []func(*Snapshot){withNode(green1, unasked), toldOfGreen, with("r", 1, on(node0))}, "", nothing},
		{"somebody's evacuation goes before", []func(*Snapshot){evacuated, with("r", 1, on(node0))}, "Processing NodeEvacuated", stop},
		{"somebody's rebalance goes before", []func(*Snapshot){donates(green0, node1), with("r", 1)}, "Processing RebalanceUnderWay", nothing},

		{"deleted before it ran", []func(*Snapshot){with("r", 1, deletedFor(0))}, "let go", nothing},
		{"deleted before it was kept", []func(*Snapshot){with("r", 1, unkept, deletedFor(0))}, "", nothing},
		{"deleted when it was over", []func(*Snapshot){with("r", 1, inPhaseOf(v2beta1.RebalanceCompleted), deletedFor(0))}, "let go", nothing},
		{"deleted while it waits", []func(*Snapshot){with("q", 2, on(node0)), with("r", 1, deletedFor(0))}, "let go", stop},
		{"deleted while it runs", []func(*Snapshot){with("r", 1, on(node0), deletedFor(0)), donates(green0, node0)}, "Processing Stopping", stop},
		{"deleted in an upgrade", []func(*Snapshot){another, with("r", 1, on(node0), deletedFor(0))}, "Processing Stopping", stop},
		{"deleted and stopped", []func(*Snapshot){with("r", 1, on(node0), deletedFor(0)), outcome(evacuate.RebalanceObservation{Stopped: true})}, "let go", stop},
		{"deleted, and the coordinator has gone", []func(*Snapshot){with("r", 1, on("emqx@gone"), deletedFor(0))}, "let go", stop},
		{"deleted, and the coordinator has ended", []func(*Snapshot){
			with("r", 1, on(node0), deletedFor(0)), withPod(green0, func(p *Pod) { p.ContainerRunning = false }),
		}, "let go", stop},
		{"deleted, and the coordinator is silent", []func(*Snapshot){with("r", 1, on(node0), deletedFor(time.Minute)), withNode(green0, silentNode)}, "Processing Stopping", stop},
		{"deleted, and it is silent for long", []func(*Snapshot){with("r", 1, on(node0), deletedFor(letGoAfter)), withNode(green0, silentNode)}, "let go", stop},
		{"deleted, and kept by others alone", []func(*Snapshot){with("r", 1, on(node0), deletedFor(0), func(r *v2beta1.Rebalance) { r.Finalizers = []string{"other"} })}, "", nothing},
	} {
		t.Run(test.reason, func(t *testing.T) {
			d := Decide(resting(test.change...))
			require.Equal(t, test.step, step(d, "r"))
			goal := nothing
			switch {
			case d.Goal.Rebalance.Run:
				goal = run
				require.Equal(t, []string{node0, node1}, d.Goal.Rebalance.Rebalance.Nodes)
				require.True(t, d.Goal.Busy)
			case d.Goal.Rebalance.ID != "":
				goal = stop
			}
			if test.reason == "and for a younger one that runs" || test.reason == "deleted while it waits" {
				require.Equal(t, run, goal, "the other runs on")
				return
			}
			require.Equal(t, test.goal, goal)
		})
	}
}

// TestDonors: that a node gives clients to a rebalance makes a cluster at rest no less ready, and holds evictions.
func TestDonors(t *testing.T) {
	s := resting(donates(green0, node0))
	status := StatusOf(s, Decide(s))
	require.Equal(t, StateReady, status.State)

	s = upgrading(v2beta1.PhaseEvacuating, withNode("e-core-blue-0", clients(5, 5)), donates("e-core-blue-1", "emqx@e-core-blue-1.pods"))
	d := Decide(s)
	require.Equal(t, rebalanceUnderWay, d.Waiting.Reason)
	require.Contains(t, d.Waiting.Message, "emqx@e-core-blue-1.pods")
	for _, node := range d.Goal.Nodes {
		require.NotEqual(t, evacuate.Evacuate, node.Intent)
	}

	s = upgrading(v2beta1.PhaseProvisioning, serving("blue"), donates(green0, node0))
	require.Equal(t, nodeEvacuated, Decide(s).Waiting.Reason, "what stays must take clients")
}

// TestRebalanceStatus: the status says when it was started and ended, is written when it differs, and other words for the same wait.
func TestRebalanceStatus(t *testing.T) {
	tell := func(r *v2beta1.Rebalance, after time.Duration, phase v2beta1.RebalancePhase, lack Lack, states ...v2beta1.RebalanceState) *TellRebalance {
		action := toldOf(testNow.Add(after), r, phase, lack, states)
		if action == nil {
			return nil
		}
		told := action.(TellRebalance)
		r.Status = told.Status
		return &told
	}
	r := &v2beta1.Rebalance{}
	first := tell(r, 0, v2beta1.RebalanceProcessing, Lack{"NotReady", "one"})
	require.Equal(t, []string{"NotReady"}, reasonsOf(first.Events))
	require.Nil(t, r.Status.StartedTime)
	require.Nil(t, tell(r, time.Second, v2beta1.RebalanceProcessing, Lack{"NotReady", "one"}), "nothing is new")
	require.Nil(t, tell(r, time.Second, v2beta1.RebalanceProcessing, Lack{"NotReady", "two"}), "only the words are")
	again := tell(r, time.Minute, v2beta1.RebalanceProcessing, Lack{"NotReady", "two"})
	require.Empty(t, again.Events)
	require.Equal(t, testNow, r.Status.Conditions[0].LastTransitionTime.Time)

	noted := v2beta1.RebalanceState{State: "disabled", CoordinatorNode: node0}
	started := tell(r, 2*time.Minute, v2beta1.RebalanceProcessing, Lack{rebalanceStarts, "soon"}, noted)
	require.Empty(t, started.Events)
	require.Equal(t, testNow.Add(2*time.Minute), r.Status.StartedTime.Time)
	require.Nil(t, r.Status.CompletedTime)

	over := tell(r, 3*time.Minute, v2beta1.RebalanceCompleted, Lack{rebalanceEven, "even"})
	require.Equal(t, []string{"Completed"}, reasonsOf(over.Events))
	require.Equal(t, testNow.Add(2*time.Minute), r.Status.StartedTime.Time)
	require.Equal(t, testNow.Add(3*time.Minute), r.Status.CompletedTime.Time)
	var truths []metav1.ConditionStatus
	for _, condition := range r.Status.Conditions {
		truths = append(truths, condition.Status)
	}
	require.Equal(t, []metav1.ConditionStatus{"False", "True", "False"}, truths)

	failed := tell(&v2beta1.Rebalance{}, 0, v2beta1.RebalanceFailed, Lack{rebalanceRefused, "no"})
	require.Equal(t, []Event{{"Warning", "Failed", "Rebalance", "no"}}, failed.Events)
}

// TestUnattended: without a cluster that is looked after, a Rebalance waits, and goes when it is deleted, whatever it did.
func TestUnattended(t *testing.T) {
	for _, test := range []struct {
		reason string
		change []func(*v2beta1.Rebalance)
		step   string
		events []string
	}{
		{"it waits", nil, "Processing EMQXNotFound", []string{"EMQXNotFound"}},
		{"also one that ran", []func(*v2beta1.Rebalance){on(node0)}, "Processing EMQXNotFound", []string{"EMQXNotFound"}},
		{"deleted, it goes", []func(*v2beta1.Rebalance){deletedFor(0)}, "let go", nil},
		{"deleted while it may run, it goes, and that is said", []func(*v2beta1.Rebalance){on(node0), deletedFor(0)}, "let go", []string{rebalanceLetGo}},
		{"over, it is let go", []func(*v2beta1.Rebalance){inPhaseOf(v2beta1.RebalanceFailed)}, "let go", nil},
		{"over and let go, it stays as it is", []func(*v2beta1.Rebalance){unkept, inPhaseOf(v2beta1.RebalanceFailed)}, "", nil},
	} {
		t.Run(test.reason, func(t *testing.T) {
			var s Snapshot
			with("r", 1, test.change...)(&s)
			actions := Unattended(testNow, s.Rebalances, NoEMQX("e"))
			require.Equal(t, test.step, step(Decision{Rebalances: actions}, "r"))
			var events []string
			for _, action := range actions {
				switch a := action.(type) { //nolint:gochecksumtype // There are no others.
				case FinalizeRebalance:
					events = reasonsOf(a.Events)
				case TellRebalance:
					events = reasonsOf(a.Events)
				}
			}
			require.Equal(t, test.events, events)
		})
	}
}
