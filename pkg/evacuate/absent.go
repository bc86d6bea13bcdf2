package evacuate

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/pkg/emqx"
)

// pursueAbsent replaces the goroutine that makes members leave.
func (d *Driver) pursueAbsent(absent []string) {
	if d.leaving != nil {
		d.leaving()
		d.leaving = nil
	}
	if len(absent) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(d.ctx)
	d.leaving = cancel
	d.wait.Go(func() { d.makeLeave(ctx, absent) })
}

// makeLeave makes EMQX forget nodes that have left Kubernetes, one after the other, until all are forgotten.
func (d *Driver) makeLeave(ctx context.Context, absent []string) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		done := true
		for _, member := range absent {
			if d.Observation().Left[member] {
				continue
			}
			failure := ""
			if err := d.guarded(func() error { failure = d.forceLeave(ctx, member); return nil }); err != nil {
				failure = err.Error()
			}
			if ctx.Err() != nil {
				return
			}
			done = done && failure == ""
			d.publishLeft(ctx, member, failure)
		}
		if done {
			return
		}
		timer.Reset(2 * d.config.BusyInterval)
	}
}

// forceLeave asks a node that serves to make member leave; it returns why that failed, or nothing. One that runs is never
// made to leave, whoever says that it has left Kubernetes: its clients would stay and get no messages any more.
func (d *Driver) forceLeave(ctx context.Context, member string) string {
	node, ok := d.speaker()
	if !ok {
		return "no node of the cluster answers that could make " + member + " leave it"
	}
	failure := ""
	err := d.keys.with(ctx, func(credentials emqx.Credentials) error {
		members, err := d.config.API.Members(ctx, node, credentials)
		if err != nil {
			return err
		}
		if slices.Contains(members, member) || d.seen(member) {
			failure = "node " + member + " still runs in the cluster"
			return nil
		}
		return d.config.API.ForceLeave(ctx, node, credentials, member)
	})
	switch {
	case err != nil:
		return stable(err)
	case failure != "":
		return failure
	}
	d.config.Logger.V(2).Info("Made the cluster forget a node", "member", member, "askedNode", node.Name)
	return d.forgetSites(ctx, node, member)
}

// seen reports whether any node that answers sees a member running: in a partition, they do not agree.
func (d *Driver) seen(member string) bool {
	for _, node := range d.Observation().Nodes {
		if node.Known() && slices.Contains(node.Members, member) {
			return true
		}
	}
	return false
}

// speaker is a node that can speak for the cluster: one that runs and is not on its way out.
func (d *Driver) speaker() (emqx.Node, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	observation := d.observation.Load()
	for _, goal := range d.goal.Nodes {
		if node := observation.Nodes[goal.Name]; node.Running() && goal.Intent != Evacuate && node.Evacuation == nil {
			return goal.Node, true
		}
	}
	return emqx.Node{}, false
}

func (d *Driver) publishLeft(ctx context.Context, member, failure string) {
	d.amend(func(o *Observation) bool {
		if ctx.Err() != nil || !slices.Contains(d.goal.Absent, member) {
			return false
		}
		before := *o
		o.Left, o.Failure = map[string]bool{}, failure
		maps.Copy(o.Left, before.Left)
		if failure == "" {
			o.Left[member] = true
		}
		return o.Failure != before.Failure || len(o.Left) != len(before.Left)
	})
}
