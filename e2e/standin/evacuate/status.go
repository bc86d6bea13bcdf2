package evacuate

import (
	"context"
	"sync"
	"time"
)

// Status is what a node tells about itself. At most one of the two is set.
type Status struct {
	Evacuation *Evacuation `json:"evacuation,omitempty"`
	Rebalance  *Donation   `json:"rebalance,omitempty"`
	Coordinate *Rebalance  `json:"coordinate,omitempty"`
}

// Evacuation is the progress of a node's evacuation.
type Evacuation struct {
	Node       string   `json:"node"`
	State      State    `json:"state"`
	Stats      Stats    `json:"stats"`
	Recipients []string `json:"session_recipients"`
	ConnRate   int      `json:"connection_eviction_rate"`
	SessRate   int      `json:"session_eviction_rate"`
}

// Local is this node's status. It waits while a tick moves sessions.
func (s *Service) Local(ctx context.Context) (Status, error) { return s.localStatus(ctx) }

func (s *Service) localStatus(ctx context.Context) (Status, error) {
	var status Status
	err := s.do(ctx, func() {
		if s.machine.State() == Disabled {
			return
		}
		o := s.machine.Options()
		status.Evacuation = &Evacuation{
			Node: s.cfg.Bus.Self(), State: s.machine.State(), Stats: s.machine.Stats(),
			Recipients: s.Recipients(o.MigrateTo), ConnRate: o.ConnRate, SessRate: o.SessRate,
		}
	})
	if err != nil {
		return Status{}, err
	}
	status.Rebalance = s.donation()
	status.Coordinate = s.coordination()
	return status, nil
}

// Global gathers the status of all running nodes. Those that do not answer are left out. EMQX asks for rebalances,
// evacuations and purges one after the other, and so waits three times for a node that does not answer.
func (s *Service) Global(ctx context.Context) ([]Rebalance, []Evacuation) {
	rebalances, evacuations := []Rebalance{}, []Evacuation{}
	for _, status := range s.gather(ctx) {
		if status.Coordinate != nil {
			rebalances = append(rebalances, *status.Coordinate)
		}
	}
	for _, status := range s.gather(ctx) {
		if status.Evacuation != nil {
			evacuations = append(evacuations, *status.Evacuation)
		}
	}
	s.gather(ctx) // purges, of which there are none here
	return rebalances, evacuations
}

func (s *Service) gather(ctx context.Context) []Status {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Gather)
	defer cancel()
	nodes := s.cfg.Bus.Running()
	got := make([]*Status, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var status Status
			if err := s.cfg.Bus.Call(ctx, node, topicStatus, struct{}{}, &status); err == nil {
				got[i] = &status
			}
		}()
	}
	wg.Wait()
	list := make([]Status, 0, len(got))
	for _, status := range got {
		if status != nil {
			list = append(list, *status)
		}
	}
	return list
}

// StartOn starts an evacuation of a running node. Errors whose text is EMQX's are ErrAlreadyStarted and ErrBusy.
func (s *Service) StartOn(ctx context.Context, node string, o Options) error {
	return s.command(ctx, node, topicStart, o)
}

// StopOn stops the evacuation of a running node. The error whose text is EMQX's is ErrNotStarted.
func (s *Service) StopOn(ctx context.Context, node string) error {
	return s.command(ctx, node, topicStop, struct{}{})
}

func (s *Service) command(ctx context.Context, node, topic string, question any) error {
	var out outcome
	if err := s.cfg.Bus.Call(ctx, node, topic, question, &out); err != nil {
		return err
	}
	for _, known := range []error{ErrAlreadyStarted, ErrNotStarted, ErrBusy, ErrNothing} {
		if out.Error == known.Error() {
			return known
		}
	}
	return nil
}

// Unavailable lists those of the nodes that cannot take sessions, in their order.
func (s *Service) Unavailable(ctx context.Context, nodes []string) []string {
	running := map[string]bool{}
	for _, node := range s.cfg.Bus.Running() {
		running[node] = true
	}
	var ask []string
	for _, node := range nodes {
		if running[node] {
			ask = append(ask, node)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeouts.Recipients)
	defer cancel()
	available := s.availableOf(ctx, ask)
	var missing []string
	for _, node := range nodes {
		if !available[node] {
			missing = append(missing, node)
		}
	}
	return missing
}

// pause waits, or reports false when ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
