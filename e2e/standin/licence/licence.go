// Package licence is the part of EMQX's licence check that matters to a cluster: from 5.9 on, the community licence,
// which is the default, allows one node only, and a second node that joins does not start. Before, the default was a trial
// of 25 sessions, on as many nodes as you like.
//
// Not checked: signatures, the end of a licence, and a trial's 30 days of uptime.
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

// The kinds the stand-in tells apart. It cannot check signatures: a key is believed what it says, and any text that is
// neither a key nor one of EMQX's two names counts as an official key.
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

	mu    sync.Mutex
	key   string
	terms terms
}

// New reads a licence key. old is for 5.8, where the default is a trial that allows clustering.
func New(key string, old bool) *Licence { return &Licence{old: old, key: key, terms: read(key, old)} }

// Set replaces the key.
func (l *Licence) Set(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key, l.terms = key, read(key, l.old)
}

func (l *Licence) now() terms {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.terms
}

// Kind is the licence's type.
func (l *Licence) Kind() Kind { return l.now().kind }

// Clusters reports whether the licence allows more than one node. 5.8 does not ask.
func (l *Licence) Clusters() bool { return l.old || l.Kind() != Community }

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

// SingleNode reports whether a licence with the key would not allow more than one node.
func (l *Licence) SingleNode(key string) bool { return !New(key, l.old).Clusters() }

// MaxSessions is how many sessions the cluster may have.
func (l *Licence) MaxSessions() int { return l.now().sessions }

// Info describes the licence.
func (l *Licence) Info() Info {
	t := l.now()
	end := t.start.AddDate(0, 0, t.days)
	info := Info{
		Type: t.kind, MaxSessions: t.sessions, MaxConnections: t.sessions, Customer: t.customer, CustomerType: t.customerType,
		Deployment: t.deployment, Email: t.email, StartAt: t.start.Format(time.DateOnly), ExpiryAt: end.Format(time.DateOnly),
		Expiry: time.Now().After(end),
	}
	if !l.old {
		tps := 100000
		info.MaxTPS = &tps
	}
	return info
}
