package measure

import (
	"strings"
	"time"

	"github.com/emqx-bg/emqx-bg-operator/e2e/load"
	"github.com/emqx-bg/emqx-bg-operator/pkg/apis/apps/v2beta1"
)

// Moment is an upgrade as it stands at a time.
type Moment struct {
	// Now is the time, Patched when the change was seen.
	Now, Patched time.Time
	// Name is the resource's, State its STATUS.
	Name, State string
	Phase       v2beta1.Phase
	// Seconds is how long each phase lasted or lasts.
	Seconds map[v2beta1.Phase]float64
	// From and To are the revisions; they are equal while the new one is not known.
	From, To string
	// Clients are the clients of each revision's nodes, Expected how many there are in all.
	Clients  map[string]int
	Expected int
	// Stats is what the clients themselves say.
	Stats load.Stats
	// Rate is the clients moved a second, Limit the most that may be.
	Rate  int64
	Limit int32
	// Estimated is when the old nodes will be empty; zero when it is not known.
	Estimated time.Time
	// Replicas is how many replicas of durable storage there are, Moving how many of them come or go.
	Replicas, Moving int32
	// WaitingFor is what the operator says that it waits for.
	WaitingFor string
}

// At returns the upgrade as it stands.
func (u *Upgrade) At(now time.Time) Moment {
	emqx := u.observer.Latest()
	m := Moment{
		Now: now, Patched: u.patched, Name: u.target.Name, State: emqx.Status.State, Phase: emqx.Status.Phase,
		Seconds: PhaseSeconds(u.observer.Since(u.patched), u.patched, now), From: u.before.Status.CoreNodesStatus.CurrentRevision,
		To: emqx.Status.CoreNodesStatus.UpdateRevision, Clients: u.sampler.now(), Expected: u.clients,
		Stats: u.load.Stats(), Limit: emqx.Spec.UpdateStrategy.EvacuationStrategy.ConnEvictRate,
	}
	if upgrade := emqx.Status.Upgrade; upgrade != nil {
		m.Rate, m.WaitingFor = upgrade.ClientsPerSecond, shortNames(upgrade.WaitingFor, emqx)
		if upgrade.EstimatedEndTime != nil {
			m.Estimated = upgrade.EstimatedEndTime.Time
		}
	}
	if storage := emqx.Status.DSReplication; storage != nil {
		for _, database := range storage.DBs {
			m.Replicas += database.NumShardReplicas
			m.Moving += database.NumTransitions
		}
	}
	return m
}

// PhaseSeconds is how long each phase lasted since the change; the last one lasts until now.
func PhaseSeconds(changes []StateChange, patched, now time.Time) map[v2beta1.Phase]float64 {
	seconds := map[v2beta1.Phase]float64{}
	for i, change := range changes {
		end := now
		if i+1 < len(changes) {
			end = changes[i+1].At
		}
		if change.At.After(patched) {
			seconds[change.Phase] += end.Sub(change.At).Seconds()
		}
	}
	return seconds
}

// shortNames shortens the names of nodes to those of their pods.
func shortNames(text string, emqx *v2beta1.EMQX) string {
	domain := "." + emqx.NodeDomain()
	return strings.ReplaceAll(strings.ReplaceAll(text, domain, ""), "emqx@", "")
}
