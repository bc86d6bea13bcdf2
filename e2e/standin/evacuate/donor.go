package evacuate

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
)

// Donation is what a donor tells about itself.
type Donation struct {
	Rebalance
	InitialConnected    int `json:"initial_connected"`
	InitialSessions     int `json:"initial_sessions"`
	CurrentConnected    int `json:"current_connected"`
	CurrentSessions     int `json:"current_sessions"`
	CurrentDisconnected int `json:"current_disconnected_sessions"`
}

type counts struct {
	Live         int `json:"live"`
	Disconnected int `json:"disconnected"`
}

// donor is this node's part in somebody's rebalance.
type donor struct {
	mu          sync.Mutex
	coordinator string
	initial     counts
}

func (s *Service) coordination() *Rebalance {
	s.coordMu.Lock()
	c := s.coord
	s.coordMu.Unlock()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	status := c.status
	return &status
}

// donation is this node's status as a donor.
func (s *Service) donation() *Donation {
	s.donor.mu.Lock()
	coordinator, initial := s.donor.coordinator, s.donor.initial
	s.donor.mu.Unlock()
	if coordinator == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Timeouts.Gather)
	defer cancel()
	var r *Rebalance
	if coordinator == s.cfg.Bus.Self() {
		r = s.coordination()
	} else if err := s.cfg.Bus.Call(ctx, coordinator, topicCoordination, struct{}{}, &r); err != nil {
		return nil
	}
	if r == nil {
		return nil
	}
	now := s.counts()
	return &Donation{
		Rebalance: *r, InitialConnected: initial.Live, InitialSessions: initial.Live + initial.Disconnected,
		CurrentConnected: now.Live, CurrentSessions: now.Live + now.Disconnected, CurrentDisconnected: now.Disconnected,
	}
}

// PeerDown frees this node when the coordinator is gone. A rebalance that has lost a participant ends with its next
// question.
func (s *Service) PeerDown(node string) {
	s.donor.mu.Lock()
	lost := s.donor.coordinator == node
	s.donor.mu.Unlock()
	if lost {
		s.donorDisable()
	}
}

func (s *Service) donorDisable() {
	s.donor.mu.Lock()
	s.donor.coordinator = ""
	s.donor.mu.Unlock()
	s.agent.Disable(ownerRebalance)
}

func (s *Service) donorEnable(coordinator string) error {
	if err := s.agent.Enable(ownerRebalance); err != nil {
		return err
	}
	s.donor.mu.Lock()
	defer s.donor.mu.Unlock()
	s.donor.coordinator, s.donor.initial = coordinator, s.counts()
	return nil
}

func (s *Service) callRebalance(ctx context.Context, topic string, body []byte) ([]byte, error) {
	decode := func(v any) error {
		if err := json.Unmarshal(body, v); err != nil {
			return fmt.Errorf("decode %s: %w", topic, err)
		}
		return nil
	}
	switch topic {
	case topicRebalanceStart:
		var o RebalanceOptions
		if err := decode(&o); err != nil {
			return nil, err
		}
		return answer(s.startRebalance(ctx, o))
	case topicRebalanceStop:
		return answer(s.stopRebalance())
	case topicCounts:
		return json.Marshal(s.counts())
	case topicCoordination:
		return json.Marshal(s.coordination())
	case topicDonorEnable:
		var coordinator string
		if err := decode(&coordinator); err != nil {
			return nil, err
		}
		return answer(s.donorEnable(coordinator))
	case topicDonorRefuse:
		s.agent.gate.Shut("")
		return answer(nil)
	case topicDonorDisable:
		s.donorDisable()
		return answer(nil)
	case topicDonorConns:
		var n int
		if err := decode(&n); err != nil {
			return nil, err
		}
		s.cfg.Broker.EvictConnections(n, "")
		return answer(nil)
	case topicDonorSessions:
		var order sessionOrder
		if err := decode(&order); err != nil {
			return nil, err
		}
		s.moveSessions(s.cfg.Broker.SessionIDs(order.N, true), order.Recipients)
		return answer(nil)
	default:
		return nil, fmt.Errorf("unknown topic %s", topic)
	}
}
