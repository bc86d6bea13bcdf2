package machine

import "github.com/emqx-bg/emqx-bg-operator/pkg/resources"

// Protected is the set whose pods the PodDisruptionBudget protects: the one that serves. So it moves with the switch. Where the
// operator moves pods off Kubernetes nodes itself, all others are protected with it: see BudgetRevision.
// It is nil while nothing serves, and while it is not told who does: as long as the set is another operator's that is not
// adopted, or the listeners Service selects all nodes. What the other operator made goes on protecting them then.
func (s *Snapshot) Protected() *Set {
	set := s.set(s.currentRevision())
	listeners, exists := s.Services[resources.Listeners]
	if set == nil || set.foreign() || exists && listeners.Revision == "" {
		return nil
	}
	return set
}

// BudgetRevision is the revision whose pods the PodDisruptionBudget protects; empty for those of all, which only the operator lets
// go then. While they leave, and before they serve, pods are not counted as such: one that leaves may have clients yet.
func (s *Snapshot) BudgetRevision(set Set) string {
	if s.moves() {
		return ""
	}
	return set.Revision
}

// BudgetWanted tells whether a PodDisruptionBudget is to protect a set: by what the specification says, and by the number of
// its nodes. That is what this operator asked for, so that a stranger who scales a set makes and unmakes no budgets; unless
// the stranger was first to scale it to what the specification asks for now.
func (s *Snapshot) BudgetWanted(set Set) bool {
	nodes := set.Asked
	if nodes == 0 {
		nodes = set.NodeCount
	}
	if target := s.target(set.Role); set.Revision == target.Revision {
		nodes = max(nodes, min(set.Replicas, target.Replicas))
	}
	return resources.BudgetWanted(s.EMQX, nodes)
}

// keepBudget has the PodDisruptionBudget protect the set that serves, and takes it away where none is wanted.
func keepBudget(s Snapshot) []Group {
	set, budget := s.Protected(), s.Budget
	switch {
	case set == nil || budget.State == Unavailable:
		return nil
	case !s.BudgetWanted(*set):
		if budget.State != Missing {
			return []Group{{DeleteBudget{UID: budget.UID}}}
		}
		return nil
	case budget.State == Current && budget.Revision == s.BudgetRevision(*set):
		return nil
	}
	var group Group
	if budget.Inheritance != nil {
		group = append(group, InheritBudget{Patch: budget.Inheritance})
	}
	return []Group{append(group, ApplyBudget{Revision: s.BudgetRevision(*set)})}
}
