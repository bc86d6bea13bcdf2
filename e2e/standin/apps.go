package standin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/api"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/broker"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/evacuate"
	"github.com/emqx-bg/emqx-bg-operator/e2e/standin/storage"
)

// What nodes tell each other besides what broker, evacuation and API do.
const (
	topicKeys   = "node.keys"
	topicConfig = "node.config"
)

// newStorage makes the part that outlives restarts of the applications.
func (n *Node) newStorage() (*storage.Service, error) {
	release := storage.ReleaseOf(n.cfg.Version)
	return storage.New(storage.Config{
		Cluster: n.membership, DataDir: n.cfg.DataDir, Release: release, Times: n.cfg.Storage, Log: n.log,
		Databases: storage.Databases(n.store.Effective(), release),
	})
}

// apps is everything that restarts when a node joins a cluster: broker, evacuation and API.
type apps struct {
	broker    *broker.Broker
	evacuate  *evacuate.Service
	api       *api.Server
	listeners *listeners
}

// newApps makes the applications. They know the cluster from now on, but nobody can reach them before open. Fresh ones
// begin without what the node has kept.
func (n *Node) newApps(fresh bool) (*apps, error) {
	tree := n.store.Effective()
	retained := ""
	if tree.Text("ram", "retainer", "backend", "storage_type") == "disc" {
		retained = n.cfg.table("retained.jsonl")
	}
	b, err := broker.New(broker.Config{
		RetainedFile: retained, Fresh: fresh,
		Bus: n.membership, Timeouts: n.cfg.Broker, MaxSessions: n.licence.MaxSessions, Log: n.log,
		Limits: api.LimitsOf(tree),
	})
	if err != nil {
		return nil, err
	}
	a := &apps{broker: b, listeners: &listeners{broker: b, address: n.cfg.Address, secure: n.secure}}
	a.evacuate, err = evacuate.New(evacuate.Config{
		Bus: n.membership, Broker: b, DataDir: n.cfg.DataDir, Timeouts: n.cfg.Evacuation, RetryFailed: n.old(),
		RPCTimeouts: !n.old(), Log: n.log,
	})
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	a.api = api.New(api.Config{
		Cluster: n.membership, Broker: b, Evacuation: a.evacuate, Keys: n.keys, Config: n.store, Listeners: a.listeners, Storage: n.storage,
		ReadKeys: n.reloadKeys, Licence: n.licence, Version: n.cfg.Version, TokenSecret: n.cfg.Cookie, Timeouts: n.cfg.API,
		Facts: api.Facts{
			Started: n.started, MemoryBytes: n.cfg.MemoryBytes, LogPath: n.cfg.logPath(), Role: "core",
		},
		Log: n.log,
	})
	return a, nil
}

// open begins to serve clients and API users.
func (n *Node) open(a *apps) error {
	tree := n.store.Effective()
	address := dashboardAddress(tree, n.cfg.Address)
	secure, certificate, err := n.cfg.secureDashboard(tree, n.secure)
	if err != nil {
		return err
	}
	if address == "" && secure == "" {
		return errors.New("dashboard.listeners: neither http nor https is on: without them there is no API")
	}
	if err := a.listeners.openAll(tree); err != nil {
		return err
	}
	if secure != "" {
		if err := a.api.ServeTLS(secure, certificate); err != nil {
			return err
		}
	}
	if address == "" {
		return nil
	}
	return a.api.Serve(address)
}

func (a *apps) close() error {
	err := a.api.Close()
	a.evacuate.Close()
	return errors.Join(err, a.broker.Close())
}

// PeerUp gives a node that has just connected what it must know.
func (n *Node) PeerUp(node string) {
	n.apps.Load().broker.PeerUp(node)
	n.castTo(node, topicKeys, n.keys.All())
	n.castTo(node, storage.Topic, n.storage.Snapshot())
	if change, changed := n.store.Current(); changed {
		n.castTo(node, topicConfig, change)
	}
}

// PeerDown tells the parts that a node has gone.
func (n *Node) PeerDown(node string) {
	a := n.apps.Load()
	a.broker.PeerDown(node)
	a.evacuate.PeerDown(node)
	a.api.PeerDown(node)
}

// Cast takes a message from another node.
func (n *Node) Cast(node, topic string, body []byte) {
	var err error
	switch topic {
	case topicKeys:
		var keys []api.Key
		if err = json.Unmarshal(body, &keys); err == nil {
			err = n.keys.Learn(keys...)
		}
	case topicConfig:
		var change api.Change
		if err = json.Unmarshal(body, &change); err == nil {
			a := n.apps.Load()
			go func() { // closing a listener waits for its clients
				if err := a.api.Learn(change); err != nil {
					n.log.Error("configuration of a node", "node", node, "error", err)
				}
			}()
		}
	case storage.Topic:
		var t storage.Table
		if err = json.Unmarshal(body, &t); err == nil {
			n.storage.Learn(t)
		}
	default:
		n.apps.Load().broker.Cast(node, topic, body)
	}
	if err != nil {
		n.log.Error("message from a node", "node", node, "topic", topic, "error", err)
	}
}

func (n *Node) tellKey(key api.Key) {
	if n.membership == nil { // keys of the file are read before there is a cluster
		return
	}
	for _, node := range n.membership.Linked() {
		n.castTo(node, topicKeys, []api.Key{key})
	}
}

func (n *Node) castTo(node, topic string, v any) {
	if err := n.membership.Cast(node, topic, v, false); err != nil {
		n.log.Debug("cast", "topic", topic, "node", node, "error", err) // it gets everything when it connects again
	}
}

// Call answers another node.
func (n *Node) Call(ctx context.Context, node, topic string, body []byte) ([]byte, error) {
	a := n.apps.Load()
	if topic == topicConfig {
		change, _ := n.store.Current()
		return json.Marshal(change)
	}
	area, _, _ := strings.Cut(topic, ".")
	switch area {
	case "broker":
		return a.broker.Call(ctx, node, topic, body)
	case "evacuate", "rebalance":
		return a.evacuate.Call(ctx, topic, body)
	case "api":
		return a.api.Call(ctx, topic, body)
	case "storage":
		return json.Marshal(n.storage.Snapshot())
	default:
		return nil, fmt.Errorf("unknown topic %s", topic)
	}
}

// Leave restarts the applications of a node that has been forced out of its cluster.
func (n *Node) Leave() {
	select {
	case n.leave <- struct{}{}:
	default: // it is leaving already
	}
}
