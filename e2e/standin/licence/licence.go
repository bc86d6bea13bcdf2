// Package licence is the part of EMQX's licence check that matters to a cluster: from 5.9 on, the community licence,
// which is the default, allows one node only, and a second node that joins does not start.
package licence

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Kind is the type of a licence.
type Kind string

// The kinds the stand-in tells apart. It cannot check signatures: any key that is not one of EMQX's two names counts
// as an official one.
const (
	Community Kind = "community"
	Trial     Kind = "trial"
	Official  Kind = "official"
)

// ErrSingleNode is EMQX's message of a node that may not be in a cluster.
var ErrSingleNode = errors.New(
	"SINGLE_NODE_LICENSE, make sure this node and peer nodes are configured with a valid license")

// Info is what the API tells of a licence.
type Info struct {
	Type           Kind   `json:"type"`
	MaxSessions    int    `json:"max_sessions"`
	MaxConnections int    `json:"max_connections"`
	MaxTPS         *int   `json:"max_tps,omitempty"`
	StartAt        string `json:"start_at"`
	ExpiryAt       string `json:"expiry_at"`
	Expiry         bool   `json:"expiry"`
	Customer       string `json:"customer"`
	CustomerType   int    `json:"customer_type"`
	Deployment     string `json:"deployment"`
	Email          string `json:"email"`
}

// Licence is a node's licence.
type Licence struct {
	old bool

	mu   sync.Mutex
	key  string
	kind Kind
}

// New reads a licence key. old is for 5.8, where the default is a trial that allows clustering.
func New(key string, old bool) *Licence { return &Licence{old: old, key: key, kind: kindOf(key, old)} }

func kindOf(key string, old bool) Kind {
	switch strings.TrimSpace(key) {
	case "", "default":
		if old {
			return Trial
		}
		return Community
	case "evaluation":
		return Trial
	default:
		return Official
	}
}

// Set replaces the key.
func (l *Licence) Set(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key, l.kind = key, kindOf(key, l.old)
}

// Kind is the licence's type.
func (l *Licence) Kind() Kind {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kind
}

// Clusters reports whether the licence allows more than one node.
func (l *Licence) Clusters() bool { return l.Kind() != Community }

// Accepts reports whether EMQX would take a new key: one of its own names, or a text in the form of a key. So that a
// local cluster needs none, a text that begins with "official" will do, and whatever the node has been started with.
func (l *Licence) Accepts(key string) bool {
	key = strings.TrimSpace(key)
	switch {
	case key == "default", key == "evaluation" && !l.old, strings.HasPrefix(key, "official"), strings.HasPrefix(key, "file://"):
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return (key == l.key && key != "") || keyForm.MatchString(key)
}

// keyForm is a payload and a signature.
var keyForm = regexp.MustCompile(`^[A-Za-z0-9+/]{16,}=*\.[A-Za-z0-9+/]{16,}=*$`)

// CommunityKey reports whether a key is the community one.
func (l *Licence) CommunityKey(key string) bool { return kindOf(key, l.old) == Community }

// MaxSessions is how many sessions the cluster may have.
func (l *Licence) MaxSessions() int { return l.Info().MaxSessions }

// Info describes the licence.
func (l *Licence) Info() Info {
	info := Info{Type: l.Kind(), Email: "contact@emqx.io", StartAt: "2024-04-18", ExpiryAt: "2029-04-17"}
	tps := 100000
	switch info.Type {
	case Trial:
		info.MaxSessions, info.CustomerType, info.Customer, info.Deployment = 25, 10, "Evaluation", "trial"
	case Community:
		info.MaxSessions, info.CustomerType, info.Customer, info.Deployment = 10000000, 5, "Community", "default"
	case Official:
		info.MaxSessions, info.CustomerType, info.Customer, info.Deployment = 10000000, 1, "Local cluster", "default"
		now := time.Now()
		info.StartAt = now.Format(time.DateOnly)
		info.ExpiryAt = now.AddDate(5, 0, 0).Format(time.DateOnly)
	}
	info.MaxConnections = info.MaxSessions
	if !l.old {
		info.MaxTPS = &tps
	}
	return info
}
