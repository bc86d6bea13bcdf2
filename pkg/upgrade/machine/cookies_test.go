package machine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
	"github.com/emqx-bg/emqx-bg-operator/pkg/evacuate"
)

// withCookie has the cookie's Secret hold a cookie that was written so long after the nodes started with the old one.
func withCookie(digest string, after time.Duration) func(*Snapshot) {
	return func(s *Snapshot) {
		s.Cookie = Cookie{Digest: digest, Writer: "kubectl-edit", Written: testNow}
		for i := range s.Sets {
			s.Sets[i].CookieDigest = "old"
			for j := range s.Sets[i].Pods {
				s.Sets[i].Pods[j].ContainerStarted = testNow.Add(-after)
			}
		}
	}
}

// TestCookieInDoubt: the Secret is read where nodes run that are older than what it holds, and nowhere else.
func TestCookieInDoubt(t *testing.T) {
	for _, test := range []struct {
		reason string
		s      Snapshot
		doubt  bool
	}{
		{"it was written after nodes had started", upgrading(v2beta1.PhaseDone, withCookie("", time.Second)), true},
		{"before", upgrading(v2beta1.PhaseDone, withCookie("", -time.Second)), false},
		{"it has been read", upgrading(v2beta1.PhaseDone, withCookie("old", time.Second)), false},
		{"it has been read, and is another", upgrading(v2beta1.PhaseDone, withCookie("new", time.Second)), false},
		{"nobody noted with what nodes started", upgrading(v2beta1.PhaseDone), false},
	} {
		t.Run(test.reason, func(t *testing.T) { require.Equal(t, test.doubt, test.s.CookieInDoubt()) })
	}
}

func TestChangedCookieIsNamed(t *testing.T) {
	problem := problemOf(upgrading(v2beta1.PhaseDone, withCookie("new", time.Second)))
	require.Equal(t, "the cookie in Secret e-node-cookie was changed by kubectl-edit at 2026-01-01T12:00:00Z, and nodes such as emqx@e-core-blue-0.pods run with the one before, "+
		"so that nodes that start now cannot join them: put that back as the entry node_cookie, as the environment variable EMQX_NODE__COOKIE of pod e-core-blue-0 tells it", problem.Message)
}

// TestCookieOfNodesThatJoin: what a set notes is of when it was made; nodes that find each other have one cookie.
func TestCookieOfNodesThatJoin(t *testing.T) {
	since := withPod("e-core-green-0", func(p *Pod) { p.ContainerStarted = testNow.Add(cookieRead) })
	require.NotNil(t, problemOf(upgrading(v2beta1.PhaseDone, withCookie("new", time.Second), withPod("e-core-green-0", func(p *Pod) { p.ContainerStarted = testNow }))),
		"it may have had the one before")
	joined := upgrading(v2beta1.PhaseDone, withCookie("new", time.Second), since)
	require.Nil(t, problemOf(joined))
	require.Contains(t, Decide(joined).Groups, Group{NoteCookie{SetRef: ref("blue"), Digest: "new"}})
	require.NotNil(t, problemOf(upgrading(v2beta1.PhaseDone, withCookie("new", time.Second), since, withNode("e-core-green-0", func(n *evacuate.NodeObservation) {
		n.Members = []string{"emqx@e-core-green-0.pods"}
	}))))
}
