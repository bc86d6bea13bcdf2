package evacuate

import "sync"

// Agent decides whether this node takes clients. One process at a time owns it; while somebody does, the node is
// not available: availability_check says so, and no sessions are moved here.
type Agent struct {
	gate Gate

	mu    sync.Mutex
	owner string
}

// Gate is the broker's door.
type Gate interface {
	Open()
	Shut(serverReference string)
}

// NewAgent makes an agent that nobody owns.
func NewAgent(gate Gate) *Agent { return &Agent{gate: gate} }

// Enable takes the agent for owner. The error is ErrBusy when somebody else has it.
func (a *Agent) Enable(owner string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.owner != "" && a.owner != owner {
		return ErrBusy
	}
	a.owner = owner
	return nil
}

// Disable gives the agent back, if owner has it, and opens the door.
func (a *Agent) Disable(owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.owner == owner {
		a.owner = ""
		a.gate.Open()
	}
}

// Enabled reports whether somebody owns the agent.
func (a *Agent) Enabled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owner != ""
}
