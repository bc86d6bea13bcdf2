package machine

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// TestKeysThatCannotBeHad: it is said, and holds nothing up: the nodes know the keys of before.
func TestKeysThatCannotBeHad(t *testing.T) {
	lacking := func(s *Snapshot) {
		s.Keys.Problem = "spec.bootstrapAPIKeys[0].secretRef.key: read Secret n/x: it does not exist"
	}
	for _, phase := range []v2beta1.Phase{v2beta1.PhaseProvisioning, v2beta1.PhaseDone} {
		without, with := Decide(upgrading(phase)), Decide(upgrading(phase, lacking))
		require.NotNil(t, with.Stalled)
		require.Equal(t, "InvalidAPIKeys", with.Stalled.Reason)
		require.Contains(t, with.Stalled.Message, "read Secret n/x: it does not exist; the API keys stay as they were")
		require.Equal(t, without.Goal, with.Goal)
		require.Equal(t, without.Phase, with.Phase)
		require.Equal(t, without.Groups, with.Groups)
	}
	require.Equal(t, "InvalidConfig", Decide(upgrading(v2beta1.PhaseDone, lacking, func(s *Snapshot) { s.ConfigError = errors.New("x") })).Stalled.Reason, "what holds the rest up is said first")
}

// TestKeyScopes: the operator's keys have scopes where every node knows them, and every node that is to come.
func TestKeyScopes(t *testing.T) {
	image := func(image string) func(*Snapshot) { return func(s *Snapshot) { s.EMQX.Spec.Image = image } }
	told := func(version string) func(*Snapshot) {
		return func(s *Snapshot) {
			for name, node := range s.Observation.Nodes {
				node.Info.Version = version
				s.Observation.Nodes[name] = node
			}
		}
	}
	live := func(s *Snapshot) {
		for i := range s.Sets {
			s.Sets[i].LiveKeys = true
		}
	}
	yes, no := true, false
	for _, test := range []struct {
		reason string
		change []func(*Snapshot)
		want   *bool
	}{
		{"all know them", []func(*Snapshot){live, image("emqx/emqx:6.0.3"), told("6.0.3")}, &yes},
		{"those that run do not", []func(*Snapshot){live, image("emqx/emqx:6.0.3"), told("6.0.2")}, &no},
		{"those to come do not", []func(*Snapshot){live, image("emqx/emqx:6.1.1"), told("6.0.3")}, &no},
		{"those that run would not hear of it", []func(*Snapshot){image("emqx/emqx:6.0.3"), told("6.0.3")}, &no},
		{"nobody knows which version a digest is", []func(*Snapshot){live, image("emqx/emqx@sha256:0123456789012345678901234567890123456789012345678901234567890123"), told("6.0.3")}, nil},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseDone, test.change...)
			require.Equal(t, test.want, s.KeyScopes())
		})
	}
	for text, knows := range map[string]bool{
		"5.8.9": false, "5.10.3": false, "5.10.4": true, "5.11.0": false, "6.0.2": false, "6.0.4": true, "6.1.1": false, "6.1.2": true,
		"6.2.0": false, "6.2.1": true, "6.3.0": true, "7.0.0": true,
	} {
		require.Equal(t, knows, knowsScopes(versionOf(text)), text)
	}
}

