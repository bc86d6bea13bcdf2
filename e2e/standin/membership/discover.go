package membership

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Discover finds the names of the nodes that form one cluster. This node may be among them.
type Discover func(ctx context.Context) ([]string, error)

// Choice is the result of one round of discovery.
type Choice struct {
	Target   string // the node to join; empty: none now
	Complete bool   // this node is clustered and every discovered node is a member: no more rounds are needed
}

// Choose asks every discovered node about itself and decides whom to join. A node that is alone joins the oldest
// member of an existing cluster, or else the oldest of the nodes that are alone, unless that is itself.
func (c *Cluster) Choose(ctx context.Context, discover Discover, askTimeout time.Duration) (Choice, error) {
	nodes, err := discover(ctx)
	if err != nil {
		return Choice{}, fmt.Errorf("discover nodes: %w", err)
	}
	mine := c.info()
	best := mine
	allMembers := len(mine.Members) > 1
	for _, node := range sorted(nodes) {
		if node == c.cfg.Self {
			continue
		}
		if len(mine.Members) > 1 {
			allMembers = allMembers && slices.Contains(mine.Members, node)
			continue
		}
		askCtx, cancel := context.WithTimeout(ctx, askTimeout)
		info, err := c.Ask(askCtx, node)
		cancel()
		if err != nil || !info.Ready {
			c.cfg.Log.Debug("discovered node does not answer", "node", node, "error", err)
			continue
		}
		if older(info, best) {
			best = info
		}
	}
	if len(mine.Members) > 1 || best.Node == c.cfg.Self {
		return Choice{Complete: allMembers}, nil
	}
	return Choice{Target: best.Node}, nil
}

// older orders nodes by how good they are to join.
func older(a, b Info) bool {
	if clusteredA, clusteredB := len(a.Members) > 1, len(b.Members) > 1; clusteredA != clusteredB {
		return clusteredA
	}
	if !a.Started.Equal(b.Started) {
		return a.Started.Before(b.Started)
	}
	return a.Node < b.Node
}
