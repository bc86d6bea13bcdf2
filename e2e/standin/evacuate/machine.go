package evacuate

import (
	"errors"
	"time"
)

// State is where an evacuation is, by EMQX's name.
type State string

// The states of an evacuation, in order.
const (
	Disabled           State = "disabled"
	WaitingHealthCheck State = "waiting_health_check"
	EvictingConns      State = "evicting_conns"
	WaitingTakeover    State = "waiting_takeover"
	EvictingSessions   State = "evicting_sessions"
	Prohibiting        State = "prohibiting"
)

// EMQX's intervals.
const (
	tick            = time.Second      // between two rounds of evictions
	noRecipientPoll = 30 * time.Second // while there is nobody to move sessions to
)

// Errors of Start and Stop; their texts are EMQX's.
var (
	ErrAlreadyStarted = errors.New("already_started")
	ErrNotStarted     = errors.New("not_started")
	ErrBusy           = errors.New("eviction_agent_busy")
)

// Options is what an evacuation is started with.
type Options struct {
	WaitHealthCheck time.Duration `json:"wait_health_check"`
	WaitTakeover    time.Duration `json:"wait_takeover"`
	ConnRate        int           `json:"conn_evict_rate"` // connections a tick, at least 1
	SessRate        int           `json:"sess_evict_rate"` // sessions a tick, at least 1
	MigrateTo       []string      `json:"migrate_to"`      // nil: every other node that is available
	ServerReference string        `json:"server_reference"`
}

// Defaults is what EMQX takes for what a request leaves out.
func Defaults() Options {
	return Options{WaitHealthCheck: time.Minute, WaitTakeover: time.Minute, ConnRate: 500, SessRate: 500}
}

// Stats is what status tells of the progress. Each figure changes at certain moments only; see Step.
type Stats struct {
	CurrentSessions  int `json:"current_sessions"`
	InitialSessions  int `json:"initial_sessions"`
	CurrentConnected int `json:"current_connected"`
	InitialConnected int `json:"initial_connected"`
}

// World is what an evacuation acts on.
type World interface {
	// Live is the number of connected clients, Sessions that of all sessions on the node.
	Live() int
	Sessions() int
	// Admit and Refuse say what happens to new connections while the node is being evacuated.
	Admit()
	Refuse(serverReference string)
	// EvictConnections asks up to n clients to go.
	EvictConnections(n int, serverReference string)
	// Recipients lists the nodes that can take sessions now.
	Recipients(migrateTo []string) []string
	// MoveSessions moves up to n sessions, each to one of the recipients.
	MoveSessions(n int, recipients []string)
}

// Machine is the state of one node's evacuation. The zero value is disabled.
type Machine struct {
	state   State
	options Options
	stats   Stats
	due     time.Time // when Step has something to do; zero: never
}

// State is where the evacuation is.
func (m *Machine) State() State {
	if m.state == "" {
		return Disabled
	}
	return m.state
}

// Options is what the evacuation was started with.
func (m *Machine) Options() Options { return m.options }

// Stats is the progress as EMQX would tell it.
func (m *Machine) Stats() Stats { return m.stats }

// Due is when Step must be called next; zero is never.
func (m *Machine) Due() time.Time { return m.due }

// Start begins an evacuation. Until the health check wait is over clients are still accepted.
func (m *Machine) Start(now time.Time, options Options, w World) error {
	if m.State() != Disabled {
		return ErrAlreadyStarted
	}
	m.begin(options, w)
	m.state = WaitingHealthCheck
	m.due = now.Add(options.WaitHealthCheck)
	w.Admit()
	return nil
}

// Restore continues an evacuation after a restart of the node: connections are refused at once.
func (m *Machine) Restore(now time.Time, options Options, w World) {
	m.begin(options, w)
	m.state = EvictingConns
	m.due = now
	w.Refuse(options.ServerReference)
}

func (m *Machine) begin(options Options, w World) {
	live, sessions := w.Live(), w.Sessions()
	m.options = options
	m.stats = Stats{
		InitialConnected: live, CurrentConnected: live, InitialSessions: sessions, CurrentSessions: sessions,
	}
}

// Stop ends the evacuation, in whatever state it is. What was moved stays where it is.
func (m *Machine) Stop() error {
	if m.State() == Disabled {
		return ErrNotStarted
	}
	*m = Machine{}
	return nil
}

// Step does what is due. clock is asked again after work that took time, because a tick is a pause after the work.
func (m *Machine) Step(clock func() time.Time, w World) {
	for !m.due.IsZero() && !clock().Before(m.due) {
		switch m.state {
		case WaitingHealthCheck:
			w.Refuse(m.options.ServerReference)
			m.state = EvictingConns
			m.due = clock()
		case EvictingConns:
			m.evictConns(clock, w)
		case WaitingTakeover:
			m.state = EvictingSessions
			m.due = clock()
		case EvictingSessions:
			m.evictSessions(clock, w)
		case Disabled, Prohibiting:
			m.due = time.Time{}
		}
	}
}

func (m *Machine) evictConns(clock func() time.Time, w World) {
	live := w.Live()
	m.stats.CurrentConnected = live
	if live == 0 {
		m.state = WaitingTakeover
		m.due = clock().Add(m.options.WaitTakeover)
		return
	}
	w.EvictConnections(m.options.ConnRate, m.options.ServerReference)
	m.due = clock().Add(tick)
}

func (m *Machine) evictSessions(clock func() time.Time, w World) {
	sessions := w.Sessions()
	if sessions == 0 {
		m.stats.CurrentSessions = 0
		m.state = Prohibiting
		m.due = time.Time{}
		return
	}
	recipients := w.Recipients(m.options.MigrateTo)
	if len(recipients) == 0 {
		m.due = clock().Add(noRecipientPoll)
		return
	}
	m.stats.CurrentSessions = sessions
	w.MoveSessions(m.options.SessRate, recipients)
	m.due = clock().Add(tick)
}
