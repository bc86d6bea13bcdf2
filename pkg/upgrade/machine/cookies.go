package machine

import (
	"fmt"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/resources"
)

// Nodes find each other by one cookie: those that start with another never join.

// Cookie is what is known of a node cookie: never the cookie itself.
type Cookie struct {
	// Digest tells it from another; empty when it is not known.
	Digest string
	// Writer is the field manager that wrote it, empty when unknown, and Written when.
	Writer  string
	Written time.Time
}

// cookieLost: nobody has the cookie of nodes that run any more.
func cookieLost(s Snapshot) *Lack {
	if s.CookieSecret != Missing || !s.anyRuns() {
		return nil
	}
	return &Lack{"CookieLost", fmt.Sprintf("Secret %s with the cookie of the nodes that run is gone, and others could not join them: "+
		"make it again, with the entry %s, which a node's environment variable EMQX_NODE__COOKIE tells",
		s.EMQX.NodeCookieSecretName(), resources.NodeCookieKey)}
}

// olderThanCookie are the pods of a set that run since before the Secret was written, with another cookie as far as is noted.
func (s *Snapshot) olderThanCookie(set Set) []Pod {
	if set.CookieDigest == "" || set.CookieDigest == s.Cookie.Digest {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(set.Pods), func(pod Pod) bool {
		return !pod.ContainerRunning || !pod.ContainerStarted.Before(s.Cookie.Written)
	})
}

// cookieRead is how long after a Secret was written a container that starts is sure to have what it holds: both times are known to the
// second, and a kubelet reads the Secret before it starts the container.
const cookieRead = 2 * time.Second

// sharesCookie reports whether a pod's node is in one cluster with one that started since the Secret was written: then both have what
// it holds, whatever was noted.
func (s *Snapshot) sharesCookie(pod Pod) bool {
	return slices.ContainsFunc(s.pods(), func(other Pod) bool {
		return other.ContainerStarted.Sub(s.Cookie.Written) >= cookieRead && s.node(other).Running() && sees(s.node(other), pod) && sees(s.node(pod), other)
	})
}

// CookieInDoubt reports whether the Secret was written since nodes started that run, so that it may hold another cookie.
func (s *Snapshot) CookieInDoubt() bool {
	return s.Cookie.Digest == "" && slices.ContainsFunc(s.Sets, func(set Set) bool { return len(s.olderThanCookie(set)) > 0 })
}

// keepCookies notes on a set that its nodes have the cookie that the Secret holds, where what was noted when it was made is another.
func keepCookies(s Snapshot) []Group {
	var groups []Group
	for _, set := range s.Sets {
		if s.Cookie.Digest != "" && !set.Deleting && !set.Orphaned && slices.ContainsFunc(s.olderThanCookie(set), s.sharesCookie) {
			groups = append(groups, Group{NoteCookie{SetRef: set.ref(), Digest: s.Cookie.Digest}})
		}
	}
	return groups
}

// cookieChanged: nodes run with another cookie than the one that the Secret holds now. Those that start now never join them.
func cookieChanged(s Snapshot) *Lack {
	var older []Pod
	for _, set := range s.Sets {
		older = append(older, slices.DeleteFunc(s.olderThanCookie(set), s.sharesCookie)...)
	}
	if len(older) == 0 || s.Cookie.Digest == "" {
		return nil
	}
	pod, by := older[0], ""
	if s.Cookie.Writer != "" {
		by = " by " + s.Cookie.Writer
	}
	return &Lack{"CookieChanged", fmt.Sprintf("the cookie in Secret %s was changed%s at %s, and nodes such as %s run with the one before, so that nodes that start now cannot join them: "+
		"put that back as the entry %s, as the environment variable EMQX_NODE__COOKIE of pod %s tells it",
		s.EMQX.NodeCookieSecretName(), by, s.Cookie.Written.UTC().Format(time.RFC3339), pod.Node, resources.NodeCookieKey, pod.Name)}
}