// TestKeysThatNodesDoNotKnow: nodes that run since before the keys were written are told to read them, where these come into their pods;
// else it is said.
func TestKeysThatNodesDoNotKnow(t *testing.T) {
	written := func(s *Snapshot) {
		s.Keys = Keys{Version: "1", Written: testNow.Add(-time.Hour)}
		s.Observation.Keys = evacuate.KeysObservation{Version: "1"}
	}
	before := func(s *Snapshot) {
		for i := range s.Sets {
			s.Sets[i].LiveKeys = true
			for j := range s.Sets[i].Pods {
				s.Sets[i].Pods[j].ContainerRunning, s.Sets[i].Pods[j].ContainerStarted = true, testNow.Add(-2*time.Hour)
			}
		}
	}
	for _, test := range []struct {
		reason  string
		change  []func(*Snapshot)
		file    string
		message string
		after   time.Duration
	}{
		{"pods that what is written does not come into", []func(*Snapshot){written}, "", "they read them when a core node starts", 0},
		{"pods that it comes into", []func(*Snapshot){written, before}, resources.APIKeysFile, "were told to read the API keys of Secret e-bootstrap-api-key, and do not know them; their logs say why", 0},
		{"what EMQX says to that", []func(*Snapshot){written, before, func(s *Snapshot) { s.Observation.Keys.Failure = "it cannot" }}, resources.APIKeysFile, "do not know them: it cannot; their logs", 0},
		{"they were written a moment ago", []func(*Snapshot){written, before, func(s *Snapshot) { s.Keys.Written = testNow.Add(-time.Minute) }}, resources.APIKeysFile, "", 4 * time.Minute},
		{"they know them", []func(*Snapshot){written, before, func(s *Snapshot) { s.Observation.Keys.Loaded = true }}, resources.APIKeysFile, "", 0},
		{"what is known is of before", []func(*Snapshot){written, func(s *Snapshot) { s.Observation.Keys.Version = "0" }}, "", "", 0},
		{"nobody answers", []func(*Snapshot){written, func(s *Snapshot) { s.Observation.Keys.Failure = "nobody answers" }}, "", "", 0},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseDone, append([]func(*Snapshot){without("blue")}, test.change...)...)
			decision := Decide(s)
			require.Equal(t, evacuate.KeysGoal{Version: "1", Written: s.Keys.Written, File: test.file}, decision.Goal.Keys)
			ready := meta.FindStatusCondition(StatusOf(s, decision).Conditions, v2beta1.ConditionReady)
			require.Equal(t, metav1.ConditionTrue, ready.Status)
			if test.message == "" {
				require.NotContains(t, ready.Message, "API keys")
			}
			require.Contains(t, ready.Message, test.message)
			require.Equal(t, test.after, decision.After)
		})
	}
}

// TestHowNodesAreAsked: over plain HTTP where that is open, unless the specification says whom to trust over HTTPS.
func TestHowNodesAreAsked(t *testing.T) {
	trust := emqx.Trust{CA: "ca"}
	ports := func(names ...string) func(*Snapshot) {
		return func(s *Snapshot) {
			s.Trust = trust
			for i := range s.Sets {
				s.Sets[i].Ports.Dashboard = nil
				for j, name := range names {
					s.Sets[i].Ports.Dashboard = append(s.Sets[i].Ports.Dashboard, resources.Port{Name: name, Number: int32(18083 + j)})
				}
			}
		}
	}
	said := func(s *Snapshot) { s.EMQX.Spec.APITLS = &v2beta1.APITLS{} }
	for _, test := range []struct {
		reason string
		change []func(*Snapshot)
		url    string
		trust  emqx.Trust
	}{
		{"plain HTTP", []func(*Snapshot){ports("dashboard")}, "http://10.0.0.1:18083", emqx.Trust{}},
		{"plain HTTP, whatever is said of HTTPS", []func(*Snapshot){ports("dashboard"), said}, "http://10.0.0.1:18083", emqx.Trust{}},
		{"both", []func(*Snapshot){ports("dashboard", "dashboard-https")}, "http://10.0.0.1:18083", emqx.Trust{}},
		{"both, and it is said whom to trust", []func(*Snapshot){ports("dashboard", "dashboard-https"), said}, "https://10.0.0.1:18084", trust},
		{"HTTPS only", []func(*Snapshot){ports("dashboard-https")}, "https://10.0.0.1:18083", trust},
	} {
		t.Run(test.reason, func(t *testing.T) {
			s := upgrading(v2beta1.PhaseDone, append([]func(*Snapshot){without("blue")}, test.change...)...)
			s.Sets[0].Pods[0].IP = "10.0.0.1"
			url, got := apiOf(s, s.Sets[0], s.Sets[0].Pods[0])
			require.Equal(t, test.url, url)
			require.Equal(t, test.trust, got)
		})
	}
}
