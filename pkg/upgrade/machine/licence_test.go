package machine

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// single is a cluster of one node of revision blue, which tells a licence, when the specification asks for an image.
func single(t *testing.T, image string, licence emqx.LicenceType, change ...func(*Snapshot)) Snapshot {
	t.Helper()
	s := upgrading(v2beta1.PhaseDone, without("green"), serving("blue"), withCurrent("blue"))
	s.EMQX.Spec.Image = image
	s.Sets[0].Replicas, s.Sets[0].NodeCount, s.Sets[0].Asked, s.Sets[0].Image = 1, 1, 1, "emqx/emqx:6.0.1"
	s.Sets[0].Pods = s.Sets[0].Pods[:1]
	runs := s.EMQX.DeepCopy()
	runs.Spec.Image = "emqx/emqx:6.0.1"
	var err error
	s.Sets[0].Intent, err = IntentOf(runs, s.Config.Ports)
	require.NoError(t, err)
	withNode("e-core-blue-0", func(n *evacuate.NodeObservation) {
		n.Licence.Type, n.LicenceKnown, n.Members, n.Info.Version = licence, true, []string{s.Sets[0].Pods[0].Node}, "6.0.1"
	})(&s)
	for _, c := range change {
		c(&s)
	}
	s.Wanted[Core], err = TargetOf(&s)
	require.NoError(t, err)
	return s
}

func untoldLicence() func(*Snapshot) {
	return withNode("e-core-blue-0", func(n *evacuate.NodeObservation) { n.LicenceKnown = false })
}

func withLicence(key resources.Licence) func(*Snapshot) {
	return func(s *Snapshot) { s.Config.Licence = key }
}

func TestLicence(t *testing.T) {
	const next = "emqx/emqx:6.1.0"
	version := func(v string) func(*Snapshot) {
		return withNode("e-core-blue-0", func(n *evacuate.NodeObservation) { n.Info.Version = v })
	}
	three := func(s *Snapshot) { s.EMQX.Spec.CoreTemplate.Spec.Replicas = new(int32(3)) }
	for _, test := range []struct {
		reason  string
		s       Snapshot
		inPlace bool
		stalled string
		waits   string
	}{
		{"the node tells a licence for one node", single(t, next, emqx.LicenceCommunity), true, "", ""},
		{"it tells another", single(t, next, "official"), false, "", ""},
		{"the new node has a key of its own", single(t, next, emqx.LicenceCommunity, withLicence(resources.LicenceKey)), false, "", ""},
		{"it may have one", single(t, next, emqx.LicenceCommunity, withLicence(resources.LicenceNotKnown)), false, "", ""},
		{"it asks for the default", single(t, next, "official", withLicence(resources.LicenceDefault)), true, "", ""},
		{"nobody has told yet", single(t, next, "", untoldLicence()), false, "", "LicenceUnknown"},
		{"an old version needed no key, and the new one does", single(t, next, emqx.LicenceTrial, version("5.8.9")), true, "", ""},
		{"an old version had a key", single(t, next, "official", version("5.8.9")), false, "", ""},
		{"the new version needs none either", single(t, "emqx/emqx:5.8.9", emqx.LicenceTrial, version("5.8.4")), false, "", ""},
		{"more nodes than it allows", single(t, "emqx/emqx:6.0.1", emqx.LicenceCommunity, three), false, reasonOneNode, ""},
		{"more nodes, with a licence", single(t, "emqx/emqx:6.0.1", "official", three), false, "", ""},
		{"the key is not in the configuration that the set has", single(t, "emqx/emqx:6.0.1", emqx.LicenceCommunity, three, withLicence(resources.LicenceKey),
			func(s *Snapshot) { s.ConfigHash = "other" }), false, reasonOneNode, ""},
		{"another domain", single(t, next, emqx.LicenceCommunity, func(s *Snapshot) { s.EMQX.Spec.ClusterDomain = "other" }), false, reasonOneNode, ""},
		{"another volume", single(t, next, emqx.LicenceCommunity, func(s *Snapshot) {
			s.EMQX.Spec.CoreTemplate.Spec.VolumeClaimTemplates = corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			}
		}), false, reasonOneNode, ""},
		{"first installation of several", single(t, next, "", without("blue"), three, func(s *Snapshot) { s.Services = nil }), false, reasonOneNode, ""},
	} {
		t.Run(test.reason, func(t *testing.T) {
			target := test.s.target(Core)
			if test.stalled == "" {
				require.Equal(t, test.inPlace, target.Replacement != "")
			}
			test.s.EMQX.Status.Phase = v2beta1.PhasePending
			decision := Decide(test.s)
			switch {
			case test.stalled != "":
				require.NotNil(t, decision.Stalled)
				require.Equal(t, test.stalled, decision.Stalled.Reason)
				require.Contains(t, decision.Stalled.Message, "license")
			case test.waits != "":
				require.Equal(t, test.waits, decision.Waiting.Reason)
			default:
				require.Nil(t, decision.Stalled)
				require.Equal(t, v2beta1.PhaseProvisioning, decision.Phase)
			}
		})
	}
}

// TestReplacedInPlace follows a node: it is told beforehand, the set gets its template, and the pod goes when Kubernetes is known to
// make the next by that, and not before.
func TestReplacedInPlace(t *testing.T) {
	s := single(t, "emqx/emqx:6.1.0", emqx.LicenceCommunity, withPod("e-core-blue-0", func(p *Pod) { p.StartTime = 12 * time.Second }))
	told := Decide(s)
	require.Contains(t, told.Why, "nobody is served for as long as its pod takes to start, which was 12s the last time")
	require.Equal(t, reasonInPlace, told.Notices[0].Reason)
	require.Contains(t, told.Notices[0].Message, "retained messages, users, rules", "it has no volume")

	s.EMQX.Status.Phase = v2beta1.PhaseProvisioning
	s.EMQX.Status.Upgrade.To = "blue"
	actions := func() []Action {
		var all []Action
		for _, group := range Decide(s).Groups {
			for _, action := range group {
				switch action.(type) { //nolint:gochecksumtype // Others keep the budget.
				case ReplaceTemplate, DeletePod, CreateSet, ApplyConfigMap:
					all = append(all, action)
				}
			}
		}
		return all
	}
	target := s.target(Core)
	name := "e-configs-" + target.Replacement
	require.Equal(t, []Action{ApplyConfigMap{name, "blue"}, ReplaceTemplate{ref("blue"), resources.CoreSet{
		Revision: "blue", Template: target.Replacement, Ports: s.Config.Ports, Intent: target.Intent, ConfigMap: name,
	}}}, actions())

	s.Sets[0].Intent, s.Sets[0].Template, s.Sets[0].PodsUnseen = target.Intent, target.Replacement, true
	s.ConfigMaps[name] = Current
	var err error
	s.Wanted[Core], err = TargetOf(&s)
	require.NoError(t, err)
	require.Equal(t, "blue", s.target(Core).Name(), "the set stands for what is asked")
	require.Empty(t, actions(), "Kubernetes may still make pods by the template before")
	s.Sets[0].PodsUnseen = false
	require.Equal(t, []Action{DeletePod{"e-core-blue-0", "blue-0"}}, actions())
	s.Sets[0].Pods[0].Template = target.Replacement
	require.Empty(t, actions())
	require.Equal(t, v2beta1.PhaseSwitching, Decide(s).Phase)

	s.EMQX.Spec.Image = "emqx/emqx:6.0.1"
	withLicence(resources.LicenceKey)(&s)
	s.Wanted[Core], err = TargetOf(&s)
	require.NoError(t, err)
	require.NotEqual(t, "blue", s.target(Core).Revision, "with a licence, the way back is a set of its own")
}

// TestRevisionWhoseNameIsTaken: a set whose node was replaced in place has kept its name. What that stood for gets another.
func TestRevisionWhoseNameIsTaken(t *testing.T) {
	s := single(t, "emqx/emqx:6.1.0", "official")
	name := s.target(Core).Revision
	s.Sets[0].Revision, s.Sets[0].Template = name, "another"
	again, err := TargetOf(&s)
	require.NoError(t, err)
	require.NotEqual(t, name, again.Revision)
	s.Sets[0].Template = name
	same, err := TargetOf(&s)
	require.NoError(t, err)
	require.Equal(t, name, same.Revision)
}

// TestRevertOfAClusterThatIsDown: that an upgrade was turned round is no sign of a licence for one node, when nobody is there to tell.
func TestRevertOfAClusterThatIsDown(t *testing.T) {
	s := upgrading(v2beta1.PhaseProvisioning, without("green"), serving("blue"), withUpgrade(func(u *v2beta1.UpgradeStatus) { u.To = u.From }), func(s *Snapshot) {
		s.Wanted = map[Role]Target{Core: {Revision: "blue", Intent: s.Sets[0].Intent, Replicas: 2}}
		s.EMQX.Spec.Image = "emqx/emqx:5.8.9"
		for i := range s.Sets[0].Pods {
			s.Sets[0].Pods[i].ContainerRunning, s.Sets[0].Pods[i].Ready = false, false
		}
		s.Observation = evacuate.Observation{}
	})
	require.Nil(t, licenceAllowsOneNode(s))
	s.Sets[0].Replicas = 1
	require.Equal(t, alone, s.newcomer(), "a set of one may have been replaced in place")
}

// TestEndedByLicence: a node that the licence ended counts as stopped while it starts again and again, unless another tells of it.
func TestEndedByLicence(t *testing.T) {
	ended := []func(*Snapshot){withNode(green1, silentNode), withPod(green1, func(p *Pod) { p.OneNodeLicence, p.Ready = true, false })}
	s := upgrading(v2beta1.PhaseProvisioning, append(ended, serving("blue"))...)
	pod := s.set("green").Pods[1]
	require.False(t, s.stopped(pod), "the others count it among the running")
	for _, name := range []string{blue0, blue1, green0} {
		withNode(name, func(n *evacuate.NodeObservation) {
			n.Members = slices.DeleteFunc(slices.Clone(n.Members), func(member string) bool { return member == pod.Node })
		})(&s)
	}
	require.True(t, s.stopped(pod))
	pod.OneNodeLicence = false
	require.False(t, s.stopped(pod), "silence alone proves nothing")
}
